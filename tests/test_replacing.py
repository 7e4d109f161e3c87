"""What is written: whole or not at all, on the disk before it has its name, and nothing left behind by the killed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from adu_depth import files
from adu_depth.errors import InputError
from adu_depth.files import remove_folder, replacing, replacing_with, write_json
from adu_depth.leftovers import sweep, temporary_name

ROOT = Path(__file__).resolve().parents[1]
WRITER = """
import sys, time
from adu_depth.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def start_writing(path: Path) -> subprocess.Popen[str]:
    """A process that has written half of `path` and goes on for a minute."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.fixture(autouse=True)
def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_swept", set())


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_what_a_running_process_writes_stays_and_what_a_killed_one_left_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start_writing(tmp_path / "config.json")
    try:
        (half,) = hidden(tmp_path)
        write_json(tmp_path / "history.json", {})
        sweep(tmp_path, alone=True)
        assert hidden(tmp_path) == [half], "it still runs"
    finally:
        process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    monkeypatch.setattr(files, "_swept", set())
    write_json(tmp_path / "history.json", {})  # a zombie until somebody waits for it: it does not run
    assert hidden(tmp_path) == []
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]


def test_a_clock_that_is_set_ends_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system counts from its start, and tells the time of that by the clock."""
    process = start_writing(tmp_path / "config.json")
    try:
        (half,) = hidden(tmp_path)
        boot = psutil.boot_time()
        for shift in (-3600.0, 3600.0):
            for module in (psutil, psutil._psplatform):
                monkeypatch.setattr(module, "boot_time", lambda shift=shift: boot + shift)
            sweep(tmp_path)
            assert hidden(tmp_path) == [half], shift
    finally:
        process.kill()
        process.wait()


def test_a_number_that_another_process_has_by_now_and_a_folder_are_no_hindrance(tmp_path: Path) -> None:
    mine = temporary_name("config.json")
    start = int(mine.rsplit("-", 1)[1].split(".")[0])
    reused = mine.replace(f"-{start}.", f"-{start - 1000}.")
    (tmp_path / reused).mkdir()
    (tmp_path / reused / "model.safetensors").write_text("half")
    (tmp_path / mine).write_text("half")
    write_json(tmp_path / "a.json", {})
    assert hidden(tmp_path) == [mine]


def test_another_hosts_go_only_where_nobody_else_can_be_writing(tmp_path: Path) -> None:
    names = [
        ".config.json.00000000-1700000000.12.tmp",  # of another host or container
        f".history.jsonl.{2**22 + 1}.tmp",  # an earlier version's, of a process that there is not
        ".tmpWGWjg8",  # safetensors' own
    ]
    users = [".notes.tmp", ".config.json.swp", ".tmp", ".tmp-mine", ".12.tmp", f".mine.{os.getpid()}.tmp"]
    for name in names + users:
        (tmp_path / name).write_text("")
    write_json(tmp_path / "a.json", {})
    assert hidden(tmp_path) == sorted(names + users)
    sweep(tmp_path, alone=True)
    assert hidden(tmp_path) == sorted(users)


