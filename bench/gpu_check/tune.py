"""Other launch shapes than the tables', timed beside them: which are faster here. It changes no table.

A candidate's kernels are compiled ahead, in as many processes as there are cores, into Triton's cache. Then one after
another must agree with the present table's result within the error budget (whether that is right is for `parity` to
say) and takes turns with it, forward and backward apart, until the seconds are used up. The result is written again
after every candidate.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from adu_depth.files import write_json
from adu_depth.schema import read_json
from bench.gpu_check.arguments import stage_arguments
from bench.gpu_check.tuning import ahead, launches
from bench.gpu_check.tuning.questions import Candidate, Question, questions
from bench.gpu_check.tuning.rows import applied
from bench.harness.case import Call, Item, draw_item
from bench.harness.environment import measured_environment
from bench.harness.parity import Exact, Refused, bound, check_parity, drawn_grad_outputs, values_and_gradients
from bench.harness.result import same_making
from bench.harness.runner import input_ring, step_of
from bench.harness.timing import Mark, Step, Timing, first_line, measure

COMPILE_SHARE, COMPILE_SECONDS = 0.4, 90.0
"""For compiling at the most: of the seconds there are, and in all."""
COMPILED_IN_A_DRY_RUN = "guide, nested cells"
REPEATS, TIMING_SECONDS = 30, 0.4
MOST_SPILLED = 64
"""Bytes a thread beyond the present row's with which a candidate is not timed."""
TIMED = "measured"

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A question while it is being answered."""

    question: Question
    call: Call
    known: Exact
    """The present table's results stand for the exact ones."""
    ring: list[Item]
    launches: list[tuple[Any, ...]]
    """Of the present table."""


def main() -> None:
    chosen = stage_arguments(__doc__)
    result = run(chosen.output, chosen.dry_run, chosen.seconds, questions(chosen.dry_run))
    wrong = [row for found in result["questions"] for row in found["candidates"] if row["status"] == "refused"]
    sys.exit(1 if wrong else 0)


def run(output: Path, dry_run: bool, seconds: float, asked: Sequence[Question]) -> Row:
    """All that fits into `seconds`; what an earlier run of this code on this machine answered whole is kept."""
    start = time.monotonic()
    device = torch.device("cpu" if dry_run else "cuda")
    torch.backends.cudnn.allow_tf32 = False  # a float32 reference means float32 products
    result: Row = {"environment": measured_environment(device), "complete": False, "questions": []}
    result["questions"] = answered_before(output, result)
    kept = {found["name"] for found in result["questions"]}
    asked = [question for question in asked if question.name not in kept]
    limit = min(COMPILE_SHARE * seconds, COMPILE_SECONDS)
    compiled = [question for question in asked if not dry_run or question.name == COMPILED_IN_A_DRY_RUN]
    facts = ahead.compile_all(compiled, ahead.target_of(device), limit, dry_run)
    result["compiled"] = {"seconds": round(time.monotonic() - start, 1), **ahead.counts(facts)}
    print(f"compiled ahead: {result['compiled']}", flush=True)

    def save() -> None:
        write_json(output, result)

    for number, question in enumerate(asked):
        if time.monotonic() - start > seconds:
            result["not_reached"] = [left.name for left in asked[number:]]
            break
        found: Row = {"name": question.name, "case": question.case.name, "whole": False, "candidates": []}
        result["questions"].append(found)
        _answer(question, found, facts, device, start + seconds, save)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    result["complete"] = "not_reached" not in result and all(found["whole"] for found in result["questions"])
    save()
    return result


def answered_before(output: Path, now: Row) -> list[Row]:
    """Of a run that was cut short: the questions whose every candidate was tried."""
    earlier = read_json(output) if output.exists() else {}
    if not earlier or not same_making(earlier["environment"], now["environment"]):
        return []
    return [found for found in earlier["questions"] if found["whole"]]


def _answer(
    question: Question, found: Row, facts: ahead.Facts, device: torch.device, deadline: float, save: Callable[[], None]
) -> None:
    """Fills the question's part of the result, saved after every candidate."""
    found[ahead.PRESENT] = {"kernels": _kernels(facts, question, ahead.PRESENT)}
    try:
        asked = _asked(question, device)
    except Exception as error:  # the other questions are still of interest
        found[ahead.PRESENT] |= _failure(error)
        save()
        return
    reached = True
    for candidate in question.candidates:
        row: Row = {"name": candidate.name, "changes": [asdict(change) for change in candidate.changes]}
        found["candidates"].append(row)
        row["kernels"] = _kernels(facts, question, candidate.name)
        reached = reached and time.monotonic() < deadline
        if not reached:
            row |= {"status": "not reached"}
            continue
        try:
            row |= _tried(asked, candidate, found[ahead.PRESENT], row["kernels"], device)
        except Exception as error:
            row |= _failure(error)
            if device.type == "cuda":
                torch.cuda.empty_cache()
        print(_line(question, row), flush=True)
        found["best"] = best(found["candidates"])
        save()
    found["whole"] = reached
    save()


