"""The same random numbers on every machine: drawn by the CPU's generator, wherever the tensors then lie.

A GPU's generator gives other numbers for the same seed. With these, what fails on a card can be run again, number for
number, in the interpreter. It also lets `torch.autograd.gradcheck` run there: it hands its own CPU generator to
`torch.rand`, which a default device of "cuda" refuses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

FROM_SHAPES = ("rand", "randn", "randint", "randperm")
LIKE_ANOTHER = ("rand_like", "randn_like", "randint_like")


@contextmanager
def drawn_on_the_cpu() -> Iterator[None]:
    """Within it `torch.rand`, `torch.randn_like` and the like draw on the CPU and move what they drew."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FROM_SHAPES:
            patch.setattr(torch, name, _moved(getattr(torch, name), like=False))
        for name in LIKE_ANOTHER:
            patch.setattr(torch, name, _moved(getattr(torch, name), like=True))
        yield


def _moved(function: Callable[..., Tensor], *, like: bool) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def drawn(*arguments: Any, device: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
        target = device if device is not None else arguments[0].device if like else torch.get_default_device()
        if like:
            arguments = (arguments[0].detach().cpu(), *arguments[1:])
        return function(*arguments, device="cpu", **options).to(target).requires_grad_(requires_grad)

    return drawn
