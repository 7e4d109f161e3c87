"""A teacher's targets as they are kept: bytes, error bounds, windows, and the layout that a step wants."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.models.prediction import TeacherTargets
from adu_depth.training.kept_targets import (
    DEPTH_LEVELS,
    FEATURE_LEVELS,
    ROUNDING,
    KeptTargets,
    _unpacked,
    bytes_of,
    encode,
    require_scales,
    shapes_of,
    tensors_by_name,
)
from adu_depth.training.presets import PRESETS
from adu_depth.trees import tensors_of

PRESET = (128, 192, 256)
RANGE = (0.5, 80.0)


def targets(height: int = 70, width: int = 101, channels: tuple[int, ...] = (6, 8, 9), seed: int = 0) -> TeacherTargets:
    """Two frames of odd sizes, one with all depths there are; channels of very different sizes, and one that is 0."""
    torch.manual_seed(seed)
    depth = torch.exp(torch.empty(2, 1, height, width).uniform_(math.log(5.0), math.log(30.0)))
    depth[0, 0, 0, :2] = torch.tensor([0.5, 80.0])
    features = []
    for count, stride in zip(channels, (8, 16, 32), strict=True):
        level = torch.randn(2, count, -(-height // stride), -(-width // stride)).relu()
        level *= torch.logspace(-12, 6, count)[:, None, None]
        level[:, 1] = 0
        features.append(level)
    return TeacherTargets(depth, tuple(features))


def test_a_frame_takes_what_is_promised() -> None:
    """Four kilobytes of tensors' names aside; the presets' teacher, whose outputs took 6 MB in fp32 and fp16."""
    assert PRESETS["kitti-eigen-teacher"].config.model.feature_channels == PRESET  # type: ignore[union-attr]
    assert bytes_of(352, 1216, PRESET) == 1_499_280 <= 1.5e6
    assert bytes_of(352, 1216, (64, 96, 128)) == 1_017_168
    kept = encode(targets(), *RANGE)
    tensors = tensors_by_name(kept)
    forms = shapes_of(70, 101, (6, 8, 9))
    assert {name: (t.shape[1:], t.dtype) for name, t in tensors.items()} == {
        name: (shape[1:], dtype) for name, (shape, dtype) in forms.items()
    }
    assert sum(t.nbytes for t in tensors.values()) == 2 * bytes_of(70, 101, (6, 8, 9))


def test_errors_stay_in_their_bounds() -> None:
    given = targets()
    found = encode(given, *RANGE).decoded()
    error = (found.depth.log() - given.depth.log()).abs()
    for frame in range(2):
        logs = given.depth[frame].log()
        bound = float(logs.max() - logs.min()) / (2 * DEPTH_LEVELS)
        assert bound / 2 < float(error[frame].max()) <= bound + 1e-6
    assert float(((found.depth - given.depth) / given.depth).abs().max()) <= 0.0025
    for one, other in zip(found.features, given.features, strict=True):
        largest = other.amax((2, 3), keepdim=True)
        assert bool(((one - other).abs() <= largest * (1 + 2**-8) / (2 * FEATURE_LEVELS)).all())
        assert bool((one[:, 1] == 0).all())


def test_a_frame_of_one_depth_and_no_features_is_kept() -> None:
    given = TeacherTargets(
        torch.full((1, 1, 32, 32), 7.0), tuple(torch.zeros(1, 4, 32 // s, 32 // s) for s in (8, 16, 32))
    )
    found = encode(given, *RANGE).decoded()
    torch.testing.assert_close(found.depth, given.depth)
    assert not any(bool(level.any()) for level in found.features)


def test_depths_outside_of_the_range_leave_the_others_all_levels_but_their_own() -> None:
    """Frames of 1 to e⁴ m with nothing outside, with depths below, above, on both sides, and with no other."""
    inside = torch.exp(torch.linspace(0, 4, 60)).reshape(1, 1, 6, 10)
    depth = inside.repeat(5, 1, 1, 1)
    depth[1, 0, 0, 3], depth[1, 0, 4, 4] = 1e-3, -2.0
    depth[2, 0, 1, 3] = 1e6
    depth[3, 0, 0, 3], depth[3, 0, 1, 3] = 0.49, 80.01
    depth[4] = torch.where(inside > 7, 1e3, 1e-3)
    kept = encode(TeacherTargets(depth, ()), *RANGE)
    found = kept.decoded().depth
    outside = (depth < 0.5) | (depth > 80)
    expected = torch.where(depth < 0.5, 0.5 / 1.001, 80 * 1.001)
    torch.testing.assert_close(found[outside], expected[outside], rtol=2e-6, atol=0)
    assert torch.equal((found < 0.5) | (found > 80), outside)
    error = torch.where(outside, 0, (found.log() - depth.log()).abs()).amax((1, 2, 3))
    steps = torch.tensor([1023, 1022, 1022, 1021, 1])
    torch.testing.assert_close(kept.depth_scale[:4, 1], 4 / steps[:4])
    assert bool((error <= 2 / steps + 1e-6).all())
    level = kept.depth_high.int() * 4 + _unpacked(kept.depth_low, 2)[..., :10]
    ends = [(0, 1023), (1, 1023), (0, 1022), (1, 1022)]
    assert [(int(level[n, 0, 0]), int(level[n, 5, 9])) for n in range(4)] == ends
    require_scales(kept.map(lambda tensor: tensor[4:]))


@pytest.mark.parametrize("bounds", [(0.5, 80.0), (0.1, 10.0), (1e-3, 100.0), (0.1, 120.0)])
def test_depths_at_the_bounds_read_as_inside(bounds: tuple[float, float]) -> None:
    """A bounded network's depths may pass its own bound by their last digit; an objective must not leave them out."""
    low, high = torch.tensor(bounds)
    ends = torch.stack([low, torch.nextafter(low, torch.tensor(0.0)), high, torch.nextafter(high, torch.tensor(1e9))])
    depth = torch.cat([ends, torch.linspace(float(low), float(high), 56)]).reshape(1, 1, 6, 10)
    found = encode(TeacherTargets(depth, ()), *bounds).decoded().depth
    assert bool(((found >= low) & (found <= high)).all())
    step = float(torch.log(high / low)) / DEPTH_LEVELS
    assert float((found.log() - depth.log()).abs().amax()) <= step / 2 + 1e-5


