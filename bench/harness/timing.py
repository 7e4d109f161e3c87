"""Times of several implementations that take turns, on inputs that no cache still holds.

A step does its phases in order and calls `mark(name)` at the end of each. On a GPU the marks are events, and the device
sleeps while a step's launches are queued, so that gaps between launches are not timed; steps that are short even so are
captured as a CUDA graph, whose replay has no launches at all. On a CPU the marks read the clock.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch

from adu_kernels._triton import runtime
from bench.harness.statistics import quantile, summary

R = TypeVar("R")
Mark = Callable[[str], None]
Step = Callable[[int, Mark, bool], None]
"""Index into the ring of inputs, mark, whether to go on after the forward."""

SHORT = 300.0  # µs for all phases: below this, what is left between launches matters, and a graph is tried
OVERHEAD_CALLS = 100
CYCLES_PER_MICROSECOND = 2000  # of the GPU's clock, at the most: the sleep must not be too short


@dataclass
class Timing:
    """What one implementation took: µs by phase, one number per repeat; or why there is none."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    method: str = ""
    failure: str = ""
    traceback: str = ""

    def add(self, phases: Mapping[str, float]) -> None:
        for name, value in {**phases, "total": sum(phases.values())}.items():
            self.samples.setdefault(name, []).append(value)

    def summaries(self) -> dict[str, dict[str, float]]:
        return {name: summary(values) for name, values in self.samples.items()}


def measure(
    steps: Mapping[str, Step], ring: int, device: torch.device, *, repeats: int, seconds: float, gaps: bool = False
) -> dict[str, Timing]:
    """µs of each step's phases, the steps taking turns.

    ring: how many inputs the steps rotate through. repeats: at most so many rounds, fewer where they would take longer
    than `seconds`, but never fewer than five. gaps: time what a user waits for, gaps between launches included (whole
    training steps). A step that raises is dropped, with the reason; the others go on.
    """
    timings = {name: Timing(method=_method(device, gaps)) for name in steps}
    host: dict[str, float] = {}
    warm_up, fewest = patience()
    for turn in range(max(warm_up, ring)):  # every input once: steps may make what belongs to it at its first use
        for name in _running(steps, timings):
            host[name] = _guarded(timings[name], partial(_host_time, steps[name], turn % ring, device)) or 0.0
    round_seconds = max(sum(host[name] for name in _running(steps, timings)), 1e-9)
    rounds = max(fewest, min(repeats, int(seconds / round_seconds)))
    for turn in range(rounds):
        for name in _rotated(_running(steps, timings), turn):
            sleep = 0.0 if gaps else 1.5e6 * host[name]
            found = _guarded(timings[name], partial(_once, steps[name], turn % ring, device, sleep))
            if found is not None:
                timings[name].add(found)
    if device.type == "cuda" and not gaps and _all_short(timings):
        _replay(steps, timings, ring, rounds)
    return timings


def overhead(step: Step, backward: bool, device: torch.device, calls: int = OVERHEAD_CALLS) -> list[float]:
    """µs of host time per call, the device not waited for: what a caller pays before anything runs. Some repeats."""
    warm_up, fewest = patience()
    for _ in range(warm_up):
        step(0, no_mark, backward)
    rounds = []
    for _ in range(fewest):
        _wait(device)
        start = time.perf_counter()
        for _ in range(calls):
            step(0, no_mark, backward)
        rounds.append((time.perf_counter() - start) / calls * 1e6)
    _wait(device)
    return rounds


def patience() -> tuple[int, int]:
    """Calls to warm up, and the fewest repeats; in the interpreter only that it runs is of interest."""
    return (1, 1) if runtime.interpreting() else (3, 5)


def _method(device: torch.device, gaps: bool) -> str:
    if device.type != "cuda":
        return "clock"
    return "events, gaps included" if gaps else "events"


def _running(steps: Mapping[str, Step], timings: Mapping[str, Timing]) -> list[str]:
    return [name for name in steps if not timings[name].failure]


