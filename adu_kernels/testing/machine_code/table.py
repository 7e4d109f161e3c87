"""Compiles every case of every operation, for every target, and lays the figures beside the committed budgets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton

from ..gpu_specs import GPUS, MULTIPROCESSORS
from . import launch_tables
from .assembly import Figures, read
from .cases import IMAGE_SIZES, Case, OperationCases, Work
from .launches import TARGETS, Launch, caught
from .prediction import occupancy, predict

AT_MOST = ("registers", "spills", "shared", "instructions")
AT_LEAST = ("wide_loads", "wide_stores")


@dataclass(frozen=True)
class Entry:
    """One kernel of one case on one target."""

    operation: str
    case: Case
    target: str
    launch: Launch

    @property
    def name(self) -> str:
        return f"{self.operation} | {self.case.name} | {self.launch.kernel} | {self.target}"


@dataclass
class Found:
    """What the cases of the operations launch, and which rows of the operations' launch tables they never take."""

    entries: list[Entry] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    """Rows of its tables, by operation."""
    never_taken: list[str] = field(default_factory=list)


def find(operations: list[OperationCases], targets: Iterable[str] = TARGETS) -> Found:
    found = Found()
    for operation in operations:
        table = launch_tables.rows(operation.name)
        with launch_tables.taken(table) as taken:
            found.entries += [
                Entry(operation.name, case, target, launch)
                for case in operation.cases
                for target in targets
                for launch in caught(case.call, target)
            ]
        found.rows[operation.name] = len(table)
        found.never_taken += [f"{operation.name}: {name}" for name in table if name not in taken]
    return found


def compilations(operation: OperationCases) -> dict[str, int]:
    """How often each kernel is compiled when the image size changes, on the target that is worst."""

    def every_size() -> None:
        for height, width in IMAGE_SIZES:
            operation.at_size(height, width)

    most: dict[str, int] = {}
    for target in TARGETS:
        kernels = [launch.kernel for launch in caught(every_size, target)]
        most = {kernel: max(most.get(kernel, 0), kernels.count(kernel)) for kernel in {*most, *kernels}}
    return most


_shared_with_workers: list[Entry] = []


def _figures(index: int) -> Figures:
    entry = _shared_with_workers[index]
    return read(entry.launch.compile(entry.target))


def measure(entries: list[Entry]) -> dict[str, Figures]:
    """Figures by entry name, compiled in as many processes as there are cores. Triton's cache makes a rerun short.

    What several cases launch alike is compiled and read once.
    """
    names = [entry.name for entry in entries]
    duplicates = {name for name in names if names.count(name) > 1}
    if duplicates:
        raise ValueError(f"a case must launch each kernel in one specialisation alone; split it: {sorted(duplicates)}")
    keys = [(entry.operation, entry.target, entry.launch.kernel, entry.launch.key) for entry in entries]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    _shared_with_workers[:] = entries
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as pool:
        measured = dict(zip(first, pool.map(_figures, first.values()), strict=True))
    return {name: measured[key] for name, key in zip(names, keys, strict=True)}


def report(operations: list[OperationCases], targets: Iterable[str] = TARGETS) -> dict[str, Any]:
    """Everything the tests and a person ask for, ready for JSON."""
    found = find(operations, targets)
    figures = measure(found.entries)
    return {
        "triton": triton.__version__,
        "kernels": {name: row.as_dict() for name, row in figures.items()},
        "launches": {entry.name: _launch(entry, figures[entry.name]) for entry in found.entries},
        "double": [entry.name for entry in found.entries if entry.case.double],
        "may_spill": [entry.name for entry in found.entries if entry.case.may_spill],
        "counting": [
            entry.name
            for operation in operations
            for entry in found.entries
            if entry.operation == operation.name and entry.launch.kernel in operation.counting
        ],
        "work_without_a_kernel": _work_without_a_kernel(found),
        "compilations": {operation.name: compilations(operation) for operation in operations},
        "table_rows": found.rows,
        "table_rows_never_taken": found.never_taken,
        "sizes": {operation.name: operation.size for operation in operations},
    }


def _launch(entry: Entry, figures: Figures) -> dict[str, Any]:
    """How a kernel is started, how many of its programs stand side by side, and what is predicted of it."""
    num_warps = entry.launch.options["num_warps"]
    fits = occupancy(entry.target, figures.registers, figures.shared, num_warps)
    work = _work(entry)
    predictions = {}
    for gpu, facts in GPUS.items():
        if work is not None and facts.target == entry.target:
            prediction = predict(gpu, work)
            at_once = facts.multiprocessors * fits.programs
            predictions[gpu] = {
                "microseconds": prediction.microseconds,
                "bound": prediction.bound,
                "rounds": entry.launch.programs / at_once if at_once else None,
            }
    return {
        "programs": entry.launch.programs,
        "num_warps": num_warps,
        "fused": entry.launch.options["enable_fp_fusion"],
        "threads": num_warps * MULTIPROCESSORS[entry.target].warp,
        "occupancy": asdict(fits),
        "tensor_bytes": entry.launch.tensor_bytes,
        "work": None if work is None else asdict(work),
        "predictions": predictions,
    }


def _work(entry: Entry) -> Work | None:
    kernel, work = entry.launch.kernel, entry.case.work
    return work.get(f"{kernel} {entry.target}", work.get(kernel))


def _work_without_a_kernel(found: Found) -> list[str]:
    """Names under which a case gives work, and none of its kernels has."""
    given = {f"{e.operation} | {e.case.name} | {name.split()[0]}" for e in found.entries for name in e.case.work}
    return sorted(given - {f"{e.operation} | {e.case.name} | {e.launch.kernel}" for e in found.entries})


def breaks(budget: dict[str, int], figures: dict[str, int]) -> list[str]:
    """What of a kernel's figures is worse than its budget, in words; empty where nothing is."""
    found = [f"{k}: {figures[k]}, the budget is {budget[k]} at most" for k in AT_MOST if figures[k] > budget[k]]
    found += [f"{k}: {figures[k]}, the budget is {budget[k]} at least" for k in AT_LEAST if figures[k] < budget[k]]
    if (figures["tensor_core"] > 0) != (budget["tensor_core"] > 0):
        found.append(f"tensor_core: {figures['tensor_core']} instructions, the budget has {budget['tensor_core']}")
    return found


def write_budgets(measured: dict[str, Any], file: Path) -> None:
    """Writes the measured operations' rows into the budgets' file; other operations keep theirs."""
    rows = json.loads(file.read_text())["kernels"] if file.exists() else {}
    rows = {name: row for name, row in rows.items() if name.split(" | ")[0] not in measured["compilations"]}
    rows |= measured["kernels"]
    lines = [f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(row)}" for name, row in sorted(rows.items())]
    head = f'{{"triton": {json.dumps(measured["triton"])},\n "kernels": {{\n'
    temporary = file.with_suffix(".tmp")
    temporary.write_text(head + ",\n".join(lines) + "\n}}\n")
    temporary.replace(file)
