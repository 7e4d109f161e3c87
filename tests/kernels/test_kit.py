"""The kit itself: an operation joins it in a dozen lines, and every fault is caught by the check made for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.autograd.gradcheck import GradcheckError
from torch.testing._internal.optests import OpCheckError

from adu_kernels.testing import parity
from adu_kernels.testing.autograd_paths import check_autograd_paths
from adu_kernels.testing.suite import OperationTests, Shapes
from tests.kernels import toy


class TestWeightedMean(OperationTests):
    operation = parity.Operation(toy.weighted_mean, toy.weighted_mean_reference)
    shapes: ClassVar[dict[str, Shapes]] = {
        "one element": ((1, 1), (1, 1)),
        "one block": ((2, 16), (2, 16)),
        "prime": ((5, 37), (5, 37)),
    }
    small = ((3, 7), (3, 7))

    def draw(self, shapes: Shapes, dtype: torch.dtype) -> list[Tensor]:
        return [torch.rand(shape).add(0.5).to(dtype) for shape in shapes]


def _gradcheck(operation: parity.Operation, inputs: list[Tensor]) -> None:
    parity.check_gradients(operation, inputs, fast=True)


def _compilations(operation: parity.Operation, inputs: list[Tensor]) -> None:
    parity.check_compilations(operation, ([value[:, :columns] for value in inputs] for columns in (5, 9, 19)))


def _autograd_paths(operation: parity.Operation, inputs: list[Tensor]) -> None:
    check_autograd_paths(operation, inputs, "weighted_mean")


CAUGHT_BY: dict[str, Callable[[parity.Operation, list[Tensor]], None]] = {
    "dropped mask": parity.check_layouts,
    "unwritten": parity.check_parity,
    "half sums": parity.check_parity,
    "wrong gradient": _gradcheck,
    "race": parity.same_bits_in_any_order,
    "wrong fake": parity.check_registration,
    "host wait": parity.check_whole_graph,
    "unconnected gradient": _autograd_paths,
    "specialised size": _compilations,
}


@pytest.mark.parametrize("fault", CAUGHT_BY)
def test_a_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "race" and parity.DEVICE == "cuda":
        pytest.skip("two programs may well run in the same order every time: a card's order cannot be chosen")
    operation = parity.Operation(toy.weighted_mean, toy.weighted_mean_reference)
    inputs = [torch.rand(2, 19).add(0.5) for _ in range(2)]
    CAUGHT_BY[fault](operation, inputs)
    monkeypatch.setattr(toy, "fault", fault)
    with pytest.raises((AssertionError, GradcheckError, OpCheckError, TorchDynamoException)):
        CAUGHT_BY[fault](operation, inputs)


@pytest.mark.cpu
def test_the_example_in_contributing_is_this_one() -> None:
    root = Path(__file__).resolve().parents[2]
    example = (root / "CONTRIBUTING.md").read_text().split("```python\n")[1].split("```")[0]
    assert example in Path(__file__).read_text()
