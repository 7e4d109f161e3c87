"""Images brought to one short side and cut to their middle: in training, validation, evaluation and prediction."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from adu_depth.checkpoint import load_model
from adu_depth.data import SyntheticStereo, open_dataset
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.transforms import CentreCut, centre_sample, resize_sample, size_for_middle
from adu_depth.errors import InputError
from adu_depth.evaluation.command import EvaluateConfig, evaluate_checkpoint
from adu_depth.evaluation.metrics import hu_metrics
from adu_depth.inference import Predictor, write_samples
from adu_depth.models import LightStudent, StudentConfig
from adu_depth.progress import Progress
from adu_depth.training.runs import train_student
from adu_depth.training.sources import open_samples
from adu_depth.training.validation_config import ValidationConfig
from adu_kernels.depth_gradient_normal import reference
from tests.data.trees import save_image
from tests.training.tiny import LOOP, tiny_student


def test_the_published_preparation() -> None:
    """Of a frame of NYU's 480×640: 240×320, then rows 6 to 233 and columns 8 to 311."""
    scene = SyntheticStereo(1, 480, 640, seed=0)[0]
    cut = centre_sample(scene, 240, 228, 304)
    half = resize_sample(scene, 240, 320)
    assert torch.equal(cut.left, half.left[:, 6:234, 8:312])
    assert torch.equal(cut.depth, half.depth[:, 6:234, 8:312])
    assert set(cut.depth.unique().tolist()) <= set(scene.depth.unique().tolist()), "measured values, no means"
    assert float(cut.camera.cx) == pytest.approx(float(half.camera.cx) - 8)


@pytest.mark.parametrize(
    ("size", "at", "corner"),
    [
        ((640, 480), (405, 304), (88, 0)),  # upright: 304 / 480 = 0.6333, 640 · 0.6333 = 405.3
        ((480, 480), (304, 304), (38, 0)),
        ((300, 380), (240, 304), (6, 0)),  # 380 · 240 / 300: the middle fits by a hair
        ((300, 370), (246, 304), (9, 0)),  # 370 · 0.8 = 296 is too narrow: 304 / 370, 300 · 0.8216 = 246.5
        ((228, 5000), (240, 5263), (6, 2479)),
    ],
)
def test_a_narrow_image_is_brought_to_where_the_middle_fits(
    size: tuple[int, int], at: tuple[int, int], corner: tuple[int, int]
) -> None:
    assert size_for_middle(size, 240, 228, 304) == at
    if size[1] > 1000:
        return
    scene = SyntheticStereo(1, *size, seed=0)[0]
    cut, whole = centre_sample(scene, 240, 228, 304), resize_sample(scene, *at)
    assert torch.equal(cut.left, whole.crop(*corner, 228, 304).left)
    assert torch.equal(cut.depth, whole.crop(*corner, 228, 304).depth)
    assert float(cut.camera.fx) == pytest.approx(float(scene.camera.fx) * at[1] / size[1])
    assert float(cut.camera.cy) == pytest.approx((float(scene.camera.cy) + 0.5) * at[0] / size[0] - 0.5 - corner[0])


def test_a_strip_that_would_take_all_memory_is_refused() -> None:
    scene = SyntheticStereo(1, 32, 64, seed=0)[0]
    strip = replace(scene, **{name: value[:, :2].repeat(1, 1, 64) for name, value in scene._tensors().items()})
    told = r"brought to 240×491520 pixels, of which the middle is cut out: reading it would take 1,416 MB"
    with pytest.raises(InputError, match=rf"^\S+: {told}, more than the limit of 640 MB"):
        centre_sample(strip, 240, 228, 304)


def test_upright_photos_do_not_end_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, photos = tmp_path / "set", tmp_path / "photos"
    write_samples(SyntheticStereo(2, 60, 80, seed=0), folder, 2)
    photos.mkdir()
    for number, (height, width) in enumerate(((80, 60), (60, 80), (90, 60))):
        save_image(photos / f"{number}.png", torch.rand(3, height, width))
    mix = (SourceConfig(str(photos), 0.5, labels=False),)
    data = DataConfig(root=str(folder), size=(36, 44), fit="centre", short_side=40, mix=mix)
    samples = open_samples(data, torch.device("cpu"), Progress(Console(width=400)))
    told = "photos: 2 of 3 images are too narrow for a middle of 36×44 at short side 40 (such as 0.png): each is"
    assert told in capsys.readouterr().out
    assert {samples[index].left.shape[-2:] for index in range(5)} == {(36, 44)}
    assert CentreCut(open_dataset(folder), (36, 44), 40).notes() == []


def test_images_smaller_than_a_crop_are_told_before_the_first_step(tmp_path: Path) -> None:
    write_samples(SyntheticStereo(2, 60, 80, seed=0), tmp_path / "set", 2)
    save_image(tmp_path / "photos" / "small.jpg", torch.rand(3, 40, 50))
    save_image(tmp_path / "photos" / "whole.jpg", torch.rand(3, 64, 96))
    mix = (SourceConfig(str(tmp_path / "photos"), 0.5, labels=False),)
    data = DataConfig(root=str(tmp_path / "set"), size=(32, 64), fit="crop", mix=mix)
    with pytest.raises(InputError, match=r"photos: 1 of 2 images are smaller than data.size 32×64.*small.jpg of 40×50"):
        open_samples(data, torch.device("cpu"))


