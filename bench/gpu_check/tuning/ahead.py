"""Compiles every candidate before any is timed: one process per core, one cache (TRITON_CACHE_DIR), no GPU opened."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
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
Job = tuple[str, str]
Facts = dict[Job, list[Compiled] | str]
"""By the names of question and candidate: the kernels, or why it does not compile. Absent: not done in time."""
DIED = "its compilation ended the process"


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
    while jobs and time.monotonic() < end:
        processes = max(1, min(MOST_PROCESSES, os.cpu_count() or 1, len(jobs)))
        together, lost = _compiled(jobs, [_pool(processes)], target, end, dry_run)
        # One of those that were on has ended its process, and so the pool: each has another of its own.
        suspects, jobs = lost[:processes], lost[processes:]
        alone, dead = _compiled(suspects, [_pool(1) for _ in suspects], target, end, dry_run)
        found |= together | alone | dict.fromkeys(dead, DIED)
    return found


def counts(facts: Facts) -> dict[str, int]:
    failed = sum(isinstance(value, str) for value in facts.values())
    return {"candidates": len(facts) - failed, "failed": failed}


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))


def _compiled(
    jobs: Sequence[Job], pools: Sequence[ProcessPoolExecutor], target: Target, end: float, dry_run: bool
) -> tuple[Facts, list[Job]]:
    """What comes of the jobs, dealt out to the pools, and those whose pool broke, in order."""
    found: Facts = {}
    lost: list[Job] = []
    started: dict[Job, Future[list[Compiled] | str]] = {}
    try:
        with _not_interpreting():
            for number, job in enumerate(jobs):
                try:
                    started[job] = pools[number % len(pools)].submit(_compile, *job, target, dry_run)
                except BrokenExecutor:  # before all were handed over
                    lost.append(job)
        for job, future in started.items():
            try:
                found[job] = future.result(max(end - time.monotonic(), 0.0))
            except TooLate:
                continue
            except BrokenExecutor:
                lost.append(job)
            except Exception as error:
                found[job] = f"{type(error).__name__}: {error}"[:300]
    finally:
        for pool in pools:
            _end(pool)
    return found, [job for job in jobs if job in lost]


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
