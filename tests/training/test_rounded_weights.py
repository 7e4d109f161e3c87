"""Weights rounded together for a step under autocast: the same bits as when each layer rounds its own."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.distributed import ProcessGroup
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.training import loop, rounded_weights, step
from adu_depth.training.batches import batches
from adu_depth.training.graph import WARM_UP
from adu_depth.training.rounded_weights import RoundedWeights
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.step import PartByPart, TrainingParts
from adu_depth.training.tasks import StepContext, StudentTask, TeacherTask
from tests.training.tape import Tape
from tests.training.test_graph import DROPPING, EVERY_CHANGE, as_sent, assert_same, curves, place_rate
from tests.training.tiny import DATA, LOOP, STUDENT, TEACHER, tiny_scenes, tiny_student, tiny_teacher
from tests.training.two_processes import in_half

CPU = torch.device("cpu")
BF16 = replace(LOOP, mixed_precision="bf16", steps=4, log_every=1, checkpoint_every=4, graph=False)
Found = list[RoundedWeights]


@pytest.fixture(autouse=True)
def _of_its_own_precision() -> Iterator[None]:
    """accelerate keeps one for the process."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    """What has looked at a loss, once for each time."""
    seen, find = Found(), RoundedWeights.find

    def watched(self: RoundedWeights, loss: Tensor) -> None:
        find(self, loss)
        seen.append(self)

    monkeypatch.setattr(RoundedWeights, "find", watched)
    return seen


def leave_to_autocast(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RoundedWeights, "find", lambda self, loss: None)


def together(rounded: RoundedWeights) -> set[str]:
    """Names of what is rounded."""
    assert rounded.kinds is not None
    names = {parameter: name for name, parameter in rounded.task.named_parameters()}
    return {names[parameter] for kind in rounded.kinds for parameter in kind.parameters}  # type: ignore[index]


def layers(task: nn.Module, *left: str) -> set[str]:
    """Names of the weights and biases of convolutions and linear layers, but for those that end so."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    names = {f"{at}.{name}" for at, m in task.named_modules() if isinstance(m, kinds) for name in m._parameters}
    return {name for name, _ in task.named_parameters() if name in names and not name.endswith(left)}


