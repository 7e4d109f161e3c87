"""A step's batch in micro-batches, one after the other, for what does not fit into memory at once.

The batch is read, drawn for and sent as one, so that its samples and their changes are those of a step without
micro-batches; here it is cut. Their losses' mean is the step's: that of the whole batch, but for rounding, where every
image counts alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from adu_depth.training.batches import TrainingBatch
from adu_depth.trees import map_tensors, tensors_of, with_tensors


class Draws(Protocol):
    """What is drawn for the images of a batch."""

    def images(self: DrawsT, part: slice) -> DrawsT:
        """What is drawn for some of them."""


DrawsT = TypeVar("DrawsT", bound=Draws)


def micro_batches(batch: TrainingBatch, draws: DrawsT, count: int) -> Iterator[tuple[TrainingBatch, DrawsT]]:
    """`count` parts of a batch, of one size, and what is drawn for each: views of the batch's memory."""
    if count == 1:
        yield batch, draws
        return
    size = batch.sample.left.shape[0] // count
    for first in range(0, count * size, size):
        part = slice(first, first + size)
        yield images_of(batch, part), draws.images(part)


def images_of(batch: TrainingBatch, part: slice) -> TrainingBatch:
    """Some of the images of a batch, in the batch's own memory."""
    names = batch.sample.name
    cut = map_tensors(batch, lambda tensor: tensor[part])
    return replace(cut, sample=replace(cut.sample, name=names[part] if isinstance(names, list) else names))


def with_teachers(batch: TrainingBatch, taught: Sequence[TrainingBatch]) -> TrainingBatch:
    """The batch with what a teacher says of its micro-batches, laid end to end."""
    first = taught[0].teacher
    if first is None:
        return batch
    parts = zip(*(tensors_of(one.teacher) for one in taught), strict=True)
    return replace(batch, teacher=with_tensors(first, [torch.cat(tensors) for tensors in parts]))


def mean_terms(found: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The terms of a step from those of its micro-batches; of one alone its own."""
    if len(found) == 1:
        return found[0]
    return {name: torch.stack([terms[name] for terms in found]).mean(0) for name in found[0]}
