"""Cost volumes against hand-computed cases, a literal loop over the definition, and fp64 gradcheck."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adu_kernels import (
    combined_volume,
    concatenation_volume,
    correlation_volume,
    groupwise_correlation_volume,
)

pytestmark = pytest.mark.cpu


def _pair(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(2))  # type: ignore[return-value]


def _literal_groupwise(left: Tensor, right: Tensor, num_disparities: int, num_groups: int) -> Tensor:
    """The definition, element by element."""
    batch, channels, height, width = left.shape
    per_group = channels // num_groups
    volume = left.new_zeros(batch, num_groups, num_disparities, height, width)
    for g in range(num_groups):
        group = slice(g * per_group, (g + 1) * per_group)
        for d in range(num_disparities):
            for w in range(d, width):
                volume[:, g, d, :, w] = (left[:, group, :, w] * right[:, group, :, w - d]).mean(1)
    return volume


def test_correlation_by_hand() -> None:
    left = torch.tensor([[[[1.0, 2.0, 3.0]], [[10.0, 20.0, 30.0]]]])
    right = torch.tensor([[[[4.0, 5.0, 6.0]], [[1.0, 0.0, -1.0]]]])
    # d = 0: (1·4 + 10·1)/2, (2·5 + 0)/2, (3·6 − 30)/2; d = 1: none, (2·4 + 20·1)/2, (3·5 + 0)/2
    expected = torch.tensor([[[[7.0, 5.0, -6.0]], [[0.0, 14.0, 7.5]]]])
    assert torch.equal(correlation_volume(left, right, 2), expected)


def test_groups_are_neighbouring_channels() -> None:
    left = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    volume = groupwise_correlation_volume(left, torch.ones(1, 4, 1, 1), 1, 2)
    assert volume.shape == (1, 2, 1, 1, 1)
    assert volume.flatten().tolist() == [1.5, 3.5]


def test_concatenation_by_hand() -> None:
    left, right = torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[4.0, 5.0, 6.0]]]])
    expected = torch.tensor([[[[1.0, 2, 3]], [[0.0, 2, 3]]], [[[4.0, 5, 6]], [[0.0, 4, 5]]]])[None]
    assert torch.equal(concatenation_volume(left, right, 2), expected)


@pytest.mark.parametrize("shape", [(2, 6, 3, 7), (1, 6, 1, 1), (1, 12, 2, 5)])
@pytest.mark.parametrize("num_disparities", [1, 4, 9])
@pytest.mark.parametrize("num_groups", [1, 3, 6])
def test_groupwise_equals_the_definition(shape: tuple[int, ...], num_disparities: int, num_groups: int) -> None:
    left, right = _pair(*shape)
    volume = groupwise_correlation_volume(left, right, num_disparities, num_groups)
    torch.testing.assert_close(volume, _literal_groupwise(left, right, num_disparities, num_groups))


def test_combined_is_both_in_one_volume() -> None:
    left, right = _pair(2, 8, 3, 5)
    left_thin, right_thin = _pair(2, 3, 3, 5)
    volume = combined_volume(left, right, left_thin, right_thin, 4, 2)
    assert volume.shape == (2, 2 + 6, 4, 3, 5)
    assert volume.is_contiguous()
    assert torch.equal(volume[:, :2], groupwise_correlation_volume(left, right, 4, 2))
    assert torch.equal(volume[:, 2:], concatenation_volume(left_thin, right_thin, 4))


@pytest.mark.parametrize("num_disparities", [1, 3, 6])
def test_gradcheck(num_disparities: int) -> None:
    left, right = _pair(1, 4, 2, 4)
    thin = _pair(1, 2, 2, 4)
    check = torch.autograd.gradcheck
    assert check(lambda a, b: groupwise_correlation_volume(a, b, num_disparities, 2), (left, right))
    assert check(lambda a, b: correlation_volume(a, b, num_disparities), (left, right))
    assert check(lambda a, b: concatenation_volume(a, b, num_disparities), (left, right))
    assert check(lambda a, b, c, d: combined_volume(a, b, c, d, num_disparities, 2), (left, right, *thin))


def test_gradients_are_the_written_gathers() -> None:
    """METHOD §1: dleft[w] = (1/K) Σ_{d≤w} dV[d,w]·right[w−d], dright[x] = (1/K) Σ_{d<W−x} dV[d,x+d]·left[x+d]."""
    left, right = _pair(1, 3, 1, 5)
    upstream = torch.randn(1, 4, 1, 5, dtype=torch.float64)
    dleft, dright = torch.autograd.grad(correlation_volume(left, right, 4), (left, right), upstream)
    for x in range(5):
        from_right = sum(upstream[0, d, 0, x] * right[0, :, 0, x - d] for d in range(min(4, x + 1))) / 3
        from_left = sum(upstream[0, d, 0, x + d] * left[0, :, 0, x + d] for d in range(min(4, 5 - x))) / 3
        torch.testing.assert_close(dleft[0, :, 0, x], from_right)
        torch.testing.assert_close(dright[0, :, 0, x], from_left)


def test_disparities_beyond_the_width_are_zero() -> None:
    left, right = _pair(1, 2, 2, 3)
    for volume in (correlation_volume(left, right, 7)[:, None], concatenation_volume(left, right, 7)):
        assert volume.shape[2] == 7
        assert torch.count_nonzero(volume[:, :, 3:]) == 0


def test_columns_without_a_partner_reach_nothing() -> None:
    """At w < d the volume is 0 even where left holds NaN, and that NaN gets no gradient from there."""
    left, right = torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4)
    left[..., 0] = torch.nan
    left.requires_grad_()
    volume = groupwise_correlation_volume(left, right, 3, 1)
    assert volume[0, 0, 1:, 0, 0].tolist() == [0.0, 0.0]
    volume[:, :, 1:].sum().backward()
    assert left.grad is not None
    assert left.grad[..., 0].tolist() == [[[0.0], [0.0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_summed_in_fp32(dtype: torch.dtype) -> None:
    left, right = _pair(2, 64, 3, 6, dtype=dtype)
    volume = groupwise_correlation_volume(left, right, 4, 2)
    exact = _literal_groupwise(left.double(), right.double(), 4, 2)
    assert volume.dtype == dtype
    # One rounding to the storage type, and nothing before it.
    assert ((volume.double() - exact).abs() <= exact.abs() * torch.finfo(dtype).eps / 2 * 1.01 + 1e-6).all()
    volume.float().sum().backward()
    assert left.grad is not None
    assert left.grad.dtype == dtype


def test_fp16_products_do_not_overflow() -> None:
    big = torch.full((1, 320, 1, 2), 240.0, dtype=torch.float16)  # 240² · 320 is far beyond 65504, its mean is not
    assert correlation_volume(big, big, 1).unique().tolist() == [57600.0]


def test_autocast_changes_no_bit() -> None:
    left, right = _pair(1, 8, 3, 6, dtype=torch.float32)
    expected = combined_volume(left, right, left, right, 3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        got = combined_volume(left, right, left, right, 3, 2)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_any_strides() -> None:
    left, right = _pair(2, 4, 3, 10)
    expected = combined_volume(left[..., ::2].contiguous(), right[..., ::2].contiguous(), left[..., ::2].contiguous(),
                               right[..., ::2].contiguous(), 3, 2)  # fmt: skip
    sliced = (left[..., ::2], right[..., ::2])
    last = tuple(t.contiguous(memory_format=torch.channels_last) for t in sliced)
    for a, b in (sliced, last):
        torch.testing.assert_close(combined_volume(a, b, a, b, 3, 2), expected)


def test_groups_that_do_not_divide_the_channels() -> None:
    left, right = _pair(1, 10, 2, 3)
    with pytest.raises(ValueError, match=r"num_groups.*10 channels.*got 4"):
        groupwise_correlation_volume(left, right, 2, 4)
    with pytest.raises(ValueError, match=r"num_groups.*10 channels.*got 4"):
        combined_volume(left, right, left, right, 2, 4)


X = torch.zeros(2, 4, 3, 5, device="cpu")


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "left: expected a tensor B×C×H×W, got list", lambda: correlation_volume([1], X, 2)),
        (TypeError, "right: expected a floating.*got torch.int64", lambda: correlation_volume(X, X.long(), 2)),
        (ValueError, "left: expected B×C×H×W, got 4×3×5", lambda: correlation_volume(X[0], X[0], 2)),
        (ValueError, "right: .* left, 2×4×3×5, got 2×4×3×4", lambda: concatenation_volume(X, X[..., 1:], 2)),
        (TypeError, "right: .* torch.float32, got torch.float64", lambda: concatenation_volume(X, X.double(), 2)),
        (ValueError, "right: .*device of left, cpu, got meta", lambda: correlation_volume(X, X.to("meta"), 2)),
        (ValueError, "left: .* at least one element", lambda: correlation_volume(X[:0], X[:0], 2)),
        (ValueError, "num_disparities: .* ≥ 1, got 0", lambda: correlation_volume(X, X, 0)),
        (TypeError, r"num_disparities: .*got 2.0 \(float\)", lambda: correlation_volume(X, X, 2.0)),
        (TypeError, "num_groups: .*got True", lambda: groupwise_correlation_volume(X, X, 2, True)),
        (ValueError, "num_groups: .* ≥ 1, got -1", lambda: groupwise_correlation_volume(X, X, 2, -1)),
        (ValueError, "left_thin: expected 2×C'×3×5", lambda: combined_volume(X, X, X[:1], X[:1], 2, 2)),
        (ValueError, "right_thin: .*left_thin", lambda: combined_volume(X, X, X, X[:, :2], 2, 2)),
        (TypeError, "left_thin: .*dtype of left", lambda: combined_volume(X, X, X.half(), X.half(), 2, 2)),
    ],
)
def test_bad_input_is_named(error: type[Exception], message: str, call) -> None:
    with pytest.raises(error, match=message):
        call()