ENTERED = tuple(f"patch_embeddings{of}.{name}" for of in ("", ".projection") for name in ("weight", "bias"))
ADAPTED = ("project_out.weight",)  # multiplied with γ in fp32 first
TRAININGS: dict[str, tuple[Callable[[Path, Any, Path], list[dict[str, float]]], tuple[str, ...]]] = {
    "teacher, left–right check, every change, averages": (
        lambda run, loop, teacher: train_teacher(
            tiny_teacher(
                run,
                loop=replace(loop, ema=0.9),
                loss=TeacherLossConfig(left_right=True),
                augmentation=EVERY_CHANGE,
            )
        ),
        (),
    ),
    "teacher, batch norm, two hourglasses recomputed, two micro-batches": (
        lambda run, loop, teacher: train_teacher(
            tiny_teacher(
                run,
                loop=replace(loop, batch_size=1, accumulate=2),
                model=replace(TEACHER, norm="batch", hourglasses=2, recompute_aggregation=True),
            )
        ),
        (),
    ),
    "teacher without a concatenated volume": (
        lambda run, loop, teacher: train_teacher(
            tiny_teacher(run, loop=loop, model=replace(TEACHER, concat_free=True))
        ),
        ("aggregation.enter.0.conv.weight",),  # of which each volume takes its part
    ),
    "student, taught": (
        lambda run, loop, teacher: train_student(
            tiny_student(run, loop=loop, teacher=teacher, augmentation=AugmentationConfig(cut_flip=0.5, rotate=5))
        ),
        ADAPTED,
    ),
    "student, Swin, two micro-batches": (
        lambda run, loop, teacher: train_student(
            tiny_student(run, loop=replace(loop, accumulate=2), model=replace(STUDENT, encoder=DROPPING))
        ),
        ENTERED,
    ),
    "student, DINOv3, whose positions are of the type of a weight": (
        lambda run, loop, teacher: train_student(
            tiny_student(
                run,
                loop=loop,
                model=replace(
                    STUDENT,
                    encoder="config:dinov3_vit?hidden_size=32&intermediate_size=64&num_hidden_layers=2"
                    "&num_attention_heads=2",
                ),
            )
        ),
        ENTERED,
    ),
    "student, ConvNeXt": (
        lambda run, loop, teacher: train_student(
            tiny_student(
                run,
                loop=loop,
                model=replace(STUDENT, encoder="config:convnextv2?depths=1,1,1,1&hidden_sizes=8,8,8,8"),
            )
        ),
        ENTERED,
    ),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_the_same_to_the_bit(
    name: str, tmp_path: Path, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, left = TRAININGS[name]
    teacher = tmp_path / "teacher"
    if name.endswith("taught"):
        train_teacher(tiny_teacher(teacher, loop=replace(BF16, steps=1)))
        found.clear()
    rows = train(tmp_path / "together", BF16, teacher)
    assert len(found) >= BF16.steps
    assert len({id(rounded) for rounded in found}) == 1
    assert together(found[-1]) == layers(found[-1].task, *left)
    leave_to_autocast(monkeypatch)
    assert curves(train(tmp_path / "apart", BF16, teacher)) == curves(rows)
    assert_same(tmp_path / "together", tmp_path / "apart")


def test_in_half_with_a_scaled_loss(tmp_path: Path, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a scale that the first steps overflow with."""
    with in_half({"scale": 2.0**27}):
        for name in ("together", "apart"):
            train_student(tiny_student(tmp_path / name, loop=replace(BF16, mixed_precision="fp16", steps=14)))
            leave_to_autocast(monkeypatch)
    assert [kind.dtype for kind in found[-1].kinds or ()] == [torch.float16]
    assert_same(tmp_path / "together", tmp_path / "apart")


def test_a_graph_holds_it_and_a_run_goes_on(tmp_path: Path, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape()
    monkeypatch.setattr(loop, "graphs_for", lambda device: tape)
    monkeypatch.setattr(loop, "place_learning_rate", place_rate)
    monkeypatch.setattr(step, "upload_together", as_sent)
    longer = replace(BF16, steps=6, checkpoint_every=2, keep_checkpoints=9)
    train_teacher(tiny_teacher(tmp_path / "plain", loop=longer))
    shutil.copytree(tmp_path / "plain", tmp_path / "resumed")
    train_teacher(tiny_teacher(tmp_path / "resumed", loop=replace(longer, resume_from="4")))
    assert_same(tmp_path / "plain", tmp_path / "resumed")
    assert tape.replays == 0
    train_teacher(tiny_teacher(tmp_path / "graph", loop=replace(longer, graph=True)))
    assert tape.replays == 2 * (6 - WARM_UP)
    assert together(found[-1]) == layers(found[-1].task)
    assert_same(tmp_path / "plain", tmp_path / "graph")


def test_in_fp32_nothing_is_done(tmp_path: Path, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounded_weights, "_Rounded", None)
    train_student(tiny_student(tmp_path / "run", loop=replace(BF16, mixed_precision="no", steps=2)))
    assert [rounded.kinds for rounded in found] == [[], []]


def teacher_task() -> TeacherTask:
    loss = TeacherLoss(TeacherLossConfig(), TEACHER.max_disparity, TEACHER.min_depth, TEACHER.max_depth)
    return TeacherTask(StereoTeacher(TEACHER), loss, EVERY_CHANGE)


def student_task() -> StudentTask:
    loss = StudentLoss(DistillationConfig(), STUDENT.feature_channels, None, 0.5, 80.0)
    return StudentTask(MonoStudent(STUDENT), loss, AugmentationConfig())


def gradients(make: Callable[[], Any], accumulate: int) -> list[dict[str, Tensor | None]]:
    """Of three steps, by name; weights change in between."""
    torch.manual_seed(0)
    task = make()
    settings = replace(BF16, accumulate=accumulate)
    accelerator = loop.make_accelerator(settings)
    module = accelerator.prepare_model(task, evaluation_mode=True)
    parts = TrainingParts(
        task, module, torch.optim.AdamW(task.parameters(), lr=1e-2), accelerator,
        teach=lambda batch: batch, clip_norm=1.0, dense=False, accumulate=accumulate,
    )  # fmt: skip
    runner, found = PartByPart(parts, CPU), []
    for number, batch in enumerate(batches(tiny_scenes(), DATA, replace(settings, steps=3), 0, ProcessGroup(), CPU)):
        runner.gradients(batch, StepContext(0, number, 0, 0.5, False, accumulate))
        found.append({n: None if p.grad is None else p.grad.clone() for n, p in task.named_parameters()})
        runner.update()
    return found


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("make", [teacher_task, student_task])
def test_every_gradient_is_the_same_to_the_bit(
    make: Callable[[], Any], accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = gradients(make, accumulate)
    leave_to_autocast(monkeypatch)
    for one, other in zip(ours, gradients(make, accumulate), strict=True):
        for name, gradient in other.items():
            mine = one[name]
            assert (mine is None) == (gradient is None), name
            if mine is not None and gradient is not None:
                assert torch.equal(mine, gradient), name
                assert (mine.dtype, mine.stride()) == (gradient.dtype, gradient.stride()), name


class Standardised(nn.Conv2d):
    """Its weight is changed before it is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class Scaled(torch.autograd.Function):
    """An operation that reads a weight in fp32 and gives bf16, as compiled ones do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return (x.float() * weight).bfloat16()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return (gradient * weight).to(x.dtype), (gradient * x).float().sum((0, 1, 2))


class Odd(nn.Module):
    """All that a backbone may do with its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.twice = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight
        self.single, self.standardised = nn.Conv2d(4, 4, 1), Standardised(4, 4, 1)
        self.penalised, self.unused = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.uncached, self.frozen = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1).requires_grad_(False)
        self.written, self.scale = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.plain(x)))
        with torch.autocast("cpu", enabled=False):
            x = self.single(x.float())
            assert x.dtype == torch.float32
        x = self.frozen(self.penalised(self.standardised(x)))
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            x = self.uncached(self.uncached(x))
        x = self.other(self.one(x.permute(0, 2, 3, 1)))
        x = Scaled.apply(x * self.written.to(x.dtype), self.scale)
        return x.float().square().mean() + self.penalised.weight.square().mean()


