"""history.jsonl: a run's curves, a row of numbers a line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypedDict

from adu_depth.data.config import MOST
from adu_depth.errors import InputError
from adu_depth.files import read_text
from adu_depth.schema import Length, Range, check, parse_json

MOST_ROWS = 1_000_000
Row = dict[str, float]
VALIDATION = "validation/"
"""Begins the names of what was measured on held-out samples; these are rows of their own."""
MEASURED = ("images_per_second", "data_wait", "peak_memory_mb", "seconds_left")
"""What a row says of the machine: all else in it follows from the run's configuration."""
FEW = 0.1
"""Share of the pixels that pass the left–right check below which next to nothing is learned of the others.

Measured on unlabelled streets: a teacher of built-in scenes has 0.53 to 0.80 before it is adapted, one that is being
adapted 0.69 to 0.95, an untrained network (on built-in scenes) 0.13 to 0.3; with the views exchanged 0.07 and 0.18,
with the right one six rows too high, black or of another frame 0.02 to 0.08."""


class Numbered(TypedDict):
    step: Annotated[int, Range(0, MOST)]


def read_history(path: Path, last: int) -> list[Row]:
    """The rows up to step `last`. A last line that is not whole is what a kill left, and is passed over.

    Raises InputError naming file and line for anything else that is no row of numbers.
    """
    lines = read_text(path).split("\n")
    if len(lines) > MOST_ROWS:
        raise InputError(f"{path}: expected at most {MOST_ROWS:,} rows, got {len(lines):,}")
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    rows = [_row(line, f"{path}, line {number}") for number, line in numbered[:-1]]
    with suppress(InputError):
        rows += [_row(line, f"{path}, line {number}") for number, line in numbered[-1:]]
    return [row for row in rows if row["step"] <= last]


def _row(line: str, source: str) -> Row:
    try:
        found = parse_json(line, source, non_finite=True)
        row: Row = check(Annotated[dict[str, float], Length(256)], found, source)
        return row | {"step": check(Numbered, found, source)["step"]}
    except InputError as error:
        raise InputError(f"{error}; remove the line, or the file: its curves are lost, the training is not") from error


def hardly_consistent(rows: list[Row]) -> str | None:
    """A warning where the newest row is the first of the run in which hardly any pixel passes the left–right check."""
    newest = rows[-1]
    if newest.get("consistent", 1.0) >= FEW or any(row.get("consistent", 1.0) < FEW for row in rows[:-1]):
        return None
    return (
        f"WARNING: step {newest['step']}: {100 * newest['consistent']:.1f} % of the pixels pass the left–right check "
        "(consistent in the history), and next to nothing is learned of the others. Are left and right exchanged, not "
        "rectified, or one camera black (`adu-depth doctor` looks)? Does the teacher's max_disparity fit these images?"
    )
