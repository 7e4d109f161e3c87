"""The built-in scenes as a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from adu_depth.data.sample import StereoSample
from adu_depth.data.synthetic.config import LidarConfig, PhotometryConfig, RigConfig, SceneryConfig
from adu_depth.data.synthetic.render import render
from adu_depth.data.synthetic.streets import Street, draw_street
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_kernels.checks import plain_number

SMALLEST = 32
RENDERED_IN_ONE_GO = 1 << 17
"""Pixels. Two threads get through scenes of 96×320 in 81 ms each when four are rendered in one go, in 120 ms when each
is by itself: they wait for Python between operations so short. Beyond this size they no longer do."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class SyntheticStereo:
    """Street scenes rendered on the fly, each with exact ground truth; a function of (seed, index) alone.

    Args:
        length: number of pairs, or None for an endless set.
        height, width: pixels, at least 32.
        seed: ≥ 0; another seed gives other scenes.
        rig, photometry, lidar: what the cameras and the scanner are like (None: the defaults, a KITTI-like car).
        scenery: what the streets hold beside the usual (None: nothing). See `built_in_scenes` for sets of these.
        device: where to render.

    Returns:
        `dataset[i]` is one StereoSample on `device`: left, right (3×H×W float32 in [0, 1]), depth in metres (camera z)
        and disparity in pixels (1×H×W, 0 in the sky), valid (False in the sky and beyond 200 m), occluded (left pixels
        whose point the right camera does not see, or sees outside the span of its pixel centres), sparse_depth (a
        scanner's, 0 = none), camera with Python floats.

    Raises:
        InputError: a wrong length, size or seed; it is a ValueError.
        IndexError: an index outside 0 … length − 1.

    Example:
        >>> pair = SyntheticStereo(length=8, height=64, width=128, seed=1)[0]
        >>> disparity = pair.camera.fx * pair.camera.baseline / pair.depth[pair.valid]
        >>> pair.left.shape, torch.allclose(disparity, pair.disparity[pair.valid])
        (torch.Size([3, 64, 128]), True)
    """

    def __init__(
        self,
        length: int | None,
        height: int,
        width: int,
        seed: int = 0,
        rig: RigConfig | None = None,
        device: torch.device | str = "cpu",
        photometry: PhotometryConfig | None = None,
        lidar: LidarConfig | None = None,
        scenery: SceneryConfig | None = None,
    ) -> None:
        length, height, width, seed = map(plain_number, (length, height, width, seed))
        if length is not None and length < 1:
            raise InputError(f"length must be at least 1, or None for an endless set, got {length}")
        if min(height, width) < SMALLEST:
            raise InputError(f"height and width must be at least {SMALLEST} pixels, got {height}×{width}")
        if seed < 0:
            raise InputError(f"seed must not be negative, got {seed}")
        self.length, self.height, self.width, self.seed = length, height, width, seed
        self.rig = rig or RigConfig()
        self.photometry = photometry or PhotometryConfig()
        self.lidar = lidar or LidarConfig()
        self.scenery = scenery or SceneryConfig()
        self.device = torch.device(device)

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("an endless SyntheticStereo has no length")
        return self.length

    def __getitem__(self, index: int) -> StereoSample:
        return self._pairs([index])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[StereoSample]:
        """Each as `self[i]` (on a CPU bit for bit), rendered together. PyTorch's loaders call it."""
        if type(self).__getitem__ is not SyntheticStereo.__getitem__:  # a subclass may change its pairs
            return [self[i] for i in indices]
        return self._pairs(list(indices))

    def _pairs(self, indices: list[int]) -> list[StereoSample]:
        if not indices:
            return []
        streets = [self._street(i) for i in indices]
        batch = self._batch(streets, indices)
        return [_unbatch(batch, position, street.rig.camera) for position, street in enumerate(streets)]

    def __iter__(self) -> Iterator[StereoSample]:
        index = 0
        while self.length is None or index < self.length:
            yield self[index]
            index += 1

    def render_batch(self, indices: Sequence[int]) -> StereoSample:
        """The pairs of these indices as one batched StereoSample on `device`; each equals `self[i]` (on a CPU bit for
        bit)."""
        if len(indices) == 0:
            raise InputError("render_batch needs at least one index, got none")
        return self._batch([self._street(i) for i in indices], indices)

    def _batch(self, streets: list[Street], indices: Sequence[int]) -> StereoSample:
        names = [f"synthetic-{self.seed}-{i:06d}" for i in indices]
        if self.device.type != "cpu":
            return replace(self._render(streets), name=names)
        small = RENDERED_IN_ONE_GO // (self.height * self.width)
        share = max(1, min(small, math.ceil(len(streets) / torch.get_num_threads())))
        parts = _on_all_cores(self._render, [streets[i : i + share] for i in range(0, len(streets), share)])
        return replace(parts[0] if len(parts) == 1 else _join(parts), name=names)

    @torch.no_grad()
    def _render(self, streets: list[Street]) -> StereoSample:
        return render(streets, self.height, self.width, self.lidar, self.device)

    def _street(self, index: int) -> Street:
        if index < 0 or (self.length is not None and index >= self.length):
            raise IndexError(f"index {index} is outside 0 … {'∞' if self.length is None else self.length - 1}")
        rng, scenery_rng = (
            np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, int(index), *part])))
            for part in ((), (1,))
        )
        return draw_street(rng, self.height, self.width, self.rig, self.photometry, self.scenery, scenery_rng)


def _on_all_cores(work: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    """The results in order, each from one of as many threads as torch uses, whose operations stay on one core.

    Operations are too short to be shared between cores: where other processes want the cores too, waiting
    for each other after each of thousands of operations takes longer than the work.
    """
    cores = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(cores)  # the threads' own setting is also the default of threads yet to come


def _join(parts: list[StereoSample]) -> StereoSample:
    tensors = {name: torch.cat([getattr(p, name) for p in parts]) for name in parts[0]._tensors()}
    camera = Camera(*(torch.cat([getattr(p.camera, n) for p in parts]) for n in vars(parts[0].camera)))
    return replace(parts[0], **tensors, camera=camera)  # type: ignore[arg-type]


def _unbatch(batch: StereoSample, position: int, camera: Camera) -> StereoSample:
    # Copies: who keeps or sends one pair would keep or send the batch.
    tensors = {name: tensor[position].clone() for name, tensor in batch._tensors().items()}
    return replace(batch, **tensors, camera=camera, name=batch.name[position])  # type: ignore[arg-type]
