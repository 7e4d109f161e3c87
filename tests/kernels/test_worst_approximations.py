"""Budgets hold with exponentials, logarithms, roots and quotients as wrong as the instruction set lets them be.

fp32 `/`, exp, exp2, log, log2 and sqrt of a kernel are one approximate instruction each on NVIDIA. PTX ISA, at most:
ex2.approx 2⁻²² of the value; lg2.approx 2⁻²², of 1 between ½ and 2, else of the value; sqrt.approx 2⁻²³ of the value;
div.full two units in the last place. In the interpreter they are exact to a bit: here each is off by all of that, one
way or the other as a bit of its result says, so that equal arguments give equal results, as on a chip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from adu_kernels import (
    attention_adaptation,
    depth_gradient_normal_loss,
    depth_objective,
    disparity_regression,
    feature_distillation_loss,
)
from adu_kernels import reference as twins
from adu_kernels._triton import runtime
from adu_kernels.testing import parity
from tests.kernels.depth_scenes import scene

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(not runtime.interpreting(), reason="compiled code has its own approximations"),
]
NEARLY = 0.99
"""Of what is allowed: the product with it is rounded too."""


def _off(exact: Any, allowed: Any) -> Any:
    """exact ± allowed, in fp32; a power of two comes out as it is (exp2 of whole numbers)."""
    value = np.asarray(exact, np.float32)
    bits = value.view(np.uint32)
    sign = np.where(bits & 2, 1.0, -1.0) * ((bits & 0x7FFFFF) != 0)
    with np.errstate(invalid="ignore"):
        shifted = exact.astype(np.float64) + np.where(np.isfinite(value), sign * NEARLY * allowed, 0.0)
    return shifted.astype(np.float32)


def _exp2(x: Any) -> Any:
    exact = np.exp2(x.astype(np.float64))
    return _off(exact, exact * 2**-22)


def _log2(x: Any) -> Any:
    exact = np.log2(x.astype(np.float64))
    return _off(exact, np.where((x > 0.5) & (x < 2), 1.0, np.abs(exact)) * 2**-22)


def _sqrt(x: Any) -> Any:
    exact = np.sqrt(x.astype(np.float64))
    return _off(exact, exact * 2**-23)


def _quotient(a: Any, b: Any) -> Any:
    exact = a.astype(np.float64) / b
    return _off(exact, 2 * np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64))


@pytest.fixture(autouse=True)
def _approximate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from triton.runtime.interpreter import InterpreterBuilder

    def single(name: str, rough: Any, scale: Any = lambda x: x, after: Any = lambda y: y) -> None:
        exact = getattr(InterpreterBuilder, name)

        def approximate(self: Any, *operands: Any) -> Any:
            if any(operand.data.dtype != np.float32 for operand in operands):
                return exact(self, *operands)
            if len(operands) == 2:
                return self.binary_op(*operands, rough)
            return self.unary_op(operands[0], lambda x: after(rough(scale(x))))

        monkeypatch.setattr(InterpreterBuilder, name, approximate)

    single("create_exp2", _exp2)
    single("create_exp", _exp2, scale=lambda x: x * np.float32(np.log2(np.e)))
    single("create_log2", _log2)
    single("create_log", _log2, after=lambda y: y * np.float32(np.log(2)))
    single("create_sqrt", _sqrt)
    single("create_fdiv", _quotient)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        yield


def _disparity(scale: int) -> parity.Operation:
    return parity.Operation(disparity_regression, twins.disparity_regression, {"scale": scale})


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8])
def test_disparity_regression(scale: int) -> None:
    """ε is what its README derives for a gradient: the forward's errors of a mass, a mean and a variance (2·2⁻²²
    a term) meet in it with the backward's own. With one candidate it is 0 but for s² roundings, as it is without."""
    for shape in ((1, 18, 1, 3), (1, 1, 2, 3)):
        epsilon = max(7 * 2**-22, 2e-7 * scale**2 if shape[1] == 1 else 0.0)
        parity.check_parity(_disparity(scale), [3 * torch.randn(shape)], epsilon=epsilon)


@pytest.mark.parametrize(("scale", "spread"), [(2, 100.0), (3, 100.0), (3, 1e4), (4, 1e4), (8, 1e4)])
def test_disparity_regression_of_large_logits(scale: int, spread: float) -> None:
    """An interpolation weight off by its last bit, or a peak that the backward does not find again, shows here."""
    for seed in range(2):
        torch.manual_seed(seed)
        epsilon = 1e-5 if spread == 1e4 else 2e-6
        parity.check_parity(_disparity(scale), [spread * torch.randn(1, 9, 2, 3)], epsilon=epsilon)


def test_one_hot_logits() -> None:
    logits = torch.full((1, 9, 2, 3), -1e4)
    logits[:, 4] = 1e4
    mean, variance = _disparity(8).triton(logits)
    exact_mean, exact_variance = _disparity(8).torch(logits.double())
    torch.testing.assert_close(mean.double(), exact_mean)
    torch.testing.assert_close(variance.double(), exact_variance)


def test_attention_adaptation() -> None:
    inputs = [torch.randn(1, 2, n, 16) for n in (37, 29, 29)] + [torch.randn(1, 29)]
    operation = parity.Operation(attention_adaptation, twins.attention_adaptation)
    parity.check_parity(operation, inputs, epsilon=4e-6)


@pytest.mark.parametrize("options", [{}, {"joint": True, "beta_nll": 0.5, "gamma": 1.5}, {"guide": "attenuate"}])
def test_depth_objective(options: dict[str, Any]) -> None:
    depth, log_scale, teacher, target = scene(3, torch.float32, (2, 1, 5, 7))

    def total(run: Any) -> Any:
        return lambda d, s, **backend: run(d, s, teacher.to(d), target.to(d), **options, **backend).total

    operation = parity.Operation(total(depth_objective), total(twins.depth_objective))
    parity.check_parity(operation, [depth.detach(), log_scale.detach()])


def test_depth_gradient_normal_loss() -> None:
    depth, _, _, target = scene(3, torch.float32, (2, 1, 5, 8))
    target = target.where(target > 0, 8.0)  # dense: a LiDAR's points leave no window whole

    def total(run: Any) -> Any:
        return lambda d, **backend: run(d, target.to(d), **backend).total

    operation = parity.Operation(total(depth_gradient_normal_loss), total(twins.depth_gradient_normal_loss))
    parity.check_parity(operation, [depth.detach()])


def test_feature_distillation() -> None:
    teacher, weight = torch.randn(2, 7, 5, 9), torch.rand(2, 1, 5, 9)

    def loss(run: Any) -> Any:
        return lambda adapted, **backend: run(adapted, teacher.to(adapted), weight.to(adapted), **backend)

    operation = parity.Operation(loss(feature_distillation_loss), loss(twins.feature_distillation_loss))
    parity.check_parity(operation, [torch.randn(2, 7, 5, 9)])
