"""Single images with depth: lists as users have them, folders, scales that are told and ones that cannot be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from adu_depth.data import Rgbd, open_dataset
from adu_depth.doctor import ERROR, OK, WARNING, examine
from adu_depth.errors import InputError
from adu_depth.inference.predict_files import camera_beside, find_tasks
from adu_depth.models import StudentConfig
from adu_depth.training.runs import train_student
from tests.data.trees import depth_of, save_image, save_text, scenes
from tests.training.tiny import DATA, LOOP, tiny_student

SIZE = (96, 192)


def save_levels(path: Path, depth: np.ndarray, scale: float, kind: type) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.clip(np.round(depth * scale), 0, np.iinfo(kind).max).astype(kind)
    assert cv2.imwrite(str(path), levels)


def near(index: int) -> np.ndarray:
    """A scene's depth as a room's: up to 10 m."""
    return depth_of(scenes(size=SIZE)[index]).clip(max=80) / 8


def write_lists(root: Path) -> None:
    """As the authors of 1803.08673 lay NYU-v2 out: 8-bit depth to train, 16-bit to test, paths from above the lists."""
    for index, scene in enumerate(scenes(size=SIZE)):
        part = "train" if index < 2 else "test"
        save_image(root / "data" / f"nyu2_{part}" / "kitchen" / f"{index}.jpg", scene.left)
        scale, kind = (25.5, np.uint8) if part == "train" else (1000, np.uint16)
        save_levels(root / "data" / f"nyu2_{part}" / "kitchen" / f"{index}.png", near(index), scale, kind)
    for part, numbers in (("train", (0, 1)), ("test", (2, 3))):
        rows = (f"data/nyu2_{part}/kitchen/{n}.jpg,data/nyu2_{part}/kitchen/{n}.png\r\n" for n in numbers)
        save_text(root / "data" / f"nyu2_{part}.csv", "".join(rows))
    save_text(root / "data" / "depth.toml", 'depth_scale = 1000\n["nyu2_train.csv"]\ndepth_scale = 25.5\n')


def test_lists_with_a_scale_each(tmp_path: Path) -> None:
    write_lists(tmp_path)
    dataset = open_dataset(tmp_path / "data", together=True)
    assert isinstance(dataset, Rgbd)
    assert dataset.names == [
        f"data/nyu2_{p}/kitchen/{n}" for p, n in (("test", 2), ("test", 3), ("train", 0), ("train", 1))
    ]
    for name, index, step in ((dataset.names[0], 2, 1 / 1000), (dataset.names[2], 0, 1 / 25.5)):
        sample = dataset.load(name)
        np.testing.assert_allclose(sample.depth[0], near(index), atol=step)
        assert sample.right is None
        assert torch.equal(sample.valid, sample.depth > 0)
        assert math.isnan(float(sample.camera.fx))
    assert dataset.sequence(dataset.names[0]) == "data/nyu2_test/kitchen"
    [note] = dataset.notes
    assert note.endswith("all of nyu2_test.csv, nyu2_train.csv is read; what is for evaluation is left out by a split")


def test_lists_to_train_and_to_test_are_not_read_as_one(tmp_path: Path) -> None:
    write_lists(tmp_path)
    message = (
        r"data: nyu2_test.csv, nyu2_train.csv are for test and train by their names: name the one meant, as by split "
        r"\S*nyu2_train.csv if it is a list, or give the folder of a part"
    )
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path / "data")
    data = replace(DATA, root=str(tmp_path / "data"), pairs=0)
    with pytest.raises(InputError, match=message):
        train_student(replace(tiny_student(tmp_path / "run"), data=data))
    assert not (tmp_path / "run").exists()
    for name, other in (("test", "more"), ("train", "kitchen")):
        (tmp_path / "data" / f"nyu2_{name}.csv").rename(tmp_path / "data" / f"{other}.csv")
    (tmp_path / "data" / "depth.toml").write_text('depth_scale = 1000\n["kitchen.csv"]\ndepth_scale = 25.5\n')
    dataset = open_dataset(tmp_path / "data")
    assert len(dataset) == 4
    assert "all of kitchen.csv, more.csv is read" in dataset.notes[0]


def test_a_list_is_a_split(tmp_path: Path) -> None:
    write_lists(tmp_path)
    dataset = open_dataset(tmp_path / "data", split=tmp_path / "data" / "nyu2_train.csv")
    assert dataset.names == ["data/nyu2_train/kitchen/0", "data/nyu2_train/kitchen/1"]
    assert dataset.notes == []


def test_folders_that_begin_with_a_hash_are_no_comments(tmp_path: Path) -> None:
    """The lines that the layout writes otherwise than it calls frames: paths with endings, several of them."""
    for folder in ("#1", "b"):
        save_image(tmp_path / "set" / folder / "0.jpg", scenes(size=SIZE)[0].left)
        save_levels(tmp_path / "set" / folder / "0.png", near(0), 1000, np.uint16)
    (tmp_path / "set" / "depth.toml").write_text("depth_scale = 1000\n")
    (tmp_path / "set" / "train.csv").write_text("#1/0.jpg,#1/0.png\nb/0.jpg,b/0.png\n")
    split = tmp_path / "list.txt"
    split.write_text("# both l\n#2/0.jpg,#2/0.png\n#1/0.jpg,#1/0.png\nb/0.jpg,b/0.png\n")
    assert open_dataset(tmp_path / "set", "rgbd", split=split).names == ["#1/0", "b/0"]


def test_images_without_depth_are_counted(tmp_path: Path) -> None:
    write_lists(tmp_path)
    with (tmp_path / "data" / "nyu2_test.csv").open("a") as file:
        file.write("data/nyu2_train/kitchen/0.jpg,\n")
    with pytest.raises(InputError, match=r"nyu2_train.csv, line 1: data/nyu2_train/kitchen/0 is there already"):
        open_dataset(tmp_path / "data", together=True)
    save_image(tmp_path / "data" / "more" / "a.png", scenes(size=SIZE)[0].left)
    save_text(tmp_path / "data" / "unlabelled.csv", "more/a.png,\n")
    (tmp_path / "data" / "nyu2_test.csv").unlink()
    dataset = open_dataset(tmp_path / "data", split=tmp_path / "data" / "unlabelled.csv")
    assert any("1 of 1 frames have no ground truth" in note for note in dataset.notes)
    assert not dataset[0].valid.any()


def write_folders(root: Path, shift: int = 0) -> None:
    for index, scene in enumerate(scenes(size=SIZE)):
        save_image(root / "images" / "room" / f"{index}.png", scene.left)
        save_levels(root / "depth" / "room" / f"{index}.png", np.roll(near(index), shift, 1), 1000, np.uint16)
    save_text(root / "depth.toml", "depth_scale = 1000\n")


def test_two_folders_and_a_camera(tmp_path: Path) -> None:
    write_folders(tmp_path)
    save_text(tmp_path / "camera.toml", 'fx = 150\ncx = 95.5\ncy = 47.5\n["room/1"]\nfx = 160\n')
    dataset = open_dataset(tmp_path)
    assert dataset.names == [f"room/{index}" for index in range(4)]
    np.testing.assert_allclose(dataset[3].depth[0], near(3), atol=1e-3)
    assert [float(dataset[index].camera.fx) for index in (0, 1)] == [150, 160]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("", r"nyu2_test.csv, line 1: depth.toml says no depth_scale for it: expected depth_scale = 1000"),
        ("depth_scale = 0", "depth.toml: expected depth_scale = 1000 .*got depth_scale = 0"),
        ("depth_scale = true", "depth.toml: expected depth_scale = 1000 .*got depth_scale = True"),
        ("scale = 1000", "depth.toml: expected depth_scale = 1000 .*got scale = 1000"),
        ("depth_scale = ", "depth.toml is not TOML"),
    ],
)
def test_a_scale_that_is_not_told(tmp_path: Path, told: str, message: str) -> None:
    write_lists(tmp_path)
    (tmp_path / "data" / "depth.toml").write_text(told)
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path / "data", together=True)
    (tmp_path / "data" / "depth.toml").unlink()
    with pytest.raises(InputError, match=r"depth.toml is missing: expected a line depth_scale = 1000"):
        open_dataset(tmp_path / "data", "rgbd")


def test_a_scale_of_other_maps_is_refused(tmp_path: Path) -> None:
    write_lists(tmp_path)
    (tmp_path / "data" / "depth.toml").write_text("depth_scale = 1000")
    with pytest.raises(
        InputError, match=r"kitchen/0.png has 8 bits, which depth_scale = 1000 takes to 0.255 m at most"
    ):
        open_dataset(tmp_path / "data", together=True).load("data/nyu2_train/kitchen/0")
    (tmp_path / "data" / "depth.toml").write_text("depth_scale = 25.5")
    with pytest.raises(InputError, match=r"kitchen/2.png has 16 bits, which depth_scale = 25.5 takes to 2,570 m"):
        open_dataset(tmp_path / "data", together=True).load("data/nyu2_test/kitchen/2")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,b.png,c.png", "expected image,depth, got 'a.jpg,b.png,c.png'"),
        (",b.png", "expected image,depth, got ',b.png'"),
        ("../a.jpg,b.png", r"expected a path below the list's folder or the one above, got '../a.jpg'"),
        ("a.jpg,/etc/b.png", r"expected a path below .*got '/etc/b.png'"),
    ],
)
def test_rows_that_name_nothing_usable(tmp_path: Path, row: str, message: str) -> None:
    save_text(tmp_path / "train.csv", f"\n{row}\n")
    save_text(tmp_path / "depth.toml", "depth_scale = 1000\n")
    with pytest.raises(InputError, match=f"train.csv, line 2: {message}"):
        open_dataset(tmp_path)


def test_exchanged_columns_are_told(tmp_path: Path) -> None:
    """A map of depth would be read as a grey picture, and nothing said where its truth is not looked at."""
    write_lists(tmp_path)
    path = tmp_path / "data" / "nyu2_test.csv"
    rows = (row.split(",") for row in path.read_text().split())
    path.write_text("".join(f"{depth},{image}\n" for image, depth in rows))
    with pytest.raises(InputError, match=r"nyu2_test.csv, line 1: expected image,depth, got 2.png first, .*16 bits"):
        open_dataset(tmp_path / "data", together=True)


def test_what_is_missing_or_of_another_size_is_named(tmp_path: Path) -> None:
    write_lists(tmp_path)
    (tmp_path / "data" / "nyu2_test" / "kitchen" / "2.png").unlink()
    dataset = open_dataset(tmp_path / "data", together=True)
    assert dataset.missing("data/nyu2_test/kitchen/2") == [tmp_path / "data" / "nyu2_test" / "kitchen" / "2.png"]
    save_levels(tmp_path / "data" / "nyu2_test" / "kitchen" / "3.png", near(3)[:40], 1000, np.uint16)
    with pytest.raises(
        InputError, match=r"kitchen/3.png: expected the image's height and width \(96, 192\), got \(40,"
    ):
        dataset.load("data/nyu2_test/kitchen/3")
    save_text(tmp_path / "empty" / "depth.toml", "depth_scale = 1000\n")
    with pytest.raises(InputError, match="no image, expected lists"):
        open_dataset(tmp_path / "empty")


def test_a_student_trains_on_them(tmp_path: Path) -> None:
    write_folders(tmp_path / "set")
    data = replace(DATA, root=str(tmp_path / "set"), pairs=0)
    config = replace(tiny_student(tmp_path / "run"), data=data, loop=replace(LOOP, steps=2))
    history = train_student(config)
    assert np.isfinite(history[-1]["total"])
    scaled = replace(config, run=tmp_path / "other", model=replace(config.model, reference_focal=200.0))
    assert isinstance(scaled.model, StudentConfig)
    with pytest.raises(InputError, match=r"model.reference_focal 200 scales depth by the camera's focal length"):
        train_student(scaled)


def test_the_doctor_knows_whether_depth_lies_over_its_image(tmp_path: Path) -> None:
    for shift, level in ((0, OK), (24, WARNING)):
        root = tmp_path / str(shift)
        write_folders(root, shift)
        report = examine(open_dataset(root), "rgbd")
        assert {f.level for f in report.findings if f.check == "alignment"} == {level}, report.findings
        assert report.count(ERROR) == 0
        assert any("without a camera.toml" in f.text for f in report.findings)


@pytest.mark.parametrize("lists", [False, True])
def test_predict_finds_the_camera_that_training_does(lists: bool, tmp_path: Path) -> None:
    write_folders(tmp_path)
    for folder in ("images", "depth"):
        (tmp_path / folder / "0.png").symlink_to(tmp_path / folder / "room" / "0.png")
    if lists:
        names = ("0.png", *(f"room/{index}.png" for index in range(4)))
        save_text(tmp_path / "all.csv", "".join(f"images/{name},depth/{name}\n" for name in names))
    prefix = "images/" if lists else ""
    save_text(tmp_path / "camera.toml", f'fx = 150\n["{prefix}0"]\nfx = 160\n["{prefix}room"]\nfx = 1\n')
    save_text(tmp_path / "images" / "room" / "camera.toml", f'fx = 170\n["1"]\nfx = 180\n["{prefix}room/2"]\nfx = 1\n')
    dataset = open_dataset(tmp_path)
    cameras = {name.removeprefix(prefix): float(dataset.load(name).camera.fx) for name in dataset.names}
    assert cameras == {"0": 160, "room/0": 170, "room/1": 180, "room/2": 170, "room/3": 170}
    for name, fx in cameras.items():
        [task] = find_tasks(tmp_path / "images" / f"{name}.png", None, False)
        assert camera_beside(task, SIZE, False).fx == fx
