"""Steps by graphs are the steps themselves, bit for bit: on the CPU, where a tape stands for CUDA's graphs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adu_depth.checkpoint import list_checkpoints
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.data.sample import StereoSample
from adu_depth.distillation import DistillationConfig, TeacherLossConfig
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.progress import Progress
from adu_depth.tensor_files import read_tensors
from adu_depth.training import good_checkpoints, loop, step
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.config import OptimizerConfig
from adu_depth.training.good_checkpoints import NonFiniteLoss
from adu_depth.training.graph import MOST, WARM_UP, StepByGraph
from adu_depth.training.history import MEASURED
from adu_depth.training.order import step_indices
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.step import PartByPart, StepRunner, Terms, TrainingParts
from adu_depth.training.tasks import OnlineTeacher, StepDraws
from adu_depth.training.validation_config import ValidationConfig
from adu_depth.transfer import packed, unpacked
from adu_depth.trees import numbers_as_tensors
from tests.training.tape import Tape
from tests.training.tiny import DATA, LOOP, STUDENT, TEACHER, tiny_scenes, tiny_student, tiny_teacher
from tests.training.toy_step import Toy, go, same

CPU = torch.device("cpu")
EVERY_CHANGE = PairAugmentationConfig(
    contrast=0.2, saturation=0.2, asymmetric=0.5, flip=0.5, zoom=1.5, vertical_jitter=1.0, erase=0.5
)
STEPS = 5
LONGER = replace(LOOP, steps=STEPS, checkpoint_every=2, log_every=1, keep_checkpoints=9)
DROPPING = "config:swin?embed_dim=8&depths=1,1,1,1&num_heads=1,1,1,1&window_size=2&drop_path_rate=0.5"


def as_sent(draws: StepDraws, device: torch.device) -> StepDraws:
    """As `upload_together` leaves them on a device: numbers are tensors."""
    draws = numbers_as_tensors(draws)
    return unpacked(packed(draws), draws)


def place_rate(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    rate = torch.tensor(float(optimizer.param_groups[0]["lr"]))
    for group in optimizer.param_groups:
        group["lr"] = rate


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    """The loop takes it for CUDA's graphs; the rest of a step is as on CUDA, without graphs too."""
    tape = Tape()
    monkeypatch.setattr(loop, "graphs_for", lambda device: tape)
    monkeypatch.setattr(loop, "place_learning_rate", place_rate)
    monkeypatch.setattr(step, "upload_together", as_sent)
    return tape


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: found.append(text))
    return found


def kept(run: Path) -> dict[str, Tensor]:
    """All that the newest checkpoint of a run holds."""
    newest = list_checkpoints(run)[-1]
    return read_tensors(newest / "model.safetensors") | read_tensors(newest / "training.safetensors")


