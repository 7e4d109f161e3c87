"""Images turned about their axis: every map follows, what nothing shows is unknown, and depths are those of a camera
that rolls."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adu_depth.cli import parse
from adu_depth.data import SyntheticStereo, collate
from adu_depth.data.augmentation import AugmentationConfig, draw_generator, draw_image_changes, draw_turns
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


def turns(*degrees: float) -> Tensor:
    angles = torch.tensor([math.radians(value) for value in degrees])
    return torch.stack([angles.cos(), angles.sin()])


def turn(maps: Tensor, degrees: float, camera: Camera = UNKNOWN, measured: bool = True) -> Tensor:
    size = maps.shape[-2:]
    return turned(maps, moving_grid(turns(degrees), None, camera, size, size), measured=measured)


def test_quarter_turns_are_exact() -> None:
    maps = torch.arange(32.0).reshape(1, 2, 4, 4) + 1
    assert torch.equal(turn(maps, 90), torch.rot90(maps, -1, (-2, -1))), "what was right of the middle is below it"
    assert torch.equal(turn(maps, -90), torch.rot90(maps, 1, (-2, -1)))
    torch.testing.assert_close(turn(maps, 90, measured=False), torch.rot90(maps, -1, (-2, -1)))
    assert torch.equal(turn(maps, 0), maps)


def test_an_eighth_of_a_turn_by_hand() -> None:
    """Of the place (x, y) from the middle the value at (x + y, y − x) / √2: (½, 1½) has that of (1.41, 0.71), which is
    column 3 of row 2; the corners lie 2.12 away, outside the map."""
    maps = torch.arange(16.0).reshape(1, 1, 4, 4) + 1
    found = turn(maps, 45)[0, 0]
    assert [found[row, column] for row in (0, 3) for column in (0, 3)] == [0, 0, 0, 0]
    assert found[3, 2] == maps[0, 0, 2, 3]
    assert found[1, 3] == maps[0, 0, 0, 2], "(1½, −½) has that of (0.71, −1.41)"
    mirrored = turn(maps, 45, measured=False)
    assert bool((mirrored >= 1).all()), "an image has no holes"


@pytest.mark.parametrize("stretched", [1.0, 1.5])
def test_depth_is_what_a_rolled_camera_sees(stretched: float) -> None:
    """A slanted wall, n·(X, Y, Z) = 4: rolled by an angle the wall's normal turns with the image."""
    height, width, degrees = 96, 160, 5.0
    fy = 150.0
    fx = fy * stretched
    camera = Camera(*(torch.tensor([value]) for value in (fx, fy, 79.5, 47.5)), 0.0)
    x = (torch.arange(width) - 79.5) / fx
    y = ((torch.arange(height) - 47.5) / fy).unsqueeze(1)

    def wall(nx: float, ny: float) -> Tensor:
        return (4 / (nx * x + ny * y + 1)).expand(1, 1, height, width)

    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    nx, ny = 0.7, -0.4
    found = turn(wall(nx, ny), degrees, camera)
    expected = wall(cosine * nx - sine * ny, sine * nx + cosine * ny)
    known = found > 0
    assert 0.8 < known.float().mean() < 1
    worst = float((found / expected - 1)[known].abs().max())
    assert worst < 0.0075, "half a pixel each way: (0.7 + 0.4) / 2 / 150 over a denominator of at least 0.49"
    other = turn(wall(nx, ny), -degrees, camera)
    assert float((other / expected - 1)[other > 0].abs().max()) > 0.05
    if stretched > 1:
        blind = turn(wall(nx, ny), degrees)
        assert float((blind / expected - 1)[blind > 0].abs().max()) > 0.01


def test_types_and_layouts_stay() -> None:
    maps = torch.rand(2, 8, 6, 10).to(torch.bfloat16, memory_format=torch.channels_last)
    grid = moving_grid(turns(3, -4), None, UNKNOWN, (48, 80), (6, 10))
    found = turned(maps, grid, measured=False)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert turned(maps.float().contiguous(), grid, measured=False).is_contiguous()


