"""Two processes with half a batch each are one with the whole of it, within rounding."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from accelerate.utils import set_seed
from torch import nn

from adu_depth.checkpoint import best_checkpoint, list_checkpoints, read_standing
from adu_depth.distillation import TeacherLoss
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.models import StereoTeacher
from adu_depth.tensor_files import read_tensors
from adu_depth.training import processes
from adu_depth.training.batches import batches
from adu_depth.training.config import TeacherTrainingConfig
from adu_depth.training.processes import Exchange, joined, remarks
from adu_depth.training.runs import open_samples, train_teacher
from adu_depth.training.tasks import StepContext, TeacherTask, step_losses
from tests.training.tiny import LOOP, tiny_teacher
from tests.training.two_processes import CASES, GRAPHS, HALF, OVERFLOWS, ROWS, SCALE, STEPS, TOGETHER, settings, train

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
ALIKE = ("teacher", "student, online")
Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Both:
    """The rows of each case by two processes with two pairs each, and the folders of two and of one."""

    rows: dict[str, Rows]
    two: Path
    one: Path


def start(folder: Path, processes: int = 2) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.two_processes", str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    train_teacher(tiny_teacher(two / "taught-by", loop=replace(LOOP, steps=1)))
    shutil.copytree(two / "taught-by", one / "taught-by")
    started = start(two)
    try:
        said = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], said[0][1] + said[1][1]
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in said)
    assert len(set(first["digests"])) == len(CASES)
    assert first["digests"] == second["digests"], "the weights of every process are the same bits"
    first, second = first["rows"], second["rows"]
    assert said[1][1] == "", "what is said is said by the first process"
    assert {case: len(rows) for case, rows in first.items()} == ROWS
    assert without_speed(first["teacher"]) == without_speed(second["teacher"])
    yield Both(first, two, one)
    torch.set_num_threads(threads)


def without_speed(rows: Rows) -> Rows:
    timed = ("images_per_second", "data_wait", "peak_memory_mb", "seconds_left")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


def weights(folder: Path, case: str) -> dict[str, torch.Tensor]:
    return read_tensors(list_checkpoints(folder / case)[-1] / "model.safetensors")


def alike(one: dict[str, float], other: dict[str, float]) -> bool:
    """Within rounding; a gradient jumps where rounding takes a pixel over a kink of its loss."""
    norms = one["gradient_norm"], other["gradient_norm"]
    terms = ({**row, "gradient_norm": 0.0} for row in (one, other))
    return bool(norms[0] == pytest.approx(norms[1], rel=1e-3) and next(terms) == pytest.approx(next(terms), rel=2e-5))


@pytest.mark.parametrize("case", ALIKE)
def test_a_joined_batch_gives_the_same_training(both: Both, case: str) -> None:
    """Every term, the gradient's norm and the weights after some steps; sums are taken in another order."""
    expected = train(case, both.one, 4)
    for found, row in zip(without_speed(both.rows[case]), without_speed(expected), strict=True):
        assert alike(found, row), (found, row)
    own, joined = weights(both.two, case), weights(both.one, case)
    assert own.keys() == joined.keys()
    apart = torch.cat([(own[name] - weight).abs().flatten() for name, weight in joined.items()])
    # AdamW's first steps are of the rate's size in either direction, for a gradient of 1e-9 as well as for one of 1.
    assert float((apart > 1e-5).float().mean()) < 0.01
    assert float(apart.max()) < 2 * STEPS[case] * 5e-4


