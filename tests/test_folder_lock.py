"""One process at a time writes into a folder, whatever becomes of it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from adu_depth import folder_lock
from adu_depth.errors import InputError
from adu_depth.files import write_json
from adu_depth.folder_lock import LOCK_FILE, file_system, locked, require_free_below
from adu_depth.writer import this_writer

ROOT = Path(__file__).resolve().parents[1]
HOLDER = """
import os, sys, time
from adu_depth.folder_lock import locked
with locked(sys.argv[1], "train-teacher"):
    child = os.fork()  # as a loader's worker: it outlives its parent's kill for a while
    if child:
        print(child, flush=True)
    time.sleep(60)
"""
TAKER = """
import sys, time
from adu_depth.errors import InputError
from adu_depth.folder_lock import locked
taken = 0
for _ in range(int(sys.argv[2])):
    try:
        with locked(sys.argv[1], "taker"), open(sys.argv[1] + "/inside", "x"):
            taken += 1
            time.sleep(0.001)
            __import__("os").unlink(sys.argv[1] + "/inside")
    except InputError as error:
        assert "is writing into it" in str(error), error
        time.sleep(0.0005)
print(taken)
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_running_holder_is_named_and_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(HOLDER, folder)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(InputError) as refused, locked(folder, "distill"):
            pass
        told = rf"another process (train-teacher, process {process.pid} on {this_writer().host}, since 20"
        assert str(refused.value).startswith(f"{folder}: {told}")
        assert "wait for it or stop it, or name another folder" in str(refused.value)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        with locked(folder, "distill"):
            assert json.loads((folder / LOCK_FILE).read_text())["pid"] == os.getpid()
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
    assert os.listdir(folder) == []


FORKING = """
import os, sys, time
os.register_at_fork(after_in_child=lambda: time.sleep(0.5))  # a machine with much to do; called before ours
from adu_depth.folder_lock import locked
with locked(sys.argv[1], "train-teacher"):
    print(flush=True)
    if os.fork() == 0:
        os._exit(0)
    time.sleep(60)
"""


def test_a_worker_that_was_just_started_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    process = start(FORKING, tmp_path / "run")
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.kill()
    process.wait()
    with locked(tmp_path / "run", "distill"):
        pass


@pytest.mark.parametrize("there", [True, False])
def test_of_many_that_come_and_go_never_two_are_inside(there: bool, tmp_path: Path) -> None:
    """A folder that was not there is made by one, and may go with it: the others make it again."""
    folder = tmp_path / "run"
    if there:
        folder.mkdir()
    takers = [start(TAKER, folder, 150) for _ in range(3)]
    taken = [int(taker.communicate(timeout=60)[0]) for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0, 0], "one found another's file inside"
    assert all(taken)
    assert not folder.exists() or os.listdir(folder) == []


