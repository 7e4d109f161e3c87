"""What becomes of results in a later call, on other code or another machine, and when a place to write to goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.gpu_check.__main__ import hold, main
from bench.gpu_check.packed import LOG, RESULTS, SUMMARY, Packed, read
from tests.bench.scripted import WHOLE, Folder, Script

ROOT = Path(__file__).resolve().parents[2]
RED = "{'operation': 'cost-volume', 'after_spoilt': False, 'message': 'off by 2'}"
TESTED = f"write({{'complete': False, 'counts': {{'failed': 1}}, 'failures': {{'tests/x::y': {RED}}}}})"
LATE = "; sys.exit(3)"  # as a stage ends that sees its limit come


def sheet(name: str, median: float, complete: bool = True) -> str:
    """Writes the document of a stage that has timed one case."""
    row = {"name": "ours", "status": "measured", "times": {"forward": {"median": median}, "total": {"median": median}}}
    results = {name: {"cases": [{"name": f"{name} case", "rows": [row]}]}}
    return f"write({{'complete': {complete}, 'environment': {{'device': 'the first GPU'}}, 'results': {results}}})"


def test_a_stage_beside_one_that_is_done_is_decided_by_itself(folder: Folder):
    """After `gpu_check.sh parity` the plain call still compiles, and its summary is one."""
    compiles = "write({'complete': True, 'compiled': {}})"
    parity, warm = folder.script("parity"), folder.script("warm", compiles, 0, beside="parity")
    folder.call(parity, named=True)
    code, said, ran = folder.call(parity, warm)
    assert (code, ran) == (0, ["warm"]), said
    assert "The summary failed" not in folder.summary()
    assert "| parity | done before |" in folder.summary()
    assert folder.call(parity, warm)[::2] == (0, [])


def test_a_row_without_its_fields_does_not_cost_the_summary(folder: Folder):
    folder.call(folder.script("operations"))
    value = read(folder.path / RESULTS)
    assert value is not None
    del value["stages"]["operations"]["seconds"]  # as another version of this check may have left it
    value["stages"]["peaks"] = {"name": "peaks"}
    (folder.path / RESULTS).write_text(json.dumps(value))
    assert folder.call(folder.script("parity"))[::2] == (0, ["parity"])
    assert "| operations | done | 0 |" in folder.summary()


@pytest.mark.parametrize(
    "text", ["not JSON", "[]", '{"schema": 2, "stages": {}}', '{"schema": 1, "calls": [], "stages": {"peaks": null}}']
)
def test_a_file_that_is_none_of_this_checks_is_named_and_left(tmp_path: Path, text: str):
    """It may be another version's, with results that took a GPU."""
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(ValueError, match=rf"{RESULTS}: expected a {RESULTS} of this check \(schema 1\)"):
        Packed(tmp_path)
    assert (tmp_path / RESULTS).read_text() == text


def test_copies_in_the_folder_itself_are_none(folder: Folder):
    assert folder.call(folder.script("a", "print('once', flush=True); " + WHOLE), copies=folder.path)[0] == 0
    assert (folder.path / LOG).read_text().count("a: once") == 1


def test_without_a_key_nothing_counts_as_done(folder: Folder):
    """A doctor whose time was up has found none: two results of nobody knows what are not the same."""
    silent = Script("doctor", "", 15, "", code=WHOLE)
    folder.doctor = lambda: silent  # type: ignore[method-assign]
    assert folder.call(folder.script("a"))[2] == ["a"]
    assert folder.call(folder.script("a"))[2] == ["a"]


@pytest.mark.parametrize("goes", ["before", "meanwhile"])
def test_copies_that_cannot_be_written_cost_the_copies_alone(folder: Folder, tmp_path: Path, goes: str):
    copies = tmp_path / "copies"
    removes = f"import shutil; shutil.rmtree({str(copies)!r}); "
    code, said, ran = folder.call(
        folder.script("a", (removes if goes == "meanwhile" else "") + WHOLE),
        folder.script("b", (removes if goes == "before" else "") + WHOLE),
        folder.script("c"),
        copies=copies,
    )
    assert (code, ran) == (0, ["a", "b", "c"]), said
    assert said.count(f"{copies}: cannot be written") == 1, said
    assert folder.entry("c")["state"] == "done"
    assert list((folder.path / "cache").rglob("*.json")) == []


def test_a_terminal_that_is_gone_does_not_end_the_check(folder: Folder):
    said = [0]

    def say(line: str) -> None:
        said[0] += 1
        if said[0] > 2:
            raise BrokenPipeError

    chatty = folder.script("a", "print('x' * 200, flush=True)\n" * 1000 + WHOLE)  # more than a pipe holds
    assert folder.call(chatty, folder.script("b"), say=say)[::2] == (0, ["a", "b"])
    assert (folder.path / LOG).read_text().count("a: xxx") == 1000