def odd_steps(rounded: RoundedWeights, fails: bool = False) -> list[list[Tensor | None]]:
    """Each step's loss and gradients."""
    task, found, images = rounded.task, [], torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.1)
    for _ in range(3):
        with rounded.in_place():
            with torch.autocast("cpu", torch.bfloat16):
                loss = task(torch.rand(2, 3, 8, 8, generator=images))
            rounded.find(loss)
            if fails and rounded.kinds:
                raise KeyError("in the middle of a step")
            loss.backward()
        found.append([loss.detach(), *(p.grad for p in task.parameters())])
        optimizer.step()
        optimizer.zero_grad()
    return found


def odd() -> Odd:
    torch.manual_seed(0)
    return Odd()


def test_layers_that_are_used_otherwise_are_left_alone() -> None:
    """Autocast off around one, a weight that is used elsewhere too, changed before, read in fp32, cast twice, frozen,
    or not used."""
    task = odd()
    rounded = RoundedWeights(task)
    mine = odd_steps(rounded)
    assert together(rounded) == {
        *("plain.weight", "plain.bias", "twice.weight", "twice.bias", "one.weight", "one.bias"),
        *("standardised.bias", "penalised.bias", "written"),
    }
    apart = RoundedWeights(odd())
    apart.kinds = []
    for ours, theirs in zip(mine, odd_steps(apart), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one, other)  # type: ignore[arg-type]
    unused = [name for name, p in task.named_parameters() if p.grad is None]
    assert "unused.weight" in unused, "its gradient stays None"


def test_a_shared_weight_is_rounded_once_and_both_layers_have_it() -> None:
    task = odd()
    rounded = RoundedWeights(task)
    odd_steps(rounded)
    with rounded.in_place():
        assert task.one.weight.dtype == torch.bfloat16
        assert task.other.weight is task.one.weight
        places = [place for kind in rounded.kinds or () for placed in kind.places for place in placed]
        assert len({id(getattr(module, name)) for module, name in places}) == len(places) - 1


def instance_tensors(task: nn.Module) -> list[str]:
    return [name for module in task.modules() for name, value in vars(module).items() if isinstance(value, Tensor)]


def test_the_network_is_what_it_was_during_a_step_and_after_it() -> None:
    task = odd()
    rounded = RoundedWeights(task)
    parameters, names = list(task.parameters()), list(task.state_dict())
    odd_steps(rounded)
    with rounded.in_place():
        assert instance_tensors(task)
        assert list(task.state_dict()) == names
        assert all(one is other for one, other in zip(task.parameters(), parameters, strict=True))
        assert task.state_dict()["plain.weight"].dtype == torch.float32
    assert not instance_tensors(task)
    assert task.plain.weight is parameters[list(dict(task.named_parameters())).index("plain.weight")]
    copied = copy.deepcopy(task)
    assert copied.plain.weight.dtype == torch.float32


