"""NYU-v2 and ScanNet in the form their users have them in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adu_depth.data import open_dataset
from adu_depth.data.indoor import NyuV2
from adu_depth.data.scannet import ScanNet
from adu_depth.doctor import ERROR, examine
from adu_depth.errors import InputError
from tests.data.test_rgbd import near, save_levels
from tests.data.trees import save_image, save_text, scenes

SIZE = (96, 192)


def write_nyu(root: Path) -> None:
    for index, scene in enumerate(scenes(size=SIZE)):
        folder = root / ("kitchen_0028b" if index < 2 else "office_0001a")
        save_image(folder / f"rgb_{index:05d}.jpg", scene.left)
        save_levels(folder / f"sync_depth_{index:05d}.png", near(index), 1000, np.uint16)


def test_nyu_with_btss_lists(tmp_path: Path) -> None:
    for below in ("", "sync"):
        write_nyu(tmp_path / below)
    dataset = open_dataset(tmp_path / "sync")
    assert isinstance(dataset, NyuV2)
    assert dataset.names[0] == "kitchen_0028b/rgb_00000"
    assert dataset.sequence(dataset.names[0]) == "kitchen_0028b"
    sample = dataset.load("office_0001a/rgb_00002")
    np.testing.assert_allclose(sample.depth[0], near(2), atol=1e-3)
    assert sample.right is None
    save_text(tmp_path / "list.txt", LINE)
    assert open_dataset(tmp_path / "sync", split=tmp_path / "list.txt").names == ["kitchen_0028b/rgb_00001"]
    report = examine(dataset, "nyu_v2")
    assert report.count(ERROR) == 0, report.findings
    bare = tmp_path / "sync" / "kitchen_0028b" / "sync_depth_00001.png"
    bare.unlink()
    again = open_dataset(tmp_path / "sync")
    assert not again.labelled("kitchen_0028b/rgb_00001")
    assert not bool(again.load("kitchen_0028b/rgb_00001").valid.any())
    save_levels(bare, near(1), 25.5, np.uint8)
    with pytest.raises(InputError, match=r"sync_depth_00001.png: expected 16-bit millimetres, got 8 bits"):
        open_dataset(tmp_path / "sync").load("kitchen_0028b/rgb_00001")


def test_nyu_with_its_parts_below_the_root(tmp_path: Path) -> None:
    for below in ("sync", "official_splits/test"):
        write_nyu(tmp_path / below)
    with pytest.raises(InputError, match=r"official_splits/test, sync are for test and train by their names: name the"):
        open_dataset(tmp_path)
    [note] = open_dataset(tmp_path, together=True).notes
    assert "all of official_splits/test, sync is read; what is for evaluation is left out by a split" in note
    save_text(tmp_path / "train.txt", LINE)
    dataset = open_dataset(tmp_path, split=tmp_path / "train.txt")
    assert (dataset.names, dataset.notes) == (["sync/kitchen_0028b/rgb_00001"], [])


LINE = "/kitchen_0028b/rgb_00001.jpg /kitchen_0028b/sync_depth_00001.png 518.8579\n"


@pytest.mark.parametrize(
    ("parts", "listed", "expected"),
    [
        (("sync", "official_splits/test"), "nyudepthv2_train_files_with_gt.txt", "sync"),
        (("sync", "official_splits/test"), "nyudepthv2_test_files_with_gt.txt", "official_splits/test"),
        (("train", "test"), "my-test.txt", "test"),
        (("train", "val"), "train.txt", "train"),
        (("val", "test"), "val.txt", "val"),
    ],
)
def test_a_frame_that_two_parts_have_is_of_the_lists_part(
    tmp_path: Path, parts: tuple[str, ...], listed: str, expected: str
) -> None:
    for below in parts:
        write_nyu(tmp_path / below)
    save_text(tmp_path / listed, LINE)
    dataset = open_dataset(tmp_path, "nyu_v2", split=tmp_path / listed)
    assert dataset.names == [f"{expected}/kitchen_0028b/rgb_00001"]


@pytest.mark.parametrize("listed", ["list.txt", "train_and_test.txt", "val.txt"])
def test_a_frame_that_may_be_of_either_part_is_refused(tmp_path: Path, listed: str) -> None:
    for below in ("sync", "official_splits/test"):
        write_nyu(tmp_path / below)
    save_text(tmp_path / listed, LINE)
    message = (
        r"line 1: kitchen_0028b/rgb_00001 is there several times, as official_splits/test/kitchen_0028b/rgb_00001 and "
        r"sync/kitchen_0028b/rgb_00001: name the part in the line"
    )
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path, split=tmp_path / listed)
    save_text(tmp_path / listed, f"/sync{LINE}")
    assert open_dataset(tmp_path, split=tmp_path / listed).names == ["sync/kitchen_0028b/rgb_00001"]


def test_a_line_of_a_folder_that_begins_with_a_hash_is_refused_where_it_may_mean_two(tmp_path: Path) -> None:
    """It was taken for a comment, since no one frame is meant."""
    for below in ("sync", "official_splits/test"):
        write_nyu(tmp_path / below)
        (tmp_path / below / "kitchen_0028b").rename(tmp_path / below / "#1")
    line = "#1/rgb_00001.jpg #1/sync_depth_00001.png 518.8579\n"
    save_text(
        tmp_path / "list.txt",
        f"# both parts\n{LINE.replace('kitchen_0028b', 'office_0001a').replace('1.', '2.')}{line}",
    )
    with pytest.raises(InputError, match=r"list\.txt, line 2: office_0001a/rgb_00002 is there several times"):
        open_dataset(tmp_path, split=tmp_path / "list.txt")
    save_text(tmp_path / "list.txt", f"# both parts\n{line}")
    with pytest.raises(InputError, match=r"list\.txt, line 2: #1/rgb_00001 is there several times"):
        open_dataset(tmp_path, split=tmp_path / "list.txt")
    save_text(tmp_path / "train.txt", f"# both parts\n{line}")
    assert open_dataset(tmp_path, split=tmp_path / "train.txt").names == ["sync/#1/rgb_00001"]


MATRIX = "{0:g} 0 {1:g} 0\n0 {0:g} {2:g} 0\n0 0 1 0\n0 0 0 1\n"
OWN = MATRIX.format(86.5, 47.5, 23.5)
"""Of depth maps of 48×96."""


def write_scannet(root: Path) -> str:
    """Two scans of scene0000 and scene0001, colour of 96×192, depth of half that; returns the first frame's name."""
    for index, scene in enumerate(scenes(size=SIZE)):
        folder = root / f"scene000{index // 2}_00"
        save_image(folder / "color" / f"{10 * (index % 2)}.jpg", scene.left)
        save_levels(folder / "depth" / f"{10 * (index % 2)}.png", near(index)[::2, ::2], 1000, np.uint16)
    save_text(root / "scene0000_00" / "intrinsic" / "intrinsic_depth.txt", OWN)
    return "scene0000_00/color/0"