def test_a_file_never_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write .*photos: .*[Dd]irectory"):
        write_json(tmp_path / "photos", {})
    assert (tmp_path / "photos" / "one.png").read_text() == "mine"
    assert hidden(tmp_path) == []


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 127, os.fsdecode(b"\xff" * 255)):
        write_json(tmp_path / name, {})
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of the system from now on, in order: (fsync or rename, the name it is asked for)."""
    asked: list[tuple[str, str]] = []

    def spy(name: str, call: Callable[..., None], said: Callable[..., str]) -> None:
        def wrapped(*arguments: object) -> None:
            asked.append((name, said(*arguments)))
            call(*arguments)

        monkeypatch.setattr(os, call.__name__, wrapped)

    def plain(path: str) -> str:
        name = os.path.basename(path)
        return "temporary" if name.endswith(".tmp") else name

    spy("fsync", os.fsync, lambda opened: plain(os.readlink(f"/proc/self/fd/{opened}")))
    spy("rename", os.replace, lambda old, new: f"{plain(old)} → {plain(new)}")
    return asked


@pytest.mark.skipif(sys.platform != "linux", reason="reads names of open files in /proc")
def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "run"
    asked = spied(monkeypatch)
    write_json(folder / "a.json", {})
    above = [("fsync", "new"), ("fsync", tmp_path.name)]
    assert asked[:2] == above
    assert asked[2:] == [("fsync", "temporary"), ("rename", "temporary → a.json"), ("fsync", "run")]
    asked.clear()
    with replacing(folder / "step") as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("whole")
    assert asked[:2] == [("fsync", "weights"), ("fsync", "temporary")]
    assert asked[2:] == [("rename", "temporary → step"), ("fsync", "run")]


def test_a_folder_is_removed_or_exchanged_in_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where removing it stops half-way, as by a kill, no half of it is left under its name."""

    def stopped(path: Path) -> None:
        (path / "model").unlink()
        raise KeyboardInterrupt

    def write(text: str) -> None:
        with replacing(tmp_path / "step") as temporary:
            temporary.mkdir()
            (temporary / "model").write_text(text)
            (temporary / "state").write_text(text)

    write("old")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            write("new")
        assert {path.name: path.read_text() for path in (tmp_path / "step").iterdir()} == dict.fromkeys(
            ("model", "state"), "new"
        )
        with pytest.raises(KeyboardInterrupt):
            remove_folder(tmp_path / "step")
    assert not (tmp_path / "step").exists()
    for left in hidden(tmp_path):
        (tmp_path / left).rename(tmp_path / left.replace(f".{os.getpid()}.tmp", f".{2**22 + 1}.tmp"))
    sweep(tmp_path)
    assert hidden(tmp_path) == []


def write_pair(folder: Path, text: str) -> None:
    with replacing_with(folder / "a.xml", folder / "a.bin") as temporary:
        temporary.write_text(text)
        (temporary.parent / "a.bin").write_text(text)


def test_of_a_pair_no_moment_has_two_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before any of its renames, as by a kill: the first file is the old one beside the old, or not there."""
    rename = os.replace
    for stop in range(4):
        write_pair(tmp_path, "old")
        calls = iter(range(9))

        def stopped(old: Path, new: Path, stop: int = stop, calls: Iterator[int] = calls) -> None:
            if next(calls) == stop:
                raise KeyboardInterrupt
            rename(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stopped)
            with pytest.raises(KeyboardInterrupt):
                write_pair(tmp_path, "new")
        found = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert "a.xml" not in found or set(found.values()) == {"old"}, stop
        assert ("a.xml" in found) == (stop == 0)
    write_pair(tmp_path, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.xml": "new", "a.bin": "new"}


@pytest.mark.parametrize("before", [("a.xml", "a.bin"), ("a.xml",), ("a.bin",), ()])
def test_where_a_rename_of_a_pair_is_refused_all_is_as_before(
    before: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them in turn; of another's file in a folder like /tmp, say, or of one that Windows has open."""
    rename = os.replace
    for name in before:
        (tmp_path / name).write_text("old")
    for refused in range(2 + len(before)):
        calls = iter(range(9))
        seen: list[set[str]] = []

        def moved(old: Path, new: Path, refused: int = refused, calls: Iterator[int] = calls) -> None:
            if next(calls) == refused:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(old))
            rename(old, new)
            if (tmp_path / "a.xml").exists():
                seen.append({path.read_text() for path in tmp_path.glob("a.*")})  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", moved)
            with pytest.raises(InputError, match=r"cannot write .*a\.xml: .*not permitted"):
                write_pair(tmp_path, "new")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(before, "old"), refused
        assert all(texts == {"old"} for texts in seen), "nor was it beside one of another time on the way back"
    write_pair(tmp_path, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.xml": "new", "a.bin": "new"}


def test_neither_of_a_pair_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.xml", "a.bin"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=r"cannot write .*a\.xml: .*[Dd]irectory"):
            write_pair(tmp_path, "new")
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).rmdir()
