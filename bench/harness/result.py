"""A benchmark's result as JSON: written after every case, so that a run that is cut short keeps what it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adu_depth.errors import InputError
from adu_depth.files import write_json

SCHEMA = 1
STATUSES = ("measured", "refused", "failed", "absent")
"""measured: has times. refused: parity failed. failed: an error. absent: there is no such implementation (yet)."""

Row = dict[str, Any]
CaseResult = dict[str, Any]
Result = dict[str, Any]


def new_result(benchmark: str, size: str, environment: dict[str, Any], notice: str) -> Result:
    """A result without cases. notice: what a reader must know before any number, "" for nothing."""
    return {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "size": size,
        "notice": notice,
        "environment": environment,
        "roofs": None,
        "complete": False,
        "cases": [],
    }


def save_result(path: Path, result: Result) -> None:
    check_result(result, str(path))
    write_json(path, result)


def read_result(path: Path) -> Result:
    """A result file, checked. InputError names the file and what is wrong with it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a benchmark's JSON result, {error}") from error
    check_result(value, str(path))
    return value  # type: ignore[no-any-return]


def check_result(value: Any, where: str) -> None:
    """InputError unless `value` has the fields that tables and plots read."""
    _fields(value, where, schema=int, benchmark=str, size=str, notice=str, environment=dict, complete=bool, cases=list)
    if value["schema"] != SCHEMA:
        raise InputError(f"{where}: expected schema {SCHEMA}, got {value['schema']}")
    for number, case in enumerate(value["cases"]):
        place = f"{where}: cases[{number}]"
        _fields(case, place, name=str, dtype=str, shape=dict, work=dict, rows=list)
        for at, row in enumerate(case["rows"]):
            _fields(row, f"{place}.rows[{at}]", name=str, status=str)
            if row["status"] not in STATUSES:
                raise InputError(f"{place}.rows[{at}]: status is {row['status']!r}, expected one of {STATUSES}")
            if row["status"] == "measured" and not row.get("times"):
                raise InputError(f"{place}.rows[{at}]: measured, but without times")
            if row["status"] != "measured" and row.get("times"):
                raise InputError(f"{place}.rows[{at}]: {row['status']}, but with times")


def comparable(earlier: Result, now: Result) -> bool:
    """Whether cases of an earlier result may stand beside those of this run: same code, machine, versions and size."""
    return (
        same_making(earlier["environment"], now["environment"])
        and earlier["benchmark"] == now["benchmark"]
        and earlier["size"] == now["size"]
    )


def same_making(earlier: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two environments are of the same code, machine and versions."""
    same = ("sources", "device", "torch", "triton", "interpreter")
    return all(earlier.get(key) == now.get(key) for key in same)


def worst_status(result: Result) -> str:
    """What the exit code is made of: "refused", else "failed", else "measured"."""
    found = {row["status"] for case in result["cases"] for row in case["rows"]}
    return next((status for status in ("refused", "failed") if status in found), "measured")


def _fields(value: Any, where: str, **types: type) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object, got {type(value).__name__}")
    for name, kind in types.items():
        if not isinstance(value.get(name), kind):
            got = "nothing" if name not in value else type(value[name]).__name__
            raise InputError(f"{where}: {name} must be {kind.__name__}, got {got}")