def _asked(question: Question, device: torch.device) -> Asked:
    torch.manual_seed(0)
    case, item = question.case, draw_item(question.case, device)
    call, reference = bound(case.kernel, case, backend="triton"), bound(case.reference, case)
    grad_outputs, kinks = drawn_grad_outputs(case, item)
    same = values_and_gradients(reference, item, grad_outputs)
    with launches.noted() as present:
        ours = values_and_gradients(call, item, grad_outputs)
    known = Exact(item, grad_outputs, same, [value.double() for value in ours], len(grad_outputs), kinks)
    return Asked(question, call, known, input_ring(case, device), present)


def _tried(
    asked: Asked, candidate: Candidate, present: Row, kernels: list[Row] | str | None, device: torch.device
) -> Row:
    """A candidate's row: what it takes beside the present table, or why it was not timed."""
    if isinstance(kernels, str):
        return {"status": "failed", "reason": kernels}
    spilled, before = _spilled(kernels), _spilled(present["kernels"])
    if spilled > before + MOST_SPILLED:
        return {"status": "spills", "reason": f"{spilled} bytes a thread, the present row {before}"}
    case = asked.question.case
    with applied(candidate.changes), launches.noted() as taken:
        difference = check_parity(case, asked.call, asked.known, poison=True)
    if taken == asked.launches:
        return {"status": "not taken", "reason": "the call launches what the present table launches"}
    step = step_of(asked.call, asked.ring)
    steps = {ahead.PRESENT: step, candidate.name: _with(candidate, step_of(asked.call, asked.ring))}
    timings = measure(steps, len(asked.ring), device, repeats=REPEATS, seconds=TIMING_SECONDS)
    return {"difference": difference, **compared(timings[candidate.name], timings[ahead.PRESENT])}


def _with(candidate: Candidate, step: Step) -> Step:
    def changed(index: int, mark: Mark, backward: bool) -> None:
        with applied(candidate.changes):
            step(index, mark, backward)

    return changed


def compared(timing: Timing, present: Timing) -> Row:
    """µs by phase of a candidate and of the present table in the same turns: median, 10 % and 90 % quantile."""
    for who, one in (("", timing), ("present: ", present)):
        if one.failure:
            return {"status": "failed", "reason": who + one.failure}
    times, before = timing.summaries(), present.summaries()
    ratios = {phase: times[phase]["median"] / before[phase]["median"] for phase in times if before[phase]["median"]}
    return {"status": TIMED, "method": timing.method, "times": times, "present_times": before, "ratio": ratios}


def best(rows: Sequence[Row]) -> Row:
    """By phase: the candidate with the least share of the present median, and whether it is `clear` of the present
    table: its 90 % quantile below the present 10 % quantile. Phases that the present table wins are left out."""
    found: Row = {}
    for phase in ("forward", "backward", "total"):
        timed = [row for row in rows if row["status"] == TIMED and phase in row["ratio"]]
        if not timed:
            continue
        row = min(timed, key=lambda row: row["ratio"][phase])
        if row["ratio"][phase] < 1:
            clear = row["times"][phase]["q90"] < row["present_times"][phase]["q10"]
            found[phase] = {"candidate": row["name"], "ratio": row["ratio"][phase], "clear": clear}
    return found


def _kernels(facts: ahead.Facts, question: Question, name: str) -> list[Row] | str | None:
    """What was compiled ahead: the kernels, why not, or None where it was not tried or not done in time."""
    found = facts.get((question.name, name))
    return found if found is None or isinstance(found, str) else [asdict(kernel) for kernel in found]


def _spilled(kernels: list[Row] | str | None) -> int:
    return 0 if kernels is None or isinstance(kernels, str) else max((k["spills"] or 0 for k in kernels), default=0)


def _failure(error: Exception) -> Row:
    if isinstance(error, Refused):
        return {"status": "refused", "reason": f"it does not agree with the present table: {error}"}
    return {"status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"[:300]}


def _line(question: Question, row: Row) -> str:
    if row["status"] != TIMED:
        return f"{question.name}: {row['name']}: {row['status']}, {row['reason']}"
    said = ", ".join(
        f"{phase} {row['times'][phase]['median']:.1f} µs (×{row['ratio'][phase]:.3f})" for phase in row["ratio"]
    )
    return f"{question.name}: {row['name']}: {said}"


if __name__ == "__main__":
    main()
