"""The doctor finds healthy data sets healthy, and names each planted fault, its files and what to do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from adu_depth.cli import main
from adu_depth.data import open_dataset
from adu_depth.data.image_files import read_png16, write_png16
from adu_depth.data.layouts import find_layout
from adu_depth.doctor import ERROR, OK, WARNING, Report, examine
from adu_depth.inference.render import write_samples
from tests.data.trees import scenes, write_driving_stereo, write_kitti_depth, write_kitti_raw

BIG = (128, 416)  # enough corners for the doctor to look at rows as well


def diagnose(root: Path, **options: object) -> Report:
    layout = find_layout(root).name
    return examine(open_dataset(root, layout), layout, **options)  # type: ignore[arg-type]


def levels(report: Report) -> dict[str, str]:
    """Check → its worst level."""
    order = ["skipped", OK, WARNING, ERROR]
    found: dict[str, str] = {}
    for finding in report.findings:
        found[finding.check] = max(found.get(finding.check, "skipped"), finding.level, key=order.index)
    return found


def text_of(report: Report, check: str) -> str:
    return "\n".join(
        f"{f.text} | {' '.join(f.where)} | {f.advice}" for f in report.findings if f.check == check and f.level != OK
    )


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("healthy")
    write_samples(scenes(3, BIG), root, 3)
    return root


@pytest.fixture
def rig(healthy: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(healthy, tmp_path / "rig"))


def scale_maps(folder: Path, factor: float) -> None:
    for path in folder.glob("*.png"):
        write_png16(path, read_png16(path) * factor)


def test_a_healthy_rig(healthy: Path) -> None:
    report = diagnose(healthy)
    assert set(levels(report).values()) == {OK}, report.findings
    assert {"files", "file ends", "reading", "order of views", "rows", "scale", "depth × disparity", "sign"} <= set(
        levels(report)
    )
    assert "sparse depth" in levels(report)
    assert report.exit_code == 0
    assert report.looked_at == 3


def swap(root: Path) -> None:
    (root / "left").rename(root / "other")
    (root / "right").rename(root / "left")
    (root / "other").rename(root / "right")


def swap_one(root: Path) -> None:
    one, other = (root / side / "000001.png" for side in ("left", "right"))
    one.rename(root / "kept.png")
    other.rename(one)
    (root / "kept.png").rename(other)


def edit_camera(pattern: str, value: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        file = root / "camera.toml"
        text, count = re.subn(pattern, value, file.read_text())
        assert count == 1
        file.write_text(text)

    return change


def break_link(root: Path) -> None:
    path = root / "right" / "000001.png"
    path.unlink()
    path.symlink_to(root / "moved" / "000001.png")


def truncate(folder: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        file = root / folder / "000002.png"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return change


def flip_a_byte(root: Path) -> None:
    file = root / "left" / "000002.png"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x55
    file.write_bytes(bytes(data))


def move_rows(root: Path) -> None:
    for path in (root / "right").glob("*.png"):
        cv2.imwrite(str(path), np.roll(cv2.imread(str(path)), 3, axis=0))


def same_views(root: Path) -> None:
    shutil.copy(root / "left" / "000001.png", root / "right" / "000001.png")


def only_disparity(root: Path) -> None:
    shutil.rmtree(root / "depth")


def only_depth(root: Path) -> None:
    shutil.rmtree(root / "disparity")


def shrink_right(root: Path) -> None:
    path = root / "right" / "000000.png"
    cv2.imwrite(str(path), cv2.imread(str(path))[:, 1:])


def without_256(root: Path) -> None:
    only_depth(root)
    scale_maps(root / "depth", 1 / 256)


def of_another_frame(root: Path) -> None:
    """Neighbouring frames' maps: no scale is wrong, but nothing fits."""
    for role in ("depth", "disparity"):
        shutil.copy(root / role / "000000.png", root / role / "000002.png")


