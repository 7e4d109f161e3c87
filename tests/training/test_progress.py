"""What a log file gets to read."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from adu_depth import progress as module
from adu_depth.progress import Progress


def lines_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("line_every", [0.0, 1e9])
def test_the_end_is_told_once(monkeypatch: pytest.MonkeyPatch, line_every: float) -> None:
    monkeypatch.setattr(module, "LINE_EVERY", line_every)
    console = Console(file=io.StringIO())
    with Progress(console).task("teacher outputs", 2) as task:
        task.advance()
        task.advance()
    assert sum("2/2" in line for line in lines_of(console)) == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_shown_as_they_are(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, color_system=None, width=120)
    with Progress(console).task("training x[/y] [red] :dog:", 1) as task:
        task.advance("loss [bold] 1")
    Progress(console).say("in x[/y] :dog:")
    text = "\n".join(lines_of(console))
    assert all(part in text for part in ("training x[/y] [red] :dog:", "loss [bold] 1", "in x[/y] :dog:"))


def test_what_is_left_is_told_by_the_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may compile for a minute; of a resumed run too."""
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=120)
    with Progress(console).task("training teacher", 600, 100) as task:
        for now in (57.0, 68.0):  # noqa: B007  # the clock reads it
            task.advance()
    assert lines_of(console) == [
        "training teacher: 101/600    57 s",
        "training teacher: 102/600    68 s, 5478 s left",
    ]
