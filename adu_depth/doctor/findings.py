"""What the checks say, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.table import Column, Table
from rich.text import Text

from adu_depth.terminal import printable, printable_name

Level = Literal["OK", "skipped", "warning", "error"]
OK: Level = "OK"
SKIPPED: Level = "skipped"
WARNING: Level = "warning"
ERROR: Level = "error"
COLOURS = {OK: "green", SKIPPED: "dim", WARNING: "yellow", ERROR: "red"}
SHOWN = 5
"""Files or frames that the table names per finding; the JSON names all."""


def counted(number: int, noun: str) -> str:
    """1 frame, 2 frames."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True)
class Finding:
    """One check's result; a skipped one had nothing to look at, and its text says what.

    where: the files or frames meant, all of them. advice: what to do about it.
    """

    check: str
    level: Level
    text: str
    where: tuple[str, ...] = ()
    advice: str = ""


@dataclass
class Report:
    """All that was found out about one data set. frames: how many it has; looked_at: how many were loaded."""

    root: str
    layout: str
    frames: int
    looked_at: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, check: str, level: Level, text: str, where: Sequence[object] = (), advice: str = "") -> None:
        self.findings.append(Finding(check, level, text, tuple(map(str, where)), advice))

    def count(self, level: Level) -> int:
        return sum(finding.level == level for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 usable (warnings do not fail), 1 errors, 2 no frame can be read."""
        if self.looked_at == 0:
            return 2
        return int(self.count(ERROR) > 0)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"errors": self.count(ERROR), "warnings": self.count(WARNING)}

    def table(self) -> Table:
        table = Table(
            "check",
            "",
            Column("finding", overflow="fold"),
            title=f"{printable_name(self.root)}: {self.layout}, {counted(self.frames, 'frame')}",
        )
        for finding in self.findings:
            text = Text(printable(finding.text))
            if finding.where:
                more = len(finding.where) - SHOWN
                text.append("".join(f"\n  {printable_name(where)}" for where in finding.where[:SHOWN]))
                text.append(f"\n  and {more} more" if more > 0 else "")
            if finding.advice:
                text.append(f"\n→ {finding.advice}", style="bold")
            table.add_row(finding.check, Text(finding.level, COLOURS[finding.level]), text)
        return table
