"""Images magnified: every map follows, and depths are those of a camera with a longer lens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adu_depth.cli import parse
from adu_depth.data import SyntheticStereo, collate
from adu_depth.data.augmentation import AugmentationConfig, draw_generator, draw_image_changes, draw_windows
from adu_depth.data.rotation import moving_grid, turned
from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.models import MonoStudent
from adu_depth.models.prediction import TeacherTargets
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.tasks import StepContext, StudentTask, step_losses
from tests.training.tiny import STUDENT

UNKNOWN = Camera(*(torch.tensor([math.nan]) for _ in range(4)), 0.0)


def magnify(maps: Tensor, window: Tensor, measured: bool = True, turns: Tensor | None = None) -> Tensor:
    size = maps.shape[-2:]
    return turned(maps, moving_grid(turns, window, UNKNOWN, size, size), measured=measured)


def window(factor: float, x: float, y: float) -> Tensor:
    return torch.tensor([[factor], [x], [y]])


def test_a_quarter_of_an_image_is_magnified_exactly() -> None:
    maps = torch.arange(32.0).reshape(1, 2, 4, 4) + 1
    twice = maps.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.equal(magnify(maps, window(2, 0, 0)), twice[..., :4, :4]), "top left"
    assert torch.equal(magnify(maps, window(2, 1, 0)), twice[..., :4, 4:]), "top right: x counts to the right"
    assert torch.equal(magnify(maps, window(1, 0, 0)), maps)
    torch.testing.assert_close(magnify(maps, window(1, 0, 0), measured=False), maps)
    row = torch.arange(4.0).expand(1, 1, 4, 4)
    between = magnify(row, window(2, 0.5, 0.5), measured=False)[0, 0, 0]
    torch.testing.assert_close(between, torch.tensor([0.75, 1.25, 1.75, 2.25]))


def test_a_turned_image_is_magnified_after_its_turn() -> None:
    maps = torch.arange(16.0).reshape(1, 1, 4, 4) + 1
    quarter = torch.tensor([[0.0], [1.0]])
    expected = magnify(torch.rot90(maps, -1, (-2, -1)), window(2, 0, 0))
    assert torch.equal(magnify(maps, window(2, 0, 0), turns=quarter), expected)


def test_depth_is_what_a_longer_lens_sees() -> None:
    """A slanted wall, n·(X, Y, Z) = 4, seen by the magnified window's camera: its depths are those of the window."""
    height, width = 96, 160
    camera = Camera(*(torch.tensor([value]) for value in (150.0, 140.0, 70.0, 50.0)), 0.5)

    def wall(camera: Camera) -> Tensor:
        x = (torch.arange(width) - camera.cx) / camera.fx
        y = ((torch.arange(height) - camera.cy) / camera.fy).unsqueeze(1)
        return (4 / (0.7 * x - 0.4 * y + 1)).expand(1, 1, height, width)

    chosen = window(1.6, 0.8, 0.3)
    longer = camera.magnified(chosen, (height, width))
    torch.testing.assert_close(longer.fx, torch.tensor([240.0]))
    found = magnify(wall(camera), chosen)
    worst = float((found / wall(longer) - 1).abs().max())
    assert worst < 0.008, "half a pixel each way"
    assert float((found / wall(camera) - 1).abs().max()) > 0.05
    whole = camera.magnified(window(1, 0, 0), (height, width))
    assert (float(whole.cx), float(whole.cy), float(whole.fy)) == (70, 50, 140)


def test_windows_lie_within_the_image_and_the_others_numbers_stay() -> None:
    factor, across, down = draw_windows(4000, 2.0, draw_generator(1, 2))
    assert 1 <= float(factor.min()) < 1.01
    assert 1.98 < float(factor.max()) <= 2
    for place in (across, down):
        assert 0 <= float(place.min()) < 0.01
        assert 0.99 < float(place.max()) <= 1
    assert torch.equal(draw_windows(5, 2.0, draw_generator(1, 2)), draw_windows(5, 2.0, draw_generator(1, 2)))
    still = draw_image_changes(4, 96, AugmentationConfig(cut_flip=0.5, rotate=5), draw_generator(1, 2))
    zooming = draw_image_changes(4, 96, AugmentationConfig(cut_flip=0.5, rotate=5, zoom=1.5), draw_generator(1, 2))
    assert still.windows is None
    assert zooming.windows is not None
    assert zooming.images(slice(1, 3)).windows.tolist() == zooming.windows[:, 1:3].tolist()  # type: ignore[union-attr]
    for name in ("flips", "colours", "cuts", "turns"):
        assert torch.equal(getattr(still, name), getattr(zooming, name)), name


def test_an_magnified_student_is_taught_by_maps_magnified_alike_and_told_the_longer_lens() -> None:
    batch = collate([SyntheticStereo(4, 96, 192, seed=3)[i] for i in range(4)])
    seen: dict[str, Tensor] = {}

    class Spy(StudentLoss):
        def forward(self, prediction, teacher, target, progress):  # type: ignore[no-untyped-def]
            seen.update(target=target, depth=teacher.depth, feature=teacher.features[0], predicted=prediction.depth)
            return super().forward(prediction, teacher, target, progress)

    class Student(MonoStudent):
        def forward(self, image, camera=None):  # type: ignore[no-untyped-def]
            seen.update(image=image.detach(), fx=camera.fx)
            return super().forward(image, camera)

    features = tuple(batch.left[:, :1, ::s, ::s].expand(-1, 8, -1, -1).contiguous() for s in (8, 16, 32))
    taught = TrainingBatch(batch, TeacherTargets(batch.depth, features))
    loss = Spy(DistillationConfig(), STUDENT.feature_channels, (8, 8, 8), 0.5, 80.0)
    config = AugmentationConfig(flip=0.5, colour=0.0, zoom=2.0)
    torch.manual_seed(0)
    network = Student(replace(STUDENT, reference_focal=100.0))
    step_losses(StudentTask(network, loss, config), taught, StepContext(0, 0, 0, 0.0, dense=True))
    drawn = draw_image_changes(4, 96, config, draw_generator(0, 0))
    assert drawn.windows is not None
    assert set(drawn.flips.tolist()) == {True, False}
    for i in range(4):

        def alike(maps: Tensor, measured: bool, i: int = i) -> Tensor:
            one = maps[i : i + 1].flip(-1) if drawn.flips[i] else maps[i : i + 1]
            return magnify(one, drawn.windows[:, i : i + 1], measured)[0]  # type: ignore[index]

        torch.testing.assert_close(seen["image"][i], alike(batch.left, False))
        torch.testing.assert_close(seen["feature"][i], alike(features[0], False))
        for name in ("target", "depth"):
            differing = (seen[name][i] - alike(batch.depth, True)).abs() > 1e-3
            assert differing.float().mean() < 0.002, "but for pixels that lie half way between two"
    torch.testing.assert_close(seen["fx"], batch.camera.fx * drawn.windows[0])
    unscaled = MonoStudent(STUDENT)
    unscaled.load_state_dict(network.state_dict())
    with torch.no_grad():
        depth = unscaled.train()(seen["image"], batch.camera).depth
    torch.testing.assert_close(seen["predicted"], depth * (seen["fx"] / 100).reshape(-1, 1, 1, 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [0.5, 65, math.nan])
def test_factors_that_make_no_sense_are_named(value: float) -> None:
    with pytest.raises(InputError, match=r"augmentation\.zoom"):
        AugmentationConfig(zoom=value)


def test_on_the_command_line() -> None:
    assert parse(["distill", "--augmentation.zoom", "1.5"]).augmentation.zoom == 1.5