SAYS = """
import sys
from bench.gpu_check import __main__, runner
runner.Check.run = lambda check, *given, **options: [check.say("x") for _ in range(3)] and 3
sys.argv = ["gpu_check.sh", "--dry-run", "--out", {path!r}, "doctor"]
__main__.main()
"""


def test_a_pipe_that_is_closed_does_not_change_the_exit_code(tmp_path: Path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", SAYS.format(path=str(tmp_path))]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (3, "")
    assert (tmp_path / LOG).read_text() == "x\n" * 3


def test_an_earlier_result_is_kept_until_the_new_one_is_whole(folder: Folder):
    folder.call(folder.script("a", "write({'complete': True, 'found': 1})"))
    folder.call(folder.script("a", "os._exit(1)"), named=True)
    assert folder.entry("a")["result"] is None
    assert folder.entry("a")["earlier"]["result"] == {"complete": True, "found": 1}
    folder.call(folder.script("a", "write({'complete': False, 'found': 2})" + LATE), named=True)
    assert folder.entry("a")["result"]["found"] == 2
    assert folder.entry("a")["earlier"]["result"]["found"] == 1
    folder.call(folder.script("a", "os._exit(1)"), named=True)
    assert folder.entry("a")["earlier"]["result"]["found"] == 1, "a whole one before one that was cut short"
    folder.call(folder.script("a", "write({'complete': True, 'found': 3})"), named=True)
    assert "earlier" not in folder.entry("a")


def test_a_stage_that_is_killed_at_once_leaves_the_numbers_of_the_same_code_in_the_tables(folder: Folder):
    folder.call(folder.script("operations", sheet("cost-volume", 123.0)))
    folder.call(folder.script("operations", "os._exit(1)"), named=True)
    assert "| cost-volume case | 123 |" in folder.summary()


def test_red_tests_stay_red_until_they_are_seen_to_pass(folder: Folder):
    """Asked for by name the tests begin anew: what the new run has not reached is as it was."""
    timed = folder.script("operations", sheet("cost-volume", 123.0))
    folder.call(folder.script("parity", TESTED.replace("False", "True", 1) + "; sys.exit(1)"), timed)
    reached = "write({'complete': False, 'counts': {}, 'failures': {}, 'passed': PASSED, 'skipped': {}})" + LATE
    code, _, _ = folder.call(folder.script("parity", reached.replace("PASSED", "['z']")), named=True)
    assert code == 1
    assert "refused: 1 of its tests are red here" in folder.summary()
    again = reached.replace("PASSED", "['tests/x::y']")
    code, _, _ = folder.call(folder.script("parity", again), named=True)
    assert code == 3
    assert "| cost-volume case | 123 |" in folder.summary()


def rows(name: str, status: str) -> str:
    row = {"name": name, "status": status, "reason": ""}
    return f"write({{'complete': False, 'results': {{'b': {{'cases': [{{'name': 'x', 'rows': [{row}]}}]}}}}}})"


@pytest.mark.parametrize(
    "found",
    [
        TESTED,
        rows("ours", "failed"),
        rows("torch SDPA", "refused"),
        "write({'complete': False, 'steps': {'one': {'failure': 'planted'}}})",
        "write({'complete': False, 'steps': 60, 'runs': [{'kind': 'teacher', 'backend': 'kernels', 'failure': 'x'}]})",
        "write({'complete': False, 'questions': [{'name': 'q', 'candidates': [{'status': 'refused'}]}]})",
        "write({'complete': False, 'verdicts': [{'kind': 't', 'within': False, 'relative_difference': 1,"
        " 'spread_of_seeds': 1}]})",
    ],
    ids=["tests", "ours", "refused", "profile", "training", "tune", "convergence"],
)
def test_what_is_known_to_be_wrong_counts_however_the_stage_ended(folder: Folder, found: str):
    assert folder.call(folder.script("a", found + LATE))[0] == 1
    assert folder.entry("a")["state"] == "cut short"
    assert folder.call(folder.script("a"), minutes=0.001)[0] == 3, "of this code on this machine nothing is known yet"


def test_red_tests_count_where_the_limit_came(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.gpu_check.runner.SHORTEST", 1.0)
    assert folder.call(folder.script("parity", TESTED + "; time.sleep(60)"), minutes=0.1)[0] == 1
    assert folder.entry("parity")["code"] is None


@pytest.mark.parametrize("found", [rows("torch SDPA", "failed"), rows("ours", "absent")])
def test_a_peer_that_fails_is_not_ours(folder: Folder, found: str):
    assert folder.call(folder.script("a", found + LATE))[0] == 3


def test_results_of_other_code_or_another_machine_stand_apart(folder: Folder):
    folder.call(folder.script("operations", sheet("cost-volume", 123.0)), folder.script("parity", TESTED))
    folder.identity["device"] = "another GPU"
    slow = folder.script("peaks", "write({'complete': True, 'environment': {'device': 'another GPU'}})")
    folder.call(slow)
    text = folder.summary()
    tables, apart = text.split("## From other code or another machine")
    assert "123" not in text
    assert "the first GPU" not in tables
    assert "device another GPU" in tables.splitlines()[2]
    assert "- operations: device the first GPU: 1 cases" in apart
    assert "off by 2" not in tables, "red tests of another machine are its own"
    folder.call(folder.script("operations", sheet("cost-volume", 77.0)))
    assert "| cost-volume case | 77.0 |" in folder.summary()
    folder.identity["device"] = "a GPU"
    folder.call(folder.script("operations", "os._exit(1)"))
    assert "77.0" not in folder.summary()
    assert "- operations: device the first GPU: 1 cases" in folder.summary(), "what is kept of it, too"


def test_a_document_of_another_machine_does_not_pass_for_this_ones(folder: Folder):
    folder.call(folder.script("a", "write({'complete': False, 'of': 'the first'})", resumable=True))
    folder.identity["device"] = "another GPU"
    folder.call(folder.script("a", "os._exit(1)", resumable=True))
    assert folder.entry("a")["result"] is None
    assert folder.entry("a")["earlier"]["result"]["of"] == "the first"


def as_called(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """`main` finds such a command line, and what it sets for its process does not outlive the test."""
    monkeypatch.setattr(sys, "argv", ["gpu_check.sh", "--dry-run", "--out", str(folder), "doctor"])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(signal, "signal", lambda *given: None)


def test_two_checks_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    """Each would clear the other's documents away."""
    held = hold(tmp_path)
    as_called(monkeypatch, tmp_path)
    monkeypatch.setattr("bench.gpu_check.runner.Check.run", lambda *given, **options: 0)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, list(tmp_path.iterdir())) == (2, [])
    assert f"--out {tmp_path}: another check is running there" in capsys.readouterr().err
    os.close(held)
    os.close(hold(tmp_path))


@pytest.mark.parametrize(("before", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_hangup_ends_the_check_with_its_tables_but_under_nohup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: signal.Handlers, ends: bool
):
    as_called(monkeypatch, tmp_path)
    handled: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handled.__setitem__)
    monkeypatch.setattr(signal, "getsignal", lambda number: before)
    monkeypatch.setattr("bench.gpu_check.runner.Check.run", lambda *given, **options: 0)
    with pytest.raises(SystemExit):
        main()
    assert (signal.SIGTERM in handled, signal.SIGHUP in handled) == (True, ends)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    def full(*given: Any, **options: Any) -> int:
        raise OSError(28, "No space left on device", str(tmp_path / RESULTS))

    as_called(monkeypatch, tmp_path)
    monkeypatch.setattr("bench.gpu_check.runner.Check.run", full)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert f"gpu_check: [Errno 28] No space left on device: '{tmp_path / RESULTS}'" in capsys.readouterr().err


KILLED = """
from pathlib import Path
from bench.gpu_check.__main__ import hold, main
from bench.gpu_check.packed import Packed
from bench.gpu_check.runner import Check
from tests.bench.scripted import Folder
folder = Folder(Path({path!r}))
Check(Packed(folder.path), 5).run([folder.doctor(), folder.script("a", "write({{'complete': False}}); time.sleep(60)")])
"""


def test_a_kill_leaves_nothing_in_the_systems_temporary_folder(folder: Folder, tmp_path: Path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    folder.path = tmp_path / "out"
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    check = subprocess.Popen([sys.executable, "-c", KILLED.format(path=str(folder.path))], env=environment)
    until = time.monotonic() + 60
    while not ((read(folder.path / RESULTS) or {}).get("stages", {}).get("a") or {}).get("result"):
        assert check.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(check.pid, signal.SIGKILL)
    check.wait()
    assert list(temporary.iterdir()) == []
    assert folder.call(folder.script("a"))[0] == 0
    assert list((folder.path / "cache").rglob("*.json")) == [], "the next call clears up"
    assert sorted(file.name for file in folder.path.iterdir()) == ["cache", LOG, "ran", RESULTS, SUMMARY]
