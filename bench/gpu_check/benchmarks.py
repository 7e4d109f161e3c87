"""Benchmarks as a stage: many cases in one process, the most telling of each first, as many as the time holds.

A case that spoils the process (a CUDA error after which no call succeeds, a hang, a crash) costs itself alone: the
process begins anew and goes on after it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from bench.gpu_check.arguments import seconds_left, stage_arguments
from bench.gpu_check.packed import read_json
from bench.gpu_check.sheet import Sheet, Watch, begin_anew
from bench.harness.case import Case
from bench.harness.environment import measured_environment
from bench.harness.peaks import measure_peaks
from bench.harness.result import CaseResult, new_result
from bench.harness.runner import ours_is_sound
from bench.harness.suite import Planned, Suite, notice
from bench.operations import INFERENCE, OPERATIONS, STEPS, suite_class

KINDS: dict[str, tuple[Iterable[str], dict[str, Any]]] = {
    "operations": (OPERATIONS, {"compile": ("none",), "torch_peers": False, "repeats": 20, "seconds": 0.7}),
    "compiled": (OPERATIONS, {"compile": ("default",), "repeats": 15, "seconds": 0.7, "compile_seconds": 25.0}),
    "max-autotune": (
        OPERATIONS,
        {"compile": ("max-autotune",), "repeats": 15, "seconds": 0.7, "compile_seconds": 80.0},
    ),
    "training-steps": (STEPS, {"compile": ("none",), "repeats": 15, "seconds": 3.0}),
    "compiled-steps": (STEPS, {"compile": ("default",), "repeats": 15, "seconds": 3.0, "compile_seconds": 120.0}),
    "inference": (INFERENCE, {"compile": ("none",), "repeats": 15, "seconds": 1.5}),
}
"""What a stage of that name measures, the most telling first, and with which options."""
COMPILING = ("compiled", "max-autotune", "compiled-steps")
CASE_SECONDS = {"operations": 40.0, "compiled": 70.0, "max-autotune": 120.0, "compiled-steps": 300.0}
"""After which a case is given up, where it is not 60."""
LEAST = 2.0  # seconds: with less no case is begun


def suite_of(name: str, dry_run: bool, **options: Any) -> Suite:
    """A benchmark by name, at the size of this check."""
    if dry_run:
        options |= {"size": "tiny", "repeats": 1, "seconds": 0.1}
    else:
        options |= {"size": "gpu", "device": "cuda"}
    return suite_class(name)(**options)


def most_telling_first(kind: str, suite: Suite, cases: Sequence[Planned], dry_run: bool) -> list[Planned]:
    """The cases of a benchmark that this stage measures, in its order. The first is the headline."""
    named = list(cases)
    if kind in ("compiled", "max-autotune"):
        size, device = suite.chosen_size(suite.chosen_device()), suite.chosen_device()
        described: dict[str, Case] = {case.name: case for case in suite.chosen_cases(size, device)}
        named = [(name, run) for name, run in named if not (described[name].variant or described[name].overhead)]
        if kind == "max-autotune" or dry_run:
            named = named[:1]
    elif kind == "operations" and len(named) > 2:
        named = [named[0], named[-1], *named[1:-1]]  # the last is what a call costs
    return named


def breadth_first(lists: Iterable[list[Planned]], names: Sequence[str]) -> Iterator[tuple[str, Planned]]:
    """Every benchmark's first case, then every second one, and so on."""
    for rank in zip_longest(*lists):
        for name, planned in zip(names, rank, strict=True):
            if planned is not None:
                yield name, planned


def main() -> None:
    chosen = stage_arguments(__doc__, "kind")
    named, options = KINDS[chosen.kind]
    every = tuple(named)
    if chosen.dry_run and chosen.kind in COMPILING:
        every = every[:1] if chosen.kind == "compiled-steps" else ("cost-volume",)  # on a CPU it takes long
    names = [name for name in every if not chosen.only or name in chosen.only]
    if not names:
        print("nothing of it here", flush=True)
        return
    suites = {name: suite_of(name, chosen.dry_run, **options) for name in names}
    device = next(iter(suites.values())).chosen_device()
    environment = measured_environment(device)
    sheet = Sheet(chosen.output, environment, read_json(chosen.output))
    sheet.take_up_again(names if chosen.only else ())
    if chosen.kind in COMPILING:
        forget_noisy_choices()
    peaks = measure_peaks(device)
    for name, suite in suites.items():
        sheet.open(name, partial(_empty, suite, environment, peaks))
    plans = [
        most_telling_first(chosen.kind, suite, suite.plan(suite.chosen_size(device), device, peaks), chosen.dry_run)
        for suite in suites.values()
    ]
    planned = list(breadth_first(plans, names))
    limit = 600.0 if chosen.dry_run else CASE_SECONDS.get(chosen.kind, 60.0)
    if not measure_all(sheet, suites, planned, device, limit):
        print(f"time is up after {sheet.count()} cases", flush=True)
        sys.exit(3)
    sheet.finish(names, every)
    cases = [case for result in sheet.results.values() for case in result["cases"]]
    sys.exit(0 if ours_is_sound(cases) else 1)


def measure_all(
    sheet: Sheet, suites: dict[str, Suite], planned: Sequence[tuple[str, Planned]], device: torch.device, limit: float
) -> bool:
    """Whether all was measured before time was up."""
    for name, (case, measure) in planned:
        if sheet.has(name, case):
            continue
        if seconds_left() < LEAST:
            return False
        sheet.begin(name, case)
        with Watch(sheet, limit):
            found = suites[name].measured(case, measure)
        sheet.add(name, found)
        print(_line(found), flush=True)
        if device.type == "cuda":
            if is_spoilt():
                begin_anew(sheet)
            torch.cuda.empty_cache()
    return True


def is_spoilt() -> bool:
    """Whether CUDA answers no more in this process, or a capture that failed has left its generator behind."""
    try:
        torch.randn(8, device="cuda").sum().item()
    except Exception:
        return True
    return False


def _empty(suite: Suite, environment: dict[str, Any], peaks: dict[str, float] | None) -> dict[str, Any]:
    device = suite.chosen_device()
    return {**new_result(suite.name, suite.chosen_size(device), environment, notice(device)), "roofs": peaks}


def _line(case: CaseResult) -> str:
    """One case in one line of the log."""
    told = []
    for row in case["rows"]:
        times = row.get("times")
        told.append(f"{row['name']} {times['total']['median']:.0f} µs" if times else f"{row['name']} {row['status']}")
    return f"{case['name']}: " + ", ".join(told)


def forget_noisy_choices() -> None:
    """Inductor chooses among its kernels again: it chose beside the tests, where times say little. What it has
    compiled is kept."""
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    for choice in Path(cache).rglob("*.best_config") if cache else ():
        choice.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
