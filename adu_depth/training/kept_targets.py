"""A teacher's targets in a quarter of the bytes: as they are kept on disk, loaded, and sent to the device.

Depth: 10 bits on a logarithmic scale between the frame's own nearest and farthest depth, of those in the range that the
teacher was trained for. What lies outside takes the lowest or the highest level, and reads as just beyond the range's
smallest depth or its largest: a network without bounds says 1 mm or 1 km of single pixels, and a scale from there
would be coarse for all others. An objective of that range brings depths to it, or leaves out those beyond. A depth of
0 says that nothing is known (no network says it, the left–right check does) and reads as 0.
Features, which are never negative (their last layer is a ReLU): 6 bits, linear from 0 to each channel's largest value
in the frame; or none at all, where depth alone is kept. Of both the two lowest bits lie in a plane of their own, four
values in a byte. Whatever is kept is finite when it is read.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adu_depth.errors import InputError
from adu_depth.models.prediction import FEATURE_STRIDES, TeacherTargets
from adu_kernels.precision import storage_dtype

DEPTH_LEVELS, FEATURE_LEVELS = 1023, 63
"""Steps between the smallest value and the largest."""
BEYOND = 1e-3
"""Of ln depth: how far past the range depths outside read."""
ROUNDING = 2e-6
"""Of ln depth: a bounded network may pass its own bound by so much, and what is read must not."""
LARGEST_LOG = 80.0
"""Of a depth; fp32 ends at 88."""


@dataclass(frozen=True)
class KeptTargets:
    """Targets of B images of H×W as they are kept; `encode` makes them, `decoded` is what is left of the targets.

    Attributes:
        depth_high, depth_low: B×H×W and B×H×⌈W/4⌉ bytes, the upper eight and the lower two bits of the depths.
        depth_scale: B×4 float32: ln depth of level 0 and the step to the next; and what levels 0 and 1023 read as, −∞
            for level 0 of a frame in which something is not known.
        features_high, features_low: per level B×h×w×⌈C/4⌉·2 and B×h×w×⌈C/4⌉ bytes: the upper four, the lower two bits.
            Empty, as feature_scales, where depth alone is kept.
        feature_scales: per level B×C bfloat16, the step of each channel.
    """

    depth_high: Tensor
    depth_low: Tensor
    depth_scale: Tensor
    features_high: tuple[Tensor, ...]
    features_low: tuple[Tensor, ...]
    feature_scales: tuple[Tensor, ...]

    def decoded(self) -> TeacherTargets:
        """The targets, on the device that the bytes are on, by its operations alone: a CUDA graph can hold them. Depth
        is float32, features are as a step stores them."""
        low = _unpacked(self.depth_low, 2)[..., : self.depth_high.shape[-1]]
        level = self.depth_high * 4.0 + low
        start, step, lowest, highest = self.depth_scale[:, :, None, None].unbind(1)
        logs = torch.where(level == DEPTH_LEVELS, highest, start + step * level)
        depth = torch.exp(torch.where(level == 0, lowest, logs)).unsqueeze(1)
        levels = zip(self.features_high, self.features_low, self.feature_scales, strict=True)
        return TeacherTargets(depth, tuple(_feature(*level) for level in levels))

    def depth_alone(self) -> KeptTargets:
        """Without its features, for an objective that reads none."""
        return replace(self, features_high=(), features_low=(), feature_scales=())

    def map(self, change: Callable[[Tensor], Tensor]) -> KeptTargets:
        """Every tensor passed through `change`."""
        return KeptTargets(
            change(self.depth_high),
            change(self.depth_low),
            change(self.depth_scale),
            tuple(map(change, self.features_high)),
            tuple(map(change, self.features_low)),
            tuple(map(change, self.feature_scales)),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return (self.depth_high.shape[-2], self.depth_high.shape[-1])

    def crop(self, top: int, left: int, height: int, width: int) -> KeptTargets:
        """The same window of every map, views of it; all four numbers must be multiples of 32."""
        if any(n % FEATURE_STRIDES[-1] for n in (top, left, height, width)):
            raise ValueError(f"a window of kept maps must be in multiples of 32, got {(top, left, height, width)}")

        def window(tensor: Tensor, rows: int, columns: int) -> Tensor:
            part = tensor[:, top // rows : (top + height) // rows]
            return part[:, :, left // columns : (left + width) // columns]

        def features(levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(window(level, s, s) for level, s in zip(levels, FEATURE_STRIDES, strict=False))

        return KeptTargets(
            window(self.depth_high, 1, 1),
            window(self.depth_low, 1, 4),
            self.depth_scale,
            features(self.features_high),
            features(self.features_low),
            self.feature_scales,
        )


def encode(targets: TeacherTargets, min_depth: float, max_depth: float) -> KeptTargets:
    """Targets as they are kept. They must be finite, and features not below 0. min_depth, max_depth: metres, the range
    that the teacher was trained for. A depth of 0 is kept as 0; in a frame that has some, what is nearer than the range
    counts as the range's nearest: level 0 is taken, and the networks that are checked do not leave their range.

    Errors, at most: of ln depth within the range half a step, (ln farthest − ln nearest)/2046, which is 0.25 % of a
    depth where a frame holds all from 0.5 to 80 m (and a 1000th more where it holds depths outside); of a feature half
    a step, 1/126 of its channel's largest value (and 1/256 of that step for its rounding); both besides fp32's own
    rounding.
    """
    values = targets.depth.float().squeeze(1)
    nearest, farthest = math.log(min_depth), math.log(max_depth)
    unknown = values == 0
    incomplete = unknown.any(2).any(1)
    nearer, farther = values < min_depth * (1 - ROUNDING), values > max_depth * (1 + ROUNDING)
    nearer = torch.where(incomplete[:, None, None], unknown, nearer)
    outside = nearer | farther
    inside = torch.where(outside, min_depth, values.clamp(min=min_depth / 2))
    logs = torch.log(inside).clamp(nearest + ROUNDING, farthest - ROUNDING)
    low = torch.where(outside, math.inf, logs).amin((1, 2))
    high = torch.where(outside, -math.inf, logs).amax((1, 2))
    low, high = (torch.where(outside.all(2).all(1), nearest, log) for log in (low, high))
    first, last = nearer.any(2).any(1).int(), DEPTH_LEVELS - farther.any(2).any(1).int()
    step = (high - low) / (last - first)
    start = low - first * step
    lowest = torch.where(first > 0, torch.where(incomplete, -math.inf, nearest - BEYOND), start)
    highest = torch.where(last < DEPTH_LEVELS, farthest + BEYOND, start + step * DEPTH_LEVELS)
    start, step, first, last = (number[:, None, None] for number in (start, step, first, last))
    level = torch.where(step > 0, (logs - start) / step, first).round()
    level = torch.where(nearer, 0, torch.where(farther, DEPTH_LEVELS, level.clamp(first, last)))
    depth, scale = level.to(torch.int32), torch.stack([start[:, 0, 0], step[:, 0, 0], lowest, highest], 1)
    highs, lows, scales = [], [], []
    for feature in targets.features:
        value = feature.float().permute(0, 2, 3, 1)
        step = (value.amax((1, 2)) / FEATURE_LEVELS).bfloat16()
        steps = step.float()[:, None, None]
        level = torch.where(steps > 0, value / steps, torch.zeros_like(value))
        number = level.round().clamp(0, FEATURE_LEVELS).to(torch.int32)
        number = torch.nn.functional.pad(number, (0, -number.shape[-1] % 4))
        highs.append(_packed(number >> 2, 4))
        lows.append(_packed(number & 3, 2))
        scales.append(step)
    wide = torch.nn.functional.pad(depth & 3, (0, -depth.shape[-1] % 4))
    return KeptTargets((depth >> 2).to(torch.uint8), _packed(wide, 2), scale, tuple(highs), tuple(lows), tuple(scales))


def shapes_of(height: int, width: int, channels: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """What one frame's tensors are, by the names that they are kept under. channels: () where depth alone is kept."""
    byte = torch.uint8
    found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "depth_high": ((1, height, width), byte),
        "depth_low": ((1, height, -(-width // 4)), byte),
        "depth_scale": ((1, 4), torch.float32),
    }
    for level, (count, stride) in enumerate(zip(channels, FEATURE_STRIDES, strict=False)):
        cells = (1, -(-height // stride), -(-width // stride))
        quarter = -(-count // 4)
        found[f"features_high.{level}"] = ((*cells, 2 * quarter), byte)
        found[f"features_low.{level}"] = ((*cells, quarter), byte)
        found[f"feature_scales.{level}"] = ((1, count), torch.bfloat16)
    return found


def bytes_of(height: int, width: int, channels: tuple[int, ...]) -> int:
    """What one frame takes, headers of files left out."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes_of(height, width, channels).values())


def tensors_by_name(kept: KeptTargets) -> dict[str, Tensor]:
    found = {"depth_high": kept.depth_high, "depth_low": kept.depth_low, "depth_scale": kept.depth_scale}
    for part in ("features_high", "features_low", "feature_scales"):
        found |= {f"{part}.{level}": tensor for level, tensor in enumerate(getattr(kept, part))}
    return found


def with_names(tensor: Callable[[str], Tensor], count: int) -> KeptTargets:
    """The inverse of `tensors_by_name`. count: of the levels of features."""

    def levels(part: str) -> tuple[Tensor, ...]:
        return tuple(tensor(f"{part}.{level}") for level in range(count))

    return KeptTargets(
        tensor("depth_high"),
        tensor("depth_low"),
        tensor("depth_scale"),
        levels("features_high"),
        levels("features_low"),
        levels("feature_scales"),
    )


def checksum(kept: KeptTargets) -> int:
    """CRC-32 of all bytes, on the CPU: a flipped bit of a depth or a feature is a depth or a feature too."""
    crc = 0
    for tensor in tensors_by_name(kept).values():
        crc = zlib.crc32(tensor.contiguous().view(torch.uint8).numpy().data, crc)
    return crc


def require_scales(kept: KeptTargets, checked: bool = False) -> None:
    """InputError where what one frame is scaled by is no number that could have been kept. checked: depths may be
    unknown."""
    start, step, lowest, highest = kept.depth_scale[0].tolist()
    ends = (start, start + DEPTH_LEVELS * step, 0.0 if checked and lowest == -math.inf else lowest, highest)
    if not (step >= 0 and all(abs(end) < LARGEST_LOG for end in ends)):
        raise InputError(
            f"depth_scale: expected ln depths, got {start:g} in steps of {step:g}, {lowest:g} and {highest:g}"
        )
    for level, scales in enumerate(kept.feature_scales):
        if not bool((torch.isfinite(scales) & (scales >= 0)).all()):
            raise InputError(f"feature_scales.{level}: NaN, infinite or negative")


def _feature(high: Tensor, low: Tensor, scales: Tensor) -> Tensor:
    """B×C×h×w in the layout and the type of a step's features."""
    number = _unpacked(high, 4) * 4 + _unpacked(low, 2)
    scale = scales[:, None, None]
    dtype = storage_dtype(scale)
    return (number[..., : scales.shape[1]].to(dtype) * scale.to(dtype)).permute(0, 3, 1, 2)


def _packed(numbers: Tensor, bits: int) -> Tensor:
    """Whole numbers of so many bits, 8 // bits neighbours of the last dimension in each byte, the first lowest."""
    parts = numbers.unflatten(-1, (-1, 8 // bits)).unbind(-1)
    return sum((part << (bits * place) for place, part in enumerate(parts)), start=torch.zeros_like(parts[0])).to(
        torch.uint8
    )


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """The inverse of `_packed`, bytes."""
    mask = 2**bits - 1
    return torch.stack([(packed >> (bits * place)) & mask for place in range(8 // bits)], -1).flatten(-2)
