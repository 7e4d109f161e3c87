"""One sample as tensors and a description, and back: the same bits.

What a loader hands out is mostly arithmetic on a few integers: views are 8- or 16-bit levels, KITTI's maps multiples of
1/256, and depth follows from disparity or the other way round. Each of these is tried, undone, and kept where every bit
comes back; float32 stays where none fits. So nothing is quantised here (resized views are, before they come here).

    views      uint8 or uint16 levels, 3×H×W; else float32
    maps       the smallest of: uint16 multiples of 1/256 or 1/128, float32, or the known pixels alone (their places as
               int32 and values as uint16 or float32)
    depth, disparity, valid    one map where the others follow from it and the camera; else all three
    sparse_depth   nothing where it is the depth map itself
    occluded       one bit a pixel
    camera, name   in the description, as JSON: Python writes floats so that they come back exactly
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.dataset import maps_from_depth, maps_from_disparity, no_maps
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.images import LEVELS, from_levels

SCALES = (256, 128)
"""Maps are tried as uint16 multiples of one over these: KITTI's and DrivingStereo's."""
TRUTH = ("depth", "disparity", "valid")
UNKNOWN = dict.fromkeys(("fx", "fy", "cx", "cy"), math.nan)
"""Of a camera, where its description does not say them: of single images."""
Description = dict[str, Any]


@dataclass(frozen=True)
class Window:
    """Rows and columns to read."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, values: Tensor) -> Tensor:
        """The window of …×H×W."""
        return values[..., self.top : self.top + self.height, self.left : self.left + self.width]


def encode_sample(sample: StereoSample) -> tuple[dict[str, Tensor], Description]:
    """Tensors by name, and what `decode_sample` needs to know of them, for one unbatched sample on the CPU."""
    height, width = sample.left.shape[-2:]
    camera = {name: float(value) for name, value in vars(sample.camera).items() if not math.isnan(value)}
    described: Description = {"name": str(sample.name), "size": [height, width], "camera": camera, "maps": {}}
    optional = {"right": sample.right, "occluded": sample.occluded}
    described |= {name: value is not None for name, value in optional.items()}
    tensors = {"left": _levels(sample.left)}
    if sample.right is not None:
        tensors["right"] = _levels(sample.right)

    def keep(name: str, values: Tensor) -> None:
        parts, described["maps"][name] = _encode_map(values)
        tensors.update({f"{name}.{part}": tensor for part, tensor in parts.items()})

    source = next((name for name in ("disparity", "depth") if _rest_follows(name, sample)), None)
    for name in (source,) if source else ("depth", "disparity"):
        keep(name, getattr(sample, name))
    if source is None:
        tensors["valid"] = _bits(sample.valid)
    if sample.sparse_depth is not None:
        if _same_bits(sample.sparse_depth, sample.depth):
            described["sparse_is_depth"] = True
        else:
            keep("sparse_depth", sample.sparse_depth)
    if sample.occluded is not None:
        tensors["occluded"] = _bits(sample.occluded)
    return tensors, described


def decode_sample(
    read: Callable[[str], Tensor], described: Description, window: Window | None = None, *, truth: bool = True
) -> StereoSample:
    """The sample, or a window of it with its camera (as StereoSample.crop), from the tensors that `read` gives by name.

    Views of 8 bits are those tensors or parts of them, uint8; others are floats.
    truth: else its maps are not read, and nothing is known of its depth.
    Of a window only its own rows are touched, so only their pages are read from the disk.
    """
    height, width = described["size"]
    names = described["maps"]
    camera = Camera(**UNKNOWN | described["camera"])
    if window is not None:
        camera = camera.cropped(window.top, window.left)

    def view(name: str) -> Tensor:
        stored = read(name)
        cut = stored if window is None else window.cut(stored)
        if cut.dtype == torch.float32:
            return cut.clone()
        return cut if cut.dtype == torch.uint8 else from_levels(cut)

    def bits(name: str) -> Tensor:
        values = np.unpackbits(read(name).numpy(), count=height * width).reshape(1, height, width).astype(bool)
        return torch.from_numpy(values) if window is None else window.cut(torch.from_numpy(values)).clone()

    def decoded(name: str) -> Tensor:
        return _decode_map(lambda part: read(f"{name}.{part}"), names[name], (height, width), window)

    if not truth:
        left = view("left")
        right = view("right") if described["right"] else None
        return StereoSample(left=left, right=right, **no_maps(left), camera=camera, name=described["name"])
    if "depth" in names and "disparity" in names:
        known = {"depth": decoded("depth"), "disparity": decoded("disparity"), "valid": bits("valid")}
    else:
        source = "disparity" if "disparity" in names else "depth"
        kept = names[source]
        if kept["kind"] == "points":
            points = _decode_points(lambda part: read(f"{source}.{part}"), kept["scale"], (height, width), window)
            known = points.maps(_derived(source, points.values[None], camera))
        else:
            known = _derived(source, decoded(source), camera)
    sparse = known["depth"].clone() if described.get("sparse_is_depth") else None
    return StereoSample(
        left=view("left"),
        right=view("right") if described["right"] else None,
        **known,
        camera=camera,
        occluded=bits("occluded") if described["occluded"] else None,
        sparse_depth=decoded("sparse_depth") if "sparse_depth" in names else sparse,
        name=described["name"],
    )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(_raw(one), _raw(other))


