"""A cost volume's mean over its groups, beside it: values, and the gradient that joins the volume's."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import adu_kernels
from adu_kernels import reference
from adu_kernels._triton import runtime
from adu_kernels.cost_volume import launch
from adu_kernels.testing.parity import Operation, check_layouts, check_parity, leaves, memory_beyond_int32
from adu_kernels.testing.suite import OperationTests, Shapes

COSINE = {"normalize": "group", "reduction": "sum"}
COSINE_OF_ALL = {"normalize": "all", "reduction": "sqrt", "eps": 1e-3, "eps_rule": "add"}


def _operation(disparities: int, groups: int, *, thin: bool = True, **options: Any) -> Operation:
    def bound(function: Any) -> Any:
        absent = () if thin else (None, None)
        return lambda *maps, **more: function(*maps, *absent, disparities, groups, **more)

    return Operation(bound(adu_kernels.volume_with_scores), bound(reference.volume_with_scores), options)


def _maps(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, last: bool = True) -> list[Tensor]:
    layout = torch.channels_last if last else torch.contiguous_format
    return [torch.randn(shape).to(dtype).contiguous(memory_format=layout) for shape in shapes]


def _shapes(wide: tuple[int, ...], thin: int) -> Shapes:
    narrow = (wide[0], thin, *wide[2:])
    return (wide, wide, narrow, narrow)


WIDE, THIN = (1, 6, 2, 9), (1, 4, 2, 9)


class TestVolumeWithScores(OperationTests):
    operation = _operation(4, 3)
    name = "volume_with_scores"
    shapes: ClassVar[dict[str, Shapes]] = {
        "one column": _shapes((1, 6, 1, 1), 4),
        "prime": _shapes((1, 6, 3, 7), 4),
        "several programs": _shapes((1, 6, 1, 90), 4),
    }
    small = _shapes((1, 3, 1, 4), 1)

    def draw(self, shapes: Shapes, dtype: torch.dtype) -> list[Tensor]:
        return _maps(*shapes, dtype=dtype)


class TestScoresOfAGroupwiseVolume(OperationTests):
    operation = _operation(4, 3, thin=False)
    name = "volume_with_scores"
    shapes: ClassVar[dict[str, Shapes]] = {"prime": ((2, 6, 1, 7),) * 2}
    small = ((1, 3, 1, 4),) * 2


OPTIONS: dict[str, dict[str, Any]] = {
    "right": {"view": "right", "reduction": "sum"},
    "cosine": COSINE,
    "cosine of all": COSINE_OF_ALL,
    "every option": {"view": "right", "mask_left": False, **COSINE_OF_ALL},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(name: str, dtype: torch.dtype) -> None:
    check_parity(_operation(5, 3, **OPTIONS[name]), _maps(WIDE, WIDE, THIN, THIN, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalize", ["none", "group"])
def test_one_group(normalize: str, dtype: torch.dtype) -> None:
    for last in (True, False):
        check_parity(_operation(5, 1, thin=False, normalize=normalize), _maps(WIDE, WIDE, dtype=dtype, last=last))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_channels_and_disparities_than_a_block(dtype: torch.dtype) -> None:
    check_parity(_operation(35, 5, thin=False), _maps((1, 40, 1, 70), (1, 40, 1, 70), dtype=dtype))


def test_every_layout_of_half() -> None:
    check_layouts(_operation(3, 2), _maps(*_shapes((1, 4, 1, 5), 2), dtype=torch.bfloat16, last=False))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("output", ["volume", "scores"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_one_of_both_gets_a_gradient(output: str, groups: int, dtype: torch.dtype) -> None:
    index = ("volume", "scores").index(output)
    pair = _operation(4, groups, thin=groups > 1)

    def only(function: Any) -> Any:
        return lambda *maps, **more: function(*maps, **more)[index]

    check_parity(
        Operation(only(pair.public), only(_unused_is_zero(pair.reference))),
        _maps(*[WIDE, WIDE, THIN, THIN][: 4 if groups > 1 else 2], dtype=dtype),
    )


def _unused_is_zero(function: Any) -> Any:
    """The reference's scores do not depend on the concatenated pair: its gradient is zero, not none."""
    return lambda *maps: tuple(out + 0 * sum(m.sum() for m in maps) for out in function(*maps))


