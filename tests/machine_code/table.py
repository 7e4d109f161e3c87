"""Compiles every case of every room, for every target, and lays the figures beside the committed budgets."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton

from tests.machine_code.assembly import Figures, read
from tests.machine_code.launches import TARGETS, Launch, caught
from tests.machine_code.room import IMAGE_SIZES, Room

BUDGETS = Path(__file__).with_name("budgets.json")


@dataclass(frozen=True)
class Entry:
    """One kernel of one case on one target."""

    room: str
    case: str
    target: str
    double: bool
    launch: Launch

    @property
    def name(self) -> str:
        return f"{self.room} | {self.case} | {self.launch.kernel} | {self.target}"


def entries(rooms: list[Room]) -> list[Entry]:
    return [
        Entry(room.name, case.name, target, case.double, launch)
        for room in rooms
        for case in room.cases
        for target in TARGETS
        for launch in caught(case.call, target)
    ]


def compilations(room: Room) -> dict[str, int]:
    """How often each kernel is compiled when the image size changes, on the target that is worst."""

    def every_size() -> None:
        for height, width in IMAGE_SIZES:
            room.at_size(height, width)

    most: dict[str, int] = {}
    for target in TARGETS:
        kernels = [launch.kernel for launch in caught(every_size, target)]
        most = {kernel: max(most.get(kernel, 0), kernels.count(kernel)) for kernel in {*most, *kernels}}
    return most


_shared_with_workers: list[Entry] = []


def _figures(index: int) -> Figures:
    entry = _shared_with_workers[index]
    return read(entry.launch.compile(entry.target))


def measure(found: list[Entry]) -> dict[str, Figures]:
    """Figures by entry name, compiled in as many processes as there are cores. Triton's cache makes a rerun short."""
    duplicates = {e.name for e in found if sum(e.name == other.name for other in found) > 1}
    if duplicates:
        raise ValueError(f"a case must launch each kernel in one specialisation alone; split it: {sorted(duplicates)}")
    _shared_with_workers[:] = found
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as pool:
        measured = list(pool.map(_figures, range(len(found))))
    return {entry.name: figures for entry, figures in zip(found, measured, strict=True)}


def report(rooms: list[Room]) -> dict[str, Any]:
    found = entries(rooms)
    return {
        "triton": triton.__version__,
        "kernels": {name: figures.as_dict() for name, figures in measure(found).items()},
        "double": [entry.name for entry in found if entry.double],
        "compilations": {room.name: compilations(room) for room in rooms},
    }


def write_budgets(measured: dict[str, Any]) -> None:
    """Writes the measured rooms' rows into the budgets; other rooms keep theirs."""
    rows = json.loads(BUDGETS.read_text())["kernels"] if BUDGETS.exists() else {}
    rows = {name: row for name, row in rows.items() if name.split(" | ")[0] not in measured["compilations"]}
    rows |= measured["kernels"]
    lines = [f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(row)}" for name, row in sorted(rows.items())]
    head = f'{{"triton": {json.dumps(measured["triton"])},\n "kernels": {{\n'
    temporary = BUDGETS.with_suffix(".tmp")
    temporary.write_text(head + ",\n".join(lines) + "\n}}\n")
    temporary.replace(BUDGETS)
