"""The GPU check: budget, going on after a stop, crashes, kills. Stages here are tiny scripts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gpu_check.__main__ import out_folder, parse
from bench.gpu_check.packed import RESULTS, SUMMARY, Packed, read
from bench.gpu_check.runner import Check
from bench.gpu_check.stages import BY_NAME, CONTINUED, PLAN, TABLE_SECONDS, WARM, chosen_stages
from tests.bench.scripted import WHOLE, Folder, Script

ROOT = Path(__file__).resolve().parents[2]


def test_a_finished_stage_is_not_run_again_until_the_code_or_the_machine_changes(folder: Folder):
    stages = (folder.script("a"), folder.script("b"))
    assert folder.call(*stages)[::2] == (0, ["a", "b"])
    code, said, ran = folder.call(*stages)
    assert (code, ran) == (0, [])
    assert "| a | done before |" in said
    assert folder.call(*stages, named=True)[2] == ["a", "b"], "what is asked for by name is done again"
    folder.identity["sources"] = "two"
    assert folder.call(*stages)[2] == ["a", "b"]
    folder.identity["device"] = "another GPU"
    assert folder.call(*stages)[2] == ["a", "b"]
    folder.identity["tests"] = "others"
    assert folder.call(*stages)[2] == [], "the tests' sources decide over the parity stage alone"


def test_a_finding_is_kept_and_tried_again_when_continued(folder: Folder):
    wrong = folder.script("wrong", WHOLE + "; sys.exit(1)")
    assert folder.call(wrong, folder.script("after"))[::2] == (1, ["wrong", "after"])
    assert folder.call(wrong, folder.script("after"))[::2] == (1, [])
    assert folder.call(wrong, folder.script("after"), again=True)[::2] == (1, ["wrong"])


def test_a_crash_is_told_with_its_end_and_tried_again(folder: Folder):
    crash = folder.script("crash", "raise RuntimeError('planted')")
    code, said, ran = folder.call(crash, folder.script("after"))
    assert (code, ran) == (1, ["crash", "after"])
    assert folder.entry("crash")["log"][-1] == "RuntimeError: planted"
    assert "| crash | failed |" in said
    assert "exit code 1: RuntimeError: planted" in said
    assert folder.call(crash, folder.script("after"))[2] == ["crash"]


def test_the_result_of_an_earlier_run_does_not_pass_for_a_crashed_ones(folder: Folder):
    folder.call(folder.script("a"))
    folder.identity["sources"] = "two"
    folder.call(folder.script("a", "os._exit(1)"))
    assert folder.entry("a")["result"] is None
    assert folder.call(folder.script("a"))[2] == ["a"]


def test_a_process_that_dies_in_a_case_begins_anew_and_keeps_what_it_has(folder: Folder):
    code = """
before = earlier()
if before is None:
    write({'complete': False, 'running': {'case': 'deadly'}, 'found': 1})
    os.kill(os.getpid(), 11)
