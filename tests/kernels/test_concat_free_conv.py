"""The convolution without the concatenation volume against conv3d over the volume."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from adu_kernels import concatenation_volume
from adu_kernels.concat_free_conv.module import ConcatFreeConv3d, concat_free_conv3d

pytestmark = pytest.mark.cpu

SIZES = [
    (2, 3, 4, 9, 5),
    (1, 2, 3, 1, 3),
    (1, 1, 1, 2, 6),
    (1, 2, 2, 4, 9),
    (1, 2, 3, 7, 1),
    (1, 2, 3, 7, 2),
    (1, 2, 3, 7, 7),
]


@pytest.mark.parametrize("mask_left", [True, False])
@pytest.mark.parametrize(("batch", "channels", "height", "width", "disparities"), SIZES)
def test_it_is_the_convolution(
    batch: int, channels: int, height: int, width: int, disparities: int, mask_left: bool
) -> None:
    left, right = (torch.randn(batch, channels, height, width, dtype=torch.float64).requires_grad_() for _ in range(2))
    weight = torch.randn(4, 2 * channels, 3, 3, 3, dtype=torch.float64).requires_grad_()
    bias = torch.randn(4, dtype=torch.float64).requires_grad_()
    volume = concatenation_volume(left, right, disparities, mask_left=mask_left)
    want = F.conv3d(volume, weight, bias, padding=1)
    got = concat_free_conv3d(left, right, weight, bias, num_disparities=disparities, mask_left=mask_left)
    assert got.shape == want.shape
    assert got.is_contiguous(memory_format=torch.channels_last_3d)
    assert (got - want).abs().max() <= 1e-12
    upstream = torch.randn_like(want)
    inputs = (left, right, weight, bias)
    for ours, theirs in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (got, want)), strict=True):
        assert (ours - theirs).abs().max() <= 1e-11


def test_the_module_takes_the_weights_of_the_convolution() -> None:
    conv = torch.nn.Conv3d(6, 5, 3, padding=1)
    ours = ConcatFreeConv3d(3, 5, num_disparities=4)
    ours.load_state_dict(conv.state_dict())
    left, right = torch.randn(1, 3, 4, 8), torch.randn(1, 3, 4, 8)
    torch.testing.assert_close(ours(left, right), conv(concatenation_volume(left, right, 4)))


def test_traced_whole() -> None:
    module, left, right = ConcatFreeConv3d(2, 3, 3), torch.randn(1, 2, 3, 6), torch.randn(1, 2, 3, 6)
    torch._dynamo.reset()
    traced = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(left, right), module(left, right))


def test_bad_input_is_named() -> None:
    x, weight = torch.zeros(1, 2, 3, 4), torch.zeros(3, 4, 3, 3, 3)
    with pytest.raises(ValueError, match="weight: expected O×4×3×3×3, got 3×2×3×3×3"):
        concat_free_conv3d(x, x, weight[:, :2], num_disparities=2)
    with pytest.raises(ValueError, match="bias: expected 3, got 2"):
        concat_free_conv3d(x, x, weight, torch.zeros(2), num_disparities=2)
    with pytest.raises(ValueError, match=r"right: .*left"):
        concat_free_conv3d(x, x[..., 1:], weight, num_disparities=2)
    with pytest.raises(ValueError, match=r"num_disparities: .*got 0"):
        ConcatFreeConv3d(2, 3, 0)