def test_without_depths_outside_nothing_is_kept_otherwise_than_before() -> None:
    """Level 0 is the frame's nearest depth, 1023 its farthest, both inside of the bounds by a few last digits."""
    given = targets()
    kept = encode(given, *RANGE)
    nearest, farthest = map(math.log, RANGE)
    logs = given.depth.log().flatten(1).clamp(nearest + ROUNDING, farthest - ROUNDING)
    low, high = logs.amin(1), logs.amax(1)
    step = (high - low) / DEPTH_LEVELS
    assert torch.equal(kept.depth_scale, torch.stack([low, step, low, low + step * DEPTH_LEVELS], 1))
    level = ((given.depth.log() - low[:, None, None, None]) / step[:, None, None, None]).round()
    assert torch.equal(kept.depth_high, (level.int() >> 2).squeeze(1).to(torch.uint8))


def test_depth_alone_is_kept_where_there_is_nothing_else() -> None:
    given = targets()
    kept, whole = encode(given.depth_alone(), *RANGE), encode(given, *RANGE)
    assert set(tensors_by_name(kept)) == {"depth_high", "depth_low", "depth_scale"} == set(shapes_of(70, 101, ()))
    for one, other in zip(tensors_of(kept), tensors_of(whole.depth_alone()), strict=True):
        assert torch.equal(one, other)
    window = kept.crop(32, 64, 32, 32).decoded()
    assert torch.equal(window.depth, whole.decoded().depth[..., 32:64, 64:96])
    assert window.features == ()
    assert bytes_of(352, 1216, ()) == 535_056


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kept: kept.depth_scale[0, 2].fill_(torch.inf), r"depth_scale: expected ln depths, got .* inf and"),
        (lambda kept: kept.depth_scale[0, 3].fill_(torch.nan), r"depth_scale: expected ln depths, got .* and nan"),
        (lambda kept: kept.depth_scale[0, 0].fill_(torch.nan), r"depth_scale: expected ln depths, got nan"),
        (lambda kept: kept.depth_scale[0, 1].fill_(-1.0), r"depth_scale: expected ln depths, got .* in steps of -1"),
        (lambda kept: kept.depth_scale[0, 1].fill_(1.0), r"depth_scale: expected ln depths"),
        (lambda kept: kept.feature_scales[1][0, 3].fill_(torch.inf), r"feature_scales\.1: NaN, infinite or negative"),
        (lambda kept: kept.feature_scales[2][0, 0].fill_(-1.0), r"feature_scales\.2: NaN, infinite or negative"),
    ],
)
def test_scales_that_could_not_have_been_kept_are_refused(
    change: Callable[[KeptTargets], object], message: str
) -> None:
    """Whoever makes a cache file makes its checksums too; what it is decoded to is finite in any case."""
    kept = encode(targets(), *RANGE)
    require_scales(kept)
    change(kept)
    with pytest.raises(InputError, match=message):
        require_scales(kept)


@pytest.mark.parametrize("window", [(0, 0, 64, 96), (32, 64, 32, 32), (0, 32, 64, 64)])
def test_a_window_is_the_window_of_what_is_kept(window: tuple[int, int, int, int]) -> None:
    kept = encode(targets(), *RANGE)
    one, other = kept.crop(*window).decoded(), kept.decoded().crop(*window)
    assert torch.equal(one.depth, other.depth)
    assert all(torch.equal(a, b) for a, b in zip(one.features, other.features, strict=True))
    with pytest.raises(ValueError, match="multiples of 32"):
        kept.crop(8, 0, 32, 32)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_decoded_features_are_as_a_step_stores_them(dtype: torch.dtype | None) -> None:
    kept = encode(targets(64, 96, (8, 8, 8)), *RANGE)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        found = kept.decoded()
        stored = found.stored()
    for one, other in zip(found.features, stored.features, strict=True):
        assert one.data_ptr() == other.data_ptr(), "nothing is copied"
        assert one.dtype == (dtype or torch.float32)
