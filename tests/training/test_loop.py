"""The loop itself: the teacher stays as it is, a NaN is named, the learning rate follows its schedule."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from adu_depth.checkpoint import list_checkpoints, load_model
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.sample import StereoSample
from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.training.batches import TrainingBatch, batches
from adu_depth.training.config import DataConfig, LoopConfig, OptimizerConfig, StudentTrainingConfig
from adu_depth.training.good_checkpoints import NonFiniteLoss, SeenStep, check_finite
from adu_depth.training.order import step_indices
from adu_depth.training.run_folder import differing_settings
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.schedule import learning_rate_factor
from adu_depth.training.tasks import OnlineTeacher, StepContext, StudentTask, step_losses
from tests.training.tiny import DATA, LOOP, STUDENT, TEACHER, tiny_scenes, tiny_student, tiny_teacher

CPU = torch.device("cpu")


def first_batch() -> TrainingBatch:
    return next(iter(batches(tiny_scenes(), DATA, LOOP, 0, ProcessGroup(), CPU)))


def test_an_online_teacher_learns_nothing_and_keeps_its_running_statistics() -> None:
    network = StereoTeacher(replace(TEACHER, norm="batch")).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batch = OnlineTeacher(network, CPU)(first_batch())
    assert batch.teacher is not None
    assert not batch.teacher.depth.requires_grad
    assert [name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)] == []
    assert any("running_mean" in name for name in before), "the check needs a network with running statistics"


def test_online_and_cached_teacher_train_the_same_student(tmp_path: Path) -> None:
    """The steps are small: AdamW's first ones follow the sign of gradients, and large ones make more of any rounding
    (at the default rate the losses part by 2e-3 to 5e-3 within six steps, with the last bits of the teacher)."""
    train_teacher(tiny_teacher(tmp_path / "teacher"))
    settings = {"teacher": tmp_path / "teacher", "optimizer": OptimizerConfig(learning_rate=1e-5)}
    online = train_student(tiny_student(tmp_path / "online", **settings))
    cached = train_student(tiny_student(tmp_path / "cached", **settings, teacher_cache=tmp_path / "cache"))
    for one, other in zip(online, cached, strict=True):
        assert one["response"] > 0
        assert one["total"] == pytest.approx(other["total"], rel=1e-4), "features are kept in half precision"


def test_a_cache_of_another_teacher_is_refused(tmp_path: Path) -> None:
    for seed in (0, 1):
        train_teacher(tiny_teacher(tmp_path / f"teacher{seed}", loop=replace(LOOP, steps=1, seed=seed)))
    settings = {"teacher_cache": tmp_path / "cache", "loop": replace(LOOP, steps=1)}
    train_student(tiny_student(tmp_path / "one", teacher=tmp_path / "teacher0", **settings))
    with pytest.raises(InputError, match=r"cache .* belongs to another run \(it differs in teacher\)"):
        train_student(tiny_student(tmp_path / "two", teacher=tmp_path / "teacher1", **settings))


@pytest.mark.parametrize("setting", [{"teacher_cache": Path("cache")}, {"teacher_precision": "bf16"}])
def test_what_only_a_teacher_heeds_is_refused_without_one(setting: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{next(iter(setting))} .*: there is no teacher.*: expected --teacher RUN"):
        train_student(tiny_student(tmp_path / "run", **setting))
    assert not (tmp_path / "run").exists()


def test_a_lone_run_from_before_that_goes_on(tmp_path: Path) -> None:
    config = tiny_student(tmp_path / "run")
    train_student(replace(config, loop=replace(LOOP, steps=2)))
    for file in [config.run / "config.json", *config.run.glob("checkpoints/*/config.json")]:
        told = json.loads(file.read_text())
        told["teacher_precision"] = "bf16"
        file.write_text(json.dumps(told))
    rows = train_student(replace(config, loop=replace(LOOP, steps=3, resume=True)))
    assert rows[-1]["step"] == 3


def test_one_seed_starts_taught_and_lone_student_alike(tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "teacher"))
    still = {"optimizer": replace(tiny_student(tmp_path).optimizer, learning_rate=0.0), "loop": replace(LOOP, steps=1)}
    train_student(tiny_student(tmp_path / "alone", **still))
    train_student(tiny_student(tmp_path / "taught", teacher=tmp_path / "teacher", **still))
    alone, taught = (load_model(tmp_path / name).model.state_dict() for name in ("alone", "taught"))
    assert [name for name in alone if not torch.equal(alone[name], taught[name])] == []


class Poisoned:
    """A data set one sample of which has a NaN in its left image; the sample is not in the run's first batch."""

    def __init__(self) -> None:
        self.scenes = tiny_scenes()
        first, second = (
            step_indices(len(self.scenes), step, LOOP.batch_size, LOOP.seed, ProcessGroup()) for step in (0, 1)
        )
        self.bad = next(i for i in second if i not in first)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> StereoSample:
        sample = self.scenes[index]
        return replace(sample, left=sample.left * float("nan")) if index == self.bad else sample


