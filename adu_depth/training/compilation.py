"""Encoder and decoder by torch.compile, in place: the network, its names and its checkpoints stay what they are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from adu_depth.errors import InputError

PARTS = ("encoder", "decoder")
"""Plain PyTorch for the most part; between them are operations that have kernels of their own."""
OPTIONS: dict[str, Any] = {"dynamic": False}
"""Without CUDA graphs: those of the trainer stand around the whole step."""


def compile_parts(network: nn.Module, device: torch.device) -> None:
    """They are compiled when they are first run, for the shapes that they are given. InputError without a compiler."""
    require_compiler(device)
    for name in PARTS:
        network.get_submodule(name).compile(**OPTIONS)


def require_compiler(device: torch.device) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device.type != "cpu":
        if not has_triton():
            raise InputError(f"loop.compile needs Triton for {device.type}, and there is none here: leave it out")
        return
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError(
            "loop.compile needs a C++ compiler, and torch finds none: install g++, name one in the environment "
            "variable CXX, or leave loop.compile out"
        ) from error


def uncompiled(module: nn.Module) -> AbstractContextManager[Any]:
    """Within it what is compiled in `module` runs as it is: for a look without gradients it would be compiled anew."""
    compiled = any(part._compiled_call_impl is not None for part in module.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
