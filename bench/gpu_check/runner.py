"""Stages one after the other: each a process with a limit of its own, their state in one file, a summary at the end.

Only the standard library: this must be able to say what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from bench.gpu_check.stages import Stage

STEPS = ("teacher_step", "distillation_step")
SHORTEST = 15.0  # seconds: with less left no stage is started
GRACE = 10.0  # seconds between the asking to stop and the end
OK, FAILED, CUT_SHORT, SKIPPED, LEFT = "done", "failed", "cut short", "done before", "not started"


class Check:
    """One call of the check, on one folder."""

    def __init__(self, out: Path, minutes: float, rehearse: bool, say: Callable[[str], None] = print) -> None:
        self.out, self.rehearse, self.say = out, rehearse, say
        self.deadline = time.monotonic() + 60 * minutes
        self.rows: list[dict[str, Any]] = []

    def run(self, stages: Sequence[Stage]) -> int:
        """The exit code: 0 well, 1 a stage failed, 2 the doctor did, 3 time ran out or it was stopped."""
        (self.out / "logs").mkdir(parents=True, exist_ok=True)
        try:
            for stage in stages:
                row = self._stage(stage)
                self.rows.append(row)
                self.say(f"== {stage.name}: {row['state']}, {row['seconds']:.0f} s")
                if stage.name == "doctor" and row["code"] == 2:
                    return 2
        except KeyboardInterrupt:
            self.say("stopped")
            self.rows += [
                {"name": s.name, "state": LEFT, "seconds": 0.0, "code": None} for s in stages[len(self.rows) :]
            ]
        finally:
            self._summarise()
        states = {row["state"] for row in self.rows}
        if FAILED in states or any(row["code"] not in (0, None) for row in self.rows):
            return 1
        return 3 if states & {CUT_SHORT, LEFT} else 0

    def _stage(self, stage: Stage) -> dict[str, Any]:
        left = self.deadline - time.monotonic()
        earlier = None if stage.name == "doctor" else self._done_before(stage)
        if earlier is not None:
            return {"name": stage.name, "state": SKIPPED, "seconds": 0.0, "code": earlier}
        if left < SHORTEST:
            return {"name": stage.name, "state": LEFT, "seconds": 0.0, "code": None}
        self._forget_finished(stage)
        limit = min(60 * stage.minutes, left)
        self.say(f"== {stage.name} (at most {limit:.0f} s): {stage.answers}")
        start = time.monotonic()
        code = run_limited(
            stage.command(str(self.out), self.rehearse), limit, self.out / "logs" / f"{stage.name}.log", self.say
        )
        seconds = time.monotonic() - start
        state = CUT_SHORT if code is None else OK if code == 0 else FAILED
        whole = bool((_read(self.out / f"{stage.name}.json") or {}).get("complete"))
        if whole and code in (0, 1):  # a finding is a result too: measuring it again would find it again
            self._remember(stage, code)
        return {"name": stage.name, "state": state, "seconds": seconds, "code": code}

    def _key(self) -> dict[str, Any]:
        """What a result must have been made from to be kept."""
        found = _read(self.out / "key.json")
        if found is None or found.get("process") != os.getpid():
            found = {**_identity(), "rehearse": self.rehearse, "process": os.getpid()}
            _write(self.out / "key.json", found)
        return {name: value for name, value in found.items() if name != "process"}

    def _done_before(self, stage: Stage) -> int | None:
        """The exit code the stage ended with, if it did on this code and machine and its result is there."""
        state = (_read(self.out / "stages.json") or {}).get(stage.name)
        if state is None or state["key"] != self._key() or not (self.out / f"{stage.name}.json").exists():
            return None
        return int(state["code"])

    def _forget_finished(self, stage: Stage) -> None:
        """Removes a result that this run is to replace, lest it pass for this run's if the stage dies at once.

        Of a stage that was cut short and can go on it is kept: what is missing is added.
        """
        path = self.out / f"{stage.name}.json"
        if not stage.goes_on or (_read(path) or {}).get("complete", True):
            path.unlink(missing_ok=True)

    def _remember(self, stage: Stage, code: int) -> None:
        states = _read(self.out / "stages.json") or {}
        states[stage.name] = {"key": self._key(), "code": code}
        _write(self.out / "stages.json", states)

    def _summarise(self) -> None:
        lines = summary_lines(self.out, self.rows, self.rehearse)
        (self.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.say("\n".join(lines))
        results = [str(self.out / f"{row['name']}.json") for row in self.rows if _is_benchmark(self.out, row["name"])]
        if results:
            drawn = subprocess.run([sys.executable, "-m", "bench.gpu_check.pictures", str(self.out), *results])
            if drawn.returncode:
                self.say("tables and plots failed; the JSON files are whole")
        self.say(f"results in {self.out}: commit all but logs/")


def run_limited(command: Sequence[str], seconds: float, log: Path, say: Callable[[str], None]) -> int | None:
    """The exit code, or None where the command had to be stopped. What it writes goes to `log`, said as it comes."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None
        reader = threading.Thread(target=_pass_on, args=(process.stdout, file, say), daemon=True)
        reader.start()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            say(f"time is up after {seconds:.0f} s")
            _end(process)
            return None
        except KeyboardInterrupt:
            _end(process)
            raise
        finally:
            reader.join(GRACE)
    return process.returncode


