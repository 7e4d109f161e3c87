"""Statistics, and how implementations take turns."""

from __future__ import annotations

import time

import pytest
import torch

from adu_kernels.testing.parity import saved_bytes
from bench.harness.memory import peak_bytes
from bench.harness.statistics import quantile, summary
from bench.harness.timing import Mark, measure, overhead, patience

CPU = torch.device("cpu")


def test_quantiles_lie_between_ranks():
    values = [40.0, 10.0, 30.0, 20.0]
    assert quantile(values, 0.5) == 25
    assert quantile(values, 0.0) == 10
    assert quantile(values, 1.0) == 40
    assert quantile([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0], 0.9) == pytest.approx(9)
    assert summary([3.0]) == {"median": 3.0, "q10": 3.0, "q90": 3.0, "repeats": 1}


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_quantiles_refuse(values: list[float], share: float):
    with pytest.raises(ValueError):
        quantile(values, share)


def recorded(calls: list[tuple[str, int]], name: str, pause: float = 0.0):
    def step(index: int, mark: Mark, backward: bool) -> None:
        calls.append((name, index))
        time.sleep(pause)
        mark("forward")
        if backward:
            mark("backward")

    return step


def test_steps_take_turns_and_rotate_through_the_ring():
    calls: list[tuple[str, int]] = []
    steps = {name: recorded(calls, name) for name in ("a", "b", "c")}
    timings = measure(steps, 4, CPU, repeats=6, seconds=60)
    warm = calls[:12]
    assert {index for _, index in warm} == {0, 1, 2, 3}  # every input once before anything is timed
    timed = calls[12:]
    assert [name for name, _ in timed] == list("abcbcacababcbcacab")
    assert [index for _, index in timed] == [k % 4 for k in range(6) for _ in range(3)]
    assert all(len(t.samples["total"]) == 6 for t in timings.values())


def test_a_long_step_is_repeated_less_but_never_under_five_times():
    calls: list[tuple[str, int]] = []
    timings = measure({"slow": recorded(calls, "slow", 0.01)}, 1, CPU, repeats=50, seconds=0.02)
    assert len(timings["slow"].samples["total"]) == 5
    assert timings["slow"].summaries()["forward"]["median"] > 9_000  # µs
    assert timings["slow"].summaries()["backward"]["median"] < 5_000


def test_a_step_that_breaks_is_dropped_and_the_others_go_on():
    count = 0

    def breaks(index: int, mark: Mark, backward: bool) -> None:
        nonlocal count
        count += 1
        mark("forward")
        if count > patience()[0] + 2:
            raise torch.OutOfMemoryError("planted: no memory\nand more")

    timings = measure({"bad": breaks, "good": recorded([], "good")}, 1, CPU, repeats=8, seconds=60)
    assert timings["bad"].failure == "OutOfMemoryError: planted: no memory"
    assert timings["bad"].samples == {}  # times from before the failure are no result
    assert len(timings["good"].samples["total"]) == 8


def test_overhead_counts_calls():
    calls: list[tuple[str, int]] = []
    rounds = overhead(recorded(calls, "a", 0.001), True, CPU, calls=4)
    assert len(rounds) == patience()[1]
    assert len(calls) == patience()[0] + 4 * patience()[1]
    assert min(rounds) >= 1000


def test_peak_memory_counts_what_is_held_at_once():
    source = torch.randn(256, 1024)  # 1 MB

    def run() -> None:
        first = source * 2
        second = first + 1
        del first
        second.exp()

    assert peak_bytes(run, CPU) == pytest.approx(2 * source.nbytes, rel=0.01)


def test_kept_memory_leaves_the_inputs_out_and_counts_a_storage_once():
    source = torch.randn(256, 1024, requires_grad=True)
    assert saved_bytes(lambda: source * source, [source]) == 0
    assert saved_bytes(lambda: source.exp().square(), [source]) == source.nbytes  # exp's result serves both
