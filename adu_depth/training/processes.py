"""What several processes of one training do together: they begin with the same weights, and step by the same gradients.

Each process computes the gradients of its own batch; then they are averaged, in one buffer for each type, and every
process clips and steps by the same numbers. That happens between forward-with-backward and clipping, not within the
backward as torch's DistributedDataParallel does it: so each of the two parts may be a CUDA graph without any exchange
in it, and a step that is replayed, run part by part, or accumulated from several batches exchanges the same way once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from adu_depth.distributed import ProcessGroup
from adu_depth.training.config import LoopConfig


class Exchange:
    """Averages over the processes of a run. Every process must call the same methods in the same order."""

    def __init__(self, task: nn.Module, group: ProcessGroup) -> None:
        self.task, self.group = task, group
        self.running = [
            statistic
            for module in task.modules()
            if isinstance(module, _BatchNorm)
            for statistic in (module.running_mean, module.running_var)
            if statistic is not None
        ]
        self._flat: _Flat | None = None

    def begin(self) -> None:
        """Gives every process the weights and buffers of process 0."""
        state = [tensor.detach() for tensor in self.task.state_dict().values()]
        _Flat(state).through(state, lambda buffer: dist.broadcast(buffer, 0))

    def gradients(self) -> list[Tensor]:
        """The gradients as they lie now; parameters that have none are left out."""
        return [p.grad for p in self.task.parameters() if p.grad is not None]

    def average(self, gradients: Sequence[Tensor] | None = None) -> None:
        """Makes gradients (where nothing is given, the parameters') and the running statistics of batch norms the mean
        over the processes."""
        tensors = [*(self.gradients() if gradients is None else gradients), *self.running]
        if self._flat is None:
            self._require_alike()
            self._flat = _Flat(tensors)
        self._flat.through(tensors, self._mean)

    def _mean(self, buffer: Tensor) -> None:
        dist.all_reduce(buffer)
        buffer.div_(self.group.world_size)

    def _require_alike(self) -> None:
        """A network that uses other parameters in one process than in another would lay gradients on wrong ones."""
        without = [name for name, p in self.task.named_parameters() if p.requires_grad and p.grad is None]
        every = self.group.gather(without)
        if any(names != every[0] for names in every):
            raise RuntimeError(f"processes differ in which parameters have no gradient: {every}")


class _Flat:
    """Room for tensors side by side, one buffer for each type, in layouts that depend on shapes and strides alone."""

    def __init__(self, like: Iterable[Tensor]) -> None:
        places: dict[torch.dtype, list[tuple[int, Tensor]]] = {}
        for index, tensor in enumerate(like):
            places.setdefault(tensor.dtype, []).append((index, tensor))
        self.parts = []
        for dtype, found in places.items():
            buffer = torch.empty(sum(t.numel() for _, t in found), dtype=dtype, device=found[0][1].device)
            pieces = buffer.split([t.numel() for _, t in found])
            views = [_laid_as(piece, tensor) for piece, (_, tensor) in zip(pieces, found, strict=True)]
            self.parts.append((buffer, views, [index for index, _ in found]))

    @torch.no_grad()
    def through(self, tensors: Sequence[Tensor], change: Callable[[Tensor], object]) -> None:
        """Copies the tensors into the buffers, has each of these changed, and copies them back."""
        for buffer, views, indices in self.parts:
            own = [tensors[index] for index in indices]
            torch._foreach_copy_(views, own)
            change(buffer)
            torch._foreach_copy_(own, views)


def _laid_as(piece: Tensor, tensor: Tensor) -> Tensor:
    """`piece` with the shape and, where these leave no gaps, the strides of `tensor`: copies are then straight ones."""
    return piece.as_strided(tensor.shape, torch.empty_like(tensor, device="meta").stride(), piece.storage_offset())


def patience_of(loop: LoopConfig) -> timedelta:
    """How long an exchange waits. A little more than asked: accelerate does not hand on what is its own default, and
    Gloo's is another."""
    return timedelta(seconds=loop.process_timeout, microseconds=1)


def joined(task: nn.Module, group: ProcessGroup) -> Exchange | None:
    """The exchange of several processes, which have the same weights from here on; None for one alone."""
    if group.world_size == 1:
        return None
    exchange = Exchange(task, group)
    exchange.begin()
    return exchange


def remarks(task: nn.Module, group: ProcessGroup, batch_size: int) -> list[str]:
    """What the user of several processes should hear of before the first step."""
    norms = sum(isinstance(module, _BatchNorm) for module in task.modules())
    if group.world_size == 1 or not norms:
        return []
    return [
        f"{norms} batch norms normalise by the {batch_size} images of their own process, not by those of all "
        f"{group.world_size}; their running statistics are the mean of the processes' (--model.norm group, the "
        "default, and encoders without batch norm do not depend on the batch)"
    ]
