"""What only a GPU runs, on a stand-in: torch.cuda with a clock of its own, and tensors of the device "meta".

The stand-in shows that the calls are made, in order, and that the arithmetic on their answers is right; not that CUDA
takes them. "meta" tensors have no values: what waits for one, or mixes devices, raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adu_depth.data import SyntheticStereo
from adu_depth.data.augmentation import cut_rows, draw_cuts
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from bench.gpu_check.benchmarks import suite_of
from bench.harness import peaks, runner
from bench.harness.case import Work, differentiable, draw_item, outputs_of
from bench.harness.implementations import OURS, implementations
from bench.harness.memory import peak_bytes
from bench.harness.suite import normal
from bench.harness.timing import Mark, Step, measure
from bench.operations import OPERATIONS
from bench.training_steps import (
    SCALES,
    Build,
    distillation_step,
    no_mark,
    student_inference,
    teacher_inference,
    teacher_step,
)
from tests.bench.planted import case_of
from tests.data.augmented import augment_pair

CUDA, META = torch.device("cuda", 0), torch.device("meta")
SLEEP = 7.0  # µs a sleep takes here: it must never be in a result


class StandIn:
    """torch.cuda as far as the harness calls it: one clock (µs) that steps, replays and sleeps move on."""

    def __init__(self) -> None:
        self.now, self.stream, self.capturing, self.sleeps, self.allocated, self.peak = 0.0, "first", False, 0, 100, 100

    def spend(self, microseconds: float) -> None:
        self.now += microseconds

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda, stand_in = torch.cuda, self

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = stand_in.now

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) / 1e3

        class Stream(SimpleNamespace):
            def wait_stream(self, other: Any) -> None:
                pass

        class Graph:
            microseconds = 0.0

            def replay(self) -> None:
                stand_in.now += self.microseconds

        @contextmanager
        def graph(made: Graph) -> Iterator[None]:
            """As torch's: leaves its stream in place where what it captures fails."""
            start, before = stand_in.now, stand_in.stream
            stand_in.capturing, stand_in.stream = True, "capture"
            try:
                yield
            finally:
                stand_in.capturing = False
            made.microseconds, stand_in.now, stand_in.stream = stand_in.now - start, start, before

        def sleep(cycles: int) -> None:
            assert 0 < cycles < 2**32
            stand_in.sleeps += 1
            stand_in.now += SLEEP

        def set_stream(stream: Stream) -> None:
            stand_in.stream = stream.name

        for name, value in {
            "Event": Event,
            "Stream": lambda: Stream(name="side"),
            "CUDAGraph": Graph,
            "graph": graph,
            "stream": lambda _: nullcontext(),
            "current_stream": lambda: Stream(name=stand_in.stream),
            "set_stream": set_stream,
            "synchronize": lambda *_: None,
            "empty_cache": lambda: None,
            "_sleep": sleep,
            "memory_allocated": lambda _: stand_in.allocated,
            "reset_peak_memory_stats": lambda _: setattr(stand_in, "peak", stand_in.allocated),
            "max_memory_allocated": lambda _: stand_in.peak,
        }.items():
            monkeypatch.setattr(cuda, name, value)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    stand_in.install(monkeypatch)
    return stand_in


def lasting(gpu: StandIn, forward: float, backward: float) -> Step:
    def step(index: int, mark: Mark, wanted: bool) -> None:
        gpu.spend(forward)
        mark("forward")
        if wanted:
            gpu.spend(backward)
            mark("backward")

    return step


def medians(timing: Any) -> dict[str, float]:
    return {name: round(values["median"], 3) for name, values in timing.summaries().items()}


def test_long_steps_are_timed_by_events_behind_a_sleep(gpu: StandIn) -> None:
    steps = {"a": lasting(gpu, 4000, 9000), "b": lasting(gpu, 1000, 0)}
    timings = measure(steps, 2, CUDA, repeats=6, seconds=60)
    assert medians(timings["a"]) == {"forward": 4000, "backward": 9000, "total": 13000}
    assert medians(timings["b"]) == {"forward": 1000, "backward": 0, "total": 1000}
    assert gpu.sleeps == 12, "one before each timed step, none in the warm-up"
    assert {t.method for t in timings.values()} == {"events"}


def test_whole_steps_are_timed_with_their_gaps(gpu: StandIn) -> None:
    timings = measure({"a": lasting(gpu, 40, 60)}, 1, CUDA, repeats=6, seconds=60, gaps=True)
    assert gpu.sleeps == 0
    assert timings["a"].method == "events, gaps included"
    assert medians(timings["a"])["total"] == 100


def test_short_steps_are_timed_by_the_replay_of_all_inputs_in_one_graph(gpu: StandIn) -> None:
    timings = measure({"a": lasting(gpu, 40, 60), "long": lasting(gpu, 9000, 1)}, 3, CUDA, repeats=6, seconds=60)
    assert medians(timings["a"]) == {"forward": 40, "total": 100, "backward": 60}
    assert (timings["a"].method, timings["long"].method) == ("graph", "events")
    assert len(timings["a"].samples["total"]) == 6


