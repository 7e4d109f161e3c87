"""What the processes of one run say where a launcher started several: a reason once, by the process that has it."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number, from 0; torchrun and `accelerate launch` set it."""
    return _number("RANK", 0)


def count() -> int:
    """How many processes the launcher started; 1 without one."""
    return _number("WORLD_SIZE", 1)


def signed(text: str) -> str:
    """`text`, and which process says it where there are several."""
    return text if count() == 1 else f"process {rank()} of {count()}: {text}"


def lost_another(error: BaseException) -> bool:
    """Whether an error only says that another process of the run is gone, whose own message has the reason."""
    if count() == 1 or not isinstance(error, RuntimeError):
        return False
    from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

    # Gloo, which serves CPUs, raises plain RuntimeErrors that begin with the place in its source.
    return isinstance(error, (DistBackendError, DistNetworkError, DistStoreError)) or "gloo/" in str(error)


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