def test_a_nan_names_term_step_and_samples_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    poisoned = Poisoned()
    with pytest.raises(NonFiniteLoss) as caught:
        train_student(tiny_student(tmp_path / "run", loop=replace(LOOP, checkpoint_every=1)), samples=poisoned)
    message = str(caught.value)
    assert "silog is nan" in message
    assert "total" not in message, "the cause, not what follows from it"
    assert "step-00000001" in message, "and where to go on from"
    assert str(poisoned.scenes[poisoned.bad].name) in message
    assert "at step 1," in message
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000001"], "from before the bad step"
    weights = load_model(tmp_path / "run").model.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_a_diverging_teacher_ends_with_its_loss_named_not_in_an_index_error(tmp_path: Path) -> None:
    """A NaN disparity passes through the warping of the right view on its way to the loss."""
    reckless = replace(tiny_teacher(tmp_path).optimizer, learning_rate=1e12, warmup=0.0)
    with pytest.raises(NonFiniteLoss, match=r"is nan at step .* there is no checkpoint yet"):
        train_teacher(tiny_teacher(tmp_path / "run", optimizer=reckless, loop=replace(LOOP, checkpoint_every=100)))


def test_look_at_forgets_what_is_good(tmp_path: Path) -> None:
    steps = [SeenStep(0, ["a"], {"total": torch.tensor(1.0)})]
    check_finite(steps, tmp_path)
    assert steps == []


@pytest.mark.parametrize("decay", ["poly", "cosine", "constant", "step"])
def test_learning_rate_warms_up_then_decays(decay: str) -> None:
    factors = [learning_rate_factor(step, 100, 10, decay) for step in range(100)]  # type: ignore[arg-type]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1.0
    assert all(later <= sooner for sooner, later in pairwise(factors[10:]))
    assert factors[-1] == 1.0 if decay == "constant" else factors[-1] < 0.03
    assert learning_rate_factor(55, 100, 10, "cosine") == pytest.approx(0.5)
    assert learning_rate_factor(55, 100, 10, "poly", power=2.0) == pytest.approx(0.25)
    epochs = [learning_rate_factor(step, 20, 0, "step") for step in (0, 4, 5, 10, 19)]
    assert epochs == pytest.approx([1.0, 1.0, 0.1, 0.01, 0.001]), "as published: every 5 of 20 epochs"


def test_a_flipped_student_is_taught_by_the_flipped_outputs_of_the_unflipped_pair(tmp_path: Path) -> None:
    """Flipping the image and flipping every target are one and the same: the loss of a mirrored world is equal."""
    torch.manual_seed(0)
    student, teacher = MonoStudent(STUDENT), OnlineTeacher(StereoTeacher(TEACHER), CPU)
    seen: dict[str, torch.Tensor] = {}

    class Spy(StudentLoss):
        def forward(self, prediction, teacher, target, progress):  # type: ignore[no-untyped-def]
            seen.update(target=target, depth=teacher.depth, feature=teacher.features[0])
            return super().forward(prediction, teacher, target, progress)

    loss = Spy(DistillationConfig(), STUDENT.feature_channels, TEACHER.feature_channels, 0.5, 80.0)
    batch = teacher(first_batch())
    task = StudentTask(student, loss, AugmentationConfig(flip=1.0, colour=0.0))
    step_losses(task, batch, StepContext(seed=0, step=0, rank=0, progress=0.0, dense=False))
    assert batch.teacher is not None
    assert batch.sample.sparse_depth is not None
    assert torch.equal(seen["target"], batch.sample.sparse_depth.flip(-1))
    assert torch.equal(seen["depth"], batch.teacher.depth.flip(-1))
    assert torch.equal(seen["feature"], batch.teacher.features[0].flip(-1))


def test_a_run_keeps_its_configuration_curves_and_tensorboard(tmp_path: Path) -> None:
    run = tmp_path / "run"
    rows = train_teacher(tiny_teacher(run))
    kept = json.loads((run / "config.json").read_text())
    assert kept["model"]["max_disparity"] == 16
    assert kept["loop"]["steps"] == 6
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows == [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert {"disparity", "silog", "uncertainty", "decoder", "total", "gradient_norm"} <= rows[0].keys()
    assert list((run / "tensorboard").glob("events.*"))


def test_differing_settings_ignores_how_a_run_is_watched() -> None:
    before = {"loop": {"steps": 1, "workers": 2}, "run": "a"}
    assert differing_settings(before, {"loop": {"steps": 1, "workers": 0}, "run": "b"}) == []
    assert differing_settings(before, {"loop": {"steps": 2, "workers": 2}, "run": "a"}) == ["loop.steps: 1 → 2"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: StudentTrainingConfig(data=DataConfig(size=(96, 300))),
            r"data\.size must be two positive multiples of 32.*300",
        ),
        (lambda: LoopConfig(steps=0), r"loop\.steps must be at least 1, got 0"),
        (lambda: LoopConfig(device="tpu"), r"loop\.device must be .* got 'tpu'"),
        (lambda: LoopConfig(seed=-1), r"loop\.seed must be from 0 to \d+, got -1"),
        (lambda: LoopConfig(workers=-1), r"loop\.workers must be 0 or more, got -1"),
        (lambda: OptimizerConfig(learning_rate=-1), r"optimizer\.learning_rate must be .* got -1"),
        (lambda: OptimizerConfig(warmup=3), r"optimizer\.warmup is a share of the steps, 0 to 1, got 3"),
        (lambda: AugmentationConfig(flip=7), r"augmentation\.flip: expected a number from 0 to 1, got 7"),
        (lambda: DistillationConfig(gamma=0.5), r"distillation\.gamma must be at least 1, got 0\.5"),
        (lambda: DistillationConfig(response=-1), r"distillation\.response must be 0 or more, got -1"),
    ],
)
def test_settings_out_of_range_are_named(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
