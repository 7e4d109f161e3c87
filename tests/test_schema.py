"""A schema for every file that this project reads: one InputError naming file, field, expected, got."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytest

from adu_depth.errors import InputError
from adu_depth.schema import Length, Range, check, check_ranges, parse_json, read_json


@dataclass(frozen=True)
class Inner:
    width: Annotated[int, Range(1, 64)] = 8
    share: Annotated[float, Range(0, 1, above=True)] = 0.5
    change: Annotated[float, Range(0, 1, below=True)] = 0.5
    widths: Annotated[tuple[Annotated[int, Range(1, 9)], ...], Length(3, 1)] = (1,)
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        check_ranges(self, "inner.")
        if self.width == 13:
            raise InputError("width: 13 is no width")


class Outer(TypedDict):
    step: Annotated[int, Range(0, 10**9)]
    inner: Inner
    note: str | None
    flag: bool
    rest: Any


WHOLE = {"step": 3, "inner": {"widths": [1, 2]}, "note": None, "flag": True, "rest": [{"a": [1, 2.5, "x"]}]}


def test_what_fits_comes_as_the_code_has_it(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text('{"step": 3, "inner": {"share": 1, "widths": [1, 2]}, "note": "ü", '
                                        '"flag": true, "rest": [{"a": []}], "more": 1}')  # fmt: skip
    found = read_json(tmp_path / "file.json", Outer)
    assert found["inner"] == Inner(share=1.0, widths=(1, 2))
    assert isinstance(found["inner"].share, float)
    assert (found["note"], found["more"]) == ("ü", 1), "a TypedDict may hold more than it names"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, r"^F: step: expected a whole number from 0 to 1,000,000,000, got -1$"),
        ({"step": 2.0}, r"^F: step: expected a whole number, got 2\.0$"),
        ({"step": True}, r"^F: step: expected a whole number, got True$"),
        ({"step": 10**40}, r"step: expected a whole number from .*, got a number of more than 20 digits"),
        ({"step": None}, r"step: expected a whole number, got nothing"),
        ({"note": 3}, r"note: expected text, got 3"),
        ({"note": "a\0b"}, r"note: expected text of whole characters"),
        ({"note": "\ud83d"}, r"note: expected text of whole characters"),
        ({"flag": 1}, r"flag: expected true or false, got 1"),
        ({"inner": [1]}, r"inner: expected a JSON object, got list"),
        ({"inner": {"width": 65}}, r"inner\.width: expected a whole number from 1 to 64, got 65"),
        ({"inner": {"share": 0}}, r"inner\.share: expected a number above 0, at most 1, got 0"),
        ({"inner": {"change": 1}}, r"inner\.change: expected a number from 0, below 1, got 1"),
        ({"inner": {"widths": [1, 10]}}, r"inner\.widths\[1\]: expected a whole number from 1 to 9, got 10"),
        ({"inner": {"widths": []}}, r"inner\.widths: expected 1 to 3 members, got 0"),
        ({"inner": {"widths": [1, 1, 1, 1]}}, r"inner\.widths: expected 1 to 3 members, got 4"),
        ({"inner": {"kind": "c"}}, r"inner\.kind: expected 'a' or 'b', got 'c'"),
        ({"inner": {"kind": ["a"]}}, r"inner\.kind: expected 'a' or 'b', got list of 1"),
        ({"inner": {"width": 13}}, r"^F: width: 13 is no width$"),
        ({"inner": {"height": 1}}, r"inner\.height: expected no such name; known are width, share, change, widths"),
        ({"rest": "x" * 10**6 + "\0"}, r"rest: expected text of whole characters, got 'x{59}… \(1000006 characters\)"),
    ],
)
def test_what_does_not_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(Outer, {**WHOLE, **change}, "F")


def test_what_is_missing_is_named() -> None:
    for name in WHOLE:
        with pytest.raises(InputError, match=rf"F: {name}: expected .*, got nothing"):
            check(Outer, {k: v for k, v in WHOLE.items() if k != name}, "F")
    with pytest.raises(InputError, match=r"^F must hold a JSON object, got list$"):
        check(Outer, [], "F")


def test_a_million_numbers_are_looked_at_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text('{"a": [' + "1," * 2_000_000 + '"\\u0000"]}')
    started = time.process_time()
    with pytest.raises(InputError, match=r"a\[2000000\]: expected text of whole characters"):
        read_json(tmp_path / "file.json")
    assert time.process_time() - started < 4


def test_a_range_holds_for_settings_made_in_python_too() -> None:
    with pytest.raises(InputError, match=r"^inner\.width: expected a whole number from 1 to 64, got 0$"):
        Inner(width=0)
    with pytest.raises(InputError, match=r"^inner\.share: expected a number above 0, at most 1, got nan$"):
        Inner(share=float("nan"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ('{"a": NaN}', "'NaN' is not a finite number"),
        ('{"a": -Infinity}', "'-Infinity' is not a finite number"),
        ('{"a": 1e999}', "'1e999' is not a finite number"),
        ('{"a": ' + "9" * 100_000 + "}", "a number of 100000 digits, expected at most 20"),
        ('{"a": 1, "b": 2, "a": 3}', "the name 'a' is there twice in one object"),
        ("[" * 100_000 + "]" * 100_000, "expected at most 32 objects and lists within each other, got more"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "expected at most 32 objects"),
        ("[" + "[]," * 10**6 + "1]", "expected at most 200,000 objects and lists"),
        ("[" + "1," * 5 * 10**6 + "1]", "and 4,000,000 values, got 1 and 5,000,000"),
        ("[" * 60 + "]" * 60, "expected at most 32 objects and lists within each other, got more"),
    ],
    ids=range(12),
)
def test_text_that_is_no_json_or_too_much_of_it(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(text)
    started = time.monotonic()
    with pytest.raises(InputError, match=message) as caught:
        read_json(tmp_path / "file.json", Any)
    assert time.monotonic() - started < 2
    assert str(tmp_path / "file.json") in str(caught.value)
    assert len(str(caught.value)) < 400


def test_numbers_that_python_writes_are_read_where_they_are_asked_for() -> None:
    assert parse_json("[NaN, Infinity, -Infinity, 1e999]", "F", non_finite=True)[1:] == [
        float("inf"),
        float("-inf"),
        float("inf"),
    ]
