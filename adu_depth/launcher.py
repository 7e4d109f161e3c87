"""Which process of a run this is, where torchrun or `accelerate launch` started several: as its environment says.

Nothing is imported: a program asks before the seconds that its imports take.
"""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number, from 0; torchrun and `accelerate launch` set it."""
    return _number("RANK", 0)


def world_size() -> int:
    """How many processes the launcher started; 1 without one."""
    return _number("WORLD_SIZE", 1)


def signed(text: str) -> str:
    """`text`, and which process says it where there are several."""
    return text if world_size() == 1 else f"process {rank()} of {world_size()}: {text}"


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
