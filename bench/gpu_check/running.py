"""A stage's process, watched: its document is taken over whenever it has been rewritten."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bench.gpu_check import packed
from bench.gpu_check.entries import are_of_the_same, is_whole, worth_keeping
from bench.gpu_check.stages import Stage

if TYPE_CHECKING:
    from bench.gpu_check.runner import Check

SHORTEST = 8.0  # seconds: with less no stage is started
STARTS = 4  # of one stage: what has killed its process costs its case alone
LOG_TAIL = 60  # lines
KEEPER = Path(__file__).with_name("keeper.py")
OK, FAILED, CUT_SHORT, SKIPPED, LEFT, RUNNING = "done", "failed", "cut short", "done before", "not started", "running"
OUT_OF_TIME = 3
"""Exit code of a stage that ended by itself before its limit with work left."""


class Running:
    """One stage on its way: started here, looked after by `is_on`, ended by itself or by `end`."""

    def __init__(self, check: Check, stage: Stage, limit: float, named: bool) -> None:
        self.check, self.stage, self.limit = check, stage, limit
        self.document = check.scratch / f"{stage.name}.json"
        self.started, self.changed, self.starts = time.monotonic(), 0, 0
        self.tail: deque[str] = deque(maxlen=LOG_TAIL)
        self.code: int | None = None
        self.ended = False
        self.earlier = worth_keeping(check.packed.stages.get(stage.name), check.key(stage.name))
        self._put_earlier_document(named)
        begun = self.started - check.started
        check.say(f"== {stage.name} (from {begun:.0f} s, at most {limit:.0f} s): {stage.answers}")
        self._start()
        self._note(RUNNING)

    def _put_earlier_document(self, named: bool) -> None:
        """What is finished is kept by the stage, where it was made from the same; what it is to replace must not pass
        for this run's if it dies at once."""
        earlier, check = self.earlier, self.check
        self.document.unlink(missing_ok=True)  # of a call that was killed
        if earlier is None or not self.stage.resumable:
            return
        if not are_of_the_same(earlier.get("key"), check.key(self.stage.name)):
            return
        if named and is_whole(earlier) and not check.only and not check.again:
            return  # asked for by name: from the beginning
        # A case that was on when its time was up has done nothing wrong: it is tried again.
        packed.replace_text(self.document, json.dumps({**earlier["result"], "running": None}))
        self.changed = self.document.stat().st_mtime_ns
        self.earlier = None  # the document goes on from it

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
            self.check.save()
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
        result = packed.read_json(self.document)
        more: dict[str, Any] = {"limit": round(self.limit, 1), "starts": self.starts, "result": result}
        more["key"] = self.check.key(self.stage.name)
        if state == FAILED:
            more["log"] = list(self.tail)
        if self.earlier is not None and not (result or {}).get("complete"):
            more["earlier"] = self.earlier
        self.check.note(self.stage, state, self.code, time.monotonic() - self.started, **more)
