"""What a person sees while it runs: a live bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from adu_depth.terminal import SafeConsole

Item = TypeVar("Item")
LINE_EVERY = 10.0  # seconds between lines where there is no terminal


class Progress:
    """Reports on `console`; a silent one (`enabled=False`) is for all processes but the first."""

    def __init__(self, console: Console | None = None, enabled: bool = True) -> None:
        self.console = console or SafeConsole()
        self.enabled = enabled

    def say(self, text: str) -> None:
        if self.enabled:
            self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def track(self, items: Sequence[Item], what: str) -> Iterator[Item]:
        """Yields the items, reporting how many are done."""
        with self.task(what, len(items)) as task:
            for item in items:
                yield item
                task.advance()

    @contextmanager
    def task(self, what: str, total: int | None, done: int = 0) -> Iterator[Task]:
        """A piece of work of `total` steps (None: nobody knows how many), `done` of which an earlier run did."""
        if not self.enabled or total == 0:
            yield Task(self, what, total, done, None)
            return
        if not self.console.is_terminal:
            task = Task(self, what, total, done, None)
            yield task
            if task.last_told != task.done:
                task.line()
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=self.console) as bar:
            yield Task(self, what, total, done, bar)


class Task:
    """Counts steps and shows them."""

    def __init__(self, progress: Progress, what: str, total: int | None, done: int, bar: Bar | None) -> None:
        self.progress, self.what, self.total, self.done, self.bar = progress, what, total, done, bar
        self.note, self.started, self.start_done, self.last_line = "", time.monotonic(), done, time.monotonic()
        self.first_step: float | None = None
        """When it was done. What is left is told by the steps after it: it may compile for a minute."""
        self.last_told: int | None = None
        self.id = None if bar is None else bar.add_task(what, total=total, completed=done, note="")

    def advance(self, note: str | None = None) -> None:
        """One step more; `note` (a loss, images per second) replaces the one shown so far."""
        self.done += 1
        if self.first_step is None:
            self.first_step = time.monotonic()
        self.note = self.note if note is None else note
        if self.bar is not None and self.id is not None:
            self.bar.update(self.id, completed=self.done, note=self.note)
        elif time.monotonic() - self.last_line >= LINE_EVERY:
            self.line()

    def line(self) -> None:
        """Where it stands, as one line of a log."""
        self.last_line, self.last_told = time.monotonic(), self.done
        spent = self.last_line - self.started
        after = self.done - self.start_done - 1
        left = ""
        if self.total is not None and self.first_step is not None and after > 0:
            left = f", {(self.last_line - self.first_step) / after * (self.total - self.done):.0f} s left"
        counted = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        self.progress.say(f"{self.what}: {counted}  {self.note}  {spent:.0f} s{left}")
