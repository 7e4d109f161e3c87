"""The processes of one run: what they exchange, and who of them says what has failed."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from adu_depth.launcher import world_size

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's number and how many there are; by default one, which needs nobody."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def mean(self, terms: Mapping[str, Tensor]) -> Mapping[str, Tensor | float]:
        """The mean of each number over the processes, in every process; that waits for the device."""
        if self.world_size == 1:
            return terms
        every = self.gather({name: float(term) for name, term in terms.items()})
        return {name: math.fsum(found[name] for found in every) / self.world_size for name in terms}

    def gather(self, value: Value) -> list[Value]:
        """Every process's value in the order of their numbers, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Value | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all are filled now


@contextmanager
def joined_processes() -> Iterator[ProcessGroup]:
    """The processes that torchrun or `accelerate launch` started this program in; one where it was called directly.

    Each takes the GPU of its local number, if there are GPUs. What they exchange is small and on the CPU: Gloo does it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup()
        return
    ours = not dist.is_initialized()
    if ours:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group("gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    finally:
        if ours:
            dist.destroy_process_group()


def first_to_say(text: str) -> bool:
    """Whether no other process of the run has said this yet; the store of torchrun and `accelerate launch` knows.

    True where there is no such store, or it does not answer: better twice than never.
    """
    if world_size() == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    said = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '')} {text}"
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=3), wait_for_workers=False)
        return int(store.add(f"adu-depth/{hashlib.sha256(said.encode(errors='replace')).hexdigest()}", 1)) == 1
    except (KeyError, ValueError, RuntimeError):
        return True


def lost_another(error: BaseException) -> bool:
    """Whether an error only says that another process of the run is gone, whose own message has the reason."""
    if world_size() == 1 or not isinstance(error, RuntimeError):
        return False
    # Gloo, which serves CPUs, raises plain RuntimeErrors that begin with the place in its source.
    return isinstance(error, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)) or (
        "gloo/" in str(error)
    )
