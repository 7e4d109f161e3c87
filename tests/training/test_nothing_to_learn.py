"""A training that has nothing to learn from ends before its first step, and says what there is instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from adu_depth.data import StereoSample, SyntheticStereo
from adu_depth.data.identity import spread
from adu_depth.data.image_files import write_png16
from adu_depth.distillation import DistillationConfig
from adu_depth.errors import InputError
from adu_depth.inference import write_samples
from adu_depth.training.cache_command import CacheTeacherConfig, cache_teacher
from adu_depth.training.config import DataConfig
from adu_depth.training.runs import train_student, train_teacher
from tests.training.tiny import LOOP, SIZE, tiny_student, tiny_teacher

ONCE = replace(LOOP, steps=1)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Views and a camera alone."""
    write_samples(SyntheticStereo(3, *SIZE, seed=0), tmp_path / "pairs", 3)
    for role in ("depth", "sparse_depth", "disparity", "occluded"):
        (tmp_path / "pairs" / role).rename(tmp_path / role)
    return tmp_path / "pairs"


def as_arrays(pairs: Path, role: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    (pairs / role).mkdir()
    for path in (pairs.parent / role).iterdir():
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 256
        np.save(pairs / role / path.stem, change(stored))


def unread(pairs: Path) -> None:
    (pairs / "depth").mkdir()
    for path in (pairs.parent / "depth").iterdir():
        path.rename(pairs / "depth" / f"{path.stem}.tif")


def zeros(pairs: Path) -> None:
    for index in range(3):
        write_png16(pairs / "depth" / f"{index:06d}.png", np.zeros(SIZE))


def test_a_lidar_s_points_alone_are_something_to_learn_from(pairs: Path, tmp_path: Path) -> None:
    """sparse_depth without depth, as a rig with a LiDAR has it."""
    (tmp_path / "sparse_depth").rename(pairs / "sparse_depth")
    data = DataConfig(str(pairs), size=SIZE)
    assert train_teacher(tiny_teacher(tmp_path / "teacher", data=data, loop=ONCE))[-1]["disparity"] > 0
    assert train_student(tiny_student(tmp_path / "student", data=data, loop=ONCE))[-1]["silog"] > 0


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "no files": (lambda pairs: None, "none of the 3 frames has ground truth"),
    "a format that is not read": (unread, "none of the 3 frames has ground truth"),
    "zeros": (zeros, r"none of the 3 frames looked at \(of 3\) has ground truth between"),
    "negative": (lambda pairs: as_arrays(pairs, "disparity", np.negative), "none of the 3 frames looked at"),
    "NaN": (lambda pairs: as_arrays(pairs, "depth", lambda d: d * np.nan), "none of the 3 frames looked at"),
    "millimetres": (lambda pairs: as_arrays(pairs, "depth", lambda d: d * 1000), "none of the 3 frames looked at"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_frames_without_truth_are_refused_before_the_first_step(kind: str, pairs: Path, tmp_path: Path) -> None:
    spoil, told = SPOILT[kind]
    spoil(pairs)
    data = DataConfig(root=str(pairs), size=SIZE)
    message = rf"nothing to learn from: {told}.*`adu-depth doctor {pairs}` says what is there"
    with pytest.raises(InputError, match=message + "; with --teacher"):
        train_student(tiny_student(tmp_path / "run", data=data, loop=ONCE))
    with pytest.raises(InputError, match=message + "$"):
        train_teacher(tiny_teacher(tmp_path / "run", data=data, loop=ONCE))
    assert not (tmp_path / "run").exists()


def test_a_student_may_learn_from_its_teacher_alone_which_is_said(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=ONCE))
    settings = {"teacher": tmp_path / "teacher", "data": DataConfig(root=str(pairs), size=SIZE), "loop": ONCE}
    (row,) = train_student(tiny_student(tmp_path / "run", **settings))
    assert row["gradient_norm"] > 0
    assert "none of the 3 frames has ground truth: the student learns from its teacher alone" in capsys.readouterr().out
    mute = DistillationConfig(response=0, features=0)
    with pytest.raises(InputError, match="nothing to learn from: none of the 3 frames has ground truth"):
        train_student(tiny_student(tmp_path / "mute", **settings, distillation=mute))


def test_single_images_are_none_for_a_stereo_teacher_before_anything_is_written(tmp_path: Path) -> None:
    for folder in ("images", "depth"):
        (tmp_path / "rooms" / folder).mkdir(parents=True)
    (tmp_path / "rooms" / "depth.toml").write_text("depth_scale = 1000\n")
    assert cv2.imwrite(str(tmp_path / "rooms/images/0.png"), np.full((*SIZE, 3), 90, np.uint8))
    assert cv2.imwrite(str(tmp_path / "rooms/depth/0.png"), np.full(SIZE, 3000, np.uint16))
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=ONCE))
    data = DataConfig(root=str(tmp_path / "rooms"), size=SIZE)
    made: list[Callable[[], object]] = [
        lambda: train_teacher(tiny_teacher(tmp_path / "run", data=data, loop=ONCE)),
        lambda: train_student(tiny_student(tmp_path / "run", data=data, loop=ONCE, teacher=tmp_path / "teacher")),
        lambda: cache_teacher(CacheTeacherConfig(tmp_path / "teacher", tmp_path / "run", data, device="cpu")),
    ]
    for make in made:
        with pytest.raises(
            InputError, match=r"data\.root .*rooms: a stereo teacher needs pairs, but this data set has no"
        ):
            make()
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("taught", [False, True])
def test_weights_that_are_all_0_are_refused(taught: bool, tmp_path: Path) -> None:
    nothing = DistillationConfig(silog=0, uncertainty=0, **({"response": 0, "features": 0} if taught else {}))
    teacher = {"teacher": tmp_path / "teacher"} if taught else {}
    with pytest.raises(InputError, match=r"nothing to learn from: distillation\.silog, uncertainty.* are all 0"):
        train_student(tiny_student(tmp_path / "run", distillation=nothing, **teacher))


class None_(list[StereoSample]):
    """A data set without frames."""


def test_no_frames_are_refused(tmp_path: Path) -> None:
    for start in (
        lambda: train_student(tiny_student(tmp_path / "run"), samples=None_()),
        lambda: train_teacher(tiny_teacher(tmp_path / "run"), samples=None_()),
    ):
        with pytest.raises(InputError, match=r"nothing to learn from: .* has no frames"):
            start()


def test_one_frame_with_truth_among_many_is_enough(tmp_path: Path) -> None:
    scene = SyntheticStereo(1, *SIZE, seed=0)[0]
    without = replace(scene, valid=torch.zeros_like(scene.valid), sparse_depth=None)
    samples = [*[without] * 8, scene, *[without] * 8]
    assert len(train_student(tiny_student(tmp_path / "run", loop=ONCE), samples=samples)) == 1


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 4097])
def test_the_spread_order_has_each_once_and_the_halves_early(count: int) -> None:
    order = list(spread(count))
    assert sorted(order) == list(range(count))
    if count > 4:
        assert {index * 4 // (1 << (count - 1).bit_length()) for index in order[:4]} <= {0, 1, 2, 3}
        assert max(order[:4]) > count // 2 - 1
