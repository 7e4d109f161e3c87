"""A network that scales depth by the focal length is run on no picture whose focal length is not known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from adu_depth.data import open_dataset
from adu_depth.data.config import DataConfig
from adu_depth.data.dataset import Dataset
from adu_depth.data.sample import StereoSample
from adu_depth.data.transforms import Resized, require_focal_lengths
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.evaluation.command import EvaluateConfig, evaluate_checkpoint
from adu_depth.models import MonoStudent
from adu_depth.training.batches import batches
from adu_depth.training.cache_command import CacheTeacherConfig, cache_teacher
from adu_depth.training.runs import train_student
from adu_depth.training.tasks import OnlineTeacher
from adu_depth.training.teacher_outputs import teacher_says
from tests.data.test_indoor import write_nyu, write_scannet
from tests.data.test_rgbd import near, save_levels
from tests.data.trees import save_image, save_text, scenes
from tests.training.tiny import DATA, LOOP, STUDENT, tiny_scenes, tiny_student

CPU = torch.device("cpu")
FOCAL = replace(STUDENT, reference_focal=50.0)
SOME = r"2 of 4 frames of .*rooms.* do not know \(such as b/0\): expected fx in a camera\.toml there"


def write_rooms(root: Path) -> DataConfig:
    """Two folders of pictures with depth; the first alone has a camera."""
    for index in range(4):
        folder, name = ("a", "b")[index // 2], str(index % 2)
        save_image(root / "images" / folder / f"{name}.png", scenes(size=(96, 192))[index].left)
        save_levels(root / "depth" / folder / f"{name}.png", near(index), 1000, np.uint16)
    save_text(root / "depth.toml", "depth_scale = 1000\n")
    save_text(root / "images" / "a" / "camera.toml", "fx = 100\n")
    return replace(DATA, root=str(root), pairs=0)


@pytest.fixture(scope="module")
def focal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that scales its depth, trained on scenes."""
    run = tmp_path_factory.mktemp("runs") / "focal"
    train_student(tiny_student(run, model=FOCAL, loop=replace(LOOP, steps=2)))
    return run


def test_frames_without_one_further_on_are_named_before_the_first_step(tmp_path: Path) -> None:
    data = write_rooms(tmp_path / "rooms")
    with pytest.raises(InputError, match=rf"model\.reference_focal 50 scales depth by .*, which {SOME}"):
        train_student(tiny_student(tmp_path / "run", model=FOCAL, data=data))
    assert not (tmp_path / "run" / "checkpoints").exists()
    save_text(tmp_path / "rooms" / "camera.toml", "fx = 100\n")
    train_student(tiny_student(tmp_path / "run", model=FOCAL, data=data, loop=replace(LOOP, steps=2)))


def test_a_teacher_s_need_is_asked_for_too(focal: Path, tmp_path: Path) -> None:
    """Its depth was NaN there: a student learned nothing from it, and a cache was refused for its values."""
    data = write_rooms(tmp_path / "rooms")
    told = rf"reference_focal of .*focal 50 scales depth by the camera's focal length, which {SOME}"
    with pytest.raises(InputError, match=told):
        train_student(tiny_student(tmp_path / "run", teacher=focal, data=data))
    with pytest.raises(InputError, match=told):
        cache_teacher(CacheTeacherConfig(focal, tmp_path / "cache", data, features=False, device="cpu"))
    assert not (tmp_path / "cache").exists()


def test_evaluate_asks_before_it_predicts(focal: Path, tmp_path: Path) -> None:
    write_rooms(tmp_path / "rooms")
    config = EvaluateConfig(focal, str(tmp_path / "rooms"), protocol="none", device="cpu", output=tmp_path / "out")
    with pytest.raises(InputError, match=rf"reference_focal of .*focal 50 scales depth by .*, which {SOME}"):
        evaluate_checkpoint(config, Console(quiet=True))
    save_text(tmp_path / "rooms" / "camera.toml", "fx = 100\n")
    evaluate_checkpoint(config, Console(quiet=True))
    assert (tmp_path / "out" / "metrics.json").is_file()


class Unknown:
    """Scenes of a user's own, the third of unknown focal length."""

    def __init__(self) -> None:
        self.scenes = tiny_scenes(4)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> StereoSample:
        sample = self.scenes[index]
        camera = sample.camera if index != 2 else replace(sample.camera, fx=math.nan)
        return replace(sample, camera=camera, name=f"own {index}")


def test_samples_that_lie_in_no_files_are_asked_as_they_are_read(tmp_path: Path) -> None:
    samples: Dataset = Unknown()
    named = r"which own 2 does not know: expected fx in a camera\.toml beside the image, or above"
    for workers in (0, 1):
        with pytest.raises(InputError, match=rf"it needs, {named}"):
            list(batches(samples, DATA, replace(LOOP, workers=workers), 0, ProcessGroup(), CPU, None, "it needs"))
    assert len(list(batches(samples, DATA, LOOP, 0, ProcessGroup(), CPU))) == LOOP.steps
    with pytest.raises(InputError, match=rf"model\.reference_focal 50 .*, {named}"):
        train_student(tiny_student(tmp_path / "run", model=FOCAL), samples=samples)
    network = MonoStudent(FOCAL)
    with pytest.raises(InputError, match=rf"the teacher's reference_focal 50 scales depth by .*, {named}"):
        teacher_says(OnlineTeacher(network, CPU), [samples[1], samples[2]])
    teacher_says(OnlineTeacher(MonoStudent(STUDENT), CPU), [samples[1], samples[2]])


def test_each_layout_says_where_a_focal_length_is_to_be(tmp_path: Path) -> None:
    write_scannet(tmp_path / "scannet")
    told = r"2 of 4 frames of x do not know \(such as scene0001_00/color/0\): expected intrinsic/intrinsic_"
    with pytest.raises(InputError, match=told):
        require_focal_lengths("it needs", open_dataset(tmp_path / "scannet"), "x")
    require_focal_lengths("it needs", open_dataset(tmp_path / "scannet"), "x", [0, 1])
    require_focal_lengths("", open_dataset(tmp_path / "scannet"), "x")
    write_nyu(tmp_path / "nyu")
    for samples in (open_dataset(tmp_path / "nyu"), Resized(open_dataset(tmp_path / "nyu"), (32, 64))):
        with pytest.raises(InputError, match=r"which x does not know: this layout reads none: list the"):
            require_focal_lengths("it needs", samples, "x")
