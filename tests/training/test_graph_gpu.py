"""Steps replayed from CUDA graphs on a GPU: the same bits as without, and never a wait for the device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from adu_depth.checkpoint import checkpoint_path, restore_checkpoint, save_checkpoint
from adu_depth.data import SyntheticStereo
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.config import OptimizerConfig
from adu_depth.training.cuda_graphs import CudaGraphs
from adu_depth.training.graph import WARM_UP, StepByGraph
from adu_depth.training.step import (
    PartByPart,
    StepRunner,
    Terms,
    TrainingParts,
    make_optimizer,
    place_learning_rate,
    set_learning_rate,
)
from adu_depth.training.tasks import OnlineTeacher, StepContext, StudentTask, TeacherTask
from tests.training.tiny import SIZE, STUDENT, TEACHER
from tests.training.toy_step import Toy, go, same

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICE = torch.device("cuda", 0)
STEPS, SAVED = 6, 3
EVERY_CHANGE = PairAugmentationConfig(
    contrast=0.2, saturation=0.2, asymmetric=0.5, flip=0.5, zoom=1.5, vertical_jitter=1.0, erase=0.5
)
Kept = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _the_same_algorithms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    yield
    torch.cuda.set_sync_debug_mode("default")


class Training:
    """A teacher's or a student's, as the loop does it, without a run folder's files."""

    def __init__(self, kind: str, said: list[str] | None) -> None:
        """said: what is told of graphs goes there; None runs without them."""
        torch.manual_seed(0)
        accelerator, config = Accelerator(mixed_precision="bf16"), OptimizerConfig(learning_rate=1e-3)
        teach: Any = lambda batch: batch  # noqa: E731
        self.kind: Any = kind
        self.task: TeacherTask | StudentTask
        if kind == "teacher":
            loss = TeacherLoss(TeacherLossConfig(), TEACHER.max_disparity, TEACHER.min_depth, TEACHER.max_depth)
            self.task = TeacherTask(StereoTeacher(TEACHER), loss, EVERY_CHANGE)
        else:
            network, teach = MonoStudent(STUDENT), OnlineTeacher(StereoTeacher(TEACHER), DEVICE)
            objective = StudentLoss(
                DistillationConfig(guide_ramp=0.9), STUDENT.feature_channels, TEACHER.feature_channels, 0.5, 80.0
            )
            self.task = StudentTask(network, objective, AugmentationConfig(cut_flip=0.5, contrast=0.2, saturation=0.2))
        module, self.optimizer = accelerator.prepare(self.task, make_optimizer(self.task, config, DEVICE))
        module.train()
        self.parts = TrainingParts(
            self.task, module, self.optimizer, accelerator, teach=teach, clip_norm=1.0, dense=False
        )
        self.runner: StepRunner = PartByPart(self.parts, DEVICE)
        if said is not None:
            self.runner = StepByGraph(self.parts, DEVICE, CudaGraphs(DEVICE), said.append)

    def run(self, steps: range, folder: Path | None = None, strict: bool = False) -> list[Terms]:
        """The terms of these steps. folder: to keep a checkpoint in. strict: a replayed step must not wait."""
        place_learning_rate(self.optimizer, DEVICE)
        scenes = SyntheticStereo(None, *SIZE, device=DEVICE)
        batches = [TrainingBatch(scenes.render_batch([2 * n, 2 * n + 1])).to(DEVICE) for n in steps]
        found = []
        for done, (step, batch) in enumerate(zip(steps, batches, strict=True)):
            torch.cuda.set_sync_debug_mode("error" if strict and done > WARM_UP else "default")
            set_learning_rate(self.optimizer, 1e-3 / (1 + step))
            found.append(self.runner.gradients(batch, StepContext(0, step, 0, step / STEPS, dense=False)))
            self.runner.update()
            torch.cuda.set_sync_debug_mode("default")
            if folder is not None and step + 1 == SAVED:
                save_checkpoint(
                    folder, SAVED, kind=self.kind, module=self.task, optimizer=self.optimizer, config={}, keep=1
                )
        return found

    def kept(self) -> Kept:
        """Weights and moments, on the CPU."""
        found = {name: tensor.cpu() for name, tensor in self.task.state_dict().items()}
        for number, slots in self.optimizer.state_dict()["state"].items():
            found |= {f"{number}.{name}": tensor.cpu() for name, tensor in slots.items()}
        return found


