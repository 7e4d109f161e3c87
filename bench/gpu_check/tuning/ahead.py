"""Compiles every candidate before any is timed: one process per core, one cache (TRITON_CACHE_DIR), no GPU opened."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from functools import cache
from multiprocessing import get_context
from typing import Any

import torch

from bench.gpu_check.tuning import launches
from bench.gpu_check.tuning.launches import H100, Compiled, Target
from bench.gpu_check.tuning.questions import Question, questions
from bench.gpu_check.tuning.rows import applied
from bench.harness.parity import bound

MOST_PROCESSES = 16
PRESENT = "present"
Facts = dict[tuple[str, str], list[Compiled] | str]
"""By the names of question and candidate: the kernels, or why it does not compile. Absent: not done in time."""


def target_of(device: torch.device) -> Target:
    """What Triton compiles for on this device; with no GPU an H100, so that a dry run shows that it compiles."""
    if device.type != "cuda":
        return H100
    if torch.version.hip:
        return ("hip", torch.cuda.get_device_properties(device).gcnArchName.split(":")[0], 64)
    major, minor = torch.cuda.get_device_capability(device)
    return ("cuda", 10 * major + minor, 32)


def compile_all(asked: Sequence[Question], target: Target, seconds: float, dry_run: bool) -> Facts:
    """The kernels of every question, the present row's first, as far as `seconds` reach."""
    end = time.monotonic() + seconds
    jobs = [
        (question.name, name)
        for question in asked
        for name in (PRESENT, *(candidate.name for candidate in question.candidates))
    ]
    found: Facts = {}
    if not jobs:
        return found
    processes = max(1, min(MOST_PROCESSES, os.cpu_count() or 1, len(jobs)))
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        with _not_interpreting():
            started = {job: pool.submit(_compile, *job, target, dry_run) for job in jobs}
        for job, future in started.items():
            result = _result(future, end - time.monotonic())
            if result is not None:
                found[job] = result
    finally:
        _end(pool)
    return found


def counts(facts: Facts) -> dict[str, int]:
    failed = sum(isinstance(value, str) for value in facts.values())
    return {"candidates": len(facts) - failed, "failed": failed}


def _result(future: Future[list[Compiled] | str], left: float) -> list[Compiled] | str | None:
    try:
        return future.result(max(left, 0.0))
    except TooLate:
        return None
    except Exception as error:  # the pool broke: the candidates are compiled when they are timed
        return None if isinstance(error, OSError) else f"{type(error).__name__}: {error}"[:300]


def _end(pool: ProcessPoolExecutor) -> None:
    """At once: a worker that is late would take a core from what is timed."""
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        with contextlib.suppress(OSError, ValueError):
            worker.kill()


@contextlib.contextmanager
def _not_interpreting() -> Iterator[None]:
    """For processes that start meanwhile: Triton reads the variable when a kernel is defined."""
    before = os.environ.pop("TRITON_INTERPRET", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["TRITON_INTERPRET"] = before


@cache
def _question(name: str, dry_run: bool) -> tuple[Question, Any]:
    question = next(one for one in questions(dry_run) if one.name == name)
    return question, launches.unwritten_item(question.case)


def _compile(question_name: str, name: str, target: Target, dry_run: bool) -> list[Compiled] | str:
    """In a worker."""
    question, item = _question(question_name, dry_run)
    changes = {candidate.name: candidate.changes for candidate in question.candidates}
    call = bound(question.case.kernel, question.case, backend="triton")
    try:
        with applied(changes.get(name, ())):
            return launches.compiled(question.case, call, item, target)
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        return f"{type(error).__name__}: {lines[-1]}"[:300]
