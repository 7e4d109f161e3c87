"""Prediction at any size: with networks whose answer is known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adu_depth.checkpoint import config_dict
from adu_depth.data.sample import StereoSample, collate
from adu_depth.errors import InputError
from adu_depth.evaluation.command import EvaluateConfig, open_evaluation_set
from adu_depth.geometry import Camera, disparity_to_depth
from adu_depth.inference.predictor import Predictor, resize_image, resize_prediction
from adu_depth.models import MonoStudent, StudentConfig
from adu_depth.models.prediction import DepthPrediction

CAMERA = Camera(fx=200.0, fy=200.0, cx=59.5, cy=19.5, baseline=0.5, disparity_offset=2.0)


class PlaneTeacher(nn.Module):
    """Answers with a plane's disparity, linear in the columns of the image it is given, and notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm2d(3).eval()

    def forward(self, left: Tensor, right: Tensor, camera: Camera) -> DepthPrediction:
        self.seen = (left, right, camera, self.training or self.drop.training, torch.is_grad_enabled())
        batch, _, height, width = left.shape
        columns = (torch.arange(width) + 0.5) / width  # 0 … 1 across the image
        disparity = ((4.0 + 8.0 * columns) * width / 100.0).expand(batch, 1, height, width)
        depth = disparity_to_depth(disparity, camera)
        features = (torch.zeros(batch, 4, height // 8, width // 8),)
        return DepthPrediction(depth, torch.full_like(depth, -2.0), features, disparity)


class MeanStudent(nn.Module):
    """Depth = 10 × the brightness of the image."""

    def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
        self.seen = (image, camera)
        depth = 10 * image.mean(dim=1, keepdim=True)
        return DepthPrediction(depth, depth.log(), ())


def make_sample(height: int = 40, width: int = 120) -> StereoSample:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, height, width, generator=generator)
    empty = torch.zeros(1, height, width)
    return StereoSample(image, image.flip(-1), empty, empty, empty.bool(), CAMERA)


def test_the_network_sees_its_size_and_the_camera_of_that_size() -> None:
    teacher = PlaneTeacher()
    Predictor(teacher, size=(32, 96))(collate([make_sample(), make_sample()]))
    left, right, camera, training, gradients = teacher.seen
    assert left.shape == right.shape == (2, 3, 32, 96)
    expected = CAMERA.resized(96 / 120, 32 / 40)
    for name in ("fx", "fy", "cx", "cy", "baseline", "disparity_offset"):
        assert torch.allclose(getattr(camera, name), torch.full((2,), float(getattr(expected, name))))
    assert not training
    assert not gradients


@pytest.mark.parametrize("size", [(32, 96), (80, 240), (40, 120), None], ids=str)
def test_disparity_and_depth_come_back_in_the_images_own_pixels(size: tuple[int, int] | None) -> None:
    prediction = Predictor(PlaneTeacher(), size=size)(collate([make_sample()]))
    assert prediction.disparity is not None
    for values in (prediction.depth, prediction.log_scale, prediction.disparity):
        assert values.shape == (1, 1, 40, 120)
    truth = (4.0 + 8.0 * (torch.arange(120) + 0.5) / 120) * 120 / 100.0
    inner = slice(3, -3)  # at the border interpolation has no neighbour on one side
    assert torch.allclose(prediction.disparity[0, 0, 20, inner], truth[inner], atol=1e-4)
    depth = disparity_to_depth(prediction.disparity, CAMERA)
    assert torch.allclose(prediction.depth, depth, rtol=1e-4)
    assert torch.allclose(prediction.log_scale, torch.tensor(-2.0))


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    student = MeanStudent()
    columns = torch.arange(120) % 2  # stripes one pixel wide: their mean is ½ everywhere
    image = columns.float().expand(3, 40, 120)
    Predictor(student, size=(10, 40)).predict_image(image)
    assert (student.seen[0][..., 3:-3] - 0.5).abs().max() < 0.1


def test_a_plain_image_needs_no_camera_for_a_student_and_stays_in_range() -> None:
    student = MeanStudent()
    pixels = np.full((40, 120, 3), 128, np.uint8)
    prediction = Predictor(student, size=(32, 96)).predict_image(pixels)
    assert prediction.depth.shape == (1, 1, 40, 120)
    assert torch.allclose(prediction.depth, torch.tensor(10 * 128 / 255))
    assert student.seen[1] is None
    Predictor(student, size=(32, 96)).predict_image(pixels, camera=CAMERA)
    assert torch.allclose(student.seen[1].fx, torch.tensor([160.0]))


def test_modes_of_the_modules_are_put_back() -> None:
    teacher = PlaneTeacher().train()
    teacher.frozen.eval()
    Predictor(teacher, size=None)(collate([make_sample()]))
    assert teacher.training
    assert teacher.drop.training
    assert not teacher.frozen.training


def test_depth_is_interpolated_by_its_inverse() -> None:
    depth = torch.tensor([[10.0, 20.0]]).reshape(1, 1, 1, 2)
    resized = resize_prediction(DepthPrediction(depth, depth, ()), (1, 4)).depth.flatten()
    between = [1 / (0.75 / 10 + 0.25 / 20), 1 / (0.25 / 10 + 0.75 / 20)]
    assert torch.allclose(resized, torch.tensor([10.0, *between, 20.0]))


def test_infinitely_far_stays_apart_from_nan() -> None:
    depth = torch.full((1, 1, 8, 8), 10.0)
    depth[..., :4] = 0.0
    depth[..., 7, 7] = torch.nan
    resized = resize_prediction(DepthPrediction(depth, depth, ()), (16, 16)).depth
    assert (resized[..., :7] == 0).all()
    assert torch.isfinite(resized[..., :12, :12]).all()
    assert torch.isnan(resized[..., 15, 15]).all()


def test_a_teacher_says_what_it_lacks() -> None:
    predictor = Predictor(PlaneTeacher(), size=(32, 96))
    image = np.zeros((40, 120, 3), np.uint8)
    with pytest.raises(InputError, match="right image"):
        predictor.predict_image(image, camera=CAMERA)
    with pytest.raises(InputError, match="camera"):
        predictor.predict_image(image, image)
    with pytest.raises(InputError, match="40×120 and 40×118"):
        predictor.predict_image(image, image[:, :118], CAMERA)
    with pytest.raises(InputError, match="baseline > 0"):
        predictor.predict_image(image, image, replace(CAMERA, baseline=0.0))
    with pytest.raises(InputError, match="uint8"):
        predictor.predict_image(image.astype(np.float64), image, CAMERA)


def test_bad_sizes_are_refused() -> None:
    for size in ((0, 5), (3,)):
        with pytest.raises(InputError, match="height, width"):
            Predictor(MeanStudent(), size=size)  # type: ignore[arg-type]


def save_student(folder: Path, fit: str = "resize") -> MonoStudent:
    torch.manual_seed(0)
    config = StudentConfig()
    student = MonoStudent(config).eval()
    folder.mkdir()
    weights = {name: tensor.contiguous() for name, tensor in student.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    settings = {"kind": "student", "model": config_dict(config), "data": {"size": [64, 96], "fit": fit}}
    (folder / "config.json").write_text(json.dumps(settings))
    return student


def test_from_a_checkpoint_at_the_size_it_was_trained_at_or_another(tmp_path: Path) -> None:
    student = save_student(tmp_path / "student")
    sizes = [Predictor.from_checkpoint(tmp_path / "student", "cpu", s).size for s in ("trained", "full", (32, 64))]
    assert sizes == [(64, 96), None, (32, 64)]
    predictor = Predictor.from_checkpoint(tmp_path / "student", "cpu")
    assert not predictor.stereo
    image = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = student(image[None])
    assert torch.allclose(predictor.predict_image(image).depth, expected.depth, rtol=1e-5)


def test_a_factor_of_each_images_own_size_or_one_height_and_width_as_text(tmp_path: Path) -> None:
    student = save_student(tmp_path / "student").eval()
    image = torch.rand(1, 3, 80, 131, generator=torch.Generator().manual_seed(1))
    seen: list[tuple[int, ...]] = []
    for size, expected in (("0.5", (40, 66)), (2, (160, 262)), ("40x66", (40, 66)), ("1", (80, 131)), (1.0, (80, 131))):
        predictor = Predictor.from_checkpoint(tmp_path / "student", "cpu", size)  # type: ignore[arg-type]
        predictor.model.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
        depth = predictor.predict_image(image).depth
        assert seen.pop() == expected, size
        assert depth.shape[-2:] == (80, 131)
        with torch.no_grad():
            same = resize_prediction(student(resize_image(image, expected)), (80, 131))
        torch.testing.assert_close(depth, same.depth, rtol=1e-5, atol=0)
        told = {"0.5": "0.5 of each image's own size", 2: "2 of each image's own size", "40x66": "40×66"}
        assert predictor.about_size == told.get(size, "each image's own size")
    assert Predictor.from_checkpoint(tmp_path / "student", "cpu", "0.5").trained_size == (64, 96)
    small = Predictor.from_checkpoint(tmp_path / "student", "cpu", "0.25")
    with pytest.raises(InputError, match=r"^size 0\.25: an image of 80×131 would be 20×33, expected at least 32×32"):
        small.predict_image(image)


def test_what_is_enlarged_has_no_more_pixels_than_a_network_is_trained_at(tmp_path: Path) -> None:
    """It ran until there was no memory left. An image that is as large on disk is taken as it is."""
    save_student(tmp_path / "student")
    large = Predictor.from_checkpoint(tmp_path / "student", "cpu", "16")
    told = r"^size 16: an image of 375×1242 would be 6000×19872, expected at most 4,194,304 pixels: a smaller factor$"
    with pytest.raises(InputError, match=told):
        large.predict_image(torch.rand(3, 375, 1242))
    assert large.working_size((128, 128)) == (2048, 2048)
    assert Predictor.from_checkpoint(tmp_path / "student", "cpu", "full").working_size((3000, 4000)) == (3000, 4000)
    assert Predictor.from_checkpoint(tmp_path / "student", "cpu", 0.9).working_size((3000, 4000)) == (2700, 3600)
    with pytest.raises(InputError, match=r"^size: expected at most 4,194,304 pixels in all, got 2048×2080$"):
        Predictor.from_checkpoint(tmp_path / "student", "cpu", (2048, 2080))


def test_nor_has_what_a_short_side_enlarges() -> None:
    """A network trained on middles made 240×72727 pixels of a strip."""
    predictor = Predictor(MonoStudent(), size=None, short_side=240)
    told = r"at the short side that the network was trained at, 240, an image of 33×10000 would be 240×72727, expected"
    with pytest.raises(InputError, match=rf"^size: {told} at most 4,194,304 pixels: size \"full\", or HEIGHTxWIDTH$"):
        predictor.predict_image(torch.rand(3, 33, 10_000))
    assert predictor.working_size((120, 8000)) == (240, 16_000)
    assert Predictor(MonoStudent(), size=None, short_side=2048).working_size((3000, 4000)) == (2048, 2731), "it shrinks"
    with pytest.raises(InputError, match="2048, an image of 480×640 would be 2048×2731"):
        Predictor(MonoStudent(), size=None, short_side=2048).working_size((480, 640))


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("0", "above 0, at most 16, got 0.0"),
        ("-0.5", "above 0, at most 16, got -0.5"),
        ("nan", "got nan"),
        ("inf", "got inf"),
        ("192", "or HEIGHTxWIDTH such as 192x640; a factor is above 0, at most 16, got 192.0"),
        ("half", "a factor of each image's own size such as 0.5, or HEIGHTxWIDTH such as 192x640, got 'half'"),
        ("192x", "got '192x'"),
        ("16384x16384", "from 32, a cell of the network, to 16,384 pixels, at most 4,194,304 pixels in all"),
        ("16x640", "from 32, a cell of the network, to 16,384 pixels"),
        ("192x-640", "from 32, a cell of the network"),
        ("192x99999", "from 32, a cell of the network"),
        (True, "got True"),
        (None, "got None"),
        (np.array([192, 640]), "got array([192, 640])"),
    ],
)
def test_a_size_that_is_none_is_refused(size: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^size.*{re.escape(told)}"):
        Predictor.from_checkpoint(tmp_path / "nothing is read for it", "cpu", size)
    with pytest.raises(InputError, match=r"^size"):
        EvaluateConfig(tmp_path, size=size)


def test_a_network_trained_on_windows_sees_images_at_their_own_size(tmp_path: Path) -> None:
    student = save_student(tmp_path / "student", fit="crop")
    predictor = Predictor.from_checkpoint(tmp_path / "student", "cpu")
    assert predictor.size is None
    assert predictor.trained_size == (64, 96)
    image = torch.rand(3, 80, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = student(image[None])
    assert torch.allclose(predictor.predict_image(image).depth, expected.depth, rtol=1e-5)
    scenes = open_evaluation_set(EvaluateConfig(tmp_path / "student", pairs=1), predictor)
    assert scenes[0].left.shape == (3, 64, 96)
    with pytest.raises(InputError, match="no size of their own"):
        open_evaluation_set(EvaluateConfig(tmp_path / "student"), Predictor(student, size=None))


def test_wrong_checkpoints_sizes_and_devices_are_refused(tmp_path: Path) -> None:
    save_student(tmp_path / "student")
    with pytest.raises(InputError, match="nowhere does not exist"):
        Predictor.from_checkpoint(tmp_path / "nowhere")
    with pytest.raises(InputError, match="'half'"):
        Predictor.from_checkpoint(tmp_path / "student", "cpu", "half")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'banana'"):
        Predictor.from_checkpoint(tmp_path / "student", "banana")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            Predictor.from_checkpoint(tmp_path / "student", "cuda")
    (tmp_path / "student" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        Predictor.from_checkpoint(tmp_path / "student", "cpu")


class RampStudent(nn.Module):
    """Depth = brightness × (1 + column / width), log scale = column / width: a network that is not mirror-symmetric."""

    def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
        self.seen = (*getattr(self, "seen", ()), (image, camera))
        across = (torch.arange(image.shape[-1]) / image.shape[-1]).expand(len(image), 1, *image.shape[-2:])
        return DepthPrediction(image.mean(1, keepdim=True) * (1 + across), across, (torch.zeros(1, 4, 5, 15),))


def test_the_plain_flip_is_the_mean_of_both() -> None:
    sample = make_sample()
    grey = sample.left.mean(0)
    across = torch.arange(120) / 120
    mirrored = across.flip(0)
    prediction = Predictor(RampStudent(), size=None, flip="mean")(collate([sample]))
    assert torch.allclose(prediction.depth[0, 0], grey * (1 + (across + mirrored) / 2), atol=1e-6)
    assert torch.allclose(prediction.log_scale[0, 0], ((across + mirrored) / 2).expand(40, 120), atol=1e-6)
    assert prediction.features == ()


def test_monodepths_ramp_trusts_the_side_that_each_picture_shows_on_its_right() -> None:
    sample = make_sample(width=201)  # so that columns 10 and 20 stand at exactly 5 % and 10 % of the width
    grey = sample.left.mean(0)
    across = torch.arange(201) / 201
    own, mirrored = grey * (1 + across), grey * (1 + across.flip(0))
    depth = Predictor(RampStudent(), size=None, flip="monodepth")(collate([sample])).depth[0, 0]
    for columns, share in ((slice(0, 11), 1.0), (15, 0.75), (slice(20, 181), 0.5), (185, 0.25), (slice(190, 201), 0.0)):
        expected = share * mirrored[:, columns] + (1 - share) * own[:, columns]
        assert torch.allclose(depth[:, columns], expected, atol=1e-5), columns


def test_the_mirrored_image_is_seen_at_the_networks_size_with_its_own_camera() -> None:
    student = RampStudent()
    aside = replace(make_sample(), camera=replace(CAMERA, cx=30.0))
    Predictor(student, size=(20, 60), flip="mean")(collate([aside]))
    (image, camera), (flipped, mirrored) = student.seen
    assert image.shape == (1, 3, 20, 60)
    assert torch.equal(flipped, image.flip(-1))
    assert camera.cx.item() == pytest.approx(14.75)
    assert mirrored.cx.item() == pytest.approx(59 - 14.75)
    assert torch.equal(mirrored.fx, camera.fx)
    student.seen = ()
    Predictor(student, size=None, flip="mean").predict_image(make_sample().left)
    assert [c for _, c in student.seen] == [None, None]


def test_a_flip_that_cannot_be_is_refused() -> None:
    with pytest.raises(
        InputError, match="flip 'mean' is for a student; a mirrored pair asks for the right view's depth"
    ):
        Predictor(PlaneTeacher(), size=None, flip="mean")
    with pytest.raises(InputError, match="flip: expected one of none, mean, monodepth, got 'ramp'"):
        Predictor(MeanStudent(), size=None, flip="ramp")  # type: ignore[arg-type]
