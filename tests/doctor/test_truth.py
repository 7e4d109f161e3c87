"""Nothing to learn from is an error, and the doctor says why; and it lists what the images' decoders remark on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from adu_depth.data.image_files import read_png16, write_pfm
from adu_depth.data.packed.command import PackConfig, run_pack
from adu_depth.doctor import ERROR, OK, WARNING
from adu_depth.inference.render import write_samples
from tests.data.test_image_formats import with_bad_profile
from tests.data.trees import scenes
from tests.doctor.test_doctor import diagnose, levels, text_of


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    write_samples(scenes(2), tmp_path, 2)
    for role in ("sparse_depth", "occluded"):
        for path in (tmp_path / role).iterdir():
            path.unlink()
        (tmp_path / role).rmdir()
    return tmp_path


def rewrite(root: Path, role: str, write: Callable[[Path, np.ndarray], object]) -> None:
    for path in sorted((root / role).glob("*.png")):
        values = read_png16(path)
        path.unlink()
        write(path, values)


def drop(root: Path, *roles: str) -> None:
    for role in roles:
        rewrite(root, role, lambda path, values: None)


def test_maps_that_nothing_reads_are_no_truth(rig: Path) -> None:
    drop(rig, "disparity")
    rewrite(rig, "depth", lambda path, values: cv2.imwrite(str(path.with_suffix(".tif")), values))
    report = diagnose(rig)
    assert levels(report)["ground truth"] == ERROR
    assert "0 of 2 frames have ground truth" in text_of(report, "ground truth")
    assert ".png, .pfm or .npy" in text_of(report, "ground truth")
    assert "depth/000000.tif" in text_of(report, "unused files")
    assert report.exit_code == 1


def test_pairs_without_truth_are_usable(rig: Path) -> None:
    for role in ("depth", "disparity"):
        shutil.rmtree(rig / role, ignore_errors=True)
    report = diagnose(rig)
    assert levels(report)["ground truth"] == WARNING
    assert "adu-depth adapt" in text_of(report, "ground truth")
    assert report.exit_code == 0


def test_a_pack_of_pairs_without_truth_is_usable_and_one_of_single_images_is_not(rig: Path) -> None:
    for role in ("depth", "disparity"):
        shutil.rmtree(rig / role, ignore_errors=True)
    run_pack(PackConfig(rig, rig / "pack"), lambda text: None)
    report = diagnose(rig / "pack")
    assert levels(report)["ground truth"] == WARNING
    assert "adu-depth adapt" in text_of(report, "ground truth")
    assert report.exit_code == 0
    (rig / "left").rename(rig / "photos")
    run_pack(PackConfig(rig / "photos", rig / "single", layout="pictures"), lambda text: None)
    assert levels(diagnose(rig / "single"))["ground truth"] == ERROR


WRONG = {
    "negative": (lambda v: -v, r"100% of the values are negative"),
    "NaN": (lambda v: np.full_like(v, np.nan), r"100% of the values are NaN"),
    "zero": (np.zeros_like, "every value is 0 or infinite"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("suffix", [".npy", ".pfm"])
def test_maps_without_a_known_value_are_an_error(kind: str, suffix: str, rig: Path) -> None:
    change, told = WRONG[kind]
    drop(rig, "depth")

    def write(path: Path, values: np.ndarray) -> None:
        wrong = np.where(values > 0, change(values), change(np.ones_like(values))).astype(np.float32)
        if suffix == ".npy":
            np.save(path.with_suffix(".npy"), wrong)
        else:
            write_pfm(path.with_suffix(".pfm"), wrong)

    rewrite(rig, "disparity", write)
    report = diagnose(rig)
    assert levels(report)["depths"] == ERROR
    assert f"no pixel is known in 2 maps: {told}" in text_of(report, "depths")
    assert report.exit_code == 1
    if kind == "negative":
        assert "store them with the other sign" in text_of(report, "map values")


def test_some_negative_values_are_named_and_nan_is_a_mark_for_unknown(rig: Path) -> None:
    drop(rig, "depth")

    def write(path: Path, values: np.ndarray) -> None:
        values[0, :48], values[-1, :] = -1.0, np.nan
        np.save(path.with_suffix(".npy"), values)

    rewrite(rig, "disparity", write)
    report = diagnose(rig)
    assert levels(report)["map values"] == WARNING
    assert "negative values in disparity of 2 frames, 0% of the pixels" in text_of(report, "map values")
    assert levels(report)["depths"] == OK
    assert report.exit_code == 0


def test_decoders_remarks_are_listed_with_their_files(rig: Path) -> None:
    assert "decoders" not in levels(diagnose(rig))
    for name in ("000000", "000001"):
        path = rig / "right" / f"{name}.png"
        path.write_bytes(with_bad_profile(path.read_bytes()))
    report = diagnose(rig)
    assert levels(report)["decoders"] == WARNING
    for name in ("000000", "000001"):
        assert f"right/{name}.png: libpng warning: sRGB" in text_of(report, "decoders")


def test_a_motion_photo_has_its_end(rig: Path) -> None:
    for view in ("left", "right"):
        for path in (rig / view).glob("*.png"):
            cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 100])
            path.unlink()
    photo = rig / "left" / "000000.jpg"
    photo.write_bytes(photo.read_bytes() + b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x08" * 5000)
    assert levels(diagnose(rig))["file ends"] == OK
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 4])
    assert levels(diagnose(rig))["file ends"] == ERROR
