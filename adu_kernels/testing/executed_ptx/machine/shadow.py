"""Who touched each word of a memory, and whether a barrier stands between two who did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .faults import Fault

if TYPE_CHECKING:
    from .batch import Batch

NOBODY, SEVERAL = -1, -2


class Who(NamedTuple):
    """Threads that touch words, by their numbers in the whole grid, and how many barriers they have passed."""

    thread: Any
    warp: Any
    program: Any
    barriers: Any
    """Of the program."""
    warp_barriers: Any
    time: int
    """Of `ProgramOrder`."""

    @staticmethod
    def of(batch: Batch, lanes: Any) -> Who:
        """Column vectors, for words in rows."""
        thread, warp, program = (of[lanes][:, None] for of in (batch.thread, batch.warp, batch.program))
        passed, by_warp = batch.barriers.passed[program], batch.barriers.passed_by_warp[warp]
        return Who(thread, warp, program, passed, by_warp, batch.launch.order.time)


class _Users:
    """The last thread that used each word; where there were several since the last barrier, what they share."""

    def __init__(self, words: int) -> None:
        self.thread, self.warp, self.program = (np.full(words, NOBODY, "i4") for _ in range(3))
        self.barriers, self.warp_barriers, self.time = (np.zeros(words, "i4") for _ in range(3))

    def unordered(self, words: Any, who: Who) -> Any:
        """Where another thread of the same program used the word, and neither a barrier of the program nor, within a
        warp, one of the warp has been since."""
        same_warp = (self.warp[words] == who.warp) & (self.warp_barriers[words] != who.warp_barriers)
        return (
            (self.program[words] == who.program)
            & (self.thread[words] != who.thread)
            & (self.barriers[words] == who.barriers)
            & ~same_warp
        )

    def of_others(self, words: Any, who: Who) -> Any:
        """Where another program used the word."""
        program = self.program[words]
        return (program != who.program) & (program != NOBODY)

    def replace(self, words: Any, who: Who) -> None:
        self.thread[words], self.warp[words], self.program[words] = who.thread, who.warp, who.program
        self.barriers[words], self.warp_barriers[words], self.time[words] = who.barriers, who.warp_barriers, who.time

    def whole_program(self, words: Any, program: int, barriers: int) -> None:
        """Every thread of a program, which has passed so many barriers."""
        self.thread[words] = self.warp[words] = SEVERAL
        self.program[words], self.barriers[words] = program, barriers

    def join(self, words: Any, who: Who, whole_warp: bool) -> None:
        """Those who used a word before the program's last barrier are forgotten, the others are added to."""
        program = self.program[words]
        alone = (program == NOBODY) | ((program == who.program) & (self.barriers[words] != who.barriers))
        thread = SEVERAL if whole_warp else who.thread
        for held, mine in ((self.thread, thread), (self.warp, who.warp), (self.program, who.program)):
            new = np.where(alone | (held[words] == mine), mine, SEVERAL)
            held[words] = new
            twice = held[words] != new  # several lanes of this instruction
            if twice.any():
                held[words[twice]] = SEVERAL
        self.barriers[words], self.warp_barriers[words], self.time[words] = who.barriers, who.warp_barriers, who.time


class Shadow:
    """What happened to each word of `grain` bytes."""

    def __init__(self, memory_bytes: int, grain: int, name: str) -> None:
        words = memory_bytes // grain + 1
        self.grain, self.name = grain, name
        self.writers, self.readers = _Users(words), _Users(words)
        self.in_flight, self.locked, self.unfenced = (np.zeros(words, "?") for _ in range(3))
        """Words that `cp.async` still copies to; that a wgmma still reads; written since the last proxy fence."""

    def words(self, index: Any, size: int) -> Any:
        """Words of `size` bytes from each index on, one row per index."""
        return (index // self.grain)[:, None] + np.arange(max(size // self.grain, 1))

    def unwritten(self, words: Any) -> bool:
        return bool((self.writers.thread[words] == NOBODY).any())

    def read(self, batch: Batch, words: Any, lanes: Any, text: str, *, whole_warp: bool = False) -> None:
        """whole_warp: every thread of the warp gets what the lane reads."""
        who = Who.of(batch, lanes)
        if self.in_flight[words].any():
            raise Fault(f"{self.name}: read of bytes that cp.async still copies: {text}")
        self._refuse(batch, self.writers, words, who, "read of what another thread wrote since the last barrier", text)
        others = self.writers.of_others(words, who)
        if others.any():
            batch.launch.order.check(self, self.writers, words, who, others, f"reads what another wrote: {text}")
        self.readers.join(words, who, whole_warp)

    def write(
        self, batch: Batch, words: Any, lanes: Any, text: str, same: Any = False, *, fenced: bool = False
    ) -> bool:
        """Whether two lanes of the instruction write one word. same: where the word holds already what is written, so
        that nobody can tell who came first. fenced: it needs no proxy fence."""
        who = Who.of(batch, lanes)
        if self.in_flight[words].any():
            raise Fault(f"{self.name}: write over bytes that cp.async still copies: {text}")
        if self.locked[words].any():
            raise Fault(f"{self.name}: write over bytes that a wgmma still reads: {text}")
        self.unfenced[words] = not fenced
        for users, what in (
            (self.writers, "two threads write one word"),
            (self.readers, "write of what another thread read since the last barrier"),
        ):
            self._refuse(batch, users, words, who, what, text, same)
            others = users.of_others(words, who)
            if others.any():
                batch.launch.order.check(self, users, words, who, others, f"writes what another used: {text}")
        self.writers.replace(words, who)
        return bool((self.writers.thread[words] != who.thread).any())

    def _refuse(
        self, batch: Batch, users: _Users, words: Any, who: Who, what: str, text: str, same: Any = False
    ) -> None:
        found = users.unordered(words, who)
        if not found.any():
            return
        harmless = found & same
        if harmless.any():
            batch.launch.counts.events[f"{self.name}: {what}, the same bits"] += int(harmless.sum())
        found &= ~np.asarray(same)
        if found.any():
            row, column = np.argwhere(found)[0]
            word, mine = words[row, column], int(who.thread[row, 0])
            first, threads = int(users.thread[word]), batch.threads
            near = "in one warp" if users.warp[word] == who.warp[row, 0] else "in two warps"
            theirs = "several threads" if first == SEVERAL else f"thread {first % threads}"
            raise Fault(f"RACE {self.name}: {what} ({theirs}, then {mine % threads}, {near}): {text}")
