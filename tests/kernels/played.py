"""Paths of autograd where "cuda:0" is a fake device: as on a GPU, autograd runs in a thread of its own, which knows
nothing of the device that tests make tensors on by default. Run in a `FakeCudaProcess`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from adu_kernels.testing import autograd_paths
from adu_kernels.testing.fake_cuda.device import DEVICE, fake_cuda
from adu_kernels.testing.parity import Operation

PLAYED = ("create_graph", "backward twice", "checkpoint", "reentrant checkpoint", "selective checkpoint", "save_on_cpu")
"""Of `autograd_paths.SAME`, what fake tensors can go through. Checkpoints run the operation again in that thread."""


def mixed_devices(module: str, name: str) -> list[str]:
    """Of `module.name`, an `OperationTests` or a case of `CASES`: the paths on which tensors of two devices meet."""
    of = import_module(module)
    torch.set_default_device("cuda")
    try:
        with fake_cuda():
            if hasattr(of, name):
                operation = getattr(of, name).operation
                inputs = getattr(of, name)().draw(getattr(of, name).small, torch.float64)
            else:
                operation, inputs = of.case(name)
            return [f"{path}: {told}" for path, told in _tried(operation, inputs) if told]
    finally:
        torch.set_default_device(None)


def _tried(operation: Operation, inputs: list[Tensor]) -> list[tuple[str, str]]:
    flat = torch.cat([value.detach().double().flatten() for value in inputs])
    assert flat.device == DEVICE
    found = []
    for run in (operation.triton, operation.torch):
        whole = autograd_paths.on_one_tensor(run, inputs)
        found += [(path, _told(autograd_paths.SAME[path], whole, flat)) for path in PLAYED]
    return found


def _told(result: Callable[..., Tensor], run: Callable[..., Any], flat: Tensor) -> str:
    try:
        made = result(run, flat)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return "" if made.device == DEVICE else f"its result is on {made.device}"