def test_what_cannot_be_captured_keeps_its_times_and_leaves_no_stream_behind(gpu: StandIn) -> None:
    def waits(index: int, mark: Mark, wanted: bool) -> None:
        if gpu.capturing:
            raise RuntimeError("planted: operation not permitted when stream is capturing")
        lasting(gpu, 30, 20)(index, mark, wanted)

    timings = measure({"good": lasting(gpu, 40, 60), "bad": waits}, 2, CUDA, repeats=6, seconds=60)
    assert gpu.stream == "first"
    assert timings["bad"].method == "events (no graph: RuntimeError)"
    assert medians(timings["bad"])["total"] == 50
    assert (timings["good"].method, medians(timings["good"])["total"]) == ("graph", 100)


def test_roofs_are_bytes_and_flops_over_the_median_time(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "COPY_ELEMENTS", 1024)
    monkeypatch.setattr(peaks, "MATRIX", 8)

    def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        gpu.spend(10)

    here = SimpleNamespace(**{name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "empty_like")})
    here.randn, here.mm, here.cuda = lambda *size, device: torch.randn(*size), product, torch.cuda
    monkeypatch.setattr(peaks, "torch", here)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda target, source: gpu.spend(5))
    found = peaks.measure_peaks(CUDA)
    assert found == pytest.approx(
        {"copy": 2 * 4096 / 5e-6, "bfloat16": 2 * 8**3 / 1e-5, "float16": 2 * 8**3 / 1e-5, "float32": 2 * 4**3 / 1e-5}
    )
    assert peaks.least_microseconds(found, 4096, 2 * 8**3, "bfloat16", matrix=True) == pytest.approx(10)
    assert peaks.least_microseconds(found, 4096, 2 * 8**3, "bfloat16", matrix=False) == pytest.approx(2.5)


def test_the_share_of_the_roof_is_the_least_time_over_the_measured_one() -> None:
    case = case_of(work=Work(4000, 6000))
    row = {"status": "measured", "times": {phase: {"median": 10.0} for phase in ("forward", "backward", "total")}}
    shares = runner._shares(case, row, {"copy": 1e9})  # 4, 6 and 10 µs at the least
    assert shares == pytest.approx({"forward": 0.4, "backward": 0.6, "total": 1.0})
    assert runner._shares(case, row, None) is None


def test_inputs_are_past_the_caches_before_they_come_again() -> None:
    case = case_of(draw=normal([(2**20,), (2**20,)], torch.float32))  # 8 MB of 64
    ring = runner.input_ring(case, torch.device("cpu"))
    assert sum(item.nbytes for item in ring) == runner.PAST_CACHES["cpu"]
    assert len({tensor.data_ptr() for item in ring for tensor in item.tensors}) == 2 * len(ring)


def test_kernels_run_on_a_gpu_and_on_a_cpu_only_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, case = torch.device("cpu"), case_of(one_form=False)
    assert OURS in implementations(case, CUDA, (), {})
    assert OURS not in implementations(case, cpu, (), {})
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert OURS in implementations(case, cpu, (), {})


def test_peak_memory_is_what_came_on_top(gpu: StandIn) -> None:
    def run() -> None:
        gpu.peak = gpu.allocated + 40

    assert peak_bytes(run, CUDA) == 40


@pytest.fixture
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for "meta"


@pytest.mark.parametrize("build", [teacher_step, distillation_step, teacher_inference, student_inference])
@pytest.mark.usefixtures("_no_autocast")
def test_a_whole_step_waits_for_no_value_and_stays_on_its_device(build: Build) -> None:
    scale = SCALES["tiny"][0]
    sample = SyntheticStereo(None, scale.height, scale.width, device=META).render_batch(range(scale.batch))
    found = build(scale, META, None, None).work(sample, no_mark, True)
    assert {value.device for value in found.values()} == {META}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.usefixtures("_no_autocast")
def test_every_reference_waits_for_no_value_and_can_be_captured(name: str) -> None:
    """Else its row of a short case would have no graph, and be timed with its gaps."""
    for case in suite_of(name, dry_run=True).cases("tiny", META):
        item = draw_item(case, META)
        outputs = differentiable(outputs_of(case.reference(*item.tensors, **case.options)))
        gradients = torch.autograd.grad(outputs, item.leaves, [torch.ones_like(o) for o in outputs])
        assert {g.device for g in gradients} == {META}


@pytest.mark.usefixtures("_no_autocast")
def test_every_change_of_a_batch_stays_on_its_device() -> None:
    sample = SyntheticStereo(None, 64, 96, device=META).render_batch(range(2))
    everything = PairAugmentationConfig(
        contrast=0.2, saturation=0.2, asymmetric=0.5, flip=0.5, zoom=1.5, vertical_jitter=1.0, erase=0.5
    )
    changed, left, right = augment_pair(sample, everything, torch.Generator().manual_seed(0))
    assert {t.device for t in (left, right, changed.depth, changed.disparity, changed.valid)} == {META}
    cuts = draw_cuts(2, 64, 1.0, torch.Generator().manual_seed(0)).to(META)
    assert cut_rows(left, cuts, 64).device == META