def _raw(values: Tensor) -> Tensor:
    """float32 as the integers its bits are: 0 and −0 differ, NaN equals itself."""
    return values.contiguous().view(torch.int32) if values.dtype == torch.float32 else values


def _levels(view: Tensor) -> Tensor:
    """A view in [0, 1] as the 8- or 16-bit levels it came from, or as it is."""
    for dtype, top in LEVELS.items():
        stored = (view * top).round().clamp(0, top).to(torch.int32).to(dtype)
        if _same_bits(from_levels(stored), view):
            return stored.contiguous()
    return view.contiguous()


def _bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.numpy().reshape(-1)))


def _derived(source: str, values: Tensor, camera: Camera) -> dict[str, Tensor]:
    make = maps_from_disparity if source == "disparity" else maps_from_depth
    return make(values[0].numpy(), camera)


def _rest_follows(source: str, sample: StereoSample) -> bool:
    found = _derived(source, getattr(sample, source), sample.camera)
    return all(_same_bits(found[name], getattr(sample, name)) for name in TRUTH)


def _encode_map(values: Tensor) -> tuple[dict[str, Tensor], Description]:
    """The smallest of the ways to keep a 1×H×W float32 map that give every bit back."""
    pixels = values.numel()
    places = _raw(values).reshape(-1).nonzero().reshape(-1)
    known = values.reshape(-1)[places]
    scale = next((s for s in SCALES if _is_multiple(known, s)), 0)
    numbers = (known * scale).to(torch.int32).to(torch.uint16) if scale else known
    if len(places) * (4 + numbers.element_size()) < pixels * numbers.element_size():
        return {"places": places.to(torch.int32), "values": numbers.contiguous()}, {"kind": "points", "scale": scale}
    if not scale:
        return {"values": values.contiguous()}, {"kind": "dense", "scale": 0}
    dense = torch.zeros(pixels, dtype=torch.int32)
    dense[places] = numbers.to(torch.int32)
    return {"values": dense.to(torch.uint16).reshape(values.shape)}, {"kind": "dense", "scale": scale}


def _is_multiple(known: Tensor, scale: int) -> bool:
    levels = known * scale
    whole = torch.isfinite(levels) & (levels >= 1) & (levels <= 65535) & (levels == levels.round())
    return bool(whole.all())


def _decode_map(
    read: Callable[[str], Tensor], kept: Description, size: tuple[int, int], window: Window | None
) -> Tensor:
    if kept["kind"] == "points":
        points = _decode_points(read, kept["scale"], size, window)
        return points.map(points.values)
    scale, stored = kept["scale"], read("values")
    values = (stored if window is None else window.cut(stored)).to(torch.float32, copy=True)
    return values.div_(scale) if scale else values


@dataclass(frozen=True)
class _Points:
    """Known values of a map and their places in it, counted row by row."""

    places: Tensor
    values: Tensor
    size: tuple[int, int]

    def map(self, values: Tensor) -> Tensor:
        """1×H×W with these values at the places, 0 elsewhere."""
        found = values.new_zeros(math.prod(self.size))
        found[self.places] = values.reshape(-1)
        return found.reshape(1, *self.size)

    def maps(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.map(each) for name, each in values.items()}


def _decode_points(read: Callable[[str], Tensor], scale: int, size: tuple[int, int], window: Window | None) -> _Points:
    height, width = size
    places, known = read("places").numpy(), read("values").numpy()
    if window is None:
        window = Window(0, 0, height, width)
        if places.size and not 0 <= int(places.min()) <= int(places.max()) < height * width:
            raise InputError(f"a known pixel lies outside the {height}×{width} that there are")
    # Places are in order, so those of a row of the window are one stretch of them.
    rows = np.arange(window.height)
    starts = (window.top + rows) * width + window.left
    first, last = np.searchsorted(places, np.stack([starts, starts + window.width]))
    counts = last - first
    if (counts < 0).any():
        raise InputError("known pixels are not in their order")
    chosen = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    moved = places[chosen] + np.repeat(rows * window.width - starts, counts)
    if moved.size and not 0 <= int(moved.min()) <= int(moved.max()) < window.height * window.width:
        raise InputError("known pixels are not in their order")
    values = known[chosen].astype(np.float32)
    if scale:
        values /= np.float32(scale)
    return _Points(torch.from_numpy(moved), torch.from_numpy(values), (window.height, window.width))