def assert_same(one: Path, other: Path) -> None:
    first, second = kept(one), kept(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def curves(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def taught(tmp_path: Path, **changes: Any) -> Any:
    teacher = tmp_path / "taught-by"
    if not teacher.exists():
        train_teacher(tiny_teacher(teacher, loop=replace(LOOP, steps=1, graph=False)))
    return lambda run, loop: train_student(tiny_student(run, teacher=teacher, loop=loop, **changes))


TRAININGS: dict[str, Callable[[Path], Callable[[Path, Any], list[dict[str, float]]]]] = {
    "teacher, every change": lambda p: (
        lambda run, loop: train_teacher(tiny_teacher(run, loop=loop, augmentation=EVERY_CHANGE))
    ),
    "teacher, batch norm": lambda p: (
        lambda run, loop: train_teacher(
            tiny_teacher(run, loop=loop, model=replace(TEACHER, norm="batch"), data=replace(DATA, dense=True))
        )
    ),
    "teacher, averages of its weights": lambda p: (
        lambda run, loop: train_teacher(tiny_teacher(run, loop=replace(loop, ema=0.9)))
    ),
    "teacher, batch norm, averages, validated between steps": lambda p: (
        lambda run, loop: train_teacher(
            tiny_teacher(
                run,
                loop=replace(loop, ema=0.9),
                model=replace(TEACHER, norm="batch"),
                validation=ValidationConfig(every=1, samples=2, pictures=1),
            )
        )
    ),
    "student, online teacher, every change, a growing guide": lambda p: taught(
        p,
        augmentation=AugmentationConfig(cut_flip=0.5, contrast=0.2, saturation=0.2, rotate=5, zoom=1.5),
        distillation=DistillationConfig(guide_ramp=0.9),
    ),
    "teacher, recomputed hourglasses": lambda p: (
        lambda run, loop: train_teacher(
            tiny_teacher(run, loop=loop, model=replace(TEACHER, norm="batch", recompute_aggregation=True))
        )
    ),
    "student, online teacher with a left–right check": lambda p: taught(
        p, teacher_left_right=True, augmentation=AugmentationConfig(rotate=5)
    ),
    "student, cached outputs": lambda p: taught(p, teacher_cache=p / "cache"),
    "teacher, every change, two micro-batches": lambda p: (
        lambda run, loop: train_teacher(
            tiny_teacher(run, loop=replace(loop, batch_size=1, accumulate=2), augmentation=EVERY_CHANGE)
        )
    ),
    "teacher, left–right check, dropped paths, batch norm, two micro-batches": lambda p: (
        lambda run, loop: train_teacher(
            tiny_teacher(
                run,
                loop=replace(loop, accumulate=2),
                model=replace(TEACHER, norm="batch", encoder=DROPPING),
                loss=TeacherLossConfig(left_right=True),
                augmentation=EVERY_CHANGE,
            )
        )
    ),
    "student alone, dropped paths, two micro-batches": lambda p: (
        lambda run, loop: train_student(
            tiny_student(run, loop=replace(loop, accumulate=2), model=replace(STUDENT, encoder=DROPPING))
        )
    ),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_by_graphs_is_the_same_to_the_bit(name: str, tape: Tape, tmp_path: Path, said: list[str]) -> None:
    train = TRAININGS[name](tmp_path)
    plain = train(tmp_path / "plain", replace(LONGER, graph=False))
    assert tape.captures == 0
    said.clear()
    by_graph = train(tmp_path / "graph", LONGER)
    assert (tape.captures, tape.replays) == (2, 2 * (STEPS - WARM_UP))
    assert curves(by_graph) == curves(plain)
    assert_same(tmp_path / "plain", tmp_path / "graph")
    assert not [text for text in said if "CUDA graph" in text]


@pytest.mark.parametrize("graph", [True, False])
def test_a_run_goes_on_with_a_graph_or_without(graph: bool, tape: Tape, tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "whole", loop=LONGER))
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    train_teacher(tiny_teacher(tmp_path / "resumed", loop=replace(LONGER, resume_from="2", graph=graph)))
    assert_same(tmp_path / "whole", tmp_path / "resumed")


def one_by_one(task: nn.Module, config: OptimizerConfig, device: torch.device) -> torch.optim.AdamW:
    groups = step.parameter_groups(task, config.decay_norms_and_biases)
    return torch.optim.AdamW(groups, config.learning_rate, weight_decay=config.weight_decay, foreach=False)


def test_a_checkpoint_of_another_form_of_adamw_is_gone_on_from(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from before AdamW was fused."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_optimizer", one_by_one)
        train_teacher(tiny_teacher(run, loop=LONGER))
    tape: Tape = request.getfixturevalue("tape")
    rows = train_teacher(tiny_teacher(run, loop=replace(LONGER, resume_from="2")))
    assert tape.replays == 2 * (STEPS - 2 - WARM_UP)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert {float(t) for name, t in kept(run).items() if name.endswith(".step")} == {STEPS}
    monkeypatch.undo()
    train_teacher(tiny_teacher(run, loop=replace(LONGER, resume_from="4")))
    assert {float(t) for name, t in kept(run).items() if name.endswith(".step")} == {STEPS}


class Broken:
    """A data set that gives a NaN in a step that is replayed."""

    def __init__(self, number: int) -> None:
        self.scenes = tiny_scenes(40)
        self.bad = step_indices(40, number, LOOP.batch_size, LOOP.seed, ProcessGroup())[0]

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> StereoSample:
        sample = self.scenes[index]
        return replace(sample, left=sample.left * float("nan")) if index == self.bad else sample


def test_a_nan_in_a_replayed_step_is_told_alike(tape: Tape, tmp_path: Path) -> None:
    messages = []
    for name, graph in (("plain", False), ("graph", True)):
        longer = replace(LONGER, check_every=3, steps=6, graph=graph)
        with pytest.raises(NonFiniteLoss, match="at step 4, samples") as caught:
            train_student(tiny_student(tmp_path / name, loop=longer), samples=Broken(4))
        messages.append(str(caught.value).replace(name, ""))
    assert messages[0] == messages[1]
    assert tape.replays
    assert_same(tmp_path / "plain", tmp_path / "graph")


@pytest.mark.parametrize("where", ["losses", "update"])
def test_what_cannot_be_captured_is_told_once_and_run(
    where: str, tape: Tape, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backbone, or an optimizer, that asks for a value: in the middle of the work, gradients half made."""
    before = getattr(TrainingParts, where)

    def asks(self: TrainingParts, *given: Any) -> Any:
        result = before(self, *given)
        next(iter(self.task.parameters())).sum().item()
        return result

    monkeypatch.setattr(TrainingParts, where, asks)
    train_teacher(tiny_teacher(tmp_path / "plain", loop=replace(LONGER, graph=False)))
    said.clear()
    train_teacher(tiny_teacher(tmp_path / "graph", loop=LONGER))
    assert tape.replays == 0
    told = [text for text in said if "CUDA graph" in text]
    assert len(told) == 1, said
    assert "(NeedsAValue: aten._local_scalar_dense" in told[0]
    assert "--loop.no-graph" in told[0]
    assert_same(tmp_path / "plain", tmp_path / "graph")


def test_a_checkpoint_for_which_graphs_leave_no_memory(
    tape: Tape, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is written its weights are looked at, by operations beside the graphs, which hold a step's memory."""
    before, looks = good_checkpoints.step_losses, []

    def short(*given: Any) -> Terms:
        terms = before(*given)  # running statistics have seen the batch by now
        looks.append(tape.replays)
        if tape.replays and len(looks) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return terms

    batch_norm = {"model": replace(TEACHER, norm="batch")}
    train_teacher(tiny_teacher(tmp_path / "plain", loop=replace(LONGER, graph=False), **batch_norm))
    said.clear()
    monkeypatch.setattr(good_checkpoints, "step_losses", short)
    train_teacher(tiny_teacher(tmp_path / "graph", loop=LONGER, **batch_norm))
    assert (looks, tape.captures) == ([0, 4, 4, 4], 2)
    assert len([text for text in said if "not enough memory" in text]) == 1, said
    assert_same(tmp_path / "plain", tmp_path / "graph")
    looks.clear()
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        train_teacher(tiny_teacher(tmp_path / "never", loop=replace(LONGER, graph=False), **batch_norm))


def test_a_loss_that_is_nan_is_told_where_graphs_leave_no_memory_to_look_for_its_cause(
    tape: Tape, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher is run once more on what the step was given; without that the weights stay unsuspected."""
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=replace(LONGER, steps=1)))
    save, teach, looks = loop.save_checkpoint, OnlineTeacher.__call__, []

    def spoilt(*given: Any, **more: Any) -> Path:
        path = save(*given, **more)
        if path.name == "step-00000004":
            next(more["module"].network.parameters()).data.fill_(torch.nan)
            monkeypatch.setattr(OnlineTeacher, "__call__", short)
        return path

    def short(self: OnlineTeacher, batch: TrainingBatch) -> TrainingBatch:
        looks.append(tape.replays)
        if len(looks) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return teach(self, batch)

    monkeypatch.setattr(loop, "save_checkpoint", spoilt)
    config = tiny_student(tmp_path / "run", teacher=tmp_path / "teacher", loop=replace(LONGER, check_every=1))
    with pytest.raises(NonFiniteLoss, match=r"at step 4, .* the last good checkpoint is .*step-00000002\."):
        train_student(config)
    assert len(looks) == 2
    assert len([text for text in said if "not enough memory" in text]) == 1, said
    assert (tmp_path / "run/checkpoints/broken-step-00000004").is_dir()


def by_graph(toy: Toy, tape: Tape, said: list[str]) -> StepByGraph:
    return StepByGraph(toy, CPU, tape, said.append)


@pytest.mark.parametrize("widths", [(64,), (64, 96), (64, 96, 128, 160, 192, 224)])
def test_batches_of_several_sizes_and_terms_that_stay(
    widths: tuple[int, ...], tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each size has graphs of its own, up to a number; terms are compared at the end, when later replays are done."""
    monkeypatch.setattr(step, "upload_together", as_sent)
    said: list[str] = []
    plain, graphed, steps = Toy(CPU), Toy(CPU), 5 * len(widths)
    expected = go(PartByPart(plain, CPU), range(steps), widths, CPU)
    found = go(by_graph(graphed, tape, said), range(steps), widths, CPU)
    assert all(same(expected, found))
    assert torch.equal(plain.layer.weight, graphed.layer.weight)
    kinds = min(len(widths), MOST)
    assert (tape.captures, tape.replays) == (2 * kinds, 2 * kinds * (5 - WARM_UP))
    assert len(said) == (len(widths) > MOST)


def test_a_teacher_whose_first_outputs_are_nan_is_told_with_the_samples_alike(
    tape: Tape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = OnlineTeacher.__call__

    def broken(self: OnlineTeacher, batch: TrainingBatch) -> TrainingBatch:
        taught = given(self, batch)
        assert taught.teacher is not None
        return replace(taught, teacher=replace(taught.teacher, depth=taught.teacher.depth * torch.nan))

    monkeypatch.setattr(OnlineTeacher, "__call__", broken)
    train, messages = taught(tmp_path), []
    for name, graph in (("plain", False), ("graph", True)):
        with pytest.raises(InputError, match=r"the teacher on synthetic-0-00000., synthetic-0-00000.:") as caught:
            train(tmp_path / name, replace(LONGER, graph=graph))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_number_of_the_host_would_be_seen(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the tape can tell: a step that reads a changing number of the host is not the same by a graph."""
    monkeypatch.setattr(step, "upload_together", as_sent)
    toys = Toy(CPU), Toy(CPU)
    runners: tuple[StepRunner, ...] = PartByPart(toys[0], CPU), by_graph(toys[1], tape, [])
    found: list[list[Terms]] = [[], []]
    for number in range(5):
        for toy, runner, terms in zip(toys, runners, found, strict=True):
            toy.host = 1.0 + number
            terms += go(runner, range(number, number + 1), (64,), CPU)
    assert same(*found) == [True, True, True, False, False]


def test_a_capture_that_fails_later_ends_all_graphs(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another size comes when steps are replayed already, and there is no memory for it."""
    monkeypatch.setattr(step, "upload_together", as_sent)
    said: list[str] = []
    plain, graphed = Toy(CPU), Toy(CPU)
    runner = by_graph(graphed, tape, said)
    sizes = [*(64 for _ in range(4)), *(96 for _ in range(4)), 64]
    expected, found = [], []
    tape.fail = {3: torch.OutOfMemoryError("CUDA out of memory\na long story")}
    for number, width in enumerate(sizes):
        expected += go(PartByPart(plain, CPU), range(number, number + 1), (width,), CPU)
        found += go(runner, range(number, number + 1), (width,), CPU)
    assert all(same(expected, found))
    assert (tape.captures, tape.replays) == (3, 2 * (4 - WARM_UP))
    assert len(said) == 1
    assert "(OutOfMemoryError: CUDA out of memory)" in said[0]
    assert not runner.kinds, "and keeps no step's memory"


class Doubled:
    """An exchange with a process that has the same gradients with noise, drawn anew in each step."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.generator = torch.Generator().manual_seed(0)

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.toy.layer.parameters() if p.grad is not None]

    def average(self, gradients: list[Tensor] | None = None) -> None:
        for gradient in self.gradients() if gradients is None else gradients:
            gradient.add_(torch.rand(gradient.shape, generator=self.generator))


def test_processes_exchange_between_two_graphs(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is exchanged is of each step anew, before it is clipped; no graph holds it."""
    monkeypatch.setattr(step, "upload_together", as_sent)
    toys: list[Any] = [Toy(CPU), Toy(CPU)]
    for toy in toys:
        toy.exchange = Doubled(toy)
    expected = go(PartByPart(toys[0], CPU), range(10), (64, 96), CPU)
    found = go(by_graph(toys[1], tape, []), range(10), (64, 96), CPU)
    assert all(same(expected, found))
    assert torch.equal(toys[0].layer.weight, toys[1].layer.weight)
    assert (tape.captures, tape.replays) == (3 * 2, 3 * (10 - 2 * WARM_UP))
    assert all(float(terms["gradient_norm"]) > 1 for terms in found), "of the exchanged gradients"


def test_several_processes_are_captured_where_that_is_asked_for(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator: Any = SimpleNamespace(device=torch.device("cuda"), num_processes=2)
    runner = loop.make_runner(Toy(CPU), LOOP, accelerator, Progress())
    assert isinstance(runner, PartByPart)
    assert len(said) == 1
    assert "several processes" in said[0]
    accelerator.device = CPU
    assert isinstance(loop.make_runner(Toy(CPU), LOOP, accelerator, Progress()), PartByPart)
    assert len(said) == 1
    monkeypatch.setattr(loop, "graphs_for", lambda device: Tape())
    tried = loop.make_runner(Toy(CPU), replace(LOOP, graph_several=True), accelerator, Progress())
    assert isinstance(tried, StepByGraph)
