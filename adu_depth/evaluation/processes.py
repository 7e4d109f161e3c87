"""Several processes on one data set: each image belongs to one of them, and all get the whole result."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process's number and how many there are; by default one, which needs nobody."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """Every process's value in the order of their numbers, in every process."""
        if self.count == 1:
            return [value]
        values: list[Value | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every place is filled now


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """The processes that torchrun or `accelerate launch` started this program in; one where it was called directly.

    Each takes the GPU of its local number, if there are GPUs. What they exchange is small and on the CPU: Gloo does it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    ours = not dist.is_initialized()
    if ours:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group("gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        if ours:
            dist.destroy_process_group()
