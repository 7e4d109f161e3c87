"""Steps captured in CUDA graphs: what takes the host a thousand launches is one.

A step reads its batch and draws from memory of their own (`_Inputs`), is run part by part for a while, as a real step,
and is then captured, which executes nothing, and replayed. Captured are the two halves: gradients with the losses, and
the weights' update. So the losses can be looked at between them, and a checkpoint is what it is without graphs.
The bits are those of the steps run part by part: the same kernels on the same memory, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from adu_depth.training.batches import TrainingBatch
from adu_depth.training.processes import Exchange
from adu_depth.training.step import PartByPart, StepParts, Terms, seed_step, whole_gradients
from adu_depth.training.tasks import StepContext, StepDraws
from adu_depth.transfer import packed, unpacked, upload
from adu_depth.trees import form_of, map_tensors, numbers_as_tensors, tensors_of

WARM_UP = 2
"""Steps run as they are before one is captured: the first makes the optimizer's state, compiles kernels, and lets
libraries choose theirs."""
MOST = 4
"""Kinds of batches (by shapes, layouts, types) that are captured; each keeps a step's memory."""


@dataclass(frozen=True)
class Captured:
    """A captured piece of work: what replays it, and the tensor that it gave, which every replay writes anew."""

    replay: Callable[[], None]
    result: Tensor | None


class Graphs(Protocol):
    """Where work is captured: `CudaGraphs`, or what stands for them in a test."""

    def running(self) -> AbstractContextManager[None]:
        """Within it work is run, captured and replayed, in order with what is around it."""

    def capture(self, work: Callable[[], Tensor | None]) -> Captured:
        """Captures what `work` does on the device, and executes none of it. What this raises leaves no trace."""


class StepByGraph:
    """Runs steps by CUDA graphs, and part by part where it cannot (see `PartByPart`), which is told."""

    def __init__(self, parts: StepParts, device: torch.device, graphs: Graphs, say: Callable[[str], None]) -> None:
        self.parts, self.device, self.graphs, self.say = parts, device, graphs, say
        self.plain = PartByPart(parts, device)
        self.kinds: dict[Hashable, _Kind] = {}
        self.replayed: _Kind | None = None
        """Whose graphs the step under way is replayed from; None where it is run part by part."""
        self.warming: _Kind | None = None
        """Whose step is under way part by part. It is done once the weights are updated, which makes the optimizer's
        state: made while work is captured, each replay would begin it anew."""
        self.off = False
        self.told_of_many = False

    def gradients(self, batch: TrainingBatch, context: StepContext) -> Terms:
        self.replayed = self.warming = None
        with self.graphs.running():
            self.parts.clear()  # what is captured then makes them anew, and so does each replay
            kind = None if self.off else self._kind(batch, context)
            if kind is not None and kind.steps >= WARM_UP and kind.halves is None:
                self._capture(kind)
            seed_step(context)  # replays draw from the default generator's seed and offset as these are then
            if kind is None or self.off:
                return self.plain.gradients(batch, context)
            if kind.halves is None:
                self.warming = kind
                # With its names: what is wrong with a teacher's first outputs, which are looked at, names the samples.
                own = named(kind.inputs.batch, batch.sample.name)
                terms = whole_gradients(self.parts, own, kind.inputs.draws)
                return {name: term.detach() for name, term in terms.items()}
            self.replayed = kind
            return kind.halves.replay_gradients()

    def update(self) -> None:
        with self.graphs.running():
            if self.replayed is not None and self.replayed.halves is not None:
                self.replayed.halves.update.replay()
            else:
                self.plain.update()
                if self.warming is not None:
                    self.warming.steps += 1

    def release(self) -> bool:
        """Steps after it are run part by part."""
        if not any(kind.halves for kind in self.kinds.values()):
            return False
        self._stop("there is not enough memory for anything beside it")
        return True

    def _stop(self, reason: str) -> None:
        """For good. Nothing may hold a graph then, or what was captured in it: their memory is one."""
        self.off, self.replayed, self.warming = True, None, None
        self.parts.clear()
        self.kinds.clear()
        self.say(f"steps are run without a CUDA graph, for {reason}; --loop.no-graph does not try")

    def _kind(self, batch: TrainingBatch, context: StepContext) -> _Kind | None:
        """The kind of batch that this is, its inputs filled with it; None where there are too many."""
        batch, draws = named(batch, ""), numbers_as_tensors(self.parts.draw(batch, context))
        form = form_of((batch, draws))
        kind = self.kinds.get(form)
        if kind is None:
            if len(self.kinds) == MOST:
                if not self.told_of_many:
                    self.say(f"more than {MOST} kinds of batches: the others are run without a CUDA graph (loop.graph)")
                self.told_of_many = True
                return None
            kind = self.kinds[form] = _Kind(_Inputs(batch, draws, self.device))
        kind.inputs.fill(batch, draws)
        return kind

    def _capture(self, kind: _Kind) -> None:
        inputs, exchange = kind.inputs, self.parts.exchange
        names: list[str] = []

        def gradients() -> Tensor:
            own = self.parts.gradients if exchange is not None else partial(whole_gradients, self.parts)
            terms = own(inputs.batch, inputs.draws)
            names.extend(terms)
            return torch.stack([term.detach().float() for term in terms.values()])

        try:
            first = self.graphs.capture(gradients)
            shared = None
            if exchange is not None:
                shared = _Shared(exchange, exchange.gradients(), self.graphs.capture(self.parts.clip))
            kind.halves = _Halves(names, first, shared, self.graphs.capture(self.parts.update))
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            self.off = True
        if self.off:  # here the exception is gone, and with its frames all that they held
            self._stop(f"one cannot be captured ({reason})")


