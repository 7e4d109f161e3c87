"""The left–right check in a teacher's training: what it leaves out, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from adu_depth.checkpoint import list_checkpoints
from adu_depth.data import SyntheticStereo
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.data.sample import collate
from adu_depth.distillation import TeacherLoss, TeacherLossConfig
from adu_depth.distillation.left_right import left_right_consistent
from adu_depth.distillation.photometric import dissimilarity, photometric_loss
from adu_depth.errors import InputError
from adu_depth.geometry import Camera, warp_right
from adu_depth.models import StereoTeacher
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.runs import train_teacher
from adu_depth.training.step import seed_step
from adu_depth.training.tasks import StepContext, TeacherTask, step_losses
from tests.training.test_resume import Stopping, assert_same_bits
from tests.training.tiny import LOOP, SIZE, TEACHER, tiny_teacher

CHECKED = TeacherLossConfig(left_right=True)
DROPPING = "config:swin?embed_dim=8&depths=1,1,1,1&num_heads=1,1,1,1&window_size=2&drop_path_rate=0.5"
CONTEXT = StepContext(0, 0, 0, 0.5, False)


def scenes() -> TrainingBatch:
    samples = SyntheticStereo(2, *SIZE, seed=0)
    return TrainingBatch(collate([samples[0], samples[1]]))


def task_of(
    loss: TeacherLossConfig = CHECKED,
    augmentation: PairAugmentationConfig = PairAugmentationConfig(),  # noqa: B008  (a frozen value)
    **changes: Any,
) -> TeacherTask:
    torch.manual_seed(0)
    network = StereoTeacher(replace(TEACHER, **changes))
    objective = TeacherLoss(loss, TEACHER.max_disparity, TEACHER.min_depth, TEACHER.max_depth)
    return TeacherTask(network, objective, augmentation).train()


def losses(task: TeacherTask, batch: TrainingBatch) -> dict[str, Tensor]:
    seed_step(CONTEXT)
    return step_losses(task, batch, CONTEXT)


def views() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    right = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 26, 50), 3, stride=1)
    return torch.rand(1, 3, 24, 48), right, torch.full((1, 1, 24, 48), 2.5)


def test_a_pixel_weighs_the_same_however_many_others_are_believed() -> None:
    left, right, disparity = views()
    warped, inside = warp_right(right, disparity)
    errors = dissimilarity(left, warped)
    for believed in (torch.zeros_like(inside), inside, torch.rand(disparity.shape) < 0.3):
        found = photometric_loss(left, right, disparity, believed=believed)
        expected = errors[inside & believed].sum() / inside.sum()
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    whole = photometric_loss(left, right, disparity)
    assert photometric_loss(left, right, disparity, believed=inside).item() == whole.item()


def test_gradients_come_from_windows_of_believed_pixels_alone() -> None:
    """Those are 5×5: two columns beyond the believed ones still shape their windows, the others nothing."""
    left, right, disparity = views()
    believed = torch.zeros(1, 1, 24, 48, dtype=torch.bool)
    believed[..., 20:30] = True
    gradients = []
    for mask in (believed, None):
        asked = disparity.clone().requires_grad_()
        photometric_loss(left, right, asked, believed=mask).backward()
        assert asked.grad is not None
        gradients.append(asked.grad)
    checked, whole = gradients
    assert not checked[..., :18].any()
    assert not checked[..., 32:].any()
    assert torch.equal(checked[..., 22:28], whole[..., 22:28]), "nor do they pull harder where others are left out"
    assert bool(checked[..., 22:28].any())


def test_the_share_that_passes_is_told_and_not_paid_for() -> None:
    terms = losses(task_of(), scenes())
    paid = [value for name, value in terms.items() if name not in ("total", "consistent")]
    assert terms["total"].item() == pytest.approx(sum(map(float, paid)), rel=1e-6)
    assert 0 < float(terms["consistent"]) < 1
    assert not terms["consistent"].requires_grad


def test_the_second_pass_sees_the_changed_pair_in_a_mirror_and_its_disparity_is_mirrored_back() -> None:
    changes = PairAugmentationConfig(colour=1.0, flip=0.5, zoom=1.5, vertical_jitter=1.0, erase=1.0, erase_size=(8, 16))
    task = task_of(augmentation=changes)
    seen: list[tuple[Tensor, Tensor, Camera]] = []
    hook = task.network.register_forward_pre_hook(lambda _, given: seen.append(given))
    terms = losses(task, scenes())
    hook.remove()
    (mirrored_left, mirrored_right, mirrored), (left, right, camera) = seen
    assert torch.equal(mirrored_left, right.flip(-1))
    assert torch.equal(mirrored_right, left.flip(-1))
    assert torch.equal(torch.as_tensor(mirrored.cx), SIZE[1] - 1 - torch.as_tensor(camera.cx))
    with torch.no_grad():
        of_left = task.network(left, right, camera).heads[-1][0]
        of_right = task.network.eval()(mirrored_left, mirrored_right, mirrored).disparity
    assert of_right is not None
    believed = left_right_consistent(of_left, of_right.flip(-1))
    assert float(terms["consistent"]) == float(believed.float().mean())
    assert not torch.equal(believed, left_right_consistent(of_left, of_right))


def test_the_photometric_term_is_of_the_pixels_that_pass() -> None:
    batch, task = scenes(), task_of(augmentation=PairAugmentationConfig(colour=0.0))
    sample = batch.sample
    assert sample.right is not None
    right_disparity = task.right_disparity(sample.left, sample.right, sample.camera)
    left_disparity = task.network(sample.left, sample.right, sample.camera).heads[-1][0]
    believed = left_right_consistent(left_disparity, right_disparity)
    expected = 2 * photometric_loss(sample.left, sample.right, left_disparity, believed=believed)
    assert losses(task, batch)["photometric"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "autocast"])
def test_the_second_pass_leaves_the_training_alone(dtype: torch.dtype | None) -> None:
    """With batch norm and dropped paths: running statistics, modes, what is drawn, and every gradient that the mask
    does not change are those of a step without it."""
    found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for loss in (replace(CHECKED, left_right=False), CHECKED):
        task = task_of(loss, norm="batch", encoder=DROPPING)
        task.network.decoder_head.eval()  # a part that is in another mode than the rest stays there
        modes = {name: module.training for name, module in task.named_modules()}
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            terms = losses(task, scenes())
        terms["total"].backward()
        assert {name: module.training for name, module in task.named_modules()} == modes
        missing = [name for name, p in task.network.named_parameters() if p.requires_grad and p.grad is None]
        found.append((terms, {**dict(task.network.named_buffers()), **dict.fromkeys(missing, torch.ones(1))}))
    (plain, statistics), (checked, others) = found
    assert statistics.keys() == others.keys(), "no weight lost its gradient"
    assert any("running_mean" in name for name in statistics)
    assert [name for name in statistics if not torch.equal(statistics[name], others[name])] == []
    assert [name for name in plain if name not in ("total", "photometric") and plain[name] != checked[name]] == []
    assert float(checked["photometric"]) < float(plain["photometric"])


@pytest.fixture(scope="module")
def checked_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    run = tmp_path_factory.mktemp("runs") / "whole"
    train_teacher(tiny_teacher(run, loss=CHECKED))
    return run


def test_a_training_with_it_resumes_to_the_same_bits(checked_run: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_teacher(tiny_teacher(tmp_path / "broken", loss=CHECKED), samples=Stopping(reads=7))
    train_teacher(tiny_teacher(tmp_path / "broken", loss=CHECKED, loop=replace(LOOP, resume=True)))
    assert_same_bits(checked_run, tmp_path / "broken")


def test_it_changes_what_is_learned_and_its_share_is_in_the_history(checked_run: Path, tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "plain"))
    weights = [load_file(list_checkpoints(run)[-1] / "model.safetensors") for run in (checked_run, tmp_path / "plain")]
    assert any(not torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    for run, there in ((checked_run, True), (tmp_path / "plain", False)):
        rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        assert all(("consistent" in row) == there for row in rows)
        assert all(0 < row.get("consistent", 0.5) < 1 for row in rows)


def test_a_mask_of_nothing_is_refused() -> None:
    told = r"loss\.left_right is a mask .* loss\.photometric 0 nothing reads it; .*no-left-right"
    with pytest.raises(InputError, match=told):
        TeacherLossConfig(left_right=True, photometric=0)


def test_a_loss_without_the_right_views_disparity_is_refused() -> None:
    task, batch = task_of(), scenes()
    sample = batch.sample
    assert sample.right is not None
    prediction = task.network(sample.left, sample.right, sample.camera)
    with pytest.raises(InputError, match=r"right_disparity: loss\.left_right needs"):
        task.loss(prediction, sample.depth, sample.left, sample.right, sample.camera)
