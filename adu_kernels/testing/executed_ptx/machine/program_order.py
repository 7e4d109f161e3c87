"""Programs run in no order; only a counter that acquires and releases makes one see what others did before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import Fault

if TYPE_CHECKING:
    from .shadow import Shadow, Who, _Users


@dataclass
class _Known:
    """What one program has acquired."""

    programs: set[int] = field(default_factory=set)
    thread: int = -1
    barriers: int = 0
    """Which thread of it counted last, and after how many barriers."""


class ProgramOrder:
    def __init__(self) -> None:
        self._released: dict[int, set[int]] = {}
        """By address: programs that released there, and what they had acquired themselves."""
        self._acquired: dict[int, _Known] = {}
        self._point: dict[int, tuple[int, int]] = {}
        """By program: thread and barriers of its last release."""

    def counted(self, address: int, program: int, thread: int, barriers: int) -> None:
        """One acquire–release step of a thread on a counter."""
        at_counter = self._released.setdefault(address, set())
        known = self._acquired.setdefault(program, _Known())
        known.programs |= at_counter
        known.thread, known.barriers = thread, barriers
        at_counter |= known.programs | {program}
        self._point[program] = (thread, barriers)

    def check(self, shadow: Shadow, users: _Users, words: Any, who: Who, found: Any, what: str) -> None:
        """Fault unless, for each word found, the other program released after it used the word, and this one acquired
        that before it does: by the same thread, or by another with a barrier between."""
        for row, column in np.argwhere(found):
            word, mine, thread = int(words[row, column]), int(who.program[row, 0]), int(who.thread[row, 0])
            theirs, user = int(users.program[word]), int(users.thread[word])
            known, point = self._acquired.get(mine), self._point.get(theirs)
            if not (
                known is not None
                and point is not None
                and theirs in known.programs
                and (users.barriers[word] < point[1] or (user == point[0] and users.barriers[word] == point[1]))
                and (known.thread == thread or int(who.barriers[row, 0]) > known.barriers)
            ):
                raise Fault(f"RACE between programs {theirs} and {mine}, {shadow.name}: the second {what}")
