"""What a training says of its speed: counted against a clock that is turned by hand."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from adu_depth.data import SyntheticStereo
from adu_depth.data.sample import StereoSample
from adu_depth.progress import Progress
from adu_depth.training.batches import InMemory
from adu_depth.training.history import MEASURED
from adu_depth.training.runs import train_teacher
from adu_depth.training.throughput import DAY, ThroughputMeter, clock_time
from tests.training.tiny import LOOP, SIZE, tiny_teacher


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speed_share_of_waiting_and_what_is_left_are_those_of_the_clock() -> None:
    clock = Clock()
    meter = ThroughputMeter(8, 10, torch.device("cpu"), clock)

    def slow(seconds: float) -> Iterator[str]:
        while True:
            clock.now += seconds
            yield "batch"

    for seconds in (3.0, 1.0):
        for _ in range(2):
            assert meter.next(slow(seconds)) == "batch"
            clock.now += 1
            meter.step()
        found = meter.reading()
        assert found["images_per_second"] == pytest.approx(8 / (seconds + 1))
        assert found["data_wait"] == pytest.approx(seconds / (seconds + 1))
    assert found["seconds_left"] == pytest.approx(6 * 12 / 4), "at the mean speed of all steps"
    assert found["peak_memory_mb"] > 50
    assert set(found) == set(MEASURED)
    assert "4.0 images/s  50% waiting for data" in meter.note
    assert "4 steps in 12 s: 2.7 images/s, 67% of the time waiting for data, peak memory of this process" in (
        meter.summary()
    )
    meter.next(slow(7.0))
    clock.now += 1
    meter.step()
    assert "5 steps in 20 s: 2.0 images/s, 75% of" in meter.summary(), "with what came after the last row"


def test_the_end_is_told_with_its_day_where_that_is_another() -> None:
    noon = time.mktime((2026, 11, 26, 12, 0, 0, 0, 0, -1))
    assert clock_time(noon + 3660, noon) == "13:01"
    assert clock_time(noon + 2 * DAY, noon) == "2026-11-28 12:00"


class Slow(InMemory):
    """Scenes that take their time."""

    def __getitem__(self, index: int) -> StereoSample:
        time.sleep(0.05)
        return super().__getitem__(index)


def test_a_training_says_it_in_its_lines_its_rows_and_at_its_end(tmp_path: Path) -> None:
    said = io.StringIO()
    run = tmp_path / "run"
    rows = train_teacher(
        tiny_teacher(run, loop=replace(LOOP, steps=2, log_every=1)),
        Progress(Console(file=said, width=300)),
        samples=Slow(SyntheticStereo(4, *SIZE)),
    )
    assert rows == [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert all(row["images_per_second"] > 0 and 0 < row["data_wait"] <= 1 for row in rows)
    assert rows[0]["data_wait"] * rows[0]["seconds_left"] > 0.1, "two samples a step, one more step"
    assert rows[-1]["seconds_left"] == 0
    *_, line, end = said.getvalue().splitlines()
    assert all(part in line for part in ("images/s", "waiting for data", "MB  ends "))
    assert end.startswith("run: 2 steps in ")