def test_a_network_works_as_it_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set"
    write_samples(SyntheticStereo(3, 60, 80, seed=0), folder, 3)
    data = DataConfig(root=str(folder), size=(36, 44), fit="centre", short_side=40)
    validation = ValidationConfig(every=2, root=str(folder), protocol="hu", metric="rmse", pictures=1)
    config = tiny_student(tmp_path / "run", model=StudentConfig(network="light"), data=data, validation=validation)
    train_student(replace(config, loop=replace(LOOP, steps=2)))
    told = "validation rmse "
    validated = next(line for line in capsys.readouterr().out.splitlines() if told in line)
    loaded = load_model(config.run)
    assert (loaded.size, loaded.fit, loaded.short_side) == ((36, 44), "centre", 40)
    console, output = Console(width=160), tmp_path / "evaluation"
    evaluation = EvaluateConfig(config.run, str(folder), protocol="hu", output=output, device="cpu")
    results = evaluate_checkpoint(evaluation, console)
    prepared = "images and ground truth at short side 40, their middle of 36×44, as in training"
    assert prepared in capsys.readouterr().out
    assert prepared in (output / "metrics.md").read_text()
    assert json.loads((output / "metrics.json").read_text())["prepared"] == prepared
    rows = []
    with torch.no_grad():
        for sample in (CentreCut(SyntheticStereo(3, 60, 80, seed=0), (36, 44), 40)[i] for i in range(3)):
            rows.append(hu_metrics(loaded.model(sample.left[None]).depth[0, 0], sample.depth[0])["rmse"])
    measured = results["student"]["hu"].means()["rmse"]
    assert measured == pytest.approx(sum(rows) / 3, rel=0.02), "but for what files round"
    assert float(validated.split(told)[1].split()[0]) == pytest.approx(measured, abs=1e-3)
    predictor = Predictor.from_checkpoint(config.run, "cpu")
    seen = []
    predictor.model.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
    assert predictor.predict_image(torch.rand(3, 120, 90)).depth.shape == (1, 1, 120, 90)
    assert seen == [(53, 40)]
    images: list[torch.Tensor] = []
    hook = register_module_forward_pre_hook(
        lambda network, given: images.append(given[0]) if isinstance(network, LightStudent) else None
    )
    evaluate_checkpoint(EvaluateConfig(config.run, pairs=1, device="cpu"), console)
    hook.remove()
    assert [image.shape[-2:] for image in images] == [(36, 44)], "built-in scenes are rendered so"
    Predictor.from_checkpoint(config.run, "cpu", size="full").predict_image(torch.rand(3, 64, 96))
    assert Predictor.from_checkpoint(config.run, "cpu", size="full").short_side == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit": "centre"}, r"data\.short_side: with fit centre expected at least 32.*got 0"),
        ({"fit": "centre", "short_side": 20}, "got 20"),
        ({"short_side": 240}, r"data\.short_side is for data\.fit centre, got 240 with fit resize"),
    ],
)
def test_settings_that_say_nothing(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DataConfig(size=(32, 64), **settings)  # type: ignore[arg-type]


def test_built_in_scenes_have_no_middle(tmp_path: Path) -> None:
    data = DataConfig(size=(32, 64), fit="centre", short_side=48)
    with pytest.raises(InputError, match=r"data\.fit centre: the built-in scenes are rendered at data\.size"):
        train_student(tiny_student(tmp_path / "run", data=data))


@pytest.mark.parametrize("cached", [False, True])
def test_a_teachers_outputs_of_the_middles_are_kept(tmp_path: Path, cached: bool) -> None:
    """Of frames with and without labels, at a size that maps at 1/32 do not tile: the first step's loss on those
    without is that of what the student says of their middles against what the teacher says of them."""
    write_samples(SyntheticStereo(3, 60, 80, seed=0), tmp_path / "set", 3)
    mix = (SourceConfig(str(tmp_path / "set" / "right"), 0.5, labels=False),)
    data = DataConfig(root=str(tmp_path / "set"), size=(36, 44), fit="centre", short_side=40, mix=mix)
    train_student(tiny_student(tmp_path / "teacher", loop=replace(LOOP, steps=2)))
    config = tiny_student(
        tmp_path / "run",
        model=StudentConfig(network="light"),
        data=data,
        loop=replace(LOOP, steps=2, log_every=1),
        augmentation=AugmentationConfig(flip=0, colour=0),
        teacher=tmp_path / "teacher",
        teacher_cache=tmp_path / "cache" if cached else None,
    )
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = register_module_forward_hook(
        lambda network, given, said: (
            seen.append((given[0].clone(), said.depth.detach().clone())) if isinstance(network, LightStudent) else None
        )
    )
    rows = train_student(config)
    hook.remove()
    unlabelled = CentreCut(open_dataset(tmp_path / "set" / "right", "pictures"), (36, 44), 40)
    middles = [unlabelled[index].left for index in range(3)]
    teacher = load_model(tmp_path / "teacher").model.eval()
    for row, (images, depth) in zip(rows, seen[: len(rows)], strict=True):  # what follows them is not trained on
        [place] = [k for k in range(2) if any(torch.equal(images[k], middle) for middle in middles)]
        with torch.no_grad():
            taught = teacher(images[place : place + 1]).depth
        bounds = {"min_depth": config.model.min_depth, "max_depth": config.model.max_depth}
        expected = reference.depth_gradient_normal_loss(depth[place : place + 1], taught, **bounds).total
        assert row["unlabelled"] == pytest.approx(float(expected), rel=2e-3 if cached else 1e-5), "a cache rounds"
