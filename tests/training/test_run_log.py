"""A run's curves while it is under way: what TensorBoard reads, and what happens where they cannot be written."""

from __future__ import annotations

import errno
import io
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from adu_depth.errors import InputError
from adu_depth.folder_lock import LOCK_FILE, locked
from adu_depth.training import run_log
from adu_depth.training.history import read_history
from adu_depth.training.runs import train_teacher
from tests.training.tiny import tiny_teacher


def shown(folder: Path) -> dict[int, float]:
    events = EventAccumulator(str(folder)).Reload()
    return {event.step: event.value for event in events.Scalars("total")}


@pytest.mark.parametrize("passed", [100, 0, -1000], ids=["later", "in the same second", "with the clock set back"])
def test_tensorboard_shows_each_step_once_and_a_resumed_run_in_place_of_what_it_redoes(
    passed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.7)
    first = run_log.EventFile(tmp_path, 1)
    for step in (1, 2, 3, 4):
        first.write({"step": step, "total": 0.5})
    assert shown(tmp_path) == dict.fromkeys((1, 2, 3, 4), 0.5), "a row is there as soon as it is written"
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.7 + passed)
    again = run_log.EventFile(tmp_path, 3)
    for step in (3, 4, 5):
        again.write({"step": step, "total": float("nan") if step == 5 else 0.25})
    first.close()
    again.close()
    assert str(shown(tmp_path)) == "{1: 0.5, 2: 0.5, 3: 0.25, 4: 0.25, 5: nan}"


def test_a_log_that_goes_on_after_a_step_keeps_what_was_before_it(tmp_path: Path) -> None:
    nobody: Any = SimpleNamespace(write=lambda row: None)
    for start, loss in ((0, 0.5), (2, 0.25)):
        with closing(run_log.RunLog(tmp_path, start, True, nobody)) as log:
            for step in range(start + 1, 5):
                log.write_row({"step": step, "total": loss})
    kept = {1: 0.5, 2: 0.5, 3: 0.25, 4: 0.25}
    assert shown(tmp_path / "tensorboard") == kept
    for rows in (log.rows, read_history(tmp_path / "history.jsonl", 9)):
        assert [(row["step"], row["total"]) for row in rows] == list(kept.items()), "each once"


class Full(io.FileIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_is_named_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, mode: str = "r", **options: object) -> object:
        raw = Full(path, mode[0])
        return io.BufferedWriter(raw) if "b" in mode else io.TextIOWrapper(io.BufferedWriter(raw))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"cannot write .*events\.out\..*: No space left on device"):
        run_log.EventFile(tmp_path, 1)


def test_a_training_whose_folder_was_moved_ends_and_leaves_what_is_there_now_alone(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    write = run_log.EventFile.write

    def move_then_write(events: run_log.EventFile, row: dict[str, float]) -> None:
        if row["step"] == 4:
            run.rename(moved)
            run.mkdir()
            (run / LOCK_FILE).write_text("another's")
        write(events, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_log.EventFile, "write", move_then_write)
        with pytest.raises(InputError, match=rf"{run}: the folder was moved to {moved} while this process wrote"):
            train_teacher(tiny_teacher(run))
    assert {path.name for path in run.iterdir()} == {LOCK_FILE}
    assert (run / LOCK_FILE).read_text() == "another's"
    with locked(moved, "somebody"):
        pass
