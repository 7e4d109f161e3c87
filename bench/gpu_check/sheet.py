"""The document that a stage of many cases writes, and what keeps one case from taking the others along."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from adu_depth.files import write_json
from bench.harness.implementations import EAGER
from bench.harness.result import CaseResult, Result, check_result, same_making


class Sheet:
    """Results of several benchmarks by name, written after every case.

    A case that was begun and never ended has taken its process along: it gets a row that says so.
    """

    def __init__(self, output: Path, environment: dict[str, Any], earlier: dict[str, Any] | None) -> None:
        """earlier: a document to go on from; of it stays what code, machine and versions of now have made."""
        self.output = output
        self.value: dict[str, Any] = {"environment": environment, "complete": False, "running": None, "results": {}}
        earlier = earlier or {}
        for name, result in (earlier.get("results") or {}).items():
            if same_making(result["environment"], environment):
                check_result(result, name)
                self.results[name] = result
        died_in = earlier.get("running")
        if died_in and died_in["benchmark"] in self.results:
            reason = died_in.get("why") or "the process died in this case"
            rows = [{"name": EAGER, "status": "failed", "reason": reason}]
            self.add(
                died_in["benchmark"], {"name": died_in["case"], "dtype": "", "shape": {}, "work": {}, "rows": rows}
            )

    @property
    def results(self) -> dict[str, Result]:
        return self.value["results"]  # type: ignore[no-any-return]

    def take_up_again(self, names: Sequence[str]) -> None:
        """Forgets the finished results of benchmarks that were asked for by name."""
        for name in names:
            if (self.results.get(name) or {}).get("complete"):
                del self.results[name]

    def open(self, name: str, make: Callable[[], Result]) -> None:
        """A benchmark's result, there or new."""
        if name not in self.results:
            self.results[name] = make()

    def has(self, name: str, case: str) -> bool:
        return any(found["name"] == case for found in self.results[name]["cases"])

    def begin(self, name: str, case: str) -> None:
        self.value["running"] = {"benchmark": name, "case": case}
        self.save()

    def add(self, name: str, case: CaseResult) -> None:
        self.results[name]["cases"].append(case)
        self.value["running"] = None
        self.save()

    def finish(self, names: Sequence[str], every: Sequence[str]) -> None:
        """The benchmarks of `names` have all their cases; the stage is whole with those of `every`."""
        for name in names:
            self.results[name]["complete"] = True
        self.value["complete"] = all((self.results.get(name) or {}).get("complete") for name in every)
        self.save()

    def count(self) -> int:
        return sum(len(result["cases"]) for result in self.results.values())

    def save(self) -> None:
        write_json(self.output, self.value)


class Watch:
    """Begins the process anew where a case takes too long, be it inside a call that never returns."""

    def __init__(self, sheet: Sheet, seconds: float) -> None:
        self.sheet, self.seconds = sheet, seconds
        self.timer = threading.Timer(seconds, self._late)
        self.timer.daemon = True

    def _late(self) -> None:
        self.sheet.value["running"]["why"] = f"took longer than {self.seconds:.0f} s"
        begin_anew(self.sheet)

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.timer.cancel()


def begin_anew(sheet: Sheet) -> None:
    """This very command from the start, in the same process: what the sheet has is kept, CUDA's state is not."""
    sheet.save()
    sys.stdout.flush()
    signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm outlives exec, and nobody would be there to hear it
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