def test_a_folder_made_for_nothing_goes_and_one_with_results_or_an_owner_stays(tmp_path: Path) -> None:
    with locked(tmp_path / "new", "predict"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    with locked(tmp_path / "new", "predict"):
        (tmp_path / "new" / "result").write_text("")
    assert os.listdir(tmp_path / "new") == ["result"]
    (tmp_path / "empty").mkdir()
    with locked(tmp_path / "empty", "predict"):
        pass
    assert os.listdir(tmp_path / "empty") == []


def test_a_lock_file_that_its_holder_removes_in_that_moment_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a file that has no name any more would keep nobody out."""
    lock, asked = folder_lock._lock, []

    def remove_first(handle: int) -> str:
        asked.append(handle)
        if len(asked) == 1:
            (tmp_path / LOCK_FILE).unlink()
        return lock(handle)

    monkeypatch.setattr(folder_lock, "_lock", remove_first)
    with locked(tmp_path, "predict"), pytest.raises(InputError, match="another process"), locked(tmp_path, "distill"):
        pass


def test_a_folder_that_its_maker_takes_away_in_that_moment_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def make(folder: Path) -> None:
        folder.mkdir()
        made.append(folder)
        if len(made) == 1:
            folder.rmdir()

    monkeypatch.setattr(folder_lock, "make_folder", make)
    with locked(tmp_path / "run", "predict"):
        assert os.listdir(tmp_path / "run") == [LOCK_FILE]
    assert len(made) == 2


def test_a_lock_that_was_removed_and_taken_by_another_ends_the_first(tmp_path: Path) -> None:
    with locked(tmp_path, "distill"):
        write_json(tmp_path / "a.json", {})
        (tmp_path / LOCK_FILE).unlink()
        write_json(tmp_path / "a" / "b.json", {})
        with locked(tmp_path, "evaluate"):
            with pytest.raises(InputError, match=rf"{tmp_path}: {LOCK_FILE} was removed, and another process writes"):
                write_json(tmp_path / "a" / "c.json", {})
            write_json(tmp_path.parent / "elsewhere.json", {})
    assert sorted(os.listdir(tmp_path)) == ["a", "a.json"]


def test_what_killed_processes_left_goes_when_a_folder_is_locked(tmp_path: Path) -> None:
    left = [".config.json.00000000-1700000000.12.tmp", f".history.jsonl.{2**22 + 1}.tmp", ".tmpWGWjg8"]
    for name in left:
        (tmp_path / name).write_text("half")
    with locked(tmp_path, "distill"):
        assert os.listdir(tmp_path) == [LOCK_FILE]


def record(folder: Path, **changes: object) -> None:
    """Leaves what a holder that was killed leaves: its record."""
    me = this_writer()
    found = {"host": me.host, "space": me.space, "pid": me.pid, "started": me.started, "what": "distill"}
    folder.mkdir(exist_ok=True)
    (folder / LOCK_FILE).write_text(json.dumps(found | {"since": "2026-01-01T00:00:00+00:00"} | changes))


GONE = {"pid": 2**22 + 1}
REUSED = {"started": this_writer().started - 1000}
AWAY = {"host": "node17", "pid": 12}


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


NONE = [GONE, REUSED, {"pid": "x"}, {"pid": -1}, {"pid": 10**300}, {"started": float("nan")}]


@pytest.mark.parametrize("left", NONE, ids=["gone", "reused", "damaged", "negative", "huge", "nan"])
@pytest.mark.parametrize("locks", [True, False])
def test_a_stale_record_is_no_hindrance(
    left: dict[str, object], locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, **left)
    if not locks:
        without_locks(monkeypatch)
    said: list[str] = []
    with locked(tmp_path, "distill", say=said.append):
        pass
    told = f"{tmp_path}: its file system has no locks; a process of another host may go unnoticed"
    assert said == ([] if locks else [told])


def test_without_locks_the_record_of_a_running_process_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch)
    for left in ({}, AWAY):
        record(tmp_path, **left)
        with pytest.raises(InputError, match=rf"process \d+ on {left.get('host', this_writer().host)}"):  # noqa: SIM117
            with locked(tmp_path, "distill"):
                pass
        assert (tmp_path / LOCK_FILE).exists(), "it is another's"


def test_a_record_of_another_host_holds_unless_the_disk_is_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, **AWAY)
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(folder_lock, "file_system", lambda folder: "nfs4")
        with (
            pytest.raises(InputError, match=r"process 12 on node17, .*if it runs no more, remove .*\.lock"),
            locked(tmp_path, "distill", say=said.append),
        ):
            pass
    monkeypatch.setattr(folder_lock, "file_system", lambda folder: "ext4")
    with locked(tmp_path, "distill", say=said.append):
        pass
    assert len(said) == 1
    assert "process 12 on node17" in said[0]
    assert "going on" in said[0]


def test_the_kind_of_a_file_system_is_found(tmp_path: Path) -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(tmp_path) in folder_lock.LOCAL


def test_a_link_in_the_locks_place_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_FILE).symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(InputError, match="cannot write"), locked(tmp_path / "run", "distill"):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_all_processes_of_a_run_are_refused_where_the_first_is(tmp_path: Path) -> None:
    told: list[str | None] = []

    def as_first(refusal: str | None) -> str | None:
        told.append(refusal)
        return refusal

    with locked(tmp_path, "distill"):
        with pytest.raises(InputError, match="another process"), locked(tmp_path, "distill", share=as_first):
            pass
        with pytest.raises(InputError, match="the first process was not let in"):  # noqa: SIM117
            with locked(tmp_path, "distill", first=False, share=lambda _: told[0]):
                pass
    with locked(tmp_path, "distill", first=False, share=lambda _: None) as alone:
        assert not alone
        assert os.listdir(tmp_path) == []


def test_a_folder_is_not_cleared_over_a_process_that_writes_below(tmp_path: Path) -> None:
    require_free_below(tmp_path)
    below = locked(tmp_path / "seed-0" / "teacher", "train-teacher")
    refused = pytest.raises(InputError, match=r"seed-0/teacher: another process \(train-teacher")
    with locked(tmp_path, "quickstart"), below, refused:
        require_free_below(tmp_path)
    require_free_below(tmp_path)


def test_a_process_that_proc_does_not_show_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """hidepid, which many computing centres set, leaves other users' processes out."""

    def refuse(pid: int, signum: int) -> None:
        raise PermissionError

    gone = replace(this_writer(), pid=2**22 + 1)
    assert gone.runs() is False
    monkeypatch.setattr(os, "kill", refuse)
    assert gone.runs()


def test_another_host_is_another_writer() -> None:
    assert replace(this_writer(), host="node17").runs() is None
    assert replace(this_writer(), space="pid:[1]").runs() is None
    assert this_writer().runs()