def _pass_on(source: IO[str], file: IO[str], say: Callable[[str], None]) -> None:
    with contextlib.suppress(ValueError):  # the log is closed: a child of the stage outlived it
        for line in source:
            file.write(line)
            file.flush()
            say(line.rstrip("\n"))


def _end(process: subprocess.Popen[str]) -> None:
    """Asks the stage's whole process group to stop, then makes it."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
        return


def _identity() -> dict[str, Any]:
    """Sources and machine, asked of a process of its own: torch is not imported here."""
    code = (
        "import json, torch\n"
        "from bench.gpu_check.parity import SOURCES\n"
        "from bench.harness.environment import source_digest\n"
        "gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'\n"
        "print(json.dumps({'sources': source_digest(SOURCES), 'device': gpu, 'torch': torch.__version__}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if told.returncode:
        return {"sources": None, "device": None, "torch": None, "why": told.stderr[-500:]}
    found: dict[str, Any] = json.loads(told.stdout.strip().splitlines()[-1])
    return found


def summary_lines(out: Path, rows: Sequence[dict[str, Any]], rehearse: bool) -> list[str]:
    """Markdown: a row per stage with what it found."""
    lines = ["# GPU check" + (" (REHEARSAL on a CPU: no number here is a measurement)" if rehearse else ""), ""]
    lines += ["| stage | state | seconds | finding |", "|-|-|-|-|"]
    for row in rows:
        lines.append(f"| {row['name']} | {row['state']} | {row['seconds']:.0f} | {finding(out, row)} |")
    return lines


def finding(out: Path, row: dict[str, Any]) -> str:
    """One line on what a stage's result says, from its JSON."""
    result = _read(out / f"{row['name']}.json")
    if result is None or row["state"] == LEFT:
        return f"exit code {row['code']}, see logs/{row['name']}.log" if row["state"] == FAILED else ""
    if row["state"] in (FAILED, CUT_SHORT) and "complete" in result and not result["complete"]:
        return f"exit code {row['code']}, incomplete: see logs/{row['name']}.log"
    if "findings" in result:
        missing = [f["name"] for f in result["findings"] if not f["ok"]]
        return f"missing: {', '.join(missing)}" if missing else "all there"
    if "files" in result:
        counts = {key: sum(f.get(key, 0) for f in result["files"]) for key in ("passed", "failed", "skipped")}
        bad = [f["file"] for f in result["files"] if f["code"] not in (0, 5)]
        return ", ".join(f"{value} {key}" for key, value in counts.items()) + (
            f"; red: {', '.join(bad)}" if bad else ""
        )
    if "cases" in result:
        found = [case_row["status"] for case in result["cases"] for case_row in case["rows"]]
        counted = ", ".join(f"{found.count(status)} {status}" for status in dict.fromkeys(found))
        return f"{len(result['cases'])} cases; rows: {counted}" + ("" if result["complete"] else "; incomplete")
    if "verdicts" in result:
        return "; ".join(
            f"{v['kind']}: differs by {v['relative_difference']:.2%}, seeds by {v['spread_of_seeds']:.2%}, "
            + ("within" if v["within"] else "NOT within")
            for v in result["verdicts"]
        )
    if "roofs" in result:
        waits = {name: sum((result.get(name) or {}).get("waits", {}).values()) for name in STEPS}
        return "host waits in a step: " + ", ".join(f"{name} {count}" for name, count in waits.items())
    if "runs" in result:
        return "; ".join(
            f"{run['kind']} {run['backend']} {run['images_per_second']['median']:.1f} images/s"
            for run in result["runs"]
        )
    return "" if result.get("complete", True) else "incomplete"


def _is_benchmark(out: Path, name: str) -> bool:
    return "cases" in (_read(out / f"{name}.json") or {})


def _read(path: Path) -> dict[str, Any] | None:
    """None where there is no file, or one that a crash left half-written."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
