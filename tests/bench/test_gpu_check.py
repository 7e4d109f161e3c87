"""The GPU check: budget, going on after a stop, crashes, and what the summary says. Stages here are tiny scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.gpu_check import convergence, parity, runner, training
from bench.gpu_check.__main__ import out_folder, parse
from bench.gpu_check.doctor import findings
from bench.gpu_check.runner import Check, finding, run_limited
from bench.gpu_check.stages import BY_NAME, STAGES, Stage

ROOT = Path(__file__).resolve().parents[2]
WHOLE = "import json,sys; json.dump({'complete': True}, open(sys.argv[1], 'w'))"


@dataclass(frozen=True)
class Script(Stage):
    """A stage whose process runs a line of Python with the result's path as its argument."""

    code: str = WHOLE

    def command(self, out: str, rehearse: bool) -> list[str]:
        note = f"open({out + '/ran'!r}, 'a').write('{self.name} ')\n"
        return [sys.executable, "-c", note + self.code, f"{out}/{self.name}.json"]


def script(name: str, code: str = WHOLE, minutes: float = 1.0, goes_on: bool = False) -> Script:
    return Script(name, "", minutes, "", goes_on=goes_on, code=code)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The code and machine that the check believes in."""
    found = {"sources": "one", "device": "a card", "torch": "2"}
    monkeypatch.setattr(runner, "_identity", lambda: dict(found))
    return found


def check(out: Path, *stages: Stage, minutes: float = 5.0) -> tuple[int, str, list[str]]:
    """Exit code, what was said, and the stages that ran, in order."""
    said: list[str] = []
    (out / "ran").unlink(missing_ok=True)
    (out / "key.json").unlink(missing_ok=True)  # each call is another process in real life
    code = Check(out, minutes, rehearse=False, say=said.append).run(stages)
    ran = (out / "ran").read_text().split() if (out / "ran").exists() else []
    return code, "\n".join(said), ran


def test_a_finished_stage_is_not_run_again_until_the_code_or_the_machine_changes(tmp_path: Path, key: dict[str, Any]):
    stages = (script("a"), script("b"))
    assert check(tmp_path, *stages)[::2] == (0, ["a", "b"])
    code, said, ran = check(tmp_path, *stages)
    assert (code, ran) == (0, [])
    assert "| a | done before |" in said
    (tmp_path / "b.json").unlink()
    assert check(tmp_path, *stages)[2] == ["b"]
    key["sources"] = "two"
    assert check(tmp_path, *stages)[2] == ["a", "b"]
    key["device"] = "another card"
    assert check(tmp_path, *stages)[2] == ["a", "b"]


def test_a_finding_is_kept_and_stays_in_the_exit_code(tmp_path: Path, key: dict[str, Any]):
    wrong = script("wrong", WHOLE + "; sys.exit(1)")
    assert check(tmp_path, wrong, script("after"))[::2] == (1, ["wrong", "after"])
    assert check(tmp_path, wrong, script("after"))[::2] == (1, [])


def test_a_crash_is_no_finding_and_is_tried_again(tmp_path: Path, key: dict[str, Any]):
    crash = script("crash", "raise RuntimeError('planted')")
    code, said, ran = check(tmp_path, crash, script("after"))
    assert (code, ran) == (1, ["crash", "after"])
    assert "RuntimeError: planted" in (tmp_path / "logs" / "crash.log").read_text()
    assert "| crash | failed |" in said
    assert check(tmp_path, crash, script("after"))[2] == ["crash"]


def test_a_crash_half_way_is_tried_again_with_what_there_is(tmp_path: Path, key: dict[str, Any]):
    half = "import json,sys; json.dump({'complete': False}, open(sys.argv[1], 'w')); raise RuntimeError('planted')"
    crash = script("half", half, goes_on=True)
    assert check(tmp_path, crash)[::2] == (1, ["half"])
    assert (tmp_path / "half.json").exists()
    assert check(tmp_path, crash)[::2] == (1, ["half"])


def test_the_result_of_an_earlier_run_does_not_pass_for_a_crashed_ones(tmp_path: Path, key: dict[str, Any]):
    check(tmp_path, script("a"))
    key["sources"] = "two"
    check(tmp_path, script("a", "import os; os._exit(1)"))
    assert not (tmp_path / "a.json").exists()
    assert check(tmp_path, script("a"))[2] == ["a"]


def test_a_stage_past_its_limit_is_stopped_and_the_next_one_runs(tmp_path: Path, key: dict[str, Any]):
    partial = "import json,sys,time; json.dump({'complete': False}, open(sys.argv[1], 'w')); time.sleep(60)"
    slow = script("slow", partial, minutes=1.5 / 60, goes_on=True)
    start = time.monotonic()
    code, said, ran = check(tmp_path, slow, script("after"))
    assert time.monotonic() - start < 20
    assert (code, ran) == (3, ["slow", "after"])
    assert "| slow | cut short |" in said
    assert json.loads((tmp_path / "slow.json").read_text()) == {"complete": False}  # what there is, is kept
    assert check(tmp_path, slow, script("after"))[2] == ["slow"]


def test_when_time_is_out_the_rest_is_not_started(tmp_path: Path, key: dict[str, Any]):
    code, said, ran = check(tmp_path, script("a"), script("b"), minutes=0.01)
    assert (code, ran) == (3, [])
    assert "| a | not started |" in said
    assert "| b | not started |" in (tmp_path / "summary.md").read_text()


def test_without_what_is_needed_nothing_else_is_started(tmp_path: Path, key: dict[str, Any]):
    doctor = script("doctor", "import sys; print('cannot go on'); sys.exit(2)")
    assert check(tmp_path, doctor, script("a"))[::2] == (2, ["doctor"])


def test_a_stopped_stage_takes_its_children_along(tmp_path: Path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    said: list[str] = []
    assert run_limited([sys.executable, "-c", code], 2.0, tmp_path / "log", said.append) is None
    child = int(said[0])
    for _ in range(50):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlived its stage")


def script_ended(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)


def test_a_stage_that_does_not_exist_is_named(tmp_path: Path):
    wrong = script_ended(tmp_path, "no-such")
    assert wrong.returncode == 2
    assert "no stage no-such; there are doctor, parity" in wrong.stderr


@pytest.mark.slow
def test_the_script_itself_on_a_folder_of_the_caller(tmp_path: Path):
    right = script_ended(tmp_path, "--rehearse", "--out", "here", "doctor")
    assert right.returncode == 0, right.stdout + right.stderr
    assert "REHEARSAL" in (tmp_path / "here" / "summary.md").read_text()


def test_a_package_that_does_not_load_is_named_with_who_needs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    found = {f.name: f for f in findings(rehearse=True)}
    assert not found["tyro"].ok
    assert not found["tyro"].needed
    assert "every stage of this check runs without" in found["tyro"].detail
    assert not found["safetensors"].ok
    assert found["safetensors"].needed
    assert found["numpy"].ok
    no_gpu = {f.name: f for f in findings(rehearse=False)}["GPU"]
    assert not no_gpu.ok
    assert no_gpu.needed


def test_counts_of_a_test_report(tmp_path: Path):
    (tmp_path / "report.xml").write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="  off by 2"/></testcase>'
        '<testcase name="c"><skipped/></testcase></testsuite></testsuites>'
    )
    found = parity.read_report(tmp_path / "report.xml")
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 1, 1)
    assert found["failures"] == [{"test": "b", "message": "off by 2"}]


HERE = {"sources": "one", "device": "a card", "torch": "2", "triton": "3", "interpreter": False}


def test_a_cut_short_parity_keeps_the_files_that_passed(tmp_path: Path):
    output, now = tmp_path / "parity.json", {"tests": "t", "environment": HERE}
    assert parity.passed_before(output, now) == []
    files = [{"file": "a.py", "code": 0}, {"file": "b.py", "code": 1}, {"file": "c.py", "code": 5}]
    output.write_text(json.dumps({**now, "complete": False, "files": files}))
    assert [found["file"] for found in parity.passed_before(output, now)] == ["a.py", "c.py"]
    assert parity.passed_before(output, {**now, "tests": "u"}) == []
    assert parity.passed_before(output, {**now, "environment": {**HERE, "device": "another card"}}) == []


def test_a_cut_short_training_keeps_the_runs_it_finished(tmp_path: Path):
    output, now = tmp_path / "training.json", {"environment": HERE}
    assert training.trained_before(output, now) == []
    output.write_text(json.dumps({**now, "complete": False, "runs": [{"backend": "kernels"}]}))
    assert training.trained_before(output, now) == [{"backend": "kernels"}]
    assert training.trained_before(output, {"environment": {**HERE, "sources": "two"}}) == []


def run_of(*totals: float) -> dict[str, Any]:
    return {"kind": "teacher", "history": [{"step": k, "total": t} for k, t in enumerate(totals)]}


@pytest.mark.parametrize(
    ("kernels", "other_seed", "within"),
    [
        (1.0, 1.0, True),
        (1.015, 1.0, True),  # below the floor
        (1.1, 1.2, True),  # less than the seeds differ
        (1.1, 1.05, False),
        (0.8, 1.1, False),  # better is as suspicious as worse
    ],
)
def test_learning_alike_is_measured_by_the_spread_of_seeds(kernels: float, other_seed: float, within: bool):
    verdict = convergence.judged(run_of(5, 3, 2, 2, kernels), run_of(5, 3, 2, 2, 1.0), run_of(5, 3, 2, 2, other_seed))
    assert verdict["within"] is within
    assert verdict["early_relative_differences"] == [0, 0, 0]


def test_findings_read_the_stages_own_json(tmp_path: Path):
    files = [{"file": "a.py", "code": 0, "passed": 3}, {"file": "b.py", "code": 1, "passed": 1, "failed": 2}]
    (tmp_path / "parity.json").write_text(json.dumps({"complete": True, "files": files}))
    row = {"name": "parity", "state": "failed", "code": 1}
    assert finding(tmp_path, row) == "4 passed, 2 failed, 0 skipped; red: b.py"
    assert finding(tmp_path, {"name": "facts", "state": "failed", "code": -9}) == "exit code -9, see logs/facts.log"


def test_pending_names_every_stage():
    text = (ROOT / "bench" / "results" / "PENDING.md").read_text(encoding="utf-8")
    assert [stage.name for stage in STAGES if f"`{stage.name}`" not in text] == []


def test_stages_are_named_once_and_the_doctor_comes_first():
    assert len(BY_NAME) == len(STAGES)
    assert [stage.name for stage in STAGES[:2]] == ["doctor", "parity"]


def test_folders_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADU_CALLED_FROM", str(tmp_path))
    assert out_folder(parse(["--out", "x"])) == tmp_path / "x"
    with pytest.raises(SystemExit):
        parse(["--minutes", "0"])