@pytest.mark.parametrize("below", ["", "scans"])
def test_scannets_frames(tmp_path: Path, below: str) -> None:
    first = (Path(below) / write_scannet(tmp_path / below)).as_posix()
    dataset = open_dataset(tmp_path)
    assert isinstance(dataset, ScanNet)
    assert dataset.names[:2] == [first, first[:-1] + "10"]
    assert dataset.sequence(first) == "scene0000", "another scan of a room is that room"
    sample = dataset.load(first)
    assert sample.left.shape == (3, 48, 96)
    np.testing.assert_allclose(sample.depth[0], near(0)[::2, ::2], atol=1e-3)
    assert (sample.camera.fx, sample.camera.fy, sample.camera.cx, sample.camera.cy) == (86.5, 86.5, 47.5, 23.5)
    assert np.isnan(dataset.load(first.replace("0000_00", "0001_00")).camera.fx)
    assert open_dataset(tmp_path).missing(first) == []
    save_levels(tmp_path / below / "scene0001_00" / "depth" / "0.png", near(2)[:, :90], 1000, np.uint16)
    with pytest.raises(InputError, match=r"expected depth of the colour image's shape, 192×96, at any size; got 90×96"):
        dataset.load(first.replace("0000_00", "0001_00"))
    save_text(tmp_path / below / "scene0000_00" / "intrinsic" / "intrinsic_depth.txt", "0 0 0\n")
    with pytest.raises(InputError, match=r"intrinsic_depth.txt: expected a 3×3 or 4×4 matrix"):
        open_dataset(tmp_path).load(first)
    save_levels(tmp_path / below / "scene0000_00" / "depth" / "0.png", near(0)[::2, ::2], 25.5, np.uint8)
    with pytest.raises(InputError, match=r"depth/0.png: expected 16-bit millimetres, got 8 bits"):
        open_dataset(tmp_path).load(first)


