"""Which samples a step has: a function of seed and step alone, and no sample twice over the processes of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from adu_depth.data.augmentation import draw_generator
from adu_depth.data.dataset import Dataset
from adu_depth.data.mixed import Mixed
from adu_depth.distributed import ProcessGroup

EPOCH_DRAWS = 4098  # kept apart from the draws of processes, which count from 0, and of crops
MOST_SOURCES = 16
TURN_DRAWS = EPOCH_DRAWS + MOST_SOURCES


def sample_indices(samples: Dataset, step: int, batch_size: int, seed: int, group: ProcessGroup) -> list[int]:
    """Indices of one process's batch at a step."""
    if not isinstance(samples, Mixed):
        return step_indices(len(samples), step, batch_size, seed, group)
    shares = _reduced([source.share for source in samples.sources])
    indices = []
    for position in _positions(step, batch_size, group):
        number, count = mixed_place(shares, seed, position)
        indices.append(samples.starts[number] + _place(len(samples.sources[number].samples), seed, count, number))
    return indices


def step_indices(length: int, step: int, batch_size: int, seed: int, group: ProcessGroup) -> list[int]:
    """Indices of one process's batch at a step: epochs are permutations of 0 … length − 1, laid end to end."""
    return [_place(length, seed, position) for position in _positions(step, batch_size, group)]


def mixed_place(shares: Sequence[int], seed: int, position: int) -> tuple[int, int]:
    """The source whose turn it is at a position, and how many turns it had before.

    Positions fall into rounds of Σ shares. In each every source has as many turns as its share says, in an order that
    is drawn for the round: the shares are exact in every round, wherever a run begins.
    """
    size = sum(shares)
    round_number, offset = divmod(position, size)
    turns = _turns(tuple(shares), seed, round_number)
    number = int(turns[offset])
    return number, round_number * shares[number] + int((turns[:offset] == number).sum())


def _positions(step: int, batch_size: int, group: ProcessGroup) -> range:
    first = (step * group.world_size + group.rank) * batch_size
    return range(first, first + batch_size)


def _reduced(shares: Sequence[int]) -> list[int]:
    """The same shares in the smallest whole numbers: the shortest rounds."""
    divisor = math.gcd(*shares)
    return [share // divisor for share in shares]


def _place(length: int, seed: int, count: int, source: int = 0) -> int:
    epoch, offset = divmod(count, length)
    return int(_orders(length, seed, source)(epoch)[offset])


@lru_cache(maxsize=MOST_SOURCES)
def _orders(length: int, seed: int, source: int) -> Callable[[int], Tensor]:
    """The order of each epoch of a source. The last two are kept, for a step may end one and begin the next; of a
    million samples an order takes 8 MB."""
    return lru_cache(maxsize=2)(partial(_drawn_order, length, seed, source))


def _drawn_order(length: int, seed: int, source: int, epoch: int) -> Tensor:
    generator = draw_generator(seed, epoch, rank=EPOCH_DRAWS + source)
    return torch.randperm(length, generator=generator, device=generator.device)


@lru_cache(maxsize=2)
def _turns(shares: tuple[int, ...], seed: int, round_number: int) -> Tensor:
    generator = draw_generator(seed, round_number, rank=TURN_DRAWS)
    sources = torch.arange(len(shares), device="cpu").repeat_interleave(torch.tensor(shares, device="cpu"))
    return sources[torch.randperm(len(sources), generator=generator, device=generator.device)]