def test_a_step_that_fails_leaves_nothing_behind() -> None:
    task = odd()
    rounded = RoundedWeights(task)
    with pytest.raises(KeyError, match="in the middle"):
        odd_steps(rounded, fails=True)
    with pytest.raises(KeyError, match="in the middle"):
        odd_steps(rounded, fails=True)  # with copies in place this time
    assert not instance_tensors(task)


def test_copies_that_cannot_be_made_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    task = odd()
    rounded = RoundedWeights(task)
    odd_steps(rounded)
    assert rounded.kinds
    rounded.kinds.append(rounded.kinds[0]._replace(dtype=torch.float16))
    apply = rounded_weights._Rounded.apply

    def short(dtype: torch.dtype, *weights: Tensor) -> Any:
        if dtype == torch.float16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return apply(dtype, *weights)

    monkeypatch.setattr(rounded_weights._Rounded, "apply", short)
    with pytest.raises(torch.OutOfMemoryError), rounded.in_place():
        raise AssertionError("a step without copies")
    assert not instance_tensors(task)


def test_a_gradient_becomes_its_parameters_without_another_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    task, made, before = odd(), set[int](), rounded_weights._copies

    def watched(tensors: Any, dtype: torch.dtype) -> list[Tensor]:
        copies = before(tensors, dtype)
        if dtype == torch.float32:
            made.update(tensor.data_ptr() for tensor in copies)
        return copies

    rounded = RoundedWeights(task)
    odd_steps(rounded)
    monkeypatch.setattr(rounded_weights, "_copies", watched)
    with rounded.in_place(), torch.autocast("cpu", torch.bfloat16):
        task(torch.rand(2, 3, 8, 8)).backward()
    named = dict(task.named_parameters())
    gradients = [named[name].grad for name in together(rounded)]
    assert {gradient.data_ptr() for gradient in gradients if gradient is not None} == made
    assert len(made) == len(gradients)


def test_tensors_that_lie_alike_are_copied_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that repeats itself, or has gaps, is copied by itself: among the others it would slow all of them down."""
    lists, before = [], torch._foreach_copy_

    def watched(targets: list[Tensor], sources: list[Tensor]) -> None:
        lists.append([(t.stride(), s.stride()) for t, s in zip(targets, sources, strict=True)])
        before(targets, sources)

    monkeypatch.setattr(torch, "_foreach_copy_", watched)
    last = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    given = [last, torch.rand(3).expand(2, 3), torch.rand(4, 6)[:, ::2], torch.rand(5, 7).T, torch.rand(())]
    copies = rounded_weights._copies(given, torch.bfloat16)
    assert all(torch.equal(one, other.bfloat16()) for one, other in zip(copies, given, strict=True))
    assert lists == [[(t.stride(), t.stride()) for t in (given[0], given[3], given[4])]]
    lists.clear()
    rounded_weights._copies(given[1:3], torch.bfloat16)
    assert lists == []


class Part(nn.Sequential):
    """Layers of torch alone are not compiled by themselves."""

    def forward(self, x: Tensor) -> Tensor:
        return self[0](x)


@pytest.mark.parametrize("compiled", [True, False])
def test_parts_that_are_compiled_are_left_alone(compiled: bool) -> None:
    """Their casts are in their kernels, and what is put into them would be traced anew."""
    traced: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, example: Any) -> Any:
        traced.append(graph)
        return graph.forward

    torch._dynamo.reset()
    encoder, shared = Part(nn.Conv2d(3, 4, 3)), nn.Conv2d(3, 4, 3)
    shared.weight = encoder[0].weight
    task = nn.ModuleDict({"encoder": encoder, "head": nn.Conv2d(4, 1, 1), "shared": shared})
    if compiled:
        task["encoder"].compile(backend=backend)
    rounded = RoundedWeights(task)
    for _ in range(3):
        with rounded.in_place():
            with torch.autocast("cpu", torch.bfloat16):
                x = torch.rand(1, 3, 8, 8)
                loss = (task["head"](task["encoder"](x)) + task["head"](task["shared"](x))).square().mean()
            rounded.find(loss)
            loss.backward()
    alone = {"head.weight", "head.bias", "shared.bias"}
    assert together(rounded) == (alone if compiled else alone | {"encoder.0.weight", "encoder.0.bias"})
    assert len(traced) == compiled
