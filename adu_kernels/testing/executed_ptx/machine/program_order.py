"""Programs run in no order; only a counter that acquires and releases makes one see what others did before.

What a thread did before it counted is released there, and so is what its program had acquired, as far as that thread
can know of it. Who counts on the same address afterwards acquires it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .faults import Fault

if TYPE_CHECKING:
    from .shadow import Shadow, Who, _Users


class _Moment(NamedTuple):
    """When a thread counted: after how many barriers of its program, and at which `ProgramOrder.time`."""

    barriers: int
    time: int


_Released = dict[int, dict[int, _Moment]]
"""By program and thread: the last moment up to which all that it did is known."""


class _Acquired(NamedTuple):
    thread: int
    barriers: int
    released: _Released

    def reaches(self, thread: int, barriers: int) -> bool:
        """Whether a thread of the same program, which has passed so many barriers, knows of it."""
        return self.thread == thread or self.barriers < barriers


class ProgramOrder:
    def __init__(self) -> None:
        self.time = 0
        """Counts that there have been: a thread's accesses before and after one of its own differ in it."""
        self._released: dict[int, _Released] = {}
        """By address of a counter."""
        self._acquired: dict[int, list[_Acquired]] = {}
        """By program."""

    def counted(self, address: int, program: int, thread: int, barriers: int) -> None:
        """One acquire–release step of a thread on a counter."""
        at_counter, acquired = self._released.setdefault(address, {}), self._acquired.setdefault(program, [])
        acquired.append(_Acquired(thread, barriers, _joined(at_counter)))
        self.time += 1
        known = [one.released for one in acquired if one.reaches(thread, barriers)]
        own: _Released = {program: {thread: _Moment(barriers, self.time)}}
        self._released[address] = _joined(at_counter, *known, own)

    def check(self, shadow: Shadow, users: _Users, words: Any, who: Who, found: Any, what: str) -> None:
        """Fault unless, for each word found, the other program released after it used the word, and this one acquired
        that before it does: by the same thread, or by another with a barrier between; so, too, on the other side."""
        for row, column in np.argwhere(found):
            word, mine = int(words[row, column]), int(who.program[row, 0])
            theirs, user = int(users.program[word]), int(users.thread[word])
            used = _Moment(int(users.barriers[word]), int(users.time[word]))
            if not any(
                used.barriers < released.barriers or (user == thread and used.time < released.time)
                for acquired in self._acquired.get(mine, [])
                if acquired.reaches(int(who.thread[row, 0]), int(who.barriers[row, 0]))
                for thread, released in acquired.released.get(theirs, {}).items()
            ):
                raise Fault(f"RACE between programs {theirs} and {mine}, {shadow.name}: the second {what}")


def _joined(*several: _Released) -> _Released:
    joined: _Released = {}
    for released in several:
        for program, threads in released.items():
            known = joined.setdefault(program, {})
            for thread, moment in threads.items():
                known[thread] = max(moment, known.get(thread, moment))
    return joined
