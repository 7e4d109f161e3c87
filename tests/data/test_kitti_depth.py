"""KITTI's depth benchmark: single images, and what asks for pairs of them is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.data import KittiDepth, collate, open_dataset
from adu_depth.data.transforms import resize_sample
from adu_depth.errors import InputError
from adu_depth.evaluation import SemiGlobalMatching
from adu_depth.inference.render import write_samples
from adu_depth.training.runs import train_student, train_teacher
from tests.data.trees import depth_of, scenes, write_kitti_depth
from tests.training.tiny import DATA, LOOP, tiny_student, tiny_teacher


def test_the_validation_part(tmp_path: Path) -> None:
    names = write_kitti_depth(tmp_path)
    (tmp_path / "depth_selection" / "val_selection_cropped" / "image" / f"._{names[0]}.png").touch()  # macOS's
    dataset = open_dataset(tmp_path / "depth_selection" / "val_selection_cropped")
    assert isinstance(dataset, KittiDepth)
    assert dataset.names == names
    sample, scene = dataset[2], scenes()[2]
    assert sample.right is None
    assert sample.depth[0].numpy() == pytest.approx(depth_of(scene), abs=1 / 256)
    assert torch.equal(sample.valid, sample.depth > 0)
    assert not sample.disparity.any()
    assert (sample.camera.fx, sample.camera.cy, sample.camera.baseline) == pytest.approx(
        (scene.camera.fx, scene.camera.cy, 0.0), rel=1e-5
    )
    assert len({dataset.sequence(name) for name in names}) == 2


def test_the_test_part_has_no_ground_truth(tmp_path: Path) -> None:
    write_kitti_depth(tmp_path)
    dataset = open_dataset(tmp_path / "depth_selection" / "test_depth_prediction_anonymous")
    assert dataset.names == [f"{i:010d}" for i in range(4)]
    assert not dataset.labelled("0000000000")
    assert not dataset[0].valid.any()
    assert dataset[0].camera.fx > 0  # type: ignore[operator]


def test_two_parts_are_not_guessed_between(tmp_path: Path) -> None:
    write_kitti_depth(tmp_path)
    with pytest.raises(InputError, match=r"holds val_selection_cropped and test_depth_prediction_anonymous; name"):
        open_dataset(tmp_path)


def test_bad_intrinsics_are_named(tmp_path: Path) -> None:
    names = write_kitti_depth(tmp_path)
    root = tmp_path / "depth_selection" / "val_selection_cropped"
    file = root / "intrinsics" / f"{names[0]}.txt"
    for text, message in (("1 2 3", "9 numbers .* got 3"), ("a", "nothing but numbers"), ("0 " * 9, "positive focal")):
        file.write_text(text)
        with pytest.raises(InputError, match=rf"intrinsics/{names[0]}.txt: .*{message}"):
            open_dataset(root)[0]


def test_a_sample_without_right_image_goes_everywhere_a_student_goes(tmp_path: Path) -> None:
    write_kitti_depth(tmp_path)
    dataset = open_dataset(tmp_path / "depth_selection" / "val_selection_cropped")
    batch = collate([dataset[0], dataset[1]]).to("cpu")
    assert batch.right is None
    assert batch.left.shape[0] == 2
    assert dataset[0].crop(1, 2, 32, 64).left.shape == (3, 32, 64)
    assert resize_sample(dataset[0], 32, 64).right is None
    assert collate([dataset[0], scenes()[0]]).right is None, "one without is a batch without"


def test_what_needs_pairs_says_so(tmp_path: Path) -> None:
    names = write_kitti_depth(tmp_path)
    root = tmp_path / "depth_selection" / "val_selection_cropped"
    dataset = open_dataset(root)
    message = rf"{names[0]}: (stereo matching|writing a pair) needs pairs, but this data set has no right images"
    with pytest.raises(InputError, match=message):
        SemiGlobalMatching(64)(collate([dataset[0]]))
    with pytest.raises(InputError, match=message):
        write_samples(dataset, tmp_path / "out", 1)
    data = replace(DATA, root=str(root), pairs=0)
    with pytest.raises(InputError, match=r"a stereo teacher needs pairs"):
        train_teacher(tiny_teacher(tmp_path / "teacher", data=data))
    loop = replace(LOOP, steps=1)
    assert train_student(tiny_student(tmp_path / "student", data=data, loop=loop))[-1]["total"] > 0
