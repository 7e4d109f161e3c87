"""What pack.json and a shard may say, and that a shard holds the tensors that its descriptions speak of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

from adu_depth.data.camera_file import LEAST, MOST
from adu_depth.errors import InputError
from adu_depth.schema import Length, Range
from adu_depth.tensor_files import Form, some

MOST_PER_SHARD = 10_000
VIEWS, NUMBERS = ("U8", "U16", "F32"), {256: "U16", 128: "U16", 0: "F32"}
NUMBERS_OF_A_PAIR = ("fx", "fy", "cx", "cy")
Name = Annotated[str, Length(4096, 1)]
Side = Annotated[int, Range(1, 65_536)]
Pixels = Annotated[float, Range(-MOST, MOST)]
Focal = Annotated[float, Range(LEAST, MOST)]


class EntryBase(TypedDict):
    file: Name
    bytes: Annotated[int, Range(1, 2**62)]
    sha256: Annotated[str, Length(64, 64)]
    names: Annotated[list[Name], Length(MOST_PER_SHARD, 1)]
    unlabelled: list[Annotated[int, Range(0, MOST_PER_SHARD - 1)]]


class EntrySchema(EntryBase, total=False):
    """What a manifest, and a note of a stopped packing, say of a shard."""

    sources: str
    content: str


class Settings(TypedDict):
    pairs: Annotated[int, Range(1, 10**8)]
    layout: Name
    size: tuple[Side, Side] | None
    kb_crop: bool


class Manifest(TypedDict):
    """pack.json."""

    settings: Settings
    shards: Annotated[list[EntrySchema], Length(10**6, 1)]


class Noted(TypedDict, total=False):
    """packing.json, and what is looked at of pack.json before its settings are known to be those asked for."""

    settings: dict[str, Any]


@dataclass(frozen=True)
class CameraNumbers:
    """Of single images any but the baseline may be unknown: it is then left out."""

    baseline: Annotated[float, Range(0, MOST)]
    fx: Focal = math.nan
    fy: Focal = math.nan
    cx: Pixels = math.nan
    cy: Pixels = math.nan
    disparity_offset: Pixels = 0.0


@dataclass(frozen=True)
class Map:
    kind: Literal["dense", "points"]
    scale: Literal[0, 128, 256]


@dataclass(frozen=True)
class Maps:
    """Each is there where the sample has it; a truth that follows from another is not kept."""

    depth: Map | None = None
    disparity: Map | None = None
    sparse_depth: Map | None = None

    def __post_init__(self) -> None:
        if self.depth is None and self.disparity is None:
            raise InputError("maps: expected depth or disparity, got neither")


class DescriptionBase(TypedDict):
    name: Name
    size: tuple[Side, Side]
    camera: CameraNumbers
    maps: Maps
    right: bool
    occluded: bool


class DescriptionSchema(DescriptionBase, total=False):
    """What a shard's header says of one pair."""

    sparse_is_depth: bool


DescribedSamples = Annotated[list[DescriptionSchema], Length(MOST_PER_SHARD, 1)]


class Marked(TypedDict):
    """A shard's header: its mark, which the manifest has too, and its samples."""

    content: Annotated[str, Length(64, 64)]
    samples: DescribedSamples


def shard_faults(samples: Sequence[Mapping[str, Any]], found: Mapping[str, Form]) -> str:
    """Where a shard's tensors are not those that its descriptions speak of, in words; "" if they are."""
    expected = {name: forms for place, sample in enumerate(samples) for name, forms in _expected(place, sample)}
    missing, strange = [n for n in expected if n not in found], [n for n in found if n not in expected]
    if missing or strange:
        return f"lacks the tensors {some(missing)}" if missing else f"has the tensors {some(strange)} of no sample"
    for name, (shape, dtypes) in expected.items():
        form = found[name]
        whole = len(form.shape) == len(shape) and all(
            want in (None, got) for want, got in zip(shape, form.shape, strict=True)
        )
        if not whole or form.dtype not in dtypes:
            wanted = ["any" if side is None else str(side) for side in shape]
            return f"{name}: expected {' or '.join(dtypes)} of [{', '.join(wanted)}], got {form}"
    for place, sample in enumerate(samples):
        camera = sample["camera"]
        if sample["right"] and (unknown := [name for name in NUMBERS_OF_A_PAIR if name not in camera]):
            return f"samples[{place}].camera: expected {', '.join(unknown)} of a pair"
        baseline = camera["baseline"]
        if sample["right"] and not baseline >= LEAST:
            return f"samples[{place}].camera.baseline: expected a positive one of a pair, got {baseline}"
        for name, kept in sample["maps"].items():
            values, places = (found.get(f"{place}.{name}.{part}") for part in ("values", "places"))
            if kept["kind"] == "points" and values and places and values.shape != places.shape:
                return f"{place}.{name}: {places} places, {values} values"
    return ""


def _expected(place: int, sample: Mapping[str, Any]) -> Iterator[tuple[str, tuple[tuple[int | None, ...], Any]]]:
    height, width = sample["size"]
    bits = (-(-height * width // 8),), ("U8",)
    yield f"{place}.left", ((3, height, width), VIEWS)
    if sample["right"]:
        yield f"{place}.right", ((3, height, width), VIEWS)
    if sample["occluded"]:
        yield f"{place}.occluded", bits
    if "depth" in sample["maps"] and "disparity" in sample["maps"]:
        yield f"{place}.valid", bits
    for name, kept in sample["maps"].items():
        dtypes = (NUMBERS[kept["scale"]],)
        if kept["kind"] == "dense":
            yield f"{place}.{name}.values", ((1, height, width), dtypes)
        else:
            yield f"{place}.{name}.values", ((None,), dtypes)
            yield f"{place}.{name}.places", ((None,), ("I32",))
