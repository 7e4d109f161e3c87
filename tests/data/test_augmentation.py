"""Augmented batches: geometry stays true. Whatever happens to a pair, the right view warped by the disparity that the
augmented sample carries must look like the left view; at zero, half, double or reversed disparity it must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adu_depth.data import StereoSample, SyntheticStereo, collate
from adu_depth.data.augmentation import (
    AugmentationConfig,
    ColourConfig,
    cut_rows,
    draw_colours,
    draw_cuts,
    draw_generator,
    recolour,
)
from adu_depth.data.pair_augmentation import (
    PairAugmentationConfig,
    cover,
    draw_patches,
    magnify,
    mirror_pair,
    shift_rows,
)
from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.errors import InputError
from adu_depth.geometry import Camera, depth_to_disparity, disparity_to_depth, warp_right
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.models.prediction import TeacherTargets
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.tasks import StepContext, StudentTask, TeacherTask, step_losses
from tests.data.augmented import augment_pair, colour_jitter
from tests.training.tiny import STUDENT, TEACHER

COUNT, HEIGHT, WIDTH = 4, 96, 192
STILL = PairAugmentationConfig(colour=0.0)


@pytest.fixture(scope="module")
def batch() -> StereoSample:
    return collate([SyntheticStereo(COUNT, HEIGHT, WIDTH, seed=3)[i] for i in range(COUNT)])


def mismatch(sample: StereoSample, left: Tensor, right: Tensor, factor: float) -> float:
    """Mean grey difference of left and warped right view where the ground truth times `factor` says they match."""
    warped, inside = warp_right(right, sample.disparity * factor)
    known = sample.valid & inside & (sample.disparity > 1)
    if sample.occluded is not None:
        known &= ~sample.occluded
    assert known.float().mean() > 0.05
    return ((left.mean(1, keepdim=True) - warped.mean(1, keepdim=True)).abs() * known).sum().item() / known.sum().item()


def assert_true_geometry(sample: StereoSample, left: Tensor, right: Tensor) -> None:
    at_truth = mismatch(sample, left, right, 1.0)
    for wrong in (0.0, 0.5, 2.0, -1.0):
        assert at_truth < 0.6 * mismatch(sample, left, right, wrong), wrong
    depth = disparity_to_depth(sample.disparity, sample.camera)
    assert torch.allclose(depth[sample.valid], sample.depth[sample.valid], rtol=2e-3)
    assert (sample.depth[~sample.valid] == 0).all() or sample.valid.all()


OPTIONS = {
    "none": STILL,
    "flip": replace(STILL, flip=1.0),
    "some flipped": replace(STILL, flip=0.5),
    "zoom": replace(STILL, zoom=1.6),
    "flip and zoom": replace(STILL, flip=0.5, zoom=1.4),
    "vertical jitter": replace(STILL, vertical_jitter=0.7),
    "patches": replace(STILL, erase=1.0, erase_size=(4, 12)),
    "colour": PairAugmentationConfig(colour=1.0, strength=0.05),
}


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("step", [0, 1])
def test_the_warped_right_view_still_matches(batch: StereoSample, config: PairAugmentationConfig, step: int) -> None:
    sample, left, right = augment_pair(batch, config, draw_generator(0, step))
    assert_true_geometry(sample, left, right)
    assert sample.left.shape == batch.left.shape
    changed = not torch.equal(torch.cat([left, right]), torch.cat([batch.left, batch.right]))
    assert changed == (config is not STILL)


def test_all_at_once_is_a_function_of_the_generator(batch: StereoSample) -> None:
    config = PairAugmentationConfig(
        colour=1.0, contrast=0.2, saturation=0.2, asymmetric=0.5, flip=0.5, zoom=1.3, vertical_jitter=1.0, erase=0.5
    )
    first, again = (augment_pair(batch, config, draw_generator(1, 2, 3)) for _ in range(2))
    other = augment_pair(batch, config, draw_generator(1, 3, 3))
    for name, tensor in first[0]._tensors().items():
        assert torch.equal(tensor, getattr(again[0], name)), name
    for i in (1, 2):
        assert torch.equal(first[i], again[i])
        assert not torch.equal(first[i], other[i])


def test_options_that_are_off_draw_nothing(batch: StereoSample) -> None:
    """The numbers of runs that use none of them must stay what they were."""
    config = PairAugmentationConfig()
    generator = draw_generator(0, 0)
    sample, left, right = augment_pair(batch, config, generator)
    expected = draw_generator(0, 0)
    assert torch.equal(left, colour_jitter(batch.left, config, expected))
    assert torch.equal(right, colour_jitter(batch.right, config, expected))
    assert torch.equal(torch.rand(1, generator=generator), torch.rand(1, generator=expected))
    assert sample is batch
    assert config == PairAugmentationConfig(
        colour=0.5, strength=0.1, contrast=0, saturation=0, asymmetric=1, flip=0, zoom=1, vertical_jitter=0, erase=0
    )


def plane(depth: float, offset: float = 0.0, width: int = 40) -> StereoSample:
    """One wall, f·B = 24: the disparity is 24 / depth − offset everywhere. Views hold their column numbers."""
    camera = Camera(*(torch.tensor([v]) for v in (48.0, 48.0, 15.0, 3.0, 0.5, offset)))
    depths = torch.full((1, 1, 8, width), depth)
    columns = torch.arange(width, dtype=torch.float32).expand(1, 3, 8, -1) / 100
    disparity = depth_to_disparity(depths, camera)
    right = columns + disparity[:, :, :, :1] / 100  # the right image's column x shows the left image's x + d
    return StereoSample(columns, right, depths, disparity, torch.ones_like(depths, dtype=torch.bool), camera)


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_a_mirrored_wall_stands_where_it_should(offset: float) -> None:
    before = plane(4.0, offset)
    after = mirror_pair(before, torch.tensor([True]))
    disparity = 6.0 - offset
    warped, inside = warp_right(after.right, after.disparity)  # type: ignore[arg-type]
    seen = inside & after.valid
    assert seen.sum() == 8 * (40 - disparity)
    assert (after.disparity[after.valid] == disparity).all()
    assert torch.allclose(warped[seen.expand_as(warped)], after.left[seen.expand_as(warped)], atol=1e-6)
    # A point at X = 1 m: in the left view at 15 + 48/4 = 27, in the right one at 27 − d, mirrored at 39 − 27 + d.
    x = (39 - 27 + disparity - float(after.camera.cx)) * 4.0 / 48.0
    assert x == pytest.approx(-(1.0 - 0.5), abs=1e-5), "seen from the right camera it is half a metre nearer the axis"
    unflipped = mirror_pair(before, torch.tensor([False]))
    for name in ("left", "right", "depth", "disparity", "valid"):
        assert torch.equal(getattr(unflipped, name), getattr(before, name))
    assert torch.equal(torch.as_tensor(unflipped.camera.cx), torch.as_tensor(before.camera.cx))


def test_in_a_mirrored_pair_the_nearer_surface_hides_the_farther() -> None:
    before = plane(8.0)  # disparity 3
    near = torch.zeros_like(before.valid)
    near[..., 20:24] = True  # at 2 m, disparity 12: it lands on columns 8 … 11, where the wall from 11 … 14 lands too
    depth = torch.where(near, 2.0, before.depth)
    sample = replace(before, depth=depth, disparity=depth_to_disparity(depth, before.camera), sparse_depth=depth)
    after = mirror_pair(sample, torch.tensor([True]))
    row = after.depth[0, 0, 0].flip(-1)
    assert row[8:12].tolist() == [2.0] * 4
    assert row[4:8].tolist() == [8.0] * 4
    assert row[17:21].tolist() == [0.0] * 4, "nothing is invented where the near surface stood before the wall"
    assert torch.equal(after.sparse_depth, after.depth)  # type: ignore[arg-type]
    assert not after.valid[0, 0, 0].flip(-1)[17:21].any()
    hidden = torch.zeros_like(before.valid)
    hidden[..., 5] = True
    told = mirror_pair(replace(sample, occluded=hidden), torch.tensor([True]))
    assert told.depth[0, 0, 0].flip(-1)[2] == 0.0
    assert told.occluded is None


def test_a_magnified_camera_sees_each_point_where_the_image_shows_it() -> None:
    before = plane(4.0, offset=1.0)
    after = magnify(before, torch.tensor([[1.5], [0.25], [1.0]]))
    middle = after.left[0, 0, 0, 5:35] * 100  # the column of the original that each new column shows
    old, new = before.camera, after.camera
    rays = (middle - old.cx) / old.fx
    assert torch.allclose(rays, (torch.arange(5, 35) - new.cx) / new.fx, atol=1e-5)
    assert float(new.fy) == 72.0
    assert float(new.disparity_offset) == 1.5
    assert float(new.cy) == pytest.approx((3.0 + 0.5 - (8 - 8 / 1.5)) * 1.5 - 0.5)
    assert torch.allclose(disparity_to_depth(after.disparity, new), after.depth)
    assert float(new.baseline) == 0.5


def test_rows_move_by_parts_of_a_pixel_and_the_edge_goes_on() -> None:
    images = torch.arange(5.0).reshape(1, 1, 5, 1).expand(2, 2, 5, 3)
    moved = shift_rows(images, torch.tensor([0.25, -1.0]))
    assert moved[0, 0, :, 0].tolist() == [0.25, 1.25, 2.25, 3.25, 4.0]
    assert moved[1, 1, :, 2].tolist() == [0.0, 0.0, 1.0, 2.0, 3.0]


def test_patches_are_of_the_sizes_asked_for_and_hold_the_mean_colour() -> None:
    config = PairAugmentationConfig(erase=0.5, erase_size=(3, 6))
    patches = draw_patches(400, (40, 60), config, draw_generator(0, 0))
    present = patches[..., 2] > 0
    assert 0.4 < present.any(1).float().mean() < 0.6
    assert 0.35 < present[present.any(1)].all(1).float().mean() < 0.65, "one or two"
    assert set(patches[present][:, 2:].flatten().tolist()) == {3, 4, 5, 6}
    images = torch.rand(2, 3, 40, 60)
    covered = cover(images, torch.tensor([[[4, 50, 3, 20], [0, 0, 0, 5]], [[1, 2, 2, 3], [30, 7, 4, 5]]]))
    changed = (covered != images).any(1)
    expected = torch.zeros_like(changed)
    expected[0, 4:7, 50:60] = expected[1, 1:3, 2:5] = expected[1, 30:34, 7:12] = True
    assert torch.equal(changed, expected)
    assert torch.allclose(covered[0, :, 5, 55], images[0].mean((-2, -1)))


@pytest.mark.parametrize("option", ["vertical jitter", "patches"])
def test_what_makes_matching_harder_touches_the_right_view_the_network_reads_alone(
    batch: StereoSample, option: str
) -> None:
    sample, left, right = augment_pair(batch, OPTIONS[option], draw_generator(0, 0))
    assert torch.equal(left, batch.left)
    assert not torch.equal(right, batch.right)  # type: ignore[arg-type]
    assert sample is batch, "what it is supervised with stays"


def test_a_teacher_that_sees_the_mirrored_pair_is_supervised_by_it(batch: StereoSample) -> None:
    """`flip` reaches the training: network and loss get the mirrored views, its ground truth and its camera."""
    seen: dict[str, Tensor] = {}

    class Spy(TeacherLoss):
        def forward(self, prediction, target, left, right, camera, *more):  # type: ignore[no-untyped-def]
            seen.update(target=target, left=left, right=right, cx=camera.cx)
            return super().forward(prediction, target, left, right, camera, *more)

    mirrored = mirror_pair(batch, torch.ones(COUNT, dtype=torch.bool))
    task = TeacherTask(StereoTeacher(TEACHER), Spy(TeacherLossConfig(), 16, 0.5, 80.0), OPTIONS["flip"])
    step_losses(task, TrainingBatch(batch), StepContext(0, 0, 0, 0.0, dense=True))
    assert torch.equal(seen["left"], mirrored.left)
    assert torch.equal(seen["right"], mirrored.right)  # type: ignore[arg-type]
    assert torch.equal(seen["target"], mirrored.training_target(True))
    assert torch.equal(seen["cx"], mirrored.camera.cx)  # type: ignore[arg-type]


def test_both_views_change_alike_where_they_are_told_to(batch: StereoSample) -> None:
    same = replace(batch, right=batch.left)
    shared = augment_pair(same, PairAugmentationConfig(colour=1.0, asymmetric=0.0), draw_generator(0, 0))
    apart = augment_pair(same, PairAugmentationConfig(colour=1.0), draw_generator(0, 0))
    assert torch.equal(shared[1], shared[2])
    assert not torch.equal(apart[1], apart[2])
    assert torch.equal(shared[1], apart[1])


def test_contrast_and_saturation_do_what_their_names_say() -> None:
    images = torch.rand(1, 3, 16, 16) * 0.4 + 0.3
    factors = torch.ones(1, 7)
    assert torch.equal(recolour(images, factors[:, :5]), images)
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    dull = recolour(images, torch.tensor([[1.0, 1, 1, 1, 1, 1, 0]]))
    assert torch.allclose(dull, grey.expand_as(images), atol=1e-6)
    flat = recolour(images, torch.tensor([[1.0, 1, 1, 1, 1, 0.5, 1]]))
    assert flat.std() == pytest.approx(float(images.std()) / 2, rel=0.05)
    assert draw_colours(2, ColourConfig(saturation=0.3), draw_generator(0, 0)).shape == (2, 7)
    drawn = draw_colours(500, ColourConfig(colour=1.0, contrast=0.2, saturation=0.3), draw_generator(0, 0))
    spans = [(round(float(c.min()), 1), round(float(c.max()), 1)) for c in drawn.T]
    assert spans == [(0.9, 1.1)] * 5 + [(0.8, 1.2), (0.7, 1.3)]


def test_rows_change_places_in_every_map_alike() -> None:
    generator = draw_generator(0, 0)
    cuts = draw_cuts(300, 352, 0.5, generator)
    assert {c // 32 for c in cuts.tolist()} == {0, 3, 4, 5, 6, 7, 8}
    assert 0.4 < (cuts > 0).float().mean() < 0.6
    assert not draw_cuts(50, 32, 1.0, generator).any(), "too low to be cut"
    rows = torch.arange(96).reshape(1, 1, 96, 1).expand(2, 1, -1, 4)
    moved = cut_rows(rows, torch.tensor([32, 0]), 96)
    assert moved[0, 0, :, 0].tolist() == [*range(32, 96), *range(32)]
    assert torch.equal(moved[1], rows[1])
    coarse = cut_rows(rows[:, :, ::8], torch.tensor([32, 0]), 96)
    assert torch.equal(coarse, moved[:, :, ::8])
    maps = torch.rand(2, 5, 12, 4)
    whole = cut_rows(maps, torch.tensor([32, 0]), 96)
    assert whole.is_contiguous()
    last = cut_rows(maps.contiguous(memory_format=torch.channels_last), torch.tensor([32, 0]), 96)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(whole, last)
    assert torch.equal(whole[0], maps[0].roll(-4, 1))


def test_a_cut_student_is_taught_by_outputs_cut_alike(batch: StereoSample) -> None:
    seen: dict[str, Tensor] = {}

    class Spy(StudentLoss):
        def forward(self, prediction, teacher, target, progress):  # type: ignore[no-untyped-def]
            seen.update(target=target, depth=teacher.depth, feature=teacher.features[2])
            return super().forward(prediction, teacher, target, progress)

    features = tuple(torch.rand(COUNT, 8, HEIGHT // s, WIDTH // s) for s in (8, 16, 32))
    taught = TrainingBatch(batch, TeacherTargets(batch.depth, features))
    loss = Spy(DistillationConfig(), STUDENT.feature_channels, (8, 8, 8), 0.5, 80.0)
    still = AugmentationConfig(flip=0.0, colour=0.0, cut_flip=1.0)
    step_losses(StudentTask(MonoStudent(STUDENT), loss, still), taught, StepContext(0, 0, 0, 0.0, dense=True))
    cut = 1 + torch.tensor([not torch.equal(seen["feature"][i], features[2][i].roll(-1, 1)) for i in range(COUNT)])
    for i, cells in enumerate(cut.tolist()):
        assert torch.equal(seen["feature"][i], features[2][i].roll(-cells, 1))
        assert torch.equal(seen["depth"][i], batch.depth[i].roll(-32 * cells, 1))
        assert torch.equal(seen["target"][i], batch.training_target(True)[i].roll(-32 * cells, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairAugmentationConfig(zoom=0.9), r"augmentation\.zoom: expected a number from 1 to 64, got 0\.9"),
        (lambda: PairAugmentationConfig(erase=2), r"augmentation\.erase: expected a number from 0 to 1, got 2"),
        (
            lambda: PairAugmentationConfig(erase_size=(9, 3)),
            r"augmentation\.erase_size .* smallest first, got \(9, 3\)",
        ),
        (
            lambda: PairAugmentationConfig(vertical_jitter=-1),
            r"augmentation\.vertical_jitter: expected a number from 0, below 32, got -1",
        ),
        (lambda: AugmentationConfig(cut_flip=-1), r"augmentation\.cut_flip: expected a number from 0 to 1, got -1"),
        (
            lambda: AugmentationConfig(contrast=1.0),
            r"augmentation\.contrast: expected a number from 0, below 1, got 1\.0",
        ),
    ],
)
def test_settings_that_make_no_sense_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_single_images_are_no_pairs(batch: StereoSample) -> None:
    with pytest.raises(InputError, match="needs pairs"):
        augment_pair(replace(batch, right=None), STILL, draw_generator(0, 0))
