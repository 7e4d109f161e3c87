"""Small programs that run in the fake CUDA process: one that keeps every rule, and the same with one fault each."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adu_kernels import groupwise_correlation_volume
from adu_kernels.testing.fake_cuda.device import DEVICE, fake_cuda
from adu_kernels.testing.fake_cuda.recorder import Recorder, Row


def keeps_every_rule(fault: str = "") -> list[Row]:
    """A volume, a 3-D convolution over it, a loss and its backward; `fault` names what is done wrong on the way."""
    maps = torch.channels_last_3d
    with fake_cuda():
        left, right = (
            torch.empty(2, 16, 8, 24, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
            .detach().to(memory_format=torch.channels_last).requires_grad_() for _ in range(2)
        )  # fmt: skip
        layer = nn.Conv3d(4, 8, 3, padding=1, bias=False).bfloat16().to(device=DEVICE, memory_format=maps)
        recorder = Recorder()
        recorder.watch(layer, "layer")
        with recorder:
            numbers = torch.rand(2)
            if fault != "pageable":
                numbers = numbers.pin_memory()
            numbers = numbers.to(DEVICE, non_blocking=fault != "blocking")
            if fault == "contiguous maps":
                left = left.contiguous()
            if fault == "wide maps":
                left, right = left.float(), right.float()
            volume = groupwise_correlation_volume(left, right, 6, 4)
            volume = CHANGES.get(fault, lambda v: v)(volume)
            with recorder.keeping():
                result = layer(volume.bfloat16())
                loss = (result * numbers.reshape(2, 1, 1, 1, 1)).float().mean()
            with recorder.during("backward"):
                loss.backward()
            VALUES.get(fault, lambda _: None)(loss.detach())
    return recorder.rows


class _CopiedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, volume: Tensor) -> Tensor:
        return volume.view_as(volume)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient.clone()


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "copied volume": lambda v: v.clone(),
    "cast volume": lambda v: v.float(),
    "contiguous volume": lambda v: v.contiguous(),
    "copied gradient": lambda v: _CopiedGradient.apply(v),
}
VALUES: dict[str, Callable[[Tensor], object]] = {
    "copied to the host": lambda loss: loss.cpu(),
    "double precision": lambda loss: loss.reshape(1).double() * 2,
    "item": lambda loss: loss.item(),
    "condition": lambda loss: 1 if loss > 0 else 2,
    "boolean index": lambda loss: loss.reshape(1)[loss.reshape(1) > 0],
    "synchronize": lambda _: torch.cuda.synchronize(),
    "reflected border": lambda loss: (
        F.pad(torch.zeros(1, 1, 3, device=DEVICE, requires_grad=True), [1, 1], mode="reflect").mean().backward()
    ),
    "sum of what meets": lambda loss: _meeting(loss, "sum"),
    "largest of what meets": lambda loss: _meeting(loss, "amax"),
}


def _meeting(loss: Tensor, reduce: str) -> Tensor:
    both = loss.expand(2)
    return loss.reshape(1).scatter_reduce(0, torch.zeros_like(both, dtype=torch.long), both, reduce)


HIDDEN: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "index of the host": lambda x, host, here: x[torch.tensor([0, 2])],
    "one index of two of the host": lambda x, host, here: x.reshape(1, 3)[
        torch.zeros_like(here).long(), torch.tensor([1])
    ],
    "index of no dimension": lambda x, host, here: torch.ops.aten.index(x, [torch.tensor(1)]),
    "pinned index": lambda x, host, here: x[torch.tensor([0, 2]).pin_memory()],
    "assignment by an index of the host": lambda x, host, here: x.index_put_((torch.tensor([0]),), here),
    "assignment of a Python number": lambda x, host, here: x.__setitem__(here.long(), 3.0),
    "sum into indices of the host": lambda x, host, here: x.index_put((torch.tensor([0]),), here, accumulate=True),
    "where with a number of the host": lambda x, host, here: torch.where(x > 0, x, host),
    "where under a condition of the host": lambda x, host, here: torch.where(host > 0, x, x),
    "many copies at once": lambda x, host, here: torch._foreach_copy_([x, x], [torch.ones(3), torch.ones(3)]),
}
"""Copies from the host inside of operations on x. host: a number there; here: one on the device, of one dimension."""
HIDDEN_WAITS: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "mask filled with a number of the device": lambda x, host, here: x.masked_fill(x > 0, here[0]),
    "filled by indices with a number of the device": lambda x, host, here: x.index_fill(0, here.long(), here[0]),
    "inverse": lambda x, host, here: torch.linalg.inv(x * torch.eye(3, device=DEVICE)),
    "many copies to the host": lambda x, host, here: torch._foreach_copy_([torch.ones(3)], [x]),
}
NOT_HIDDEN: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "index of the device": lambda x, host, here: x[here.long()],
    "index of the host into the host": lambda x, host, here: torch.ones(3)[torch.tensor([0, 2])],
    "assignment of a number of the device": lambda x, host, here: x.index_put_((here.long(),), here[0]),
    "where with Python numbers": lambda x, host, here: torch.where(x > 0, 1.0, 0.0),
    "mask filled with a Python number": lambda x, host, here: x.masked_fill(x > 0, 0.0),
    "mask filled with a number of the host": lambda x, host, here: x.masked_fill(x > 0, host),
    "product with a number of the host": lambda x, host, here: x.mul(host).clamp(host, host),
    "many copies of pinned memory": lambda x, host, here: torch._foreach_copy_(
        [x, x], [torch.ones(3).pin_memory()] * 2, non_blocking=True
    ),
    "many copies on the device": lambda x, host, here: torch._foreach_copy_([x, x], [x + 1, x + 2]),
    "inverse without a check": lambda x, host, here: torch.linalg.inv_ex(x * torch.eye(3, device=DEVICE)),
}


def inside_an_operation(name: str) -> list[Row]:
    """What one of the operations above records."""
    with fake_cuda():
        x, here = torch.empty(3, device=DEVICE), torch.empty(1, device=DEVICE)
        with Recorder() as recorder:
            {**HIDDEN, **HIDDEN_WAITS, **NOT_HIDDEN}[name](x, torch.tensor(2.0), here)
    return recorder.rows


def autocast_table() -> dict[str, str]:
    """The type and layout of what some operations return under CUDA's autocast, from channels-last bf16 maps."""
    with fake_cuda(), torch.autocast("cuda", torch.bfloat16):
        x = torch.empty(2, 16, 8, 24, device=DEVICE, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        weight = torch.empty(16, 16, 3, 3, device=DEVICE).to(memory_format=torch.channels_last)
        found = {
            "conv2d": F.conv2d(x, weight, padding=1),
            "normalize": F.normalize(x, dim=1),
            "group_norm": F.group_norm(x, 8),
            "instance_norm": F.instance_norm(x),
            "relu": torch.relu(x),
            "softmax": torch.softmax(x, 1),
            "sum": x.sum((2, 3), keepdim=True),
        }

        def layout(t: Tensor) -> str:
            return "channels-last" if t.is_contiguous(memory_format=torch.channels_last) else "contiguous"

        return {name: f"{str(t.dtype).removeprefix('torch.')} {layout(t)}" for name, t in found.items()}


def torch_answers() -> tuple[bool, int, str]:
    return torch.cuda.is_available(), torch.cuda.device_count(), str(torch.accelerator.current_accelerator())


def fail(message: str) -> None:
    raise ValueError(message)


def leave(code: int) -> None:
    import os

    os._exit(code)


def unpicklable() -> object:
    return lambda: None


def bytes_kept(steps: int) -> int:
    """What autograd keeps after so many steps: two maps of 1,000 numbers and their product; a parameter is left out."""
    recorder = Recorder()
    with fake_cuda(), recorder:
        for _ in range(steps):
            a, b = (torch.empty(1000, device=DEVICE, requires_grad=True) for _ in range(2))
            with recorder.keeping():
                (a * b * nn.Parameter(torch.empty((), device=DEVICE))).sum()
    return sum(recorder.saved.values())


def backward_on_two_threads(rounds: int) -> int:
    """How many operations ran backward, where autograd's thread for the device and its host's run side by side."""
    recorder = Recorder()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with fake_cuda(), recorder:
            for _ in range(rounds):
                here, there = (torch.empty(8, device=d, requires_grad=True) for d in ("cpu", DEVICE))
                for _ in range(20):
                    here, there = (here * 2).sin(), (there * 2).sin()
                with recorder.during("backward"):
                    (here.to(DEVICE, non_blocking=True) + there).sum().backward()
    finally:
        sys.setswitchinterval(interval)
    return sum(row.phase == "backward" for row in recorder.rows)