def test_initial_weights_micro_batches_averages_validation_and_an_early_end_are_shared(both: Both) -> None:
    """All of them in one training: the same steps, the same end, the same best checkpoint, as by one process."""
    expected = without_speed(train(TOGETHER, both.one, 4))
    rows = without_speed(both.rows[TOGETHER])
    assert [list(row) for row in rows] == [list(row) for row in expected]
    measured = [row for row in rows if "validation/abs_rel" in row]
    assert [row["step"] for row in measured] == [1, 2, 3]
    for found, row in zip(rows[:2], expected[:2], strict=True):
        assert alike({"gradient_norm": 0.0, **found}, {"gradient_norm": 0.0, **row}), (found, row)
    runs = [folder / TOGETHER for folder in (both.two, both.one)]
    for run in runs:
        assert best_checkpoint(run) == run / "checkpoints" / "step-00000001"
        assert [path.name for path in list_checkpoints(run)] == [f"step-0000000{step}" for step in (1, 2, 3)]
    two, one = (read_standing(list_checkpoints(run)[-1]) for run in runs)
    assert two is not None
    assert one is not None
    assert (two["best"], two["since"], two["measured"]) == (measured[0]["validation/a1"], 2, one["measured"])
    averages, joined = (read_tensors(best_checkpoint(run) / "model.safetensors") for run in runs)
    apart = torch.cat([(averages[name] - average).abs().flatten() for name, average in joined.items()])
    assert float((apart > 1e-5).float().mean()) < 0.01
    assert float(apart.max()) < 2 * 0.03, "of one step's size"


