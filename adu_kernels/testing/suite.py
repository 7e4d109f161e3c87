"""The tests every operation is held to, made of `parity.py`'s checks: inherit `OperationTests` and say what it is.

CONTRIBUTING.md shows one in a dozen lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from . import autograd_paths, parity

if TYPE_CHECKING:
    import pytest

Shapes = tuple[tuple[int, ...], ...]


class OperationTests:
    """Values and gradients in every dtype and shape, layouts, bits, registration, tracing, autograd, compilations."""

    operation: ClassVar[parity.Operation]
    shapes: ClassVar[Mapping[str, Shapes]]
    """By name, the shapes of all inputs: one element, odd and prime sizes, more than one program, the operation's own
    corners. Whatever differs between them alone may not compile a kernel more than twice."""
    small: ClassVar[Shapes]
    """Shapes for what is slow or needs one size alone: gradcheck, opcheck, tracing, autograd."""
    dtypes: ClassVar[Sequence[torch.dtype]] = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    epsilon: ClassVar[float | None] = None
    """ε of the error budget; None: the dtype's (`parity.EPSILON`)."""

    name: ClassVar[str | None] = None
    """As messages have it; None: the public function's."""

    def draw(self, shapes: Shapes, dtype: torch.dtype) -> list[Tensor]:
        """Inputs of these shapes, contiguous, on the device that tensors are made on."""
        return [torch.randn(shape).to(dtype) for shape in shapes]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "shape" in metafunc.fixturenames:
            metafunc.parametrize("shape", list(self.shapes.values()), ids=list(self.shapes))
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", self.dtypes, ids=lambda dtype: str(dtype).removeprefix("torch."))

    def test_values_and_gradients(self, shape: Shapes) -> None:
        parity.check_parity(self.operation, self.draw(shape, torch.float32), epsilon=self.epsilon)

    def test_every_dtype(self, dtype: torch.dtype) -> None:
        parity.check_parity(self.operation, self.draw(self.small, dtype), epsilon=self.epsilon)

    def test_every_layout(self) -> None:
        parity.check_layouts(self.operation, self.draw(self.small, torch.float32))

    def test_same_bits(self, shape: Shapes) -> None:
        parity.same_bits_in_any_order(self.operation, self.draw(shape, torch.float32))

    def test_gradcheck(self) -> None:
        parity.check_gradients(self.operation, self.draw(self.small, torch.float64), fast=True)

    def test_opcheck(self) -> None:
        parity.check_registration(self.operation, self.draw(self.small, torch.float32))

    def test_traced_whole(self) -> None:
        parity.check_whole_graph(self.operation, self.draw(self.small, torch.float32))

    def test_autograd_paths(self) -> None:
        name = self.name or self.operation.public.__name__
        autograd_paths.check_autograd_paths(self.operation, self.draw(self.small, torch.float64), name)

    def test_compilations(self) -> None:
        parity.check_compilations(self.operation, (self.draw(shape, torch.float32) for shape in self.shapes.values()))