def _rotated(names: list[str], turn: int) -> list[str]:
    """Each is first in turn: what runs after what changes too."""
    start = turn % max(1, len(names))
    return names[start:] + names[:start]


def _guarded(timing: Timing, work: Callable[[], R]) -> R | None:
    """What `work` returns, or None and the reason in `timing`."""
    try:
        return work()
    except Exception as error:  # out of memory, a kernel that does not launch: the other rows are still wanted
        timing.failure = f"{type(error).__name__}: {first_line(error)}"
        timing.traceback = traceback.format_exc()[-4000:]
        timing.samples.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def no_mark(_: str) -> None:
    pass


def _host_time(step: Step, index: int, device: torch.device) -> float:
    """Seconds until the step is queued and done, to plan by."""
    start = time.perf_counter()
    step(index, no_mark, True)
    _wait(device)
    return time.perf_counter() - start


def _once(step: Step, index: int, device: torch.device, sleep: float) -> dict[str, float]:
    if device.type != "cuda":
        return _on_host(step, index)
    marks: list[tuple[str, torch.cuda.Event]] = []

    def mark(name: str) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        marks.append((name, event))

    torch.cuda.synchronize(device)
    if sleep:
        torch.cuda._sleep(int(min(sleep + 500, 40_000) * CYCLES_PER_MICROSECOND))
    mark("")
    step(index, mark, True)
    torch.cuda.synchronize(device)
    return {
        name: before.elapsed_time(event) * 1e3
        for (_, before), (name, event) in pairwise(marks)
    }  # fmt: skip


def _on_host(step: Step, index: int) -> dict[str, float]:
    found: dict[str, float] = {}
    last = time.perf_counter()

    def mark(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        found[name] = (now - last) * 1e6
        last = time.perf_counter()

    step(index, mark, True)
    return found


def _all_short(timings: Mapping[str, Timing]) -> bool:
    totals = [quantile(t.samples["total"], 0.5) for t in timings.values() if t.samples]
    return bool(totals) and min(totals) < SHORT


def _replay(steps: Mapping[str, Step], timings: Mapping[str, Timing], ring: int, rounds: int) -> None:
    """Replaces the times of a step that can be captured by those of its graph's replays, all inputs in one graph."""
    graphs: dict[str, dict[str, torch.cuda.CUDAGraph]] = {}
    for name in _running(steps, timings):
        if quantile(timings[name].samples["total"], 0.5) > 20 * SHORT:
            continue  # launches are nothing beside it
        try:
            graphs[name] = {
                "forward": _captured(steps[name], ring, backward=False),
                "total": _captured(steps[name], ring, backward=True),
            }
        except Exception as error:  # what cannot be captured keeps the times it has
            timings[name].method = f"events (no graph: {type(error).__name__})"
            torch.cuda.synchronize()
    taken: dict[str, dict[str, list[float]]] = {name: {"forward": [], "total": []} for name in graphs}
    for turn in range(rounds + 1):
        for name in _rotated(list(graphs), turn):
            for phase, graph in graphs[name].items():
                if turn:  # the first replay uploads the graph
                    taken[name][phase].append(_replayed(graph) / ring)
                else:
                    _replayed(graph)
    for name, phases in taken.items():
        two_phases = "backward" in timings[name].samples
        timings[name].method = "graph"
        timings[name].samples = {**phases}
        if two_phases:
            timings[name].samples["backward"] = [
                max(0.0, t - f) for f, t in zip(phases["forward"], phases["total"], strict=True)
            ]


def _captured(step: Step, ring: int, *, backward: bool) -> torch.cuda.CUDAGraph:
    before, stream = torch.cuda.current_stream(), torch.cuda.Stream()
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        step(0, no_mark, backward)
    before.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for index in range(ring):
                step(index, no_mark, backward)
    finally:
        torch.cuda.set_stream(before)  # torch does not go back to it where the capture failed
    return graph


def _replayed(graph: torch.cuda.CUDAGraph) -> float:
    """µs of one replay."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(200 * CYCLES_PER_MICROSECOND)
    start.record()
    graph.replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1e3