def test_one_process_goes_on_where_two_have_begun(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    """With as many pairs a step of all together; with others it is refused, which says how many."""
    run = both.two / "taken over" / "teacher"
    shutil.copytree(both.two / "teacher", run)
    for batch_size in (2, 4):
        config = settings("teacher", run.parent, batch_size)
        config = replace(config, loop=replace(config.loop, resume_from="2"))
        assert isinstance(config, TeacherTrainingConfig)
        if batch_size == 2:
            with pytest.raises(
                InputError, match=r"processes: 2 → 1\. Another number of processes goes on with 4 pairs"
            ):
                train_teacher(config)
    rows = train_teacher(config)
    assert alike(*(without_speed(found)[-1] for found in (rows, both.rows["teacher"])))
    assert "was begun by 2 processes and goes on by 1" in capsys.readouterr().out


def test_an_infinite_gradient_of_one_process_is_skipped_by_all(both: Both) -> None:
    """And the scale of the loss is halved in all, as it is for the joined batch."""
    rows, expected = without_speed(both.rows[HALF]), without_speed(train(HALF, both.one, 4))
    assert [row["loss_scale"] for row in rows] == [SCALE] * (OVERFLOWS + 1) + [SCALE / 2] * (3 - OVERFLOWS)
    for number, (found, row) in enumerate(zip(rows, expected, strict=True)):
        assert math.isinf(found["gradient_norm"]) == math.isinf(row["gradient_norm"]) == (number == OVERFLOWS)
        assert found["total"] == pytest.approx(row["total"], rel=1e-3)
    assert rows[OVERFLOWS]["total"] == pytest.approx(rows[OVERFLOWS + 1]["total"], rel=1e-6), "the weights stayed"
    for folder in (both.two, both.one):
        state = read_tensors(list_checkpoints(folder / HALF)[-1] / "training.safetensors")
        assert {float(tensor) for name, tensor in state.items() if name.endswith(".step")} == {3.0}


def test_features_are_scaled_by_those_of_their_process(both: Both) -> None:
    """The teacher's mean square is taken over a process's batch: the other terms are those of the joined batch."""
    expected = without_speed(train("student, cached", both.one, 4))
    for found, row in zip(without_speed(both.rows["student, cached"]), expected, strict=True):
        assert {**found, "gradient_norm": 0.0} == pytest.approx({**row, "gradient_norm": 0.0}, rel=0.02)
    exact = ("silog", "uncertainty", "response")
    assert [both.rows["student, cached"][0][name] for name in exact] == pytest.approx(
        [expected[0][name] for name in exact], rel=2e-5
    )


def test_graphs_exchange_too(both: Both) -> None:
    """AdamW is the fused one with them."""
    for found, row in zip(without_speed(both.rows[GRAPHS]), without_speed(both.rows["teacher"]), strict=True):
        assert alike(found, row), (found, row)


def halves(case: str, folder: Path) -> list[dict[str, float]]:
    """The terms that each of two processes has in its first step, and those of the joined batch."""
    found = []
    parts = ((ProcessGroup(0, 2), 2), (ProcessGroup(1, 2), 2), (ProcessGroup(), 4))
    for group, batch_size in parts:
        config = settings(case, folder, batch_size)
        assert isinstance(config, TeacherTrainingConfig)
        set_seed(config.loop.seed)
        loss = TeacherLoss(config.loss, config.model.max_disparity, config.model.min_depth, config.model.max_depth)
        task = TeacherTask(StereoTeacher(config.model), loss, config.augmentation).train()
        batch = next(batches(open_samples(config.data, CPU), config.data, config.loop, 0, group, CPU))
        terms = step_losses(task, batch, StepContext(config.loop.seed, 0, group.rank, 0.0, False))
        found.append({name: float(term.detach()) for name, term in terms.items()})
    return found


def test_means_over_a_batch_are_those_of_each_process(both: Both) -> None:
    """The rows are the mean of the processes', each counting alike, which is not that of the joined batch."""
    case = "teacher, batch means"
    first, second, joined = halves(case, both.one)
    row = both.rows[case][0]
    for name, value in first.items():
        assert row[name] == pytest.approx((value + second[name]) / 2, rel=1e-5)
    assert row["disparity"] != pytest.approx(joined["disparity"], rel=1e-4)


def mixed() -> nn.Sequential:
    """A batch norm, a half-precision weight, a channels-last one, and one without a gradient."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Linear(2, 2).half(), nn.Linear(1, 1))
    network[0].to(memory_format=torch.channels_last)
    for parameter in network[:3].parameters():
        parameter.grad = torch.randn_like(parameter)
    network[1].running_mean.normal_()
    return network


def test_gradients_and_running_statistics_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a process whose numbers are all 1; what has no gradient keeps none."""
    network = mixed()
    before = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    mean, place = network[1].running_mean.clone(), network[0].weight.grad.data_ptr()
    exchange = Exchange(network, ProcessGroup(0, 2))
    monkeypatch.setattr(ProcessGroup, "gather", lambda group, value: [value, value])
    monkeypatch.setattr(processes.dist, "all_reduce", lambda buffer: buffer.add_(1))
    exchange.average()
    assert {name: p.grad for name, p in network.named_parameters() if p.grad is not None}.keys() == before.keys()
    for name, gradient in before.items():
        assert torch.equal(network.get_parameter(name).grad, ((gradient + 1) / 2)), name
    assert torch.equal(network[1].running_mean, (mean + 1) / 2)
    assert network[0].weight.grad.data_ptr() == place, "a graph's gradients stay where they are"
    exchange.average([p.grad for p in network.parameters() if p.grad is not None])
    assert torch.equal(network[1].running_mean, ((mean + 1) / 2 + 1) / 2)


def test_all_begin_with_the_weights_and_buffers_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def broadcast(buffer: torch.Tensor, source: int) -> None:
        assert source == 0
        buffer.fill_(7)

    monkeypatch.setattr(processes.dist, "broadcast", broadcast)
    network = mixed()
    assert joined(network, ProcessGroup()) is None
    assert joined(network, ProcessGroup(1, 2)) is not None
    for name, tensor in network.state_dict().items():
        assert (tensor == 7).all(), name


def test_processes_that_use_other_parameters_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProcessGroup, "gather", lambda group, value: [value, []])
    with pytest.raises(RuntimeError, match=r"differ in which parameters have no gradient: \[\['3.weight', '3.bias'\]"):
        Exchange(mixed(), ProcessGroup(0, 2)).average()


def test_batch_norms_of_several_processes_are_remarked_upon() -> None:
    [remark] = remarks(nn.BatchNorm2d(1), ProcessGroup(0, 2), 2)
    assert "1 batch norms normalise by the 2 images of their own process" in remark
    assert remarks(nn.BatchNorm2d(1), ProcessGroup(), 2) == []
    assert remarks(nn.GroupNorm(1, 1), ProcessGroup(0, 2), 2) == []