write({'complete': True, 'running': None, 'found': before['found'] + 1})
"""
    assert folder.call(folder.script("a", code, resumable=True))[::2] == (0, ["a", "a"])
    assert folder.entry("a")["result"]["found"] == 2
    assert folder.entry("a")["starts"] == 2


def test_a_stage_past_its_limit_is_stopped_and_none_after_it_is_starved(folder: Folder):
    code = "write({'complete': False, 'running': {'case': 'x'}}); time.sleep(60)"
    greedy = folder.script("greedy", code, resumable=True)
    start = time.monotonic()
    code, said, ran = folder.call(greedy, folder.script("after"), folder.script("last"), minutes=0.5)
    assert time.monotonic() - start < 30
    assert (code, ran) == (3, ["greedy", "after", "last"])
    assert "| greedy | cut short |" in said
    assert folder.entry("greedy")["limit"] < 11
    assert folder.entry("greedy")["result"]["complete"] is False  # what there is, is kept
    goes_on = folder.script("greedy", "assert earlier()['running'] is None; write({'complete': True})", resumable=True)
    code, said, ran = folder.call(goes_on, folder.script("after"), again=True)
    assert (code, ran) == (0, ["greedy"]), said


def test_stages_that_stand_beside_one_another_run_at_once(folder: Folder):
    """Each waits for the other."""
    code = (
        "open(OUT + '.here', 'w').close()\n"
        "while not os.path.exists(OUT.replace({0!r}, {1!r}) + '.here'): time.sleep(0.02)\n"
        "write({{'complete': True}})"
    )
    one = folder.script("one.a", code.format("one.a", "two.b"))
    two = folder.script("two.b", code.format("two.b", "one.a"), 0, beside="one.a")
    assert folder.call(one, two, minutes=1)[0] == 0


def test_when_time_is_out_the_rest_is_not_started(folder: Folder):
    code, said, ran = folder.call(folder.script("a"), folder.script("b"), minutes=0.01)
    assert (code, ran) == (3, [])
    assert "| a | not started |" in said
    assert "| b | not started |" in (folder.path / SUMMARY).read_text()


def test_without_what_is_needed_nothing_else_is_started(folder: Folder):
    lacking = Script("doctor", "", 15, "", code="print('cannot go on'); sys.exit(2)")
    assert Check(Packed(folder.path), 5, say=lambda _: None).run([lacking, folder.script("a")]) == 2
    assert not (folder.path / "ran").exists()


def test_what_is_found_is_copied_and_gone_on_from_elsewhere(folder: Folder, tmp_path: Path):
    copies, other = tmp_path / "copies", tmp_path / "other"
    Check(Packed(folder.path, copies), 5, say=lambda _: None).run([folder.doctor(), folder.script("a")])
    assert sorted(file.name for file in copies.iterdir()) == ["gpu_check.log", RESULTS, SUMMARY]
    (folder.path / "ran").unlink()
    Check(Packed(other, None, copies / RESULTS), 5, say=lambda _: None).run([folder.doctor(), folder.script("a")])
    assert not (folder.path / "ran").exists()
    assert (read(other / RESULTS) or {})["stages"]["a"]["result"] == {"complete": True}
    with pytest.raises(ValueError, match=r"expected a results\.json"):
        Packed(other, None, tmp_path / "nothing.json")


CALLED = """
import sys
from pathlib import Path
sys.path.insert(0, ROOT)
from bench.gpu_check.packed import Packed
from bench.gpu_check.runner import Check
from tests.bench.scripted import Folder
from tests.bench.test_gpu_check import BUSY
folder = Folder(Path(PATH))
stages = [folder.doctor(), *(folder.script(name) for name in 'abc')]
stages['abc'.index(DEADLY) + 1] = folder.script(DEADLY, f'PIDS = {PATH!r}' + BUSY)
Check(Packed(folder.path), 5, say=lambda _: None).run(stages)
"""
BUSY = """
found = [os.getpid()]
for apart in (False, True):
    sleeping = [sys.executable, '-c', 'import time; time.sleep(120)']
    found.append(subprocess.Popen(sleeping, start_new_session=apart).pid)
open(PIDS + '/pids', 'w').write(' '.join(map(str, found)))
for k in range(100000):
    write({'complete': False, 'step': k, 'padding': 'x' * 200000})
