"""Operations with planted faults, and a suite that holds one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.harness.case import Case, Work
from bench.harness.suite import Suite, normal


def product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The reference: two outputs, both differentiable in both inputs."""
    return a * b, (a + b).sum(1)


def one_percent_off(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return 1.01 * a * b, (a + b).sum(1)


def wrong_gradient(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Right values, half of b's gradient."""
    half = 0.5 * b + 0.5 * b.detach()
    return a * half, (a + half).sum(1)


def unwritten(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Leaves the last element of its output as it was allocated."""
    out = torch.empty_like(a)
    out[..., :-1] = (a * b)[..., :-1]
    return out, (a + b).sum(1)


def one_output(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def no_gradient(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return (a * b).detach(), (a + b).sum(1).detach()


def breaks(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    raise RuntimeError("planted\nsecond line")


def rectified(a: Tensor, b: Tensor) -> Tensor:
    """A reference with a kink."""
    return torch.relu(a + b)


def rectified_above(threshold: float) -> Callable[..., Any]:
    """The same to the last bit or so, with the derivative of another side where a + b is below the threshold."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        y = a + b
        return torch.where((y > 0) & (y.abs() > threshold) | (y < 0) & (y.abs() < threshold), y, 0.0 * y)

    return run


def at_a_kink(device: torch.device) -> list[Tensor]:
    """Of 4096 sums one is 10⁻⁸ and one −10⁻⁸; of the others few are below 10⁻³."""
    a, b = torch.rand(64, 64, device=device) + 1e-3, torch.zeros(64, 64, device=device)
    a *= torch.where(torch.rand_like(a) < 0.5, -1, 1)
    a[0, 0], a[1, 1], a[2, 2] = 1e-8, -1e-8, 1e-4
    return [a, b]


def case_of(kernel: Callable[..., Any] = product, **changes: Any) -> Case:
    case = Case(
        name="planted, fp32",
        dtype=torch.float32,
        shape={"n": 24},
        kernel=kernel,
        reference=product,
        draw=normal([(4, 6), (4, 6)], torch.float32),
        gradients=2,
        work=Work(3 * 96 + 16, 5 * 96, 48, 96),
        one_form=True,
    )
    return replace(case, **changes)


@dataclass(frozen=True)
class PlantedSuite(Suite):
    """One or more cases."""

    planted: tuple[Case, ...] = (case_of(),)

    @property
    def name(self) -> str:
        return "planted"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        return list(self.planted)