@pytest.mark.parametrize(
    "other",
    [
        MATRIX.format(173, 95.5, 47.5),  # of the colour images, or of depth before it was halved
        MATRIX.format(43, 23.5, 11.5),  # of depth at half of this size
        MATRIX.format(86.5, 47.5, 47.5),  # another shape
        MATRIX.format(577.87, 47.5, 23.5),
        MATRIX.format(20, 47.5, 23.5),
    ],
)
def test_a_matrix_of_other_depth_maps_is_refused(tmp_path: Path, other: str) -> None:
    first = write_scannet(tmp_path)
    matrix = tmp_path / "scene0000_00" / "intrinsic" / "intrinsic_depth.txt"
    save_text(matrix, other)
    message = (
        rf"{matrix}: fx {float(other.split()[0]):g}, .* are not of depth maps of 96×48 \(expected cx near 48, "
        r"cy near 24; nothing says what size it is of\): .*depthHeight = … of the matrix into scene0000_00.txt"
    )
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path).load(first)


def test_a_matrix_is_brought_to_the_depth_maps_where_its_size_is_told(tmp_path: Path) -> None:
    first = write_scannet(tmp_path)
    scene = tmp_path / "scene0000_00"
    save_text(scene / "scene0000_00.txt", "colorWidth = 1296\ndepthHeight = 480\ndepthWidth = 960\nfx_depth = 865\n")
    assert open_dataset(tmp_path).load(first).camera.fx == 86.5, "the matrix is of the maps as they are"
    save_text(scene / "intrinsic" / "intrinsic_depth.txt", MATRIX.format(865, 479.5, 239.5))
    camera = open_dataset(tmp_path).load(first).camera
    assert (camera.fx, camera.fy) == (86.5, 86.5)
    assert (camera.cx, camera.cy) == (47.5, 23.5), "(479.5 + 0.5) / 10 - 0.5: pixel centres are at whole numbers"
    for told, said in (("480", "960×480"), ("720", "960×720")):
        save_text(scene / "intrinsic" / "intrinsic_depth.txt", MATRIX.format(865, 479.5 + 480, float(told) / 2))
        save_text(scene / "scene0000_00.txt", f"depthHeight = {told}\ndepthWidth = 960\n")
        with pytest.raises(InputError, match=rf"scene0000_00.txt says depth of {said}"):
            open_dataset(tmp_path).load(first)
    report = examine(open_dataset(tmp_path), "scannet")
    assert any("scene0000_00.txt says depth" in where for f in report.findings for where in f.where)


