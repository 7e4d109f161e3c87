"""DrivingStereo's parts and sizes, and its calibration's doubled baseline."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from adu_depth.data import DrivingStereo, open_dataset
from adu_depth.data.dataset import depth_disparity_product
from adu_depth.data.driving_stereo import read_calibration
from adu_depth.data.image_files import write_png16
from adu_depth.errors import InputError
from tests.data.trees import (
    BASELINE,
    SEQUENCES,
    depth_of,
    disparity_of,
    projection,
    row,
    scenes,
    write_driving_stereo,
)

PLACES = {
    "training": ("train-{}", "half", True),
    "test": ("test-{}-half-size", "half", True),
    "test, folders in folders": ("test-{0}/{0}-half-size", "half", True),
    "weather": ("{}-half-size", "half", False),
    "weather, folders in folders": ("{0}-half-size/{0}-half-size", "half", False),
    "full size": ("{}-full-size", "full", False),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_part(tmp_path: Path, place: str) -> None:
    part, size, nested = PLACES[place]
    names = write_driving_stereo(tmp_path, part, size, nested)
    dataset = open_dataset(tmp_path)
    assert isinstance(dataset, DrivingStereo)
    assert sorted(dataset.names) == sorted(names)
    assert {dataset.sequence(name) for name in names} == set(SEQUENCES)
    for index, scene in enumerate(scenes()):
        sample = dataset.load(names[index])
        assert (sample.right - scene.right).abs().mean() < 0.02, "JPEG of the right view"  # type: ignore[operator]
        assert sample.depth[0].numpy() == pytest.approx(depth_of(scene), abs=1 / 256)
        assert sample.disparity[0].numpy() == pytest.approx(disparity_of(scene), abs=1 / 128)
        assert sample.camera.baseline == pytest.approx(BASELINE, rel=1e-6), "|T_103|, not P_rect_103"
        assert depth_disparity_product(vars(sample), sample.camera) == pytest.approx(1, abs=0.005)


def test_a_part_is_never_guessed(tmp_path: Path) -> None:
    write_driving_stereo(tmp_path, "train-{}")
    write_driving_stereo(tmp_path, "test-{}")
    with pytest.raises(InputError, match=r"several parts; .*test-left-image, .*train-left-image"):
        open_dataset(tmp_path)
    dataset = open_dataset(tmp_path / "test-left-image")
    assert dataset[0].valid.any()
    assert "test-right-image" in str(dataset.files(dataset.names[0])["right"])


def test_the_inner_of_two_folders_may_be_named(tmp_path: Path) -> None:
    """Both sizes lie side by side in `test-left-image`; what belongs to the inner folder is outside of it."""
    write_driving_stereo(tmp_path, "test-{0}/{0}-half-size")
    write_driving_stereo(tmp_path, "test-{0}/{0}-full-size", "full")
    with pytest.raises(InputError, match=r"holds images of half and of full size"):
        open_dataset(tmp_path)
    for size in ("half", "full"):
        dataset = open_dataset(tmp_path / "test-left-image" / f"left-image-{size}-size")
        assert dataset.full_size == (size == "full")  # type: ignore[attr-defined]
        assert dataset[0].disparity[0].numpy() == pytest.approx(disparity_of(scenes()[0]), abs=1 / 128)


@pytest.mark.parametrize("place", ["", "calib", "train_calib", "../calib_train", "half-image-calib"])
def test_calibrations_where_copies_keep_them(tmp_path: Path, place: str) -> None:
    write_driving_stereo(tmp_path / "set")
    old, new = tmp_path / "set" / "half-image-calib", tmp_path / "set" / place / "half-image-calib"
    old.rename(tmp_path / "moved")
    new.parent.mkdir(exist_ok=True)
    (tmp_path / "moved").rename(new)
    assert open_dataset(tmp_path / "set")[0].camera.baseline == pytest.approx(BASELINE)


def test_either_map_is_enough(tmp_path: Path) -> None:
    write_driving_stereo(tmp_path)
    both = open_dataset(tmp_path)[0]
    (tmp_path / "train-depth-map").rename(tmp_path / "kept")
    from_disparity = open_dataset(tmp_path)[0]
    assert torch.allclose(from_disparity.depth, both.depth, rtol=0.02)
    (tmp_path / "kept").rename(tmp_path / "train-depth-map")
    shutil.rmtree(tmp_path / "train-disparity-map")
    assert torch.allclose(open_dataset(tmp_path)[0].disparity, both.disparity, rtol=0.02, atol=0.02)
    shutil.rmtree(tmp_path / "train-depth-map")
    dataset = open_dataset(tmp_path)
    assert [p.parent.parent.name for p in dataset.missing(dataset.names[0])] == ["train-depth-map"]
    with pytest.raises(InputError, match=r"train-depth-map\S*: cannot be read"):
        dataset[0]


def test_views_with_principal_points_of_their_own(tmp_path: Path) -> None:
    """depth = f·B / (disparity + cx of the right view − cx of the left one)."""
    camera = scenes()[0].camera
    right = projection(camera, -2 * BASELINE)
    right[0, 2] += 6.0
    text = row("T_103", (-BASELINE, 0, 0)) + row("P_rect_101", projection(camera, 0)) + row("P_rect_103", right)
    (tmp_path / "calib.txt").write_text(text)
    found = read_calibration(tmp_path / "calib.txt")
    assert found.disparity_offset == pytest.approx(6.0, abs=1e-4)
    assert (found.cx, found.baseline) == pytest.approx((float(camera.cx), BASELINE), abs=1e-4)


def test_maps_and_calibration_that_disagree_are_refused(tmp_path: Path) -> None:
    """As if P_rect_103 had been taken, or the maps of the other size."""
    names = write_driving_stereo(tmp_path)
    calibration = tmp_path / "half-image-calib" / f"{SEQUENCES[0]}.txt"
    good = calibration.read_text()
    calibration.write_text(re.sub(r"T_103: \S+", f"T_103: {-2 * BASELINE}", good))
    with pytest.raises(InputError, match=r"depth · disparity is 0.50 times f·B of \S*2018-07-09-16-11-56.txt, not 1"):
        open_dataset(tmp_path)[0]
    calibration.write_text(good)
    write_png16(tmp_path / "train-disparity-map" / f"{names[0]}.png", disparity_of(scenes()[0]), 128.0)
    with pytest.raises(InputError, match=r"is 0.50 times f·B"):
        open_dataset(tmp_path)[0]
    calibration.write_text("P_rect_101: 1\n")
    with pytest.raises(InputError, match=rf"{SEQUENCES[0]}.txt: P_rect_101 needs 3×4"):
        open_dataset(tmp_path)[0]
