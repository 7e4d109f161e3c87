"""The doctor on captured pairs: silent on them as they are, outspoken on copies with a planted fault."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adu_depth.data.image_files import read_pfm, read_png16, write_pfm, write_png16
from adu_depth.doctor import ERROR, WARNING
from tests.doctor.test_doctor import diagnose, levels, text_of

SETS = ("kitti2015", "kitti_object", "eth3d", "middlebury_motorcycleQ")
FRAME = "000010_10"
KITTI_FILES = ("image_2/{}.png", "image_3/{}.png", "disp_noc_0/{}.png")


@pytest.mark.parametrize("name", SETS)
def test_everything_is_right_as_it_is(real_stereo: Path, name: str) -> None:
    report = diagnose(real_stereo / name, samples=3)
    assert report.exit_code == 0
    assert not report.count(ERROR) + report.count(WARNING), report.findings
    found = levels(report)
    assert all(found[check] == "OK" for check in ("order of views", "rows", "scale", "sign", "calibration", "depths"))


@pytest.fixture
def copy(real_stereo: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy to spoil: one frame of KITTI 2015, the others whole."""

    def make(name: str) -> Path:
        if name != "kitti2015":
            return Path(shutil.copytree(real_stereo / name, tmp_path / name))
        for pattern in KITTI_FILES:
            target = tmp_path / name / "training" / pattern.format(FRAME)
            target.parent.mkdir(parents=True)
            shutil.copy(real_stereo / name / "training" / pattern.format(FRAME), target)
        shutil.copytree(real_stereo / "kitti_calib", tmp_path / name / "kitti_calib")
        return tmp_path / name

    return make


VIEWS = {
    "kitti2015": (f"training/image_2/{FRAME}.png", f"training/image_3/{FRAME}.png"),
    "kitti_object": ("left.png", "right.png"),
    "eth3d": ("terrace/im0.png", "terrace/im1.png"),
    "middlebury_motorcycleQ": ("im0.png", "im1.png"),
}


@pytest.mark.parametrize("name", SETS)
def test_swapped_views(copy: Callable[[str], Path], name: str) -> None:
    root = copy(name)
    left, right = (root / view for view in VIEWS[name])
    left.rename(root / "kept.png")
    right.rename(left)
    (root / "kept.png").rename(right)
    report = diagnose(root)
    assert re.search(r"left and right are swapped in 1 of 1 pairs .*exchange", text_of(report, "order of views"))
    assert report.exit_code == 1


@pytest.mark.parametrize(("factor", "reason"), [(2.0, "full-size"), (1 / 256, "without their factor of 256")])
def test_wrong_scale_of_kitti(copy: Callable[[str], Path], factor: float, reason: str) -> None:
    root = copy("kitti2015")
    path = root / "training" / "disp_noc_0" / f"{FRAME}.png"
    write_png16(path, read_png16(path) * factor)
    report = diagnose(root)
    assert re.search(rf"times the stored one in 1 of 1 frames \| {FRAME} .*{reason}", text_of(report, "scale"))
    assert levels(report)["sign"] == ERROR
    assert report.exit_code == 1


@pytest.mark.parametrize("name", ["eth3d/terrace/disp0.pfm", "middlebury_motorcycleQ/disp0GT.pfm"])
def test_wrong_scale_of_a_pfm(copy: Callable[[str], Path], name: str) -> None:
    folder, _, file = name.partition("/")
    root = copy(folder)
    write_pfm(root / file, read_pfm(root / file) / 2)
    assert re.search(r"is 2(\.0\d)? times the stored one", text_of(diagnose(root), "scale"))


def test_wrong_baseline_of_kitti_2015(copy: Callable[[str], Path]) -> None:
    """Nothing but disparities: only that the cameras are known can tell."""
    root = copy("kitti2015")
    table = root / "kitti_calib" / "kitti2015_frames.csv"
    table.write_text(table.read_text().replace("0.532725", "1.06545"))
    report = diagnose(root)
    assert "baseline 1.065 m, but this data set's cameras are 0.52 to 0.55 m apart" in text_of(report, "calibration")
    assert report.exit_code == 1


def test_wrong_baseline_beside_a_scanner(copy: Callable[[str], Path]) -> None:
    """P3's offset, as the grey cameras have it: the scanner's depths say which f·B the images show."""
    root = copy("kitti_object")
    file = root / "calib.txt"
    file.write_text(file.read_text().replace("-3.395242000000e+02", "-1.200000000000e+02"))
    report = diagnose(root)
    said = text_of(report, "scale")
    needed = re.search(r"times f·B / depth in 1 of 1 .*these depths need f·B = (\d+\.\d) px·m", said)
    assert needed, said
    assert float(needed[1]) == pytest.approx(384.4, rel=0.02)
    assert levels(report)["calibration"] == ERROR


def test_truncated_and_missing_files(copy: Callable[[str], Path]) -> None:
    root = copy("kitti2015")
    image = root / "training" / "image_2" / f"{FRAME}.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:-20])
    report = diagnose(root)
    assert re.search(rf"cut short: 1 file \| \S*image_2/{FRAME}.png \| copy", text_of(report, "file ends"))
    assert report.exit_code == 2, "no other frame is left"
    image.write_bytes(whole)
    (root / "training" / "image_3" / f"{FRAME}.png").unlink()
    assert re.search(rf"1 right file missing, of 1 pair \| \S*image_3/{FRAME}.png", text_of(diagnose(root), "files"))