def test_nothing_is_asked_for_the_scores_of_a_volume_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient of the volume alone runs the kernel that knows of no scores, and neither reads a volume of zeros."""
    asked: list[Any] = []
    started = runtime.run

    def run(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        asked.append((kernel.__name__, options["config"], arguments))
        started(kernel, programs, *arguments, **options)

    monkeypatch.setattr(runtime, "run", run)
    maps = leaves(_maps(WIDE, WIDE, THIN, THIN, dtype=torch.bfloat16))
    outputs = _operation(4, 3).triton(*maps)
    assert [name for name, *_ in asked] == ["volume_forward", "band_forward"]
    for share, given in ((0.0, outputs[:1]), (1 / 3, outputs), (1 / 3, outputs[1:])):
        asked.clear()
        torch.autograd.grad([o.float().sum() for o in given], maps, retain_graph=True)
        ((name, config, arguments),) = asked
        assert (name, config.SCORE_SHARE) == ("volume_backward", share)
        assert arguments[2].untyped_storage().nbytes() <= outputs[0].untyped_storage().nbytes()
    assert arguments[2].untyped_storage().nbytes() == 2  # a zero, again and again


def test_gradients_of_any_strides() -> None:
    maps = leaves(_maps(WIDE, WIDE, THIN, THIN))
    pair = _operation(4, 3)
    ours, theirs = pair.triton(*maps), pair.torch(*maps)
    for volume, scores in (
        (torch.randn(*ours[0].shape[:-1], 18)[..., ::2], torch.randn(1, 2, 9, 4).permute(0, 3, 1, 2)),
        (torch.ones(()).expand_as(ours[0]), torch.ones(()).expand_as(ours[1])),
    ):
        got, want = (
            torch.autograd.grad(outputs, maps, (volume, scores), retain_graph=True) for outputs in (ours, theirs)
        )
        torch.testing.assert_close(got, want)


def test_columns_without_a_partner_reach_nothing() -> None:
    left, right = _maps((1, 4, 1, 6), (1, 4, 1, 6), dtype=torch.bfloat16)
    left[..., 0], right[..., 5] = torch.nan, torch.inf
    maps = leaves([left, right])
    _, scores = _operation(3, 2, thin=False).triton(*maps)
    assert scores[:, 1:, 0, 0].count_nonzero() == 0
    (dleft,) = torch.autograd.grad(scores[..., :5].float().sum(), maps[0])
    assert dleft[..., :5].isfinite().all()


def test_scores_whose_gradient_lies_beyond_int32() -> None:
    maps = leaves(_maps((2, 4, 1, 5), (2, 4, 1, 5), dtype=torch.float16))
    _, scores = _operation(3, 2, thin=False).triton(*maps)
    near = torch.randn(scores.shape).half()
    far = memory_beyond_int32(64).as_strided(scores.shape, (2**31, 5, 5, 1))
    far.copy_(near)
    got, want = (torch.autograd.grad(scores, maps, one, retain_graph=True) for one in (far, near))
    torch.testing.assert_close(got, want)


def test_registration() -> None:
    maps = leaves(_maps(WIDE, WIDE, THIN, THIN))
    options = launch.VolumeOptions(3, 3, scores=True)
    torch.library.opcheck(torch.ops.adu_kernels.cost_volume.default, (*maps, *options))
    volume, scores = torch.ops.adu_kernels.cost_volume(*maps, *options)
    inputs = (volume, *maps, scores)
    torch.library.opcheck(
        torch.ops.adu_kernels.cost_volume_backward.default,
        (*(torch.randn_like(one.detach()) for one in inputs), [True] * 4, *options),
    )
