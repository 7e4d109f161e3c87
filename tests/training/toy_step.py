"""A training step small enough to look into, for tests of how steps are run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adu_depth.data import SyntheticStereo
from adu_depth.data.sample import collate
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.processes import Exchange
from adu_depth.training.step import StepRunner, Terms
from adu_depth.training.tasks import StepContext, StepDraws


class Toy:
    """`StepParts` of one convolution, whatever the images' size; noise of the device is drawn in it. host: a number
    that the host multiplies with."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(0)
        on_gpu = device.type == "cuda"
        with torch.device("cpu"):
            layer = nn.Conv2d(3, 1, 3)
        self.layer = layer.to(device)
        self.optimizer = torch.optim.AdamW(self.layer.parameters(), lr=0.1, fused=True, capturable=on_gpu)
        for group in self.optimizer.param_groups:
            group["lr"] = torch.full((), 0.1, device=device)
        self.host = 1.0
        self.exchange: Exchange | None = None

    def draw(self, batch: TrainingBatch, context: StepContext) -> StepDraws:
        return StepDraws(None, context.progress)  # type: ignore[arg-type]

    def gradients(self, batch: TrainingBatch, draws: StepDraws) -> Terms:
        shaken = torch.rand_like(batch.sample.left) + batch.sample.left
        total = self.host * draws.progress * self.layer(shaken).square().mean()
        total.backward()
        return {"total": total}

    def clip(self) -> Tensor:
        return nn.utils.clip_grad_norm_(self.layer.parameters(), 0.01)

    def update(self) -> None:
        self.optimizer.step()

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)


def toy_batch(number: int, width: int, device: torch.device) -> TrainingBatch:
    return TrainingBatch(collate([SyntheticStereo(9, 32, width, seed=0)[number % 9]])).to(device)


def go(runner: StepRunner, numbers: range, widths: tuple[int, ...], device: torch.device) -> list[Terms]:
    """The terms of these steps; the sizes of their images take turns."""
    found = []
    for number in numbers:
        context = StepContext(0, number, 0, (number + 1) / 40, dense=False)
        found.append(runner.gradients(toy_batch(number, widths[number % len(widths)], device), context))
        runner.update()
    return found


def same(one: list[Terms], other: list[Terms]) -> list[bool]:
    """Step by step, whether the terms are equal to the bit."""
    return [all(torch.equal(a[name], b[name]) for name in a) for a, b in zip(one, other, strict=True)]