"""


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("deadly", ["a", "b", "c"])
def test_a_kill_of_the_check_ends_its_stage_and_leaves_the_packed_file_whole(folder: Folder, deadly: str):
    """At three moments, while the file is rewritten; children that went to a session of their own included."""
    program = f"ROOT, PATH, DEADLY = {str(ROOT)!r}, {str(folder.path)!r}, {deadly!r}\n" + CALLED
    check = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    try:
        until = time.monotonic() + 90
        while not ((read(folder.path / RESULTS) or {}).get("stages", {}).get(deadly) or {}).get("result"):
            assert check.poll() is None, "the check ended by itself"
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)
    finally:
        os.kill(check.pid, signal.SIGKILL)
        check.wait()
    processes = [int(word) for word in (folder.path / "pids").read_text().split()]
    assert len(processes) == 3
    until = time.monotonic() + 20
    while not all(gone(process) for process in processes) and time.monotonic() < until:
        time.sleep(0.05)
    assert [process for process in processes if not gone(process)] == []
    assert folder.entry(deadly)["result"]["step"] >= 0
    assert folder.entry(deadly)["state"] == "running"
    assert all(folder.entry(name)["result"] == {"complete": True} for name in "abc" if name < deadly)
    assert len([file for file in folder.path.iterdir() if file.name not in ("ran", "pids")]) <= 8


def command(*arguments: str) -> list[str]:
    return ["bash", str(ROOT / "scripts" / "gpu_check.sh"), *arguments]


def script_ended(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, cwd=folder)


def test_a_stage_that_does_not_exist_is_named(tmp_path: Path):
    wrong = script_ended(tmp_path, "no-such")
    assert wrong.returncode == 2
    assert "no stage no-such; there are doctor, peaks, parity" in wrong.stderr


@pytest.mark.slow
def test_the_script_itself_on_a_folder_of_the_caller(tmp_path: Path):
    right = script_ended(tmp_path, "--dry-run", "--out", "here", "--pack-to", "packed", "depth-objective")
    assert right.returncode == 0, right.stdout + right.stderr
    assert "DRY RUN" in (tmp_path / "packed" / SUMMARY).read_text()
    found = read(tmp_path / "here" / RESULTS)
    assert found is not None
    sheet = found["stages"]["operations"]["result"]
    assert list(sheet["results"]) == ["depth-objective"]
    assert sheet["results"]["depth-objective"]["complete"]
    assert not sheet["complete"], "the stage has other benchmarks too"


@pytest.mark.slow
def test_a_whole_dry_run_takes_its_stages_in_order_and_leaves_few_files(tmp_path: Path):
    """Minutes of two quiet cores."""
    right = script_ended(tmp_path, "--dry-run", "--out", "here", "--minutes", "40")
    assert right.returncode == 0, right.stdout[-3000:] + right.stderr
    found = read(tmp_path / "here" / RESULTS)
    assert found is not None
    assert list(found["stages"]) == [stage.name for stage in PLAN]
    assert {entry["state"] for entry in found["stages"].values()} == {"done"}
    assert len([path for path in (tmp_path / "here").rglob("*") if path.is_file()]) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["parity", "operations", "training"])
def test_a_dry_run_that_is_killed_leaves_what_it_has(tmp_path: Path, stage: str):
    environment = {**os.environ, "PYTHON": sys.executable}
    told = command("--dry-run", "--out", str(tmp_path), "--minutes", "40", stage)
    check = subprocess.Popen(told, env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 900
    while not ((read(tmp_path / RESULTS) or {}).get("stages", {}).get(stage) or {}).get("result"):
        assert check.poll() is None
        assert time.monotonic() < until
        time.sleep(0.2)
    os.kill(check.pid, signal.SIGKILL)
    check.wait()
    found = read(tmp_path / RESULTS)
    assert found is not None
    assert found["stages"][stage]["state"] in ("running", "done")
    assert len([path for path in tmp_path.iterdir() if path.is_file()]) <= 8
    until = time.monotonic() + 20
    while stage_processes(tmp_path, stage) and time.monotonic() < until:
        time.sleep(0.2)
    assert stage_processes(tmp_path, stage) == []


def stage_processes(folder: Path, stage: str) -> list[str]:
    """Command lines of living processes that write this stage's document."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in listed if str(folder) in line and f"/{stage}.json" in line]


def test_pending_names_every_stage():
    text = (ROOT / "bench" / "results" / "PENDING.md").read_text(encoding="utf-8")
    assert [name for name in BY_NAME if f"`{name}`" not in text] == []


def test_the_plan_is_nine_minutes_the_most_valuable_first():
    begins = {stage.name: sum(s.seconds for s in PLAN[:k]) for k, stage in enumerate(PLAN)}
    assert begins == {
        "doctor": 0,
        "peaks": 15,
        "parity": 30,
        "warm": 240,
        "operations": 240,
        "compiled": 350,
        "training-steps": 380,
        "profile": 470,
        "training": 490,
    }
    assert sum(stage.seconds for stage in PLAN) + TABLE_SECONDS == 540
    assert (WARM.beside, WARM.seconds) == ("parity", 0)
    assert {stage.name for stage in PLAN} - {"warm"} < {stage.name for stage in CONTINUED}
    assert parse([]).minutes == 9


def test_stages_and_benchmarks_are_chosen_by_name():
    stages, only = chosen_stages(["cost-volume", "parity"], continued=False)
    assert ([s.name for s in stages], only) == (["doctor", "parity", "operations", "compiled"], ["cost-volume"])
    assert [s.name for s in chosen_stages(["operations", "tune"], continued=True)[0]] == [
        "doctor",
        "tune",
        "operations",
    ]
    stages, only = chosen_stages(["teacher-step"], continued=False)
    assert ([s.name for s in stages], only) == (["doctor", "training-steps"], ["teacher-step"])


def test_folders_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADU_CALLED_FROM", str(tmp_path))
    assert out_folder(parse(["--out", "x"])) == tmp_path / "x"
    assert out_folder(parse(["--rehearse"])).name == "gpu-dry-run"
    with pytest.raises(SystemExit):
        parse(["--minutes", "0"])


def test_a_call_confined_to_a_benchmark_is_whole_where_the_stage_is_not(folder: Folder):
    part = folder.script("a", "write({'complete': False})", resumable=True)
    assert folder.call(part, only=["b"], named=True)[0] == 0
    assert folder.call(part)[0] == 3
