"""Ground truth that is left aside is not read, in any layout: it may be of another scale, broken or gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from adu_depth.data import LAYOUTS, open_dataset
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.dataset import TRUTH_FILES
from adu_depth.data.image_files import read_image, write_png16
from adu_depth.data.rgbd import UNKNOWN_CAMERA
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.inference import write_samples
from adu_depth.training.sources import open_samples
from tests.data.pack_files import pack, write_kitti, write_middlebury, write_object
from tests.data.test_indoor import write_nyu, write_scannet
from tests.data.test_rgbd import write_folders, write_lists
from tests.data.trees import scenes, write_driving_stereo, write_kitti_depth, write_kitti_raw


def write_rig(root: Path) -> None:
    write_samples(scenes(), root, 2)  # type: ignore[arg-type]
    for index, path in enumerate(sorted((root / "left").iterdir())):
        write_png16(root / "sparse_depth" / path.name, np.full(scenes()[index].left.shape[-2:], 4.0))
        cv2.imwrite(str(root / "occluded" / path.name), np.zeros(scenes()[index].left.shape[-2:], np.uint8))


def write_packed(root: Path) -> None:
    write_kitti(root.parent / "source", 2)
    pack(root.parent / "source", root)


def write_kitti_2012(root: Path) -> None:
    write_kitti(root, 2)
    names = (("image_2", "colored_0"), ("image_3", "colored_1"), ("disp_noc_0", "disp_noc"), ("disp_occ_0", "disp_occ"))
    for before, after in (*names, ("calib_cam_to_cam", "calib")):
        (root / "training" / before).rename(root / "training" / after)
    for file in (root / "training" / "calib").iterdir():
        file.write_text(file.read_text().replace("P_rect_02", "P2").replace("P_rect_03", "P3"))


TREES: dict[str, tuple[Callable[[Path], object], str]] = {
    "kitti2015": (lambda root: write_kitti(root, 2), ""),
    "kitti2012": (write_kitti_2012, ""),
    "kitti_object": (write_object, ""),
    "middlebury": (write_middlebury, ""),
    "eth3d": (lambda root: (root / "two_view_training").mkdir(parents=True) or write_middlebury(
        root / "two_view_training" / "scene"), ""),
    "kitti_eigen": (lambda root: write_kitti_raw(root, root), ""),
    "kitti_depth": (write_kitti_depth, "depth_selection/val_selection_cropped"),
    "driving_stereo": (write_driving_stereo, ""),
    "packed": (write_packed, ""),
    "rgbd": (lambda root: write_lists(root), "data"),
    "rgbd in folders": (lambda root: write_folders(root), ""),
    "nyu_v2": (write_nyu, ""),
    "scannet": (write_scannet, ""),
    "rig": (write_rig, ""),
}  # fmt: skip


def test_every_layout_with_ground_truth_is_here() -> None:
    assert {name.split()[0] for name in TREES} == {layout.name for layout in LAYOUTS} - {"pictures"}


@pytest.mark.parametrize("name", TREES)
def test_it_is_not_read(name: str, tmp_path: Path) -> None:
    write, below = TREES[name]
    write(tmp_path / "set")
    root, layout = tmp_path / "set" / below, name.split()[0]
    whole = open_dataset(root, layout, together=True)
    expected = whole[0]
    assert bool(expected.valid.any())
    broken = [path for role, path in whole.files(whole.names[0]).items() if role in TRUTH_FILES and role != "scale"]
    for path in broken:  # the size of ScanNet's stands in their first bytes
        path.write_bytes(path.read_bytes()[:70])
    if layout != "packed":
        with pytest.raises(InputError):
            open_dataset(root, layout, together=True)[0]
    again = open_dataset(root, layout, truth=False, together=True)
    found = again[0]
    for view in ("left", "right"):
        one, other = getattr(expected, view), getattr(found, view)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert repr(found.camera) == repr(expected.camera)
    assert found.left.shape[-2:] == found.depth.shape[-2:] == found.disparity.shape[-2:] == found.valid.shape[-2:]
    assert not found.valid.any()
    assert not found.depth.any()
    assert not found.disparity.any()
    assert found.occluded is None
    assert found.sparse_depth is None
    if layout == "scannet":  # its image is of the depth's size, and has a size of its own without
        expected = StereoSample(
            read_image(whole.files(whole.names[0])["left"]), None, *[torch.zeros(1)] * 3, UNKNOWN_CAMERA
        )
    for path in broken:
        path.write_bytes(b"")
    empty = open_dataset(root, layout, truth=False, together=True)
    assert layout == "packed" or torch.equal(empty[0].left, expected.left)
    for path in broken:
        path.unlink()
    gone = open_dataset(root, layout, truth=False, together=True)
    assert gone.missing(gone.names[0]) == []
    assert torch.equal(gone[0].left, expected.left)
    assert gone.image_size(0) == tuple(expected.left.shape[-2:])


def test_a_window_of_a_pack_reads_none_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packed(tmp_path / "set")
    dataset = open_dataset(tmp_path / "set", truth=False)
    expected = open_dataset(tmp_path / "set").window(0, 4, 8, 16, 32)  # type: ignore[attr-defined]
    monkeypatch.setattr("adu_depth.data.packed.encoding._decode_points", None)
    monkeypatch.setattr("adu_depth.data.packed.encoding._decode_map", None)
    found = dataset.window(0, 4, 8, 16, 32)  # type: ignore[attr-defined]
    assert torch.equal(found.left, expected.left)
    assert found.camera == expected.camera
    assert found.depth.shape == (1, 16, 32)
    assert not found.valid.any()


def test_labels_false_leaves_another_copys_depth_alone(tmp_path: Path) -> None:
    """NYU-v2 whose depth has 8 bits: with labels nobody knows its scale, without nobody asks."""
    write_nyu(tmp_path / "nyu")
    write_samples(scenes(), tmp_path / "pairs", 4)  # type: ignore[arg-type]
    for path in (tmp_path / "nyu").rglob("*.png"):
        cv2.imwrite(str(path), np.full((96, 192), 40, np.uint8))
    source = SourceConfig(str(tmp_path / "nyu"), 0.5, labels=False)
    data = DataConfig(root=str(tmp_path / "pairs"), mix=(source,), size=(32, 64))
    samples = open_samples(data, torch.device("cpu"))
    assert len(samples) == 8
    assert not samples[7].valid.any()
    with pytest.raises(InputError, match=r"expected 16-bit millimetres, got 8 bits"):
        open_samples(
            DataConfig(root=data.root, mix=(SourceConfig(source.root, 0.5),), size=(32, 64)), torch.device("cpu")
        )[7]
