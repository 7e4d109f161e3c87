"""The rows of a run's curves: whole ones are read, a torn last one is passed over, anything else is named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from adu_depth.errors import InputError
from adu_depth.training.history import read_history

ROWS = [{"step": step, "total": 1.5} for step in (2, 4, 6)]


def write(folder: Path, *lines: str, end: str = "\n") -> Path:
    path = folder / "history.jsonl"
    path.write_text("\n".join([*(json.dumps(row) for row in ROWS), *lines]) + end)
    return path


def test_rows_up_to_a_step(tmp_path: Path) -> None:
    assert read_history(write(tmp_path), 4) == ROWS[:2]
    assert [type(row["step"]) for row in read_history(write(tmp_path), 9)] == [int] * 3
    assert read_history(write(tmp_path, end=""), 9) == ROWS, "killed before the end of the line"


@pytest.mark.parametrize("torn", ['{"step": 8, "to', "\0" * 100, "[", '{"step": 8}garbage'])
def test_what_a_kill_left_is_passed_over(torn: str, tmp_path: Path) -> None:
    assert read_history(write(tmp_path, torn, end=""), 9) == ROWS


def test_a_loss_that_blew_up_is_a_row_too(tmp_path: Path) -> None:
    assert math.isnan(read_history(write(tmp_path, '{"step": 8, "total": NaN}'), 9)[-1]["total"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[8]", "line 4 must hold a JSON object, got list"),
        ('{"total": 1}', "line 4: step: expected a whole number from 0 to 99,999,999, got nothing"),
        ('{"step": -8}', "line 4: step: expected .*, got -8"),
        ('{"step": 8.5}', r"line 4: step: expected a whole number, got 8\.5"),
        ('{"step": 8, "total": "low"}', "line 4: total: expected a number, got 'low'"),
        ('{"step": 8, "total": ' + "[" * 100_000, "line 4: cannot be read: "),
        ('{"step": 8, "step": 9}', "the name 'step' is there twice"),
        ('{"step": ' + "9" * 5000 + "}", "a number of 5000 digits"),
    ],
    ids=range(8),
)
def test_any_other_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, line, json.dumps({"step": 10, "total": 1.0}))
    with pytest.raises(InputError, match=rf"history\.jsonl, .*{message}.*remove the line, or the file"):
        read_history(path, 99)