def test_draws_are_of_the_step_and_none_where_it_is_off() -> None:
    first, again, other = (draw_turns(1000, 5, draw_generator(1, step)) for step in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    angles = torch.rad2deg(torch.atan2(first[1], first[0]))
    assert -5 <= float(angles.min()) < -4.9
    assert 4.9 < float(angles.max()) <= 5
    still = draw_image_changes(4, 96, AugmentationConfig(cut_flip=0.5), draw_generator(1, 2))
    turning = draw_image_changes(4, 96, AugmentationConfig(cut_flip=0.5, rotate=5), draw_generator(1, 2))
    assert still.turns is None
    assert turning.turns is not None
    assert turning.images(slice(1, 3)).turns.tolist() == turning.turns[:, 1:3].tolist()  # type: ignore[union-attr]
    for name in ("flips", "colours", "cuts"):
        assert torch.equal(getattr(still, name), getattr(turning, name)), "the others' numbers stay"


def test_a_turned_student_is_taught_by_maps_turned_alike() -> None:
    batch = collate([SyntheticStereo(4, 96, 192, seed=3)[i] for i in range(4)])
    seen: dict[str, Tensor] = {}

    class Spy(StudentLoss):
        def forward(self, prediction, teacher, target, progress):  # type: ignore[no-untyped-def]
            seen.update(target=target, depth=teacher.depth, feature=teacher.features[0])
            return super().forward(prediction, teacher, target, progress)

    class Student(MonoStudent):
        def forward(self, image, camera=None):  # type: ignore[no-untyped-def]
            seen.update(image=image)
            return super().forward(image, camera)

    features = tuple(batch.left[:, :1, ::s, ::s].expand(-1, 8, -1, -1).contiguous() for s in (8, 16, 32))
    taught = TrainingBatch(batch, TeacherTargets(batch.depth, features))
    loss = Spy(DistillationConfig(), STUDENT.feature_channels, (8, 8, 8), 0.5, 80.0)
    config = AugmentationConfig(flip=0.5, colour=0.0, rotate=20)
    context = StepContext(0, 0, 0, 0.0, dense=True)
    terms = step_losses(StudentTask(Student(STUDENT), loss, config), taught, context)
    assert bool(torch.isfinite(terms["total"]))
    drawn = draw_image_changes(4, 96, config, draw_generator(0, 0))
    assert drawn.turns is not None
    assert set(drawn.flips.tolist()) == {True, False}
    for i in range(4):
        angle = math.degrees(math.atan2(float(drawn.turns[1, i]), float(drawn.turns[0, i])))

        def alike(maps: Tensor, measured: bool, i: int = i, angle: float = angle) -> Tensor:
            one = maps[i : i + 1].flip(-1) if drawn.flips[i] else maps[i : i + 1]
            return turn(one, angle, measured=measured)[0]

        torch.testing.assert_close(seen["image"][i], alike(batch.left, False))
        torch.testing.assert_close(seen["feature"][i], alike(features[0], False))
        for name in ("target", "depth"):
            differing = (seen[name][i] - alike(batch.depth, True)).abs() > 1e-3
            assert differing.float().mean() < 0.002, "but for pixels that lie half way between two"
        assert (
            0.02 < (seen["target"][i] == 0).float().mean() - (batch.training_target(True)[i] == 0).float().mean() < 0.5
        )


@pytest.mark.parametrize("value", [-1, 46, math.nan])
def test_angles_that_make_no_sense_are_named(value: float) -> None:
    with pytest.raises(InputError, match=r"augmentation\.rotate"):
        AugmentationConfig(rotate=value)


def test_on_the_command_line() -> None:
    assert parse(["distill", "--augmentation.rotate", "5"]).augmentation.rotate == 5
