"""One case, from its inputs to the rows of the table: parity first, then time, then memory."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adu_depth.errors import InputError
from adu_kernels._triton import runtime
from adu_kernels.testing.parity import saved_bytes
from bench.harness.case import Call, Case, Item, differentiable, draw_item, outputs_of
from bench.harness.implementations import EAGER, OURS, Absent, implementations, time_limit
from bench.harness.memory import peak_bytes
from bench.harness.parity import Exact, Refused, check_parity, exact_results
from bench.harness.peaks import least_microseconds
from bench.harness.result import CaseResult, Row
from bench.harness.statistics import summary
from bench.harness.timing import Mark, Step, Timing, first_line, measure, no_mark, overhead

PAST_CACHES = {"cuda": 256 * 2**20, "cpu": 64 * 2**20}
"""Bytes of inputs that are rotated through: several times the last cache of the GPUs (50 to 126 MB) and CPUs in use."""
MOST_SETS = 64


@dataclass(frozen=True)
class Effort:
    """How long a case may take."""

    repeats: int = 50
    seconds: float = 4.0
    """Of timing, per case, all implementations together."""
    compile_seconds: float = 240.0
    """For one compilation with its first run and its parity check; 0 sets no limit."""


def run_case(
    case: Case,
    device: torch.device,
    *,
    compile_modes: tuple[str, ...],
    peers: Mapping[str, Call],
    peaks: dict[str, float] | None,
    effort: Effort,
) -> CaseResult:
    """All rows of a case. An implementation that is wrong, fails or is absent gets a row that says so, and no time."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    known = exact_results(case, draw_item(case, device))
    rows, calls = _checked(case, device, known, implementations(case, device, compile_modes, dict(peers)), effort)
    note = f"Left out of the check of gradients: {known.kinks} elements at a kink." if known.kinks else ""
    del known  # its memory is wanted
    if calls:
        timed = _overheads if case.overhead else _timed
        timed(case, device, calls, rows, effort)
    finished = list(rows.values())
    for row in finished:
        shares = _shares(case, row, peaks)
        if shares:
            row["share_of_roof"] = shares
    return {
        "name": case.name,
        "dtype": str(case.dtype).removeprefix("torch."),
        "shape": dict(case.shape),
        "work": {**case.work.__dict__},
        "headline": case.headline,
        "overhead": case.overhead,
        "note": note,
        "rows": finished,
    }


def _checked(
    case: Case, device: torch.device, known: Exact, candidates: Mapping[str, Callable[[], Call]], effort: Effort
) -> tuple[dict[str, Row], dict[str, Call]]:
    """A row for each candidate, and those that may be timed."""
    rows: dict[str, Row] = {}
    calls: dict[str, Call] = {}
    for name, make in candidates.items():
        try:
            with time_limit(effort.compile_seconds, "compiling and checking"):
                calls[name], rows[name] = _check_one(case, name, make, known)
        except Exception as error:
            rows[name] = row_without_times(name, error)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return rows, calls


def _check_one(case: Case, name: str, make: Callable[[], Call], known: Exact) -> tuple[Call, Row]:
    call = make()
    errors = check_parity(case, call, known, poison=name == OURS)
    return call, {"name": name, "status": "measured", "error": errors}


def row_without_times(name: str, error: Exception) -> Row:
    """The row of an implementation that is not timed, and why. What the user gave wrong is raised again."""
    if isinstance(error, InputError):
        raise error
    if isinstance(error, Refused):
        return {"name": name, "status": "refused", "reason": f"parity failed: {error}"}
    if isinstance(error, Absent) or (name == OURS and isinstance(error, NotImplementedError)):
        return {"name": name, "status": "absent", "reason": first_line(error)}
    told = "".join(traceback.format_exception(error))[-4000:]
    return {"name": name, "status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"[:300],
            "traceback": told}  # fmt: skip


def _timed(case: Case, device: torch.device, calls: Mapping[str, Call], rows: dict[str, Row], effort: Effort) -> None:
    ring = input_ring(case, device)
    steps = {name: step_of(call, ring) for name, call in calls.items()}
    fill(rows, measure(steps, len(ring), device, repeats=effort.repeats, seconds=effort.seconds))
    for name, row in rows.items():
        if row["status"] == "measured":
            _add_memory(row, calls[name], steps[name], ring[0], device)


def fill(rows: dict[str, Row], timings: Mapping[str, Timing]) -> None:
    """Puts times into the rows, or why there are none."""
    for name, timing in timings.items():
        if timing.failure:
            rows[name] = {"name": name, "status": "failed", "reason": timing.failure[:300],
                          "traceback": timing.traceback}  # fmt: skip
        else:
            rows[name] |= {"times": timing.summaries(), "method": timing.method}


def _overheads(
    case: Case, device: torch.device, calls: Mapping[str, Call], rows: dict[str, Row], effort: Effort
) -> None:
    ring = [draw_item(case, device)]
    for name, call in calls.items():
        step = step_of(call, ring)
        count = {"calls": 1} if runtime.interpreting() else {}
        try:
            forward = overhead(step, False, device, **count)
            total = overhead(step, True, device, **count)
        except Exception as error:
            rows[name] = row_without_times(name, error)
            continue
        rows[name] |= {"times": {"forward": summary(forward), "total": summary(total)}, "method": "host"}


def input_ring(case: Case, device: torch.device) -> list[Item]:
    """So many inputs that the first has left the caches when its turn comes again."""
    first = draw_item(case, device)
    if runtime.interpreting():
        return [first]
    count = min(MOST_SETS, max(2, -(-PAST_CACHES[device.type] // max(1, first.nbytes))))
    return [first, *(draw_item(case, device) for _ in range(count - 1))]


def step_of(call: Call, ring: Sequence[Item]) -> Step:
    """Forward and backward of one call. The gradients that come in have the layout of what went out, as in a net."""
    grad_outputs: dict[int, list[Tensor]] = {}

    def step(index: int, mark: Mark, backward: bool) -> None:
        item = ring[index]
        outputs = differentiable(outputs_of(call(*item.tensors)))
        mark("forward")
        if index not in grad_outputs:  # in the warm-up
            grad_outputs[index] = [torch.randn_like(o) for o in outputs]
        if backward and item.leaves:
            torch.autograd.grad(outputs, item.leaves, grad_outputs[index])
            mark("backward")

    return step


def _add_memory(row: Row, call: Call, step: Step, item: Item, device: torch.device) -> None:
    try:
        row["peak_bytes"] = peak_bytes(lambda: step(0, no_mark, True), device)
        row["kept_bytes"] = saved_bytes(lambda: call(*item.tensors), item.tensors)
    except Exception as error:  # the times stand without it
        row["memory_failure"] = first_line(error)


def _shares(case: Case, row: Row, peaks: dict[str, float] | None) -> dict[str, float] | None:
    """The least time over the measured one, by phase."""
    if row["status"] != "measured" or peaks is None or case.overhead:
        return None
    dtype = str(case.dtype).removeprefix("torch.")
    found = {}
    for phase, times in row["times"].items():
        least = least_microseconds(peaks, case.work.bytes(phase), case.work.flops(phase), dtype, case.work.matrix)
        if least is not None and times["median"] > 0:
            found[phase] = least / times["median"]
    return found


def ours_is_sound(result_cases: Sequence[CaseResult]) -> bool:
    """Whether nothing was refused and no row of ours failed: what the exit code says."""
    rows = [row for case in result_cases for row in case["rows"]]
    return not any(
        row["status"] == "refused" or (row["status"] == "failed" and row["name"] in (OURS, EAGER)) for row in rows
    )
