"""Stages one after the other, each with a hard limit; whatever they have found is packed into one file as it comes.

A stage gets of the time that is left what its share is beside the shares of those after it: one that ends early leaves
its time to all of them, and none is starved by one before it. Only the standard library: this must be able to say what
is missing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.gpu_check import packed
from bench.gpu_check.entries import are_of_the_same, is_whole, is_wrong, red_tests
from bench.gpu_check.packed import LOG, SUMMARY, Packed
from bench.gpu_check.running import CUT_SHORT, FAILED, LEFT, OUT_OF_TIME, SHORTEST, SKIPPED, Running
from bench.gpu_check.stages import TABLE_SECONDS, Stage
from bench.gpu_check.summary import summary_text

BESIDE_NOTHING = 60.0  # share of a stage that else runs in another's time
DOCTOR_SECONDS = 60.0  # at the most


class Check:
    """One call of the check, on one folder."""

    def __init__(
        self,
        packed_file: Packed,
        minutes: float,
        *,
        dry_run: bool = False,
        only: Sequence[str] = (),
        again: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        """only: benchmarks it is confined to. again: a later call, which repeats what failed."""
        self.packed, self.minutes, self.dry_run, self.only, self.again = packed_file, minutes, dry_run, only, again
        self._say = say
        self.started = time.monotonic()
        self.deadline = self.started + 60 * minutes
        self.rows: dict[str, packed.Entry] = {}
        self.scratch = cache_folder(packed_file.folder, dry_run) / "stages"
        self.lock = threading.Lock()
        packed_file.tell = self.say

    def run(self, stages: Sequence[Stage], named: bool = False) -> int:
        """The exit code: 0 well, 1 something is wrong, 2 the doctor failed, 3 time ran out or it was stopped.

        named: the stages were asked for by name, so that one that is done is done again. OSError: the folder cannot be
        written.
        """
        self.packed.begin(minutes=self.minutes, stages=[s.name for s in stages], only=list(self.only), again=self.again,
                          dry_run=self.dry_run)  # fmt: skip
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._clear_scratch()
        queue = list(stages)
        try:
            while queue:
                first = queue.pop(0)
                together = [first, *(s for s in queue if s.beside == first.name)]
                queue = [s for s in queue if s not in together]
                if not self._run_together(together, queue, named):
                    return 2
        except KeyboardInterrupt:
            self.say("stopped")
        finally:
            for stage in stages:
                if stage.name not in self.rows:
                    self.note(stage, LEFT, None, 0.0)
            try:
                self.say(self.save())
            finally:
                self._clear_scratch()
        return self._exit_code(stages)

    def _exit_code(self, stages: Sequence[Stage]) -> int:
        rows = [self.rows[stage.name] for stage in stages]
        if any(row["state"] == FAILED or row["code"] not in (0, OUT_OF_TIME, None) for row in rows):
            return 1
        known = [self.packed.stages[stage.name] for stage in stages if self._is_of_now(stage.name)]
        if any(is_wrong(entry.get("result"), self.dry_run) or red_tests(entry) for entry in known):
            return 1
        return 3 if {row["state"] for row in rows} & {CUT_SHORT, LEFT} else 0

    def say(self, line: str) -> None:
        """To the terminal, as long as there is one, and the one log. From any thread."""
        with self.lock:
            with contextlib.suppress(OSError, ValueError):  # gone, closed, or one that cannot write such a letter
                self._say(line)
            for place in self.packed.places():
                with contextlib.suppress(OSError), (place / LOG).open("a", encoding="utf-8") as log:
                    log.write(line + "\n")

    def _run_together(self, stages: list[Stage], later: list[Stage], named: bool) -> bool:
        """Whether to go on."""
        done = [stage for stage in stages if not named and stage.name != "doctor" and self._is_done(stage)]
        for stage in done:
            self.rows[stage.name] = {**self.packed.stages[stage.name], "state": SKIPPED}
            self.say(f"== {stage.name}: {SKIPPED}")
        stages = [stage for stage in stages if stage not in done]
        if not stages:
            return True
        left = self.deadline - time.monotonic() - TABLE_SECONDS * min(1.0, self.minutes / 9)
        to_come = sum(s.seconds for s in later if named or not self._is_done(s))
        share = stages[0].seconds or BESIDE_NOTHING
        limit = left * share / (share + to_come)
        if stages[0].name == "doctor":  # without it nothing is known: it takes what it needs
            limit = min(left, DOCTOR_SECONDS)
        if limit < SHORTEST:
            for stage in stages:
                self.note(stage, LEFT, None, 0.0)
            return True
        running = [Running(self, stage, limit, named) for stage in stages]
        until = time.monotonic() + limit
        try:
            while [r for r in running if r.is_on()] and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            for r in running:
                r.end()
            self.save()
        return not (stages[0].name == "doctor" and self.rows["doctor"]["code"] == 2)

    def key(self, name: str) -> dict[str, Any] | None:
        """What a stage's result is made from: sources, machine, versions, as this call's doctor has found them."""
        result = (self.rows.get("doctor") or {}).get("result") or {}
        identity = result.get("identity")
        if identity is None:
            return None
        named = {part: value for part, value in identity.items() if part != "tests" or name == "parity"}
        return {**named, "dry_run": self.dry_run}

    def _is_done(self, stage: Stage) -> bool:
        """Whether an earlier call finished it, on this code and machine. What failed is tried again when continued."""
        entry = self.packed.stages.get(stage.name)
        if entry is None or stage.name in self.rows or self.only:
            return False
        if not are_of_the_same(entry.get("key"), self.key(stage.name)):
            return False
        return is_whole(entry) and entry.get("code") in ((0,) if self.again else (0, 1))

    def _is_of_now(self, name: str) -> bool:
        """Whether what the packed file has of a stage was made by this call, or from its code on its machine."""
        if self.rows.get(name, {"state": LEFT})["state"] not in (LEFT, SKIPPED):
            return True
        return are_of_the_same(self.packed.stages[name].get("key"), self.key(name))

    def note(self, stage: Stage, state: str, code: int | None, seconds: float, **more: Any) -> None:
        """A stage that was not started leaves what an earlier call has of it."""
        row = {"name": stage.name, "state": state, "code": code, "seconds": round(seconds, 1), **more}
        self.rows[stage.name] = row
        if state != LEFT or stage.name not in self.packed.stages:
            self.packed.stages[stage.name] = row

    def save(self) -> str:
        """Writes what there is; the summary."""
        self.packed.save()
        others = {name for name in self.packed.stages if not self._is_of_now(name)}
        try:
            text = summary_text(self.packed.value, list(self.rows.values()), self.dry_run, others)
        except Exception:  # whatever a stage has written, the packed file and the stages after it are worth more
            text = f"The summary failed; results.json is whole.\n\n{traceback.format_exc()}"
        self.packed.write(SUMMARY, text)
        return text

    def _clear_scratch(self) -> None:
        """The stages' documents, of a call that was killed too. What trainings left to go on from stays."""
        for path in self.scratch.glob("*"):
            if path.is_file():
                path.unlink(missing_ok=True)


def cache_folder(folder: Path, dry_run: bool) -> Path:
    """In the output folder, and no result: what is compiled, documents of stages that are on, runs of trainings."""
    return folder / ("cache-dry-run" if dry_run else "cache")


def use_caches(cache: Path) -> None:
    """What Triton and Inductor compile lies there: each stage, and a later call, finds it."""
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
