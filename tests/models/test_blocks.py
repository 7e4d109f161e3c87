"""The blocks: what they compute is convolution, norm, sum and ReLU one after the other, under the names of before."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adu_depth.models import MonoStudent, StereoTeacher, StudentConfig, TeacherConfig
from adu_depth.models.aggregation import Hourglass
from adu_depth.models.blocks import Norm, ResidualBlock, channels_last, first_images, upsample
from adu_kernels import disparity_regression, single_output_conv3d
from adu_kernels.backend import use_backend
from adu_kernels.testing.parity import DEVICE

NORMS = pytest.mark.parametrize("norm", ["group", "batch"])


def in_turn(outputs: int, norm: Norm, conv: nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d, relu: bool) -> nn.Sequential:
    """The layers as they were: each a module of its own."""
    layers = nn.Sequential()
    layers.add_module("conv", conv)
    if norm == "group":
        layers.add_module("norm", nn.GroupNorm(math.gcd(outputs, 8), outputs))
    else:
        layers.add_module("norm", nn.BatchNorm2d(outputs) if conv.weight.ndim == 4 else nn.BatchNorm3d(outputs))
    if relu:
        layers.add_module("relu", nn.ReLU(inplace=True))
    return layers


class EarlierResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, halve: bool, norm: Norm) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, outputs, 4 if halve else 3, 2 if halve else 1, 1, bias=False)
        self.first = in_turn(outputs, norm, first, relu=True)
        second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second = in_turn(outputs, norm, second, relu=False)
        self.pool = nn.AvgPool2d(2) if halve else nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if halve or inputs != outputs:
            self.skip = in_turn(outputs, norm, nn.Conv2d(inputs, outputs, 1, bias=False), relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(self.pool(x)) + self.second(self.first(x)))


class EarlierHourglass(nn.Module):
    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        wide, wider = 2 * channels, 3 * channels

        def conv(a: int, b: int, stride: int) -> nn.Sequential:
            return in_turn(b, norm, nn.Conv3d(a, b, 3, stride, 1, bias=False), relu=True)

        def doubling(a: int, b: int) -> nn.Sequential:
            return in_turn(b, norm, nn.ConvTranspose3d(a, b, 4, 2, 1, bias=False), relu=False)

        self.down1, self.same1 = conv(channels, wide, 2), conv(wide, wide, 1)
        self.down2, self.same2 = conv(wide, wider, 2), conv(wider, wider, 1)
        self.up2, self.up1 = doubling(wider, wide), doubling(wide, channels)

    def forward(self, volume: Tensor) -> Tensor:
        half = self.same1(self.down1(volume))
        half_again = torch.relu(self.up2(self.same2(self.down2(half))) + half)
        return torch.relu(self.up1(half_again) + volume)


PAIRS: dict[str, tuple[Callable[[Norm], nn.Module], Callable[[Norm], nn.Module], tuple[int, ...]]] = {
    "residual": (
        lambda norm: EarlierResidualBlock(12, 12, False, norm),
        lambda norm: ResidualBlock(12, 12, norm=norm),
        (3, 12, 8, 10),
    ),
    "residual, wider": (
        lambda norm: EarlierResidualBlock(12, 20, False, norm),
        lambda norm: ResidualBlock(12, 20, norm=norm),
        (3, 12, 8, 10),
    ),
    "residual, halved": (
        lambda norm: EarlierResidualBlock(12, 20, True, norm),
        lambda norm: ResidualBlock(12, 20, halve=True, norm=norm),
        (3, 12, 8, 10),
    ),
    "hourglass": (lambda norm: EarlierHourglass(4, norm), lambda norm: Hourglass(4, norm), (2, 4, 8, 8, 12)),
}


@NORMS
@pytest.mark.parametrize("block", PAIRS)
def test_a_block_is_the_function_it_was_with_the_weights_it_had(block: str, norm: Any) -> None:
    torch.manual_seed(0)
    make_earlier, make_now, shape = PAIRS[block]
    earlier = make_earlier(norm)
    with torch.no_grad():
        for name, parameter in earlier.named_parameters():
            if ".norm." in name:
                parameter.add_(torch.randn_like(parameter) / 4)
    now = make_now(norm)
    assert list(now.state_dict()) == list(earlier.state_dict())
    now.load_state_dict(earlier.state_dict())
    earlier, now = earlier.double(), now.double()  # functions are compared, not how fp32 rounds them
    x, grad_output = torch.randn(shape, dtype=torch.float64), None
    found = {}
    for name, module in (("earlier", earlier), ("now", now)):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        grad_output = torch.randn_like(y) if grad_output is None else grad_output
        y.backward(grad_output)
        found[name] = [y, leaf.grad, *(p.grad for p in module.parameters()), *module.buffers()]
    for theirs, ours in zip(found["earlier"], found["now"], strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("network", "count", "digest"),
    [
        (lambda: StereoTeacher(TeacherConfig(hourglasses=2)), 196, "5a879b70f991d862"),
        (lambda: StereoTeacher(TeacherConfig(hourglasses=2, norm="batch")), 382, "ae7fccbeaae1b16a"),
        (lambda: MonoStudent(StudentConfig()), 104, "15e28a3630c9c599"),
        (lambda: MonoStudent(StudentConfig(norm="batch")), 206, "15c2fafd460fe4d1"),
    ],
    ids=["teacher", "teacher, batch norm", "student", "student, batch norm"],
)
def test_checkpoints_of_before_fit(network: Callable[[], nn.Module], count: int, digest: str) -> None:
    """Names and shapes of all that a checkpoint holds, as they were when norms and ReLU were layers of their own."""
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in network().state_dict().items())
    assert len(lines) == count
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("last", [True, False])
def test_the_first_images_gradient_lies_channels_last(last: bool) -> None:
    maps = torch.randn(4, 6, 3, 5)
    if last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    leaf = maps.requires_grad_()
    inside = leaf * 1  # a leaf's gradient is laid out as the leaf
    gradients: list[Tensor] = []
    inside.register_hook(gradients.append)
    first = first_images(inside, 2)
    assert torch.equal(first, maps[:2])
    grad_output = torch.randn(2, 6, 3, 5)
    first.backward(grad_output)
    (gradient,) = gradients
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(gradient, torch.cat([grad_output, torch.zeros(2, 6, 3, 5)]))


def test_upsampling_copies_and_keeps_the_type() -> None:
    maps = torch.randn(1, 2, 2, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = upsample(maps, (4, 6))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, maps.repeat_interleave(2, 2).repeat_interleave(2, 3))


def thirty_steps(network: nn.Module, loss_of: Callable[[], Tensor], backend: str, rate: float) -> Tensor:
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    found = []
    for _ in range(30):
        with use_backend(backend):
            loss = loss_of()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.detach())
    return torch.stack(found)


def test_a_block_learns_with_kernels_as_with_references() -> None:
    """Thirty steps of a network that is mostly norms."""

    def losses(backend: str) -> Tensor:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(2, 8, 1), ResidualBlock(8, 8), nn.Conv2d(8, 3, 1))
        channels_last(network.to(DEVICE))
        x, wanted = torch.randn(2, 2, 4, 6).to(DEVICE), torch.rand(2, 3, 4, 6).to(DEVICE)
        return thirty_steps(network, lambda: (network(x) - wanted).square().mean(), backend, 1e-2)

    references = losses("torch")
    assert references[-1] < 0.5 * references[0]
    torch.testing.assert_close(losses("triton"), references, rtol=1e-4, atol=1e-6)


def test_an_hourglass_with_its_head_learns_with_kernels_as_with_references() -> None:
    """Thirty steps: norms in 3-D with residual and ReLU, the head's convolution and the regression."""

    def losses(backend: str) -> Tensor:
        torch.manual_seed(0)
        hourglass, head = Hourglass(4, "group").to(DEVICE), nn.Conv3d(4, 1, 3, bias=False).to(DEVICE)
        network = nn.ModuleList([hourglass, head])
        volume, prior = torch.randn(1, 4, 4, 4, 8), torch.randn(1, 4, 4, 8).to(DEVICE)
        volume = volume.to(DEVICE).contiguous(memory_format=torch.channels_last_3d)
        wanted = upsample(2 + 8 * torch.rand(1, 1, 4, 8), (16, 32)).squeeze(1).to(DEVICE)

        def loss() -> Tensor:
            logits = prior + single_output_conv3d(hourglass(volume), head.weight).squeeze(1)
            return (disparity_regression(logits, scale=4)[0] - wanted).abs().mean()

        return thirty_steps(network, loss, backend, 1e-2)

    references = losses("torch")
    assert references[-1] < 0.7 * references[0]
    torch.testing.assert_close(losses("triton"), references, rtol=1e-4, atol=1e-6)