def differing(one: Kept, other: Kept) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_the_same_bits_with_a_graph_and_without_and_resumed(kind: str, tmp_path: Path) -> None:
    plain, again = Training(kind, None), Training(kind, None)
    expected = plain.run(range(STEPS))
    assert all(same(expected, again.run(range(STEPS)))), "the steps themselves do not repeat here"
    assert differing(plain.kept(), again.kept()) == []
    said: list[str] = []
    graphed = Training(kind, said)
    assert all(same(expected, graphed.run(range(STEPS), folder=tmp_path, strict=True)))
    assert said == []
    assert isinstance(graphed.runner, StepByGraph)
    assert [kind.halves is not None for kind in graphed.runner.kinds.values()] == [True]
    assert differing(plain.kept(), graphed.kept()) == []
    for resumed in (Training(kind, said), Training(kind, None)):
        assert restore_checkpoint(checkpoint_path(tmp_path, SAVED), resumed.task, resumed.optimizer) == SAVED
        assert all(same(expected[SAVED:], resumed.run(range(SAVED, STEPS))))
        assert differing(plain.kept(), resumed.kept()) == []
    assert said == []


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_backbone_that_cannot_be_captured_is_trained_all_the_same(where: str) -> None:
    """It asks for a value of the device, which CUDA refuses while work is captured and calls the capture invalid."""

    def asking(said: list[str] | None) -> Training:
        training = Training("student", said)

        def ask(module: Any, given: Any, result: Any) -> Any:
            maps = result[0]
            if where == "forward":
                maps.sum().item()
            elif maps.requires_grad:
                maps.register_hook(lambda gradient: gradient * (1 + 0 * gradient.float().sum().item()))
            return result

        training.task.network.encoder.register_forward_hook(ask)
        return training

    said: list[str] = []
    plain, graphed = asking(None), asking(said)
    expected = plain.run(range(STEPS))
    found = graphed.run(range(STEPS))
    assert len(said) == 1
    assert "cannot be captured" in said[0]
    assert all(same(expected, found))
    assert differing(plain.kept(), graphed.kept()) == []
    assert not torch.cuda.is_current_stream_capturing()
    # stream, random numbers and memory are as before: another step can be captured
    test_noise_follows_the_seed_of_each_step()


def test_noise_follows_the_seed_of_each_step() -> None:
    """And batches of two sizes have graphs of their own."""
    said: list[str] = []
    plain, graphed = Toy(DEVICE), Toy(DEVICE)
    expected = go(PartByPart(plain, DEVICE), range(10), (64, 96), DEVICE)
    runner = StepByGraph(graphed, DEVICE, CudaGraphs(DEVICE), said.append)
    found = go(runner, range(10), (64, 96), DEVICE)
    assert all(same(expected, found))
    assert len({float(terms["total"]) for terms in found}) == len(found)
    assert torch.equal(plain.layer.weight, graphed.layer.weight)
    assert (len(runner.kinds), said) == (2, [])
    assert all(kind.halves is not None for kind in runner.kinds.values())


def test_memory_of_graphs_is_given_back() -> None:
    said: list[str] = []
    plain, graphed, graphs = Toy(DEVICE), Toy(DEVICE), CudaGraphs(DEVICE)
    expected = go(PartByPart(plain, DEVICE), range(6), (64,), DEVICE)
    runner = StepByGraph(graphed, DEVICE, graphs, said.append)

    def held() -> int:
        torch.cuda.empty_cache()
        found = torch.cuda.memory_snapshot()
        return sum(one["total_size"] for one in found if tuple(one["segment_pool_id"]) == tuple(graphs.pool))

    found = go(runner, range(4), (64,), DEVICE)
    assert (held() > 0, said) == (True, [])
    assert runner.release()
    assert held() == 0
    found += go(runner, range(4, 6), (64,), DEVICE)
    assert all(same(expected, found))
    assert torch.equal(plain.layer.weight, graphed.layer.weight)


def test_a_thread_may_pin_batches_meanwhile() -> None:
    """As a DataLoader's does. All are kept, so that each asks CUDA for memory."""
    over, said = threading.Event(), list[str]()
    pinned: list[Tensor] = []

    def pin() -> None:
        while not over.wait(1e-4) and len(pinned) < 4000:
            pinned.append(torch.empty(2**16, dtype=torch.uint8, device="cpu").pin_memory())

    runner = StepByGraph(Toy(DEVICE), DEVICE, CudaGraphs(DEVICE), said.append)
    go(runner, range(3 * WARM_UP), (64, 96, 128), DEVICE)
    thread = threading.Thread(target=pin)
    thread.start()
    try:
        go(runner, range(3 * WARM_UP, 4 * WARM_UP + 1), (64, 96, 128), DEVICE)
    finally:
        over.set()
        thread.join()
    assert said == []
    assert [kind.halves is not None for kind in runner.kinds.values()] == [True] * 3
    assert pinned
