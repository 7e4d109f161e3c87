"""What the processes of one run say where a launcher started several: a reason once, by the process that has it."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta


def rank() -> int:
    """This process's number, from 0; torchrun and `accelerate launch` set it."""
    return _number("RANK", 0)


def count() -> int:
    """How many processes the launcher started; 1 without one."""
    return _number("WORLD_SIZE", 1)


def signed(text: str) -> str:
    """`text`, and which process says it where there are several."""
    return text if count() == 1 else f"process {rank()} of {count()}: {text}"


def first_to_say(text: str) -> bool:
    """Whether no other process of the run has said this yet; the store of torchrun and `accelerate launch` knows.

    True where there is no such store, or it does not answer: better twice than never.
    """
    if count() == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    from torch.distributed import TCPStore

    said = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '')} {text}"
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=3), wait_for_workers=False)
        return int(store.add(f"adu-depth/{hashlib.sha256(said.encode(errors='replace')).hexdigest()}", 1)) == 1
    except (KeyError, ValueError, RuntimeError):
        return True


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