@dataclass(frozen=True)
class _Halves:
    """The two graphs of one kind of batch. They must be replayed as a pair: the second reads what the first wrote."""

    names: list[str]
    gradients: Captured
    shared: _Shared | None
    update: Captured

    def replay_gradients(self) -> Terms:
        self.gradients.replay()
        assert self.gradients.result is not None
        values = self.gradients.result.clone()  # the next replay writes the same memory
        terms = dict(zip(self.names, values.unbind(), strict=True))
        if self.shared is not None:
            self.shared.exchange.average(self.shared.gradients)
            self.shared.clip.replay()
            assert self.shared.clip.result is not None
            terms["gradient_norm"] = self.shared.clip.result.clone()
        return terms


@dataclass(frozen=True)
class _Shared:
    """What several processes do in the middle of the first half: their exchange is in no graph. gradients: those that
    the captured work made, which each replay writes anew."""

    exchange: Exchange
    gradients: list[Tensor]
    clip: Captured


class _Inputs:
    """The memory that steps of one kind read."""

    def __init__(self, batch: TrainingBatch, draws: StepDraws, device: torch.device) -> None:
        self.batch = map_tensors(batch, torch.empty_like)
        self.buffer = torch.empty_like(packed(draws), device=device)
        self.draws = unpacked(self.buffer, draws)

    def fill(self, batch: TrainingBatch, draws: StepDraws) -> None:
        pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for into, of in zip(tensors_of(self.batch), tensors_of(batch), strict=True):
            for found, tensor in zip(pairs.setdefault(of.dtype, ([], [])), (into, of), strict=True):
                found.append(tensor)
        for own, given in pairs.values():  # a launch or two for each type
            torch._foreach_copy_(own, given)
        self.buffer.copy_(upload(packed(draws), self.buffer.device))


@dataclass
class _Kind:
    """One kind of batch. steps: run part by part so far."""

    inputs: _Inputs
    steps: int = 0
    halves: _Halves | None = field(default=None)


def named(batch: TrainingBatch, name: str | list[str]) -> TrainingBatch:
    """The batch with other names, which differ in every step; no computation reads them."""
    return replace(batch, sample=replace(batch.sample, name=name))
