"""Whoever takes an image takes it for what it is, by its type, or says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adu_depth.data import SyntheticStereo, collate
from adu_depth.data.augmentation import ColourConfig
from adu_depth.data.image_files import grey_levels
from adu_depth.distillation.photometric import photometric_loss, smoothness_loss
from adu_depth.errors import InputError
from adu_depth.images import image_batch
from adu_depth.inference import Predictor
from adu_depth.inference.render import to_uint8
from adu_depth.models import MonoStudent, StereoTeacher, TeacherConfig
from tests.data.augmented import colour_jitter

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 64), dtype=np.uint8))
IMAGE = PIXELS.float() / 255


@pytest.fixture(scope="module")
def student() -> Predictor:
    torch.manual_seed(0)
    return Predictor(MonoStudent(), size=None)


SAME: dict[str, Any] = {
    "uint8 array": PIXELS.permute(1, 2, 0).numpy(),
    "array turned round": PIXELS.flip(0).permute(1, 2, 0).numpy()[..., ::-1],
    "uint16 array": PIXELS.permute(1, 2, 0).numpy().astype(np.uint16) * 257,
    "uint8 tensor": PIXELS,
    "uint16 tensor": torch.from_numpy(PIXELS.numpy().astype(np.uint16) * 257),
    "batch of one": PIXELS[None],
    "channels-last batch": IMAGE[None].contiguous(memory_format=torch.channels_last),
    "other strides": IMAGE.transpose(1, 2).contiguous().transpose(1, 2),
    "fp64": PIXELS.double() / 255,
    "leaf": IMAGE.clone().requires_grad_(),
}
NEARLY: dict[str, Tensor] = {"fp16": IMAGE.half(), "bf16": IMAGE.bfloat16()}
REFUSED: dict[str, tuple[Any, str]] = {
    "int64": (PIXELS.long(), "torch.int64"),
    "int16": (PIXELS.short(), "torch.int16"),
    "bool": (PIXELS > 127, "torch.bool"),
    "fp32 to 255": (PIXELS.float(), "values in .0, 1., got 0 to 255: divide"),
    "fp64 to 255": (PIXELS.double(), "got 0 to 255: divide"),
    "ImageNet's mean taken out": ((IMAGE - 0.45) / 0.22, "leave means and deviations to the network"),
    "NaN": (torch.where(IMAGE > 0.5, IMAGE, torch.nan), r"NaN or infinity in \d+ of 6144 values"),
    "infinity": (IMAGE / 0, "NaN or infinity"),
    "grey": (IMAGE[:1], r"\(1, 1, 32, 64\) torch.float32: repeat grey"),
    "grey without channel": (IMAGE[0], r"got \(32, 64\)"),
    "RGBA": (torch.cat([PIXELS, PIXELS[:1]]), "leave the alpha channel out"),
    "channels last": (IMAGE.permute(1, 2, 0), "permute them to the front"),
    "two images": (IMAGE.expand(2, -1, -1, -1), "expected one image, 3×H×W, got 2"),
    "no pixel": (IMAGE[:, :0], r"got \(1, 3, 0, 64\)"),
    "12 bits in 16": (
        PIXELS.permute(1, 2, 0).numpy().astype(np.uint16) * 13,
        "16 bits per channel, but no value above",
    ),
    "fp32 array": (IMAGE.permute(1, 2, 0).numpy(), "array of uint8 or uint16, RGB, got float32"),
    "RGBA array": (torch.cat([PIXELS, PIXELS[:1]]).permute(1, 2, 0).numpy(), "leave the alpha channel out"),
    "array with channels first": (PIXELS.numpy(), "the channels stand last|H×W×3 array"),
    "list": ([[0]], "got list"),
    "nothing": ("photo.png", "got str"),
}


@pytest.mark.parametrize("form", SAME)
def test_one_picture_in_every_form_gives_one_depth(form: str, student: Predictor) -> None:
    want = student.predict_image(IMAGE).depth
    got = student.predict_image(SAME[form]).depth
    assert not got.requires_grad
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("form", NEARLY)
def test_half_precision_is_taken_up_to_its_rounding(form: str, student: Predictor) -> None:
    torch.testing.assert_close(
        student.predict_image(NEARLY[form]).depth, student.predict_image(IMAGE).depth, rtol=0.02, atol=0
    )


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_no_image_in_0_to_1_is_named(form: str, student: Predictor) -> None:
    image, message = REFUSED[form]
    with pytest.raises(InputError, match=f"left: .*({message})"):
        student.predict_image(image)
    with pytest.raises(InputError, match="right: "):
        image_batch("right", image)


def test_a_sample_whose_views_are_not_in_0_to_1_is_named(student: Predictor) -> None:
    sample = collate([SyntheticStereo(1, 32, 64)[0]])
    for change, message in ((lambda t: t * 255, "divide"), (lambda t: t * torch.nan, "NaN"), (Tensor.byte, "uint8")):
        spoiled = sample.map(change) if message != "uint8" else sample.map(lambda t: (t * 255).byte())
        with pytest.raises(InputError, match=f"left: .*{message}"):
            student(spoiled)


def _tasks() -> dict[str, Callable[[Tensor], Any]]:
    sample = collate([SyntheticStereo(1, 64, 64)[0]])
    network = StereoTeacher(TeacherConfig(max_disparity=16)).eval()
    return {
        "student": MonoStudent(),
        "teacher": lambda image: network(image, image, sample.camera),
        "teacher's encoder": network.encoder,
        "photometric loss": lambda image: photometric_loss(image, image, sample.disparity),
        "smoothness": lambda image: smoothness_loss(image, sample.disparity),
        "colours": lambda image: colour_jitter(image, ColourConfig(), torch.Generator()),
        "matching": lambda image: grey_levels(image[0]),
        "pictures": lambda image: to_uint8(image[0]),
    }


@pytest.mark.parametrize("name", _tasks())
def test_whole_numbers_are_named_wherever_images_go_in(name: str) -> None:
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    task = _tasks()[name]
    for wrong, message in ((image, "uint8: divide it by 255"), (image.long(), "int64"), (image[:, :1] / 255, "grey")):
        with pytest.raises(InputError, match=message):
            task(wrong)


@pytest.mark.parametrize("name", ["student", "teacher"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_take_floats_of_any_type(name: str, dtype: torch.dtype) -> None:
    with torch.no_grad():
        prediction = _tasks()[name](torch.rand(1, 3, 64, 64, dtype=dtype))
    assert prediction.depth.dtype == torch.float32
