"""KITTI's raw recordings as the Eigen split reads them: every split format, every ground-truth root."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from adu_depth.data import KittiRaw, open_dataset
from adu_depth.data.image_files import write_png16
from adu_depth.errors import InputError
from adu_depth.geometry import depth_to_disparity
from tests.data.trees import (
    BASELINE,
    DATE,
    DRIVES,
    SIZE,
    depth_of,
    projection,
    row,
    save_image,
    scenes,
    write_kitti_raw,
)

TRUTH = "proj_depth/groundtruth/image_02"
FORMS = ("{drive}", "{date}/{drive}", "{part}/{drive}")


@pytest.mark.parametrize("form", FORMS)
def test_all_three_ground_truth_roots(tmp_path: Path, form: str) -> None:
    names = write_kitti_raw(tmp_path / "raw", tmp_path / "gt", form)
    dataset = open_dataset(tmp_path / "raw", ground_truth=tmp_path / "gt")
    assert isinstance(dataset, KittiRaw)
    assert dataset.names == names
    for index in range(3):
        assert dataset[index].depth[0].numpy() == pytest.approx(depth_of(scenes()[index]), abs=1 / 256)
    last = dataset[3]
    assert not last.valid.any()
    assert not last.depth.any()
    assert [dataset.labelled(name) for name in names] == [True, True, True, False]


def test_what_a_sample_holds(tmp_path: Path) -> None:
    write_kitti_raw(tmp_path, tmp_path)
    sample, scene = open_dataset(tmp_path)[1], scenes()[1]
    assert (sample.left - scene.left).abs().max() < 1 / 255
    assert (sample.right - scene.right).abs().max() < 1 / 255  # type: ignore[operator, union-attr]
    assert sample.camera.baseline == pytest.approx(BASELINE, rel=1e-6)
    assert (sample.camera.fx, sample.camera.cx) == pytest.approx((scene.camera.fx, scene.camera.cx), rel=1e-5)
    known = depth_to_disparity(sample.depth, sample.camera)
    assert torch.allclose(sample.disparity[sample.valid], known[sample.valid])
    assert sample.sparse_depth is None


@pytest.mark.parametrize("place", ["data_depth_annotated", "../data_depth_annotated"])
def test_ground_truth_in_its_usual_places(tmp_path: Path, place: str) -> None:
    write_kitti_raw(tmp_path / "raw", tmp_path / "raw" / place, "{part}/{drive}")
    assert open_dataset(tmp_path / "raw")[0].valid.any()


def test_bts_lines_with_none_and_without_a_last_newline(tmp_path: Path) -> None:
    write_kitti_raw(tmp_path / "raw", tmp_path / "gt")
    lines = [
        f"{DATE}/{DRIVES[1]}/image_02/data/0000000006.png None 721.5377",
        f"{DATE}/{DRIVES[0]}/image_02/data/0000000005.png {DRIVES[0]}/{TRUTH}/0000000005.png 721.5377",
        f"/{DATE}/{DRIVES[1]}/image_02/data/0000000005.png /{DRIVES[1]}/{TRUTH}/0000000005.png 721.5377",
    ]
    split = tmp_path / "eigen_test_files_with_gt.txt"
    split.write_text("\n".join(lines))
    dataset = open_dataset(tmp_path / "raw", split=split, ground_truth=tmp_path / "gt")
    assert len(dataset) == 3
    assert [bool(dataset[i].valid.any()) for i in range(3)] == [False, True, True]
    assert dataset.notes == [f"{split}: 1 of 3 frames have no ground truth"]
    assert torch.equal(dataset[1].left, open_dataset(tmp_path / "raw")[0].left)


def test_a_line_that_says_none_has_none_even_where_there_is_a_file(tmp_path: Path) -> None:
    write_kitti_raw(tmp_path, tmp_path)
    (tmp_path / "list.txt").write_text(f"{DATE}/{DRIVES[0]}/image_02/data/0000000005.png None 721.5377\n")
    assert not open_dataset(tmp_path, split=tmp_path / "list.txt")[0].valid.any()


def test_monodepth2_lines_and_jpeg(tmp_path: Path) -> None:
    names = write_kitti_raw(tmp_path, tmp_path, suffix=".jpg")
    (tmp_path / "list.txt").write_text(
        f"{DATE}/{DRIVES[1]} 5 l\n{DATE}/{DRIVES[0]} 0000000006 l\n{DATE}/{DRIVES[1]} 6 l\n"
    )
    dataset = open_dataset(tmp_path, split=tmp_path / "list.txt")
    assert dataset.names == [names[2], names[1], names[3]]
    assert [bool(dataset[i].valid.any()) for i in range(3)] == [True, True, False]
    assert "1 of 3 frames have no ground truth" in dataset.notes[0]


def test_the_right_camera_is_the_left_one_of_the_mirrored_pair(tmp_path: Path) -> None:
    """Its columns run backwards, its matches still lie to the left, and its principal point moves along."""
    write_kitti_raw(tmp_path, tmp_path)
    height, width = SIZE
    ramp = np.tile(np.linspace(5, 60, width, dtype=np.float32), (height, 1))
    folder = tmp_path / DRIVES[0] / "proj_depth" / "groundtruth"
    write_png16(folder / "image_03" / "0000000005.png", ramp)
    (tmp_path / "list.txt").write_text(f"{DATE}/{DRIVES[0]} 5 r\n{DATE}/{DRIVES[0]} 5 l\n")
    dataset = open_dataset(tmp_path, split=tmp_path / "list.txt")
    mirrored, plain = dataset[0], dataset[1]
    assert mirrored.name.endswith("image_03/0000000005")  # type: ignore[union-attr]
    assert torch.equal(mirrored.left, plain.right.flip(-1))  # type: ignore[union-attr]
    assert torch.equal(mirrored.right, plain.left.flip(-1))  # type: ignore[arg-type]
    assert mirrored.depth[0].numpy() == pytest.approx(ramp[:, ::-1], abs=1 / 256)
    assert mirrored.camera.cx == pytest.approx(width - 1 - plain.camera.cx)
    assert dataset.sequence(dataset.names[0]) == dataset.sequence(dataset.names[1]) == DRIVES[0]


def test_views_with_principal_points_of_their_own(tmp_path: Path) -> None:
    """A point at columns x and x − d of the two views is at W−1−x+d and W−1−x of the mirrored pair: the same depth."""
    write_kitti_raw(tmp_path, tmp_path)
    calibration = tmp_path / DATE / "calib_cam_to_cam.txt"
    camera = scenes()[0].camera
    right = projection(camera, 0.06 - BASELINE)
    right[0, 2] += 6.0
    kept = [line for line in calibration.read_text().splitlines(True) if not line.startswith("P_rect_03")]
    calibration.write_text("".join(kept) + row("P_rect_03", right))
    (tmp_path / "list.txt").write_text(f"{DATE}/{DRIVES[0]} 5 r\n{DATE}/{DRIVES[0]} 5 l\n")
    mirrored, plain = (sample.camera for sample in open_dataset(tmp_path, split=tmp_path / "list.txt"))
    assert plain.disparity_offset == pytest.approx(6.0, abs=1e-4)
    assert mirrored.disparity_offset == pytest.approx(6.0, abs=1e-4)
    assert plain.cx == pytest.approx(float(camera.cx), abs=1e-4)
    assert mirrored.cx == pytest.approx(SIZE[1] - 1 - float(camera.cx) - 6.0, abs=1e-4)


def test_kb_crop_moves_the_principal_point(tmp_path: Path) -> None:
    """Top = H − 352, left = int((W − 1216) / 2), for maps and both views alike."""
    height, width = 375, 1242
    noise = np.random.default_rng(0).random((3, height, width), dtype=np.float32)
    for camera in ("image_02", "image_03"):
        save_image(tmp_path / DATE / DRIVES[0] / camera / "data" / "0000000001.png", noise)
    depth = np.arange(height * width, dtype=np.float32).reshape(height, width) % 200 + 1
    write_png16(tmp_path / DRIVES[0] / "proj_depth" / "groundtruth" / "image_02" / "0000000001.png", depth)
    p = "721.5377 0 609.5593 {} 0 721.5377 172.854 0 0 0 1 0"
    (tmp_path / DATE / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: 1242 375\nP_rect_02: {p.format(44.85728)}\nP_rect_03: {p.format(-339.5242)}\n"
    )
    whole, cropped = open_dataset(tmp_path)[0], open_dataset(tmp_path, kb_crop=True)[0]
    assert cropped.left.shape == cropped.right.shape == (3, 352, 1216)  # type: ignore[union-attr]
    assert torch.equal(cropped.left, whole.left[:, 23:, 13:1229])
    assert torch.equal(cropped.depth, whole.depth[:, 23:, 13:1229])
    assert cropped.camera.cx == pytest.approx(609.5593 - 13)
    assert cropped.camera.cy == pytest.approx(172.854 - 23)
    assert cropped.camera.baseline == pytest.approx(0.532725, abs=1e-5)
    write_kitti_raw(tmp_path / "small", tmp_path / "small")
    with pytest.raises(InputError, match=r"kb_crop needs at least 352×1216 pixels, got 64×192"):
        open_dataset(tmp_path / "small", kb_crop=True)[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{DATE}/{DRIVES[0]} 5", r"expected `rgb depth focal`.*Monodepth2"),
        (f"{DATE}/{DRIVES[0]} five l", r"a frame's number after its folder, got 'five'"),
        (f"{DATE}/{DRIVES[0]} 5 x", r"expected `rgb depth focal`"),
        (f"{DATE}/{DRIVES[0]} 77 l", r"lacks .*image_02/data/0000000077.png"),
        (
            f"{DATE}/{DRIVES[1]}/image_02/data/0000000006.png {DRIVES[1]}/{TRUTH}/0000000006.png 1",
            r"lacks .*groundtruth/image_02/0000000006.png",
        ),
    ],
)
def test_bad_lines_are_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    write_kitti_raw(tmp_path, tmp_path)
    split = tmp_path / "list.txt"
    split.write_text(f"# Eigen\n{DATE}/{DRIVES[0]} 5 l\n{line}\n")
    with pytest.raises(InputError, match=rf"{re.escape(str(split))}, line 3: .*{message}"):
        open_dataset(tmp_path, split=split)


def test_missing_frames_are_counted_if_asked(tmp_path: Path) -> None:
    write_kitti_raw(tmp_path, tmp_path)
    (tmp_path / DATE / DRIVES[0] / "image_03" / "data" / "0000000005.png").unlink()
    split = tmp_path / "list.txt"
    split.write_text("".join(f"{DATE}/{DRIVES[0]} {n} l\n" for n in (5, 6, 99)))
    dataset = open_dataset(tmp_path, split=split, skip_missing=True)
    assert [dataset[i].name[-1] for i in range(len(dataset))] == ["6"]  # type: ignore[index]
    assert re.search(r"skipped for missing files: 2 \(.*0000000005, .*0000000099\)", dataset.notes[0])
    split.write_text(f"{DATE}/{DRIVES[0]} 99 l\n")
    with pytest.raises(InputError, match=r"no frame of .* remains, 1 were skipped"):
        open_dataset(tmp_path, split=split, skip_missing=True)
    assert len(open_dataset(tmp_path, skip_missing=True)) == 3


def test_calibration_is_read_and_must_fit(tmp_path: Path) -> None:
    write_kitti_raw(tmp_path, tmp_path)
    calibration = tmp_path / DATE / "calib_cam_to_cam.txt"
    text = calibration.read_text()
    calibration.write_text(re.sub(r"S_rect_02: \S+", "S_rect_02: 1242", text))
    with pytest.raises(InputError, match=r"calib_cam_to_cam.txt: is for images of width and height \[1242.0, 64.0\]"):
        open_dataset(tmp_path)[0]
    calibration.unlink()
    with pytest.raises(InputError, match=r"calib_cam_to_cam.txt: cannot be read"):
        open_dataset(tmp_path)[0]


def test_a_wrong_ground_truth_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    write_kitti_raw(tmp_path / "raw", tmp_path / "gt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no depth of any frame; looked for .*proj_depth.*train.*val"):
        open_dataset(tmp_path / "raw", ground_truth=tmp_path / "empty")
    with pytest.raises(InputError, match=r"gone: no such folder"):
        open_dataset(tmp_path / "raw", ground_truth=tmp_path / "gone")
    with pytest.raises(InputError, match=r"kitti_depth keeps its ground truth in"):
        open_dataset(tmp_path, "kitti_depth", ground_truth=tmp_path)
