"""The processes of one run: what they exchange, and who of them says what has failed."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from adu_depth.launcher import rank, world_size

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


def leave_together() -> None:
    """Ends what connects the processes, where all of them have come to the same end.

    A process that exits with it still open is aborted by Gloo's threads once in a while (pytorch issue 190489). Where
    one process fails by itself it is left open: ending it may wait for the others, who wait for that one.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def first_to_say(text: str) -> bool:
    """Whether no other process of the run has said this yet; the launcher's store knows.

    True where there is no such store, or it does not answer: better twice than never.
    """
    said = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '')} {text}"
    name = f"adu-depth/{hashlib.sha256(said.encode(errors='replace')).hexdigest()}"
    try:
        store = _launchers_store()
        return store is None or int(store.add(name, 1)) == 1
    except RuntimeError:
        return True


def lost_another(error: BaseException) -> bool:
    """Whether an error only says that another process of the run is gone, whose own message has the reason."""
    if world_size() == 1 or not isinstance(error, RuntimeError):
        return False
    # Gloo, which serves CPUs, raises plain RuntimeErrors that begin with the place in its source.
    return isinstance(error, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)) or (
        "gloo/" in str(error)
    )


def waited_in_vain(error: BaseException) -> bool:
    """Whether such an error says that another process has not ended, but did not come to where this one waited."""
    return "Timed out waiting" in str(error)


def silent_processes(patience: float = 15.0) -> list[int]:
    """The processes that do not wait in vain as well: asked where this one does. Empty where nobody can tell.

    patience: seconds that others, who began to wait a little later, have to say so.
    """
    place = f"adu-depth/waited/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}/"
    others = [number for number in range(world_size()) if number != rank()]
    deadline = time.monotonic() + patience
    try:
        store = _launchers_store()
        if store is None:
            return []
        store.set(f"{place}{rank()}", "1")
        while True:
            silent = [number for number in others if not store.check([f"{place}{number}"])]
            if not silent or time.monotonic() >= deadline:
                return silent
            time.sleep(0.1)
    except RuntimeError:
        return []


def _launchers_store() -> dist.TCPStore | None:
    """What torchrun and `accelerate launch` keep for the processes that they start, as long as they run themselves;
    None where neither has started this one. RuntimeError where it does not answer."""
    if world_size() == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError):
        return None
    return dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=3), wait_for_workers=False)