@pytest.mark.parametrize(
    ("cx", "text", "fx"),
    [
        (53.5, "", None),  # of maps of 108 before they were brought to 96, and nothing says so
        (51.5, "depthWidth = 104\ndepthHeight = 52\n", 80 * 96 / 104),
        (47.5, "depthWidth = 104\ndepthHeight = 52\n", 80),  # the text was left behind
        (49.5, "depthWidth = 100\ndepthHeight = 50\n", 80 * 96 / 100),  # may be of either: the nearer
        (57.5, "depthWidth = 104\ndepthHeight = 52\n", None),
    ],
)
def test_a_matrix_is_of_the_size_in_whose_middle_its_principal_point_is(
    cx: float, text: str, fx: float | None, tmp_path: Path
) -> None:
    """A lens taken for one of 8 % more makes all depths of a network that scales by it 8 % too far."""
    first = write_scannet(tmp_path)
    scene = tmp_path / "scene0000_00"
    save_text(scene / "intrinsic" / "intrinsic_depth.txt", MATRIX.format(80, cx, cx / 2))
    if text:
        save_text(scene / "scene0000_00.txt", text)
    if fx is None:
        with pytest.raises(InputError, match=r"intrinsic_depth\.txt: fx 80, cx .* are not of depth maps of 96×48"):
            open_dataset(tmp_path).load(first)
        return
    camera = open_dataset(tmp_path).load(first).camera
    assert camera.fx == pytest.approx(fx)


def test_without_labels_the_pictures_alone_are_needed(tmp_path: Path) -> None:
    write_scannet(tmp_path)
    depth = tmp_path / "scene0000_00" / "depth"
    (depth / "0.png").write_bytes(b"nothing of a map")
    save_levels(depth / "10.png", near(1)[:, :90], 1000, np.uint16)
    with pytest.raises(InputError, match=r"depth/0\.png: not an image"):
        open_dataset(tmp_path)[0]
    dataset = open_dataset(tmp_path, truth=False)
    for index in range(2):
        assert dataset[index].left.shape == (3, *SIZE)
        assert dataset.image_size(index) == SIZE
        assert np.isnan(dataset[index].camera.fx)
    assert dataset[2].left.shape == (3, 48, 96)


@pytest.mark.parametrize("own", ["pose/0.txt", "intrinsic/intrinsic_color.txt", "intrinsics_depth.txt", "room.txt", ""])
def test_scannet_is_known_by_what_only_it_has(tmp_path: Path, own: str) -> None:
    """Redwood's, Open3D's and others' sequences have color/ and depth/ too, at other scales."""
    scene = tmp_path / "set" / "room"
    for index, frame in enumerate(scenes(size=SIZE)[:2]):
        save_image(scene / "color" / f"{index:05d}.jpg", frame.left)
        save_levels(scene / "depth" / f"{index:05d}.png", near(index), 5000, np.uint16)
    if own:
        save_text(scene / own, OWN)
        for root in (scene, tmp_path / "set"):
            assert isinstance(open_dataset(root), ScanNet)
        return
    for root in (scene, tmp_path / "set"):
        with pytest.raises(InputError, match=r"room/color and depth, as several sets have them .*layout scannet if"):
            open_dataset(root)
    assert isinstance(open_dataset(tmp_path / "set", "scannet"), ScanNet)
    (scene / "color").rename(scene / "rgb")
    with pytest.raises(InputError, match=r"room/rgb and depth, as several .*5000 for TUM's"):
        open_dataset(scene)
    save_text(tmp_path / "set" / "train.csv", "room/rgb/00000.jpg,room/depth/00000.png\n")
    with pytest.raises(InputError, match=r"found train.csv: if they are of image,depth, say what a metre is in .*toml"):
        open_dataset(tmp_path / "set")
    save_text(tmp_path / "set" / "depth.toml", "depth_scale = 5000\n")
    np.testing.assert_allclose(open_dataset(tmp_path / "set").load("room/rgb/00000").depth[0], near(0), atol=1e-3)


def test_nothing_there(tmp_path: Path) -> None:
    for layout in ("nyu_v2", "scannet"):
        with pytest.raises(InputError, match="no frame, expected folders of"):
            open_dataset(tmp_path, layout)