FAULTS: dict[str, tuple[list[Callable[[Path], None]], str, str]] = {
    "swapped": ([swap], "order of views", r"swapped in 3 of 3 pairs .*exchange the two folders"),
    "one swapped": ([swap_one], "order of views", r"swapped in 1 of 3 pairs \| 000001 \|"),
    "swapped, no truth": (
        [swap, only_depth, lambda root: shutil.rmtree(root / "depth")],
        "order of views",
        r"swapped in 3 of 3",
    ),
    "identical": ([same_views], "order of views", r"twice the same picture in 1 pair \| 000001"),
    "double disparity": (
        [only_disparity, lambda root: scale_maps(root / "disparity", 2)],
        "scale",
        r"is 0\.(5|49\d) times the stored one in 3 of 3 .*full-size disparities with half-size images",
    ),
    "half disparity": (
        [only_disparity, lambda root: scale_maps(root / "disparity", 0.5)],
        "scale",
        r"is (2|1\.99) times the stored one .*half-size disparities with full-size images",
    ),
    "depth without 256": ([without_256], "depths", r"unlike scenes in metres: 3 frames.*value / 256"),
    "depth in centimetres": (
        [only_depth, lambda root: scale_maps(root / "depth", 0.01)],
        "scale",
        r"times f·B / depth in 3 of 3 .*a baseline in centimetres",
    ),
    "baseline": ([only_depth, edit_camera("baseline = .*", "baseline = 0.8")], "scale", r"need f·B = 12\d\.\d px·m"),
    "baseline, both maps": (
        [edit_camera("baseline = .*", "baseline = 0.8")],
        "depth × disparity",
        r"is 0.665 times f·B in 3 of 3 .*baseline would be 0.53\d m",
    ),
    "baseline in mm": (
        [edit_camera("baseline = .*", "baseline = 532")],
        "calibration",
        r"baseline is not from .*metres",
    ),
    "focal length": (
        [only_depth, edit_camera("(?m)^fx = .*", "fx = 4.0")],
        "calibration",
        r"field of view outside .*fx in pixels of these images",
    ),
    "principal point": ([edit_camera("cx = .*", "cx = 609.6")], "calibration", r"principal point is far"),
    "LiDAR in other units": ([lambda r: scale_maps(r / "sparse_depth", 0.5)], "sparse depth", r"0.5 times the dense"),
    "rows": ([move_rows], "rows", r"up to 3.0 px between the views' rows in 3 pairs .*rectify"),
    "truncated image": ([truncate("right")], "file ends", r"cut short: 1 file \| \S*right/000002.png \| copy"),
    "truncated map": ([truncate("depth")], "file ends", r"\S*depth/000002.png"),
    "broken within": ([flip_a_byte], "reading", r"1 of 3 frames .*left/000002.png: the PNG image is dam"),
    "missing right": (
        [lambda root: (root / "right" / "000001.png").unlink()],
        "files",
        r"1 right file missing, of 3 pairs \| \S*right/000001.png \| .*skip-missing",
    ),
    "broken link": ([break_link], "files", r"1 right file missing, of 3 pairs \| \S*right/000001.png"),
    "sizes within a pair": ([shrink_right], "reading", r"must have one size .*right/000000.png"),
    "map of another frame": ([of_another_frame], "sign", r"1 of 3 pairs .*\| 000002 \|"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(rig: Path, fault: str) -> None:
    changes, check, message = FAULTS[fault]
    for change in changes:
        change(rig)
    report = diagnose(rig)
    found = text_of(report, check)
    assert re.search(message, found), (found, report.findings)
    assert levels(report)[check] == (WARNING if fault == "principal point" else ERROR)
    assert report.exit_code == (0 if fault == "principal point" else 1)
    if check in ("files", "file ends"):
        assert levels(report)["reading"] == OK, "named once"


def test_some_frames_without_ground_truth_are_a_warning(rig: Path) -> None:
    for role in ("depth", "disparity"):
        (rig / role / "000001.png").unlink()
    shutil.rmtree(rig / "sparse_depth")
    report = diagnose(rig)
    assert levels(report)["ground truth"] == WARNING
    assert "2 of 3 frames have ground truth | 000001 |" in text_of(report, "ground truth")
    assert report.exit_code == 0


def test_files_that_no_frame_reads_are_named(rig: Path) -> None:
    """Maps of other names or endings, and right images without a left one, would be passed over without a word."""
    (rig / "left" / "000002.png").unlink()
    (rig / "depth" / "000000.png").rename(rig / "depth" / "0.png")
    (rig / "disparity" / "000000.png").rename(rig / "disparity" / "000000.tif")
    (rig / "disparity" / "000001.png").rename(rig / "disparity" / "000001.PNG")
    (rig / "depth" / ".DS_Store").touch()
    report = diagnose(rig)
    assert levels(report)["unused files"] == WARNING
    (finding,) = (f for f in report.findings if f.check == "unused files")
    mine = {str(Path(where).relative_to(rig)) for where in finding.where}
    gone = {f"{role}/000002.png" for role in ("right", "depth", "disparity", "sparse_depth", "occluded")}
    assert mine == gone | {"depth/0.png", "disparity/000000.tif"}
    assert finding.text == "7 files without a left image"
    assert report.exit_code == 0


def test_pairs_without_any_ground_truth_are_still_looked_at(rig: Path) -> None:
    for folder in ("depth", "disparity", "sparse_depth", "occluded"):
        shutil.rmtree(rig / folder)
    found = levels(diagnose(rig))
    assert found["order of views"] == found["rows"] == OK
    assert found["scale"] == found["sign"] == found["depth × disparity"] == "skipped"


def test_a_rig_with_a_lidar_alone_is_told_where_its_maps_count(rig: Path) -> None:
    for folder in ("depth", "disparity", "occluded"):
        shutil.rmtree(rig / folder)
    (finding,) = (f for f in diagnose(rig).findings if f.check == "ground truth")
    assert finding.text == "0 of 3 frames have ground truth to evaluate on, 3 have sparse depth to train on"
    assert finding.advice == "maps of a LiDAR may lie in depth/ instead: they are then used for both"


def test_other_layouts_in_health(tmp_path: Path) -> None:
    write_kitti_raw(tmp_path / "raw", tmp_path / "raw")
    write_kitti_depth(tmp_path / "depth")
    write_driving_stereo(tmp_path / "driving")
    for root in (
        tmp_path / "raw",
        tmp_path / "driving",
        tmp_path / "depth" / "depth_selection" / "val_selection_cropped",
        tmp_path / "depth" / "depth_selection" / "test_depth_prediction_anonymous",
    ):
        report = diagnose(root)
        assert report.exit_code == 0, report.findings
        assert levels(report)["calibration"] == OK
    assert "pairs" in levels(report), "single images"


def test_a_wrong_baseline_of_known_cameras_needs_no_ground_truth(tmp_path: Path) -> None:
    write_kitti_raw(tmp_path, tmp_path)
    shutil.rmtree(tmp_path / "2011_09_26_drive_0001_sync")
    shutil.rmtree(tmp_path / "2011_09_26_drive_0002_sync")
    file = tmp_path / "2011_09_26" / "calib_cam_to_cam.txt"
    lines = file.read_text().splitlines()
    parts = lines[-1].split()
    parts[4] = f"{2 * float(parts[4]):e}"
    file.write_text("\n".join([*lines[:-1], " ".join(parts)]) + "\n")
    report = diagnose(tmp_path)
    assert re.search(
        r"4 frames: baseline 1\.\d+ m, but this data set's cameras are 0.52 to 0.55 m", text_of(report, "calibration")
    )
    assert report.exit_code == 1


def test_few_samples_still_look_for_every_file(rig: Path) -> None:
    truncate("left")(rig)
    flip_a_byte(Path(shutil.copytree(rig, rig.parent / "second")))
    assert "000002" in text_of(diagnose(rig, samples=1), "file ends")
    spoiled = rig.parent / "third"
    write_samples(scenes(3, BIG), spoiled, 3)
    flip_a_byte(spoiled)
    assert diagnose(spoiled, samples=1).exit_code == 0
    assert "000002" in text_of(diagnose(spoiled, samples=1, every_file=True), "reading")


# ---- the commands ----


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


def test_the_command_and_its_exit_codes(rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", rig, "--samples", "2") == 0
    assert "0 errors, 0 warnings; 2 of 3 frames compared" in capsys.readouterr().out
    (rig / "right" / "000001.png").unlink()
    assert run("doctor", rig, "--json", tmp_path / "report.json") == 1
    assert "right/000001.png" in re.sub(r"[\s│]", "", capsys.readouterr().out)
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["layout"], found["frames"], found["errors"]) == ("rig", 3, 1)
    (missing,) = [f for f in found["findings"] if f["level"] == "error"]
    assert missing["check"] == "files"
    assert missing["where"] == [str(rig / "right" / "000001.png")]
    for path in (rig / "right").iterdir():
        path.unlink()
    assert run("doctor", rig) == 2
    assert run("doctor", tmp_path / "nowhere") == 2
    assert run("doctor", rig, "--samples", "0") == 2


def test_splits_then_doctor_on_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_driving_stereo(tmp_path / "set")
    (tmp_path / "set" / "train-right-image" / f"{names[0]}.jpg").unlink()
    assert run("splits", tmp_path / "set", "--output", tmp_path / "lists", "--validation", "0.5") == 0
    said = capsys.readouterr().out
    assert "skipped for missing files: 1" in said
    assert "of 1 sequence " in said
    lists = {part: (tmp_path / "lists" / f"{part}.txt").read_text().split() for part in ("train", "val")}
    assert sorted(lists["train"] + lists["val"]) == names[1:]
    assert run("doctor", tmp_path / "set") == 1
    assert run("doctor", tmp_path / "set", "--split", tmp_path / "lists" / "val.txt") == 0
    assert run("splits", tmp_path / "set", "--output", tmp_path / "lists", "--validation", "2") == 2


def test_a_list_with_missing_frames_is_looked_through_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """BTS's lists name what some download lacks: all of it is reported, not the first line."""
    names = write_kitti_raw(tmp_path / "raw", tmp_path / "raw")
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names))
    for name in names[:2]:
        (tmp_path / "raw" / name.replace("image_02", "image_03/data")).with_suffix(".png").unlink()
    with pytest.raises(SystemExit) as stopped:
        main(
            ["doctor", str(tmp_path / "raw"), "--split", str(tmp_path / "list.txt"), "--json", str(tmp_path / "j.json")]
        )
    assert stopped.value.code == 1
    (fault,) = (f for f in json.loads((tmp_path / "j.json").read_text())["findings"] if f["check"] == "files")
    assert fault["text"] == "2 right files missing, of 4 pairs"
    assert len(fault["where"]) == 2
    (tmp_path / "list.txt").write_text("nonsense\n")
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", str(tmp_path / "raw"), "--split", str(tmp_path / "list.txt")])
    assert stopped.value.code == 2
    assert "list.txt, line 1: expected" in " ".join(capsys.readouterr().err.split())
    write_samples(scenes(), tmp_path / "rig", 2)
    (tmp_path / "list.txt").write_text("000000\n000007\n")
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", str(tmp_path / "rig"), "--split", str(tmp_path / "list.txt")])
    assert stopped.value.code == 2
    assert "list.txt, line 2: no frame '000007'" in " ".join(capsys.readouterr().err.split())


def test_splits_of_labelled_frames(tmp_path: Path) -> None:
    names = write_kitti_raw(tmp_path / "raw", tmp_path / "raw")
    arguments = ("splits", tmp_path / "raw", "--output", tmp_path / "lists", "--validation", "0.4")
    assert run(*arguments, "--labelled-only") == 0
    lists = [name for part in ("train", "val") for name in (tmp_path / "lists" / f"{part}.txt").read_text().split()]
    assert sorted(lists) == names[:3]


def test_a_pack_is_looked_at_like_what_was_packed(healthy: Path, tmp_path: Path) -> None:
    assert run("pack", healthy, "--output", tmp_path / "pack") == 0
    report = diagnose(tmp_path / "pack")
    assert report.exit_code == 0, report.findings
    found = levels(report)
    assert found["order of views"] == found["scale"] == found["sign"] == OK
    assert report.frames == 3
