"""Stages one after the other, each with a hard limit; whatever they have found is packed into one file as it comes.

A stage gets of the time that is left what its share is beside the shares of those after it: one that ends early leaves
its time to all of them, and none is starved by one before it. Only the standard library: this must be able to say what
is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from bench.gpu_check import packed
from bench.gpu_check.packed import LOG, SUMMARY, Packed
from bench.gpu_check.stages import TABLE_SECONDS, Stage
from bench.gpu_check.summary import summary_text

SHORTEST = 8.0  # seconds: with less no stage is started
BESIDE_NOTHING = 60.0  # share of a stage that else runs in another's time
DOCTOR_SECONDS = 60.0  # at the most
STARTS = 4  # of one stage: what has killed its process costs its case alone
LOG_TAIL = 60  # lines
KEEPER = Path(__file__).with_name("keeper.py")
OK, FAILED, CUT_SHORT, SKIPPED, LEFT, RUNNING = "done", "failed", "cut short", "done before", "not started", "running"
OUT_OF_TIME = 3
"""Exit code of a stage that ended by itself before its limit with work left."""


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
        self.scratch = Path(tempfile.mkdtemp(prefix="adu-gpu-check-"))
        self.lock = threading.Lock()

    def run(self, stages: Sequence[Stage], named: bool = False) -> int:
        """The exit code: 0 well, 1 a stage failed, 2 the doctor did, 3 time ran out or it was stopped.

        named: the stages were asked for by name, so that one that is done is done again.
        """
        self.packed.begin(minutes=self.minutes, stages=[s.name for s in stages], only=list(self.only), again=self.again,
                          dry_run=self.dry_run)  # fmt: skip
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
                    self._note(stage, LEFT, None, 0.0)
            self._save()
            self.say((self.packed.folder / SUMMARY).read_text(encoding="utf-8"))
            shutil.rmtree(self.scratch, ignore_errors=True)
        rows = [self.rows[stage.name] for stage in stages]
        if any(row["state"] == FAILED or row["code"] not in (0, OUT_OF_TIME, None) for row in rows):
            return 1
        return 3 if {row["state"] for row in rows} & {CUT_SHORT, LEFT} else 0

    def say(self, line: str) -> None:
        """To the terminal and the one log. From any thread."""
        with self.lock:
            self._say(line)
            for place in self.packed.places():
                with contextlib.suppress(OSError), (place / LOG).open("a", encoding="utf-8") as log:
                    log.write(line + "\n")

    def _run_together(self, stages: list[Stage], later: list[Stage], named: bool) -> bool:
        """Whether to go on."""
        if not named and stages[0].name != "doctor" and self._is_done(stages[0]):
            for stage in stages:
                row = self.packed.stages.get(stage.name, {"name": stage.name, "code": 0})
                self.rows[stage.name] = {**row, "state": SKIPPED}
            self.say(f"== {stages[0].name}: {SKIPPED}")
            return True
        left = self.deadline - time.monotonic() - TABLE_SECONDS * min(1.0, self.minutes / 9)
        to_come = sum(s.seconds for s in later if named or not self._is_done(s))
        share = stages[0].seconds or BESIDE_NOTHING
        limit = left * share / (share + to_come)
        if stages[0].name == "doctor":  # without it nothing is known: it takes what it needs
            limit = min(left, DOCTOR_SECONDS)
        if limit < SHORTEST:
            for stage in stages:
                self._note(stage, LEFT, None, 0.0)
            return True
        running = [_Running(self, stage, limit, named) for stage in stages]
        until = time.monotonic() + limit
        try:
            while [r for r in running if r.is_on()] and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            for r in running:
                r.end()
            self._save()
        return not (stages[0].name == "doctor" and self.rows["doctor"]["code"] == 2)

    def key(self, stage: Stage) -> dict[str, Any] | None:
        """What a stage's result is made from: sources, machine, versions, as this call's doctor has found them."""
        result = (self.rows.get("doctor") or {}).get("result") or {}
        identity = result.get("identity")
        if identity is None:
            return None
        named = {name: value for name, value in identity.items() if name != "tests" or stage.name == "parity"}
        return {**named, "dry_run": self.dry_run}

    def _is_done(self, stage: Stage) -> bool:
        """Whether an earlier call finished it, on this code and machine. What failed is tried again when continued."""
        entry = self.packed.stages.get(stage.name)
        if entry is None or stage.name in self.rows or self.only or entry.get("key") != self.key(stage):
            return False
        finished = bool((entry.get("result") or {}).get("complete"))
        return finished and entry["code"] in ((0,) if self.again else (0, 1))

    def _note(self, stage: Stage, state: str, code: int | None, seconds: float, **more: Any) -> None:
        """A stage that was not started leaves what an earlier call has of it."""
        row = {"name": stage.name, "state": state, "code": code, "seconds": round(seconds, 1), **more}
        self.rows[stage.name] = row
        if state != LEFT or stage.name not in self.packed.stages:
            self.packed.stages[stage.name] = row

    def _save(self) -> None:
        self.packed.save()
        try:
            text = summary_text(self.packed.value, list(self.rows.values()), self.dry_run)
        except Exception:  # whatever a stage has written, the packed file and the stages after it are worth more
            text = f"The summary failed; results.json is whole.\n\n{traceback.format_exc()}"
        self.packed.write(SUMMARY, text)


class _Running:
    """A stage's process, watched: its document is taken over whenever it has been rewritten."""

    def __init__(self, check: Check, stage: Stage, limit: float, named: bool) -> None:
        self.check, self.stage, self.limit = check, stage, limit
        self.document = check.scratch / f"{stage.name}.json"
        self.started, self.changed, self.starts = time.monotonic(), 0, 0
        self.tail: deque[str] = deque(maxlen=LOG_TAIL)
        self.code: int | None = None
        self.ended = False
        self._put_earlier_document(named)
        begun = self.started - check.started
        check.say(f"== {stage.name} (from {begun:.0f} s, at most {limit:.0f} s): {stage.answers}")
        self._start()
        self._note(RUNNING)

    def _put_earlier_document(self, named: bool) -> None:
        """What is finished is kept by the stage, where it was made from the same; what it is to replace must not pass
        for this run's if it dies at once."""
        earlier = (self.check.packed.stages.get(self.stage.name) or {}).get("result")
        if earlier is None or not self.stage.resumable:
            return
        if named and earlier.get("complete") and not self.check.only and not self.check.again:
            return  # asked for by name: from the beginning
        # A case that was on when its time was up has done nothing wrong: it is tried again.
        packed.replace_text(self.document, json.dumps({**earlier, "running": None}))
        self.changed = self.document.stat().st_mtime_ns

    def _start(self) -> None:
        self.starts += 1
        left = self.limit - (time.monotonic() - self.started)
        check = self.check
        command = self.stage.command(self.document, left, dry_run=check.dry_run, only=check.only, again=check.again)
        self.process = subprocess.Popen(
            [sys.executable, "-IS", str(KEEPER), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.reader = threading.Thread(target=self._pass_on, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def _pass_on(self, source: IO[str]) -> None:
        with contextlib.suppress(ValueError):  # closed: something outlived the keeper
            for line in source:
                self.tail.append(line.rstrip("\n"))
                self.check.say(f"{self.stage.name}: {line.rstrip()}")

    def is_on(self) -> bool:
        """Looks after it: takes its document over, starts it again where a case has killed it."""
        if self.ended:
            return False
        code = self.process.poll()
        changed = self.document.stat().st_mtime_ns if self.document.exists() else 0
        if changed != self.changed:
            self.changed = changed
            self._note(RUNNING)
            self.check._save()
        if code is None:
            return True
        self.reader.join(2)
        if self._may_start_again(code):
            self.check.say(f"{self.stage.name}: its process ended with code {code}; on with the next case")
            self._start()
            return True
        self.code, self.ended = code, True
        self._finish()
        return False

    def _may_start_again(self, code: int) -> bool:
        died_in_a_case = (packed.read_json(self.document) or {}).get("running") is not None
        left = self.limit - (time.monotonic() - self.started)
        return code not in (0, OUT_OF_TIME) and died_in_a_case and self.starts < STARTS and left > SHORTEST

    def end(self) -> None:
        """Ends what is still on: the keeper kills the stage and all that it has started."""
        if self.ended:
            return
        self.ended = True
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(8)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.reader.join(2)
        self.check.say(f"{self.stage.name}: its time was up")
        self._finish()

    def _finish(self) -> None:
        finished = bool((packed.read_json(self.document) or {}).get("complete")) or bool(self.check.only)
        late = self.code is None or self.code == OUT_OF_TIME or (self.code == 0 and not finished)
        self._note(CUT_SHORT if late else OK if self.code == 0 else FAILED)
        self.check.say(f"== {self.stage.name}: {self.check.rows[self.stage.name]['state']}, "
                       f"{time.monotonic() - self.started:.0f} s")  # fmt: skip

    def _note(self, state: str) -> None:
        more: dict[str, Any] = {"limit": round(self.limit, 1), "starts": self.starts}
        more["result"] = packed.read_json(self.document)
        if state == FAILED:
            more["log"] = list(self.tail)
        self.check._note(self.stage, state, self.code, time.monotonic() - self.started, **more)
        self.check.rows[self.stage.name]["key"] = self.check.key(self.stage)


def use_caches(folder: Path) -> None:
    """What Triton and Inductor compile lies in the output folder: each stage, and a later call, finds it there."""
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "cache" / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "cache" / "inductor"))
