"""Several processes: no image is left out or counted twice, and the result is bit for bit that of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adu_depth.cli import main
from adu_depth.data import StereoSample
from adu_depth.distributed import ProcessGroup, joined_processes
from adu_depth.errors import InputError
from adu_depth.evaluation import Scorer, evaluate_protocols
from adu_depth.models.prediction import DepthPrediction
from tests.evaluation.test_evaluator import make_sample, predict_from_image
from tests.training.tiny import tiny_student


@dataclass
class Meeting:
    """Where threads that stand for processes leave their values for each other."""

    count: int
    values: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.count, timeout=20)


@dataclass(frozen=True)
class ThreadAsProcess(ProcessGroup):
    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def gather(self, value: Any) -> list[Any]:
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait()
        return [self.meeting.values[rank] for rank in range(self.world_size)]


def in_threads(count: int, work: Callable[[ProcessGroup], Any]) -> list[Any]:
    """What `work` returned, or raised, in each of `count` threads."""
    meeting, results = Meeting(count), [None] * count

    def one(rank: int) -> None:
        try:
            results[rank] = work(ThreadAsProcess(rank, count, meeting))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.filterwarnings("ignore:.*skipped")
@pytest.mark.parametrize(("count", "batch_size"), [(2, 1), (3, 2), (4, 3), (9, 1)])
def test_shares_are_one_result(count: int, batch_size: int) -> None:
    sizes = [(12, 16), (12, 16), (10, 20), (12, 16), (12, 16), (12, 16), (14, 18)]
    dataset = [make_sample(i, size, name="same" if i in (1, 5) else f"z{9 - i}") for i, size in enumerate(sizes)]
    dataset[3] = replace(dataset[3], valid=torch.zeros(1, 12, 16, dtype=torch.bool))
    predicted: list[str] = []
    lock = threading.Lock()

    def predict(batch: StereoSample) -> DepthPrediction:
        with lock:
            predicted.extend(batch.name)
        return predict_from_image(batch)

    scorer = Scorer(("none", "eigen"), uncertainty=True)
    alone = evaluate_protocols(predict, dataset, scorer, batch_size=batch_size)
    once = sorted(predicted)
    assert list(alone["none"].rows) == ["z9", "same", "z7", "z5", "same#1", "z3"], "in the data set's order"
    predicted.clear()
    results = in_threads(
        count, lambda place: evaluate_protocols(predict, dataset, scorer, batch_size=batch_size, processes=place)
    )
    assert sorted(predicted) == once, "each image in one process only"
    for result in results:
        for protocol in scorer.protocols:
            assert result[protocol].rows == alone[protocol].rows
            assert list(result[protocol].rows) == list(alone[protocol].rows)
            assert result[protocol].means() == alone[protocol].means()
            assert result[protocol].skipped == alone[protocol].skipped == ("z6",)
            for name, curve in alone[protocol].curves.items():
                assert (result[protocol].curves[name] == curve).all()


def test_one_process_that_fails_stops_all() -> None:
    dataset = [make_sample(i) for i in range(4)]

    def predict(batch: StereoSample) -> DepthPrediction:
        prediction = predict_from_image(batch)
        return replace(prediction, depth=prediction.depth * torch.nan) if "image1" in batch.name else prediction

    results = in_threads(2, lambda place: evaluate_protocols(predict, dataset, Scorer(), processes=place))
    for error in results:
        assert isinstance(error, InputError)
        assert "image image1: prediction: NaN" in str(error)


def test_called_directly_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_processes() as processes:
        assert (processes.rank, processes.world_size, processes.is_main) == (0, 1, True)
        assert processes.gather("it") == ["it"]
    assert not torch.distributed.is_initialized()


def test_two_real_processes_write_what_one_writes(tmp_path: Path) -> None:
    from adu_depth.training.runs import train_student

    config = tiny_student(tmp_path / "run")
    train_student(replace(config, loop=replace(config.loop, steps=2)))
    evaluate = ["evaluate", str(tmp_path / "run"), "--pairs", "5", "--protocol", "none,eigen", "--device", "cpu"]
    evaluate += ["--fit-temperature", "0.4"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.raises(SystemExit) as stopped:
            main([*evaluate, "--output", str(tmp_path / "one")])
    finally:
        torch.set_num_threads(threads)
    assert not stopped.value.code
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "adu_depth", *evaluate, "--output", str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("temperature") >= 1
    assert done.stdout.count(f"wrote {tmp_path / 'two'}") == 1, "one process alone reports"
    for name in ("student.csv", "student.json", "metrics.md", "student_calibration.svg"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text(), name
    fits = [json.loads((tmp_path / folder / "temperature.json").read_text()) for folder in ("one", "two")]
    assert fits[0] == fits[1]
    assert fits[0]["fitted_on_images"] == 2
