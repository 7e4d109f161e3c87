"""A GPU check of stages that are tiny scripts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu_check.packed import RESULTS, SUMMARY, Packed, read
from bench.gpu_check.runner import Check
from bench.gpu_check.stages import Stage

WHOLE = "write({'complete': True})"
WRITES = """
import json, os, subprocess, sys, time
def write(value):
    with open(OUT + '.tmp', 'w') as file: json.dump(value, file)
    os.replace(OUT + '.tmp', OUT)
def earlier():
    return json.load(open(OUT)) if os.path.exists(OUT) else None
"""


@dataclass(frozen=True)
class Script(Stage):
    """A stage whose process runs some Python."""

    code: str = WHOLE
    ran: str = ""

    def command(
        self, output: Path, seconds: float, *, dry_run: bool, only: Sequence[str] = (), again: bool = False
    ) -> list[str]:
        note = f"open({self.ran!r}, 'a').write('{self.name} ')\n" if self.ran else ""
        return [sys.executable, "-c", f"OUT = {str(output)!r}\n{WRITES}\n{note}{self.code}"]


class Folder:
    """An output folder, and calls of the check on it."""

    def __init__(self, path: Path) -> None:
        self.path, self.identity = path, {"sources": "one", "tests": "t", "device": "a GPU"}

    def script(self, name: str, code: str = WHOLE, seconds: float = 60.0, **more: Any) -> Script:
        return Script(name, "", seconds, "", code=code, ran=str(self.path / "ran"), **more)

    def doctor(self) -> Script:
        return Script("doctor", "", 15, "", code=f"write({{'complete': True, 'identity': {self.identity}}})")

    def call(
        self, *stages: Stage, minutes: float = 5.0, named: bool = False, copies: Path | None = None, **more: Any
    ) -> tuple[int, str, list[str]]:
        """Exit code, what was said, and the stages that ran, in order."""
        said: list[str] = []
        (self.path / "ran").unlink(missing_ok=True)
        check = Check(Packed(self.path, copies), minutes, **{"say": said.append, **more})
        code = check.run([self.doctor(), *stages], named=named)
        ran = (self.path / "ran").read_text().split() if (self.path / "ran").exists() else []
        return code, "\n".join(said), ran

    def entry(self, name: str) -> dict[str, Any]:
        value = read(self.path / RESULTS)
        assert value is not None
        return value["stages"][name]  # type: ignore[no-any-return]

    def summary(self) -> str:
        return (self.path / SUMMARY).read_text(encoding="utf-8")
