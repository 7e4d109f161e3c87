"""`adu-depth predict` and `adu-depth render`: files in, files out, and what happens with bad ones."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adu_depth.data.camera_file import camera_from_numbers, read_camera, write_cameras
from adu_depth.data.image_files import read_image, read_png16
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera, depth_to_disparity, disparity_to_depth
from adu_depth.inference.image_files import encode_jpeg, write_png
from adu_depth.inference.pictures import uncertainty_picture
from adu_depth.inference.predict_files import ImageTask, predict_files
from adu_depth.inference.predictor import Predictor
from adu_depth.inference.render import write_samples
from adu_depth.models.prediction import DepthPrediction

CAMERA = Camera(fx=100.0, fy=100.0, cx=31.5, cy=15.5, baseline=0.5)


class Student(nn.Module):
    def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
        depth = 1.0 + 10 * image.mean(dim=1, keepdim=True)
        return DepthPrediction(depth, torch.full_like(depth, -2.0), ())


class Teacher(nn.Module):
    def forward(self, left: Tensor, right: Tensor, camera: Camera) -> DepthPrediction:
        disparity = torch.full_like(left[:, :1], 5.0)
        return DepthPrediction(disparity_to_depth(disparity, camera), torch.zeros_like(disparity), (), disparity)


def student() -> Predictor:
    return Predictor(Student(), size=(16, 32))


def teacher() -> Predictor:
    return Predictor(Teacher(), size=None)


def write_images(folder: Path, *names: str, size: tuple[int, int] = (32, 64)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
        if name.endswith(".jpg"):
            (folder / name).write_bytes(encode_jpeg(pixels))
        else:
            write_png(folder / name, pixels)


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_one_image_gives_three_files(tmp_path: Path) -> None:
    write_images(tmp_path, "street.png")
    outcome = predict_files(student(), tmp_path / "street.png", tmp_path / "out")
    assert names_in(tmp_path / "out") == ["street_depth.png", "street_depth_color.png", "street_uncertainty.png"]
    assert len(outcome.written) == 3
    assert outcome.failures == []
    depth = read_png16(tmp_path / "out" / "street_depth.png")
    assert depth.shape == (32, 64)
    assert 5 < depth.mean() < 7


def test_a_student_without_need_of_a_camera_reads_no_camera_file(tmp_path: Path) -> None:
    write_images(tmp_path, "street.png")
    (tmp_path / "camera.toml").write_text("fx = 1\ncx = 1\ncy = 1\nwidth = 7\n")
    assert len(predict_files(student(), tmp_path / "street.png", tmp_path / "out").written) == 3


def turned_jpeg(pixels: np.ndarray, orientation: int) -> bytes:
    """A JPEG with the EXIF tag that cameras write when they are held sideways."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    jpeg = encode_jpeg(pixels, quality=100)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def test_a_photo_is_predicted_upright_and_a_pair_as_stored(tmp_path: Path) -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 32:] = 255  # bright on the right: turned clockwise, bright at the bottom
    for name in ("photo.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(turned_jpeg(pixels, 6))
    predict_files(Predictor(Student(), size=None), tmp_path / "photo.jpg", tmp_path / "out")
    depth = read_png16(tmp_path / "out" / "photo_depth.png")
    assert depth.shape == (64, 32)
    assert depth[:24].max() < 1.5
    assert depth[40:].min() > 10.5
    assert read_image(tmp_path / "photo.jpg").shape == (3, 32, 64), "data sets take pixels as stored"
    predict_files(teacher(), tmp_path / "photo.jpg", tmp_path / "pair", right=tmp_path / "other.jpg", camera=CAMERA)
    assert read_png16(tmp_path / "pair" / "photo_depth.png").shape == (32, 64)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_upright_changes_no_pixel_of_an_upright_image(tmp_path: Path, name: str) -> None:
    write_images(tmp_path, name)
    assert torch.equal(read_image(tmp_path / name, upright=True), read_image(tmp_path / name))
    deep = np.random.default_rng(0).integers(0, 65535, (8, 9, 4), np.uint16)
    (tmp_path / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    assert torch.equal(read_image(tmp_path / "deep.png", upright=True), read_image(tmp_path / "deep.png"))


def test_a_folder_is_done_in_spite_of_broken_files(tmp_path: Path) -> None:
    write_images(tmp_path / "in", "a.png", "b.jpg", "c.png", "d.jpg")
    for broken in ("a.png", "d.jpg"):
        data = (tmp_path / "in" / broken).read_bytes()
        (tmp_path / "in" / broken).write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    seen: list[tuple[str, bool]] = []

    def note(task: ImageTask, reason: str | None) -> None:
        seen.append((task.name, reason is None))

    outcome = predict_files(student(), tmp_path / "in", tmp_path / "out", progress=note)
    assert [p.name for p, _ in outcome.failures] == ["a.png", "d.jpg"]
    assert all("cut short" in reason for _, reason in outcome.failures)
    assert len(outcome.written) == 6
    assert {n.split("_")[0] for n in names_in(tmp_path / "out")} == {"b", "c"}
    assert seen == [("a", False), ("b", True), ("c", True), ("d", False)]


def test_results_of_equal_names_do_not_overwrite_each_other(tmp_path: Path) -> None:
    write_images(tmp_path / "in", "a.png", "a.jpg")
    assert len(predict_files(student(), tmp_path / "in", tmp_path / "out").written) == 6
    assert len(names_in(tmp_path / "out")) == 6


@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"\x89PNG\r\n\x1a\n"])
def test_one_unreadable_image_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.png"):
        predict_files(student(), tmp_path / "bad.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_and_empty_inputs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_images(tmp_path, "a.png")
    with pytest.raises(InputError, match=r"nowhere\.png does not exist"):
        predict_files(student(), tmp_path / "nowhere.png", tmp_path / "out")
    with pytest.raises(InputError, match="no image in"):
        predict_files(student(), tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="another folder"):
        predict_files(student(), tmp_path, tmp_path)
    with pytest.raises(InputError, match="both be"):
        predict_files(teacher(), tmp_path / "a.png", tmp_path / "out", right=tmp_path)


def test_a_pair_with_numbers_for_a_camera(tmp_path: Path) -> None:
    write_images(tmp_path, "l.png", "r.png")
    outcome = predict_files(teacher(), tmp_path / "l.png", tmp_path / "out", right=tmp_path / "r.png", camera=CAMERA)
    assert np.allclose(read_png16(outcome.written[0]), 10.0)


def test_what_a_pair_can_lack(tmp_path: Path) -> None:
    write_images(tmp_path, "l.png", "r.png")
    write_images(tmp_path, "small.png", size=(30, 64))
    with pytest.raises(InputError, match=r"no calibration for .*l\.png.*camera\.toml"):
        predict_files(teacher(), tmp_path / "l.png", tmp_path / "out", right=tmp_path / "r.png")
    with pytest.raises(InputError, match="32×64 and 30×64"):
        predict_files(teacher(), tmp_path / "l.png", tmp_path / "out", right=tmp_path / "small.png", camera=CAMERA)
    with pytest.raises(InputError, match="right image"):
        predict_files(teacher(), tmp_path / "l.png", tmp_path / "out", camera=CAMERA)
    with pytest.raises(InputError, match="needs pairs"):
        predict_files(teacher(), tmp_path, tmp_path / "out", camera=CAMERA)


@pytest.mark.parametrize("folders", [("left", "right"), ("image_2", "image_3")])
def test_a_stereo_folder_with_a_camera_file_above_and_one_right_image_missing(
    tmp_path: Path, folders: tuple[str, str]
) -> None:
    write_images(tmp_path / "in" / folders[0], "a.png", "b.png")
    write_images(tmp_path / "in" / folders[1], "a.png")
    write_cameras(tmp_path / "in" / "camera.toml", {"a": CAMERA}, (32, 64))
    outcome = predict_files(teacher(), tmp_path / "in", tmp_path / "out")
    assert np.allclose(read_png16(tmp_path / "out" / "a_depth.png"), 10.0)
    [(failed, reason)] = outcome.failures
    assert failed.name == "b.png"
    assert folders[1] in reason


def test_the_left_images_alone_of_a_rig_of_sequences(tmp_path: Path) -> None:
    """`predict RUN pairs/left`, as the pages have it: there was "no image in" a folder whose images are in folders."""
    rig = tmp_path / "pairs"
    for sequence in ("monday", "tuesday"):
        write_images(rig / "left" / sequence, "1.png", "2.png")
    outcome = predict_files(student(), rig / "left", tmp_path / "out")
    assert not outcome.failures
    for name in ("monday/1", "monday/2", "tuesday/1", "tuesday/2"):
        assert (tmp_path / "out" / f"{name}_depth.png").is_file()


def test_a_rig_of_sequences_with_right_images_of_another_kind(tmp_path: Path) -> None:
    """What the layout `rig` can be trained on can be predicted: folders, other endings, a camera for each sequence."""
    rig = tmp_path / "rig"
    for sequence in ("monday", "tuesday"):
        write_images(rig / "left" / sequence, "1.png", "2.png")
        write_images(rig / "right" / sequence, "1.png", "2.jpg")
    (rig / "left" / "monday" / "._1.png").touch()
    (rig / "camera.toml").write_text(
        "fx = 100\ncx = 31\ncy = 15\nbaseline = 0.5\n[tuesday]\nfx = 200\n['tuesday/2']\nfx = 300\n"
    )
    outcome = predict_files(teacher(), rig, tmp_path / "out")
    assert outcome.failures == []
    assert len(outcome.written) == 12
    for name, depth in {"monday/1": 10, "monday/2": 10, "tuesday/1": 20, "tuesday/2": 30}.items():
        assert np.allclose(read_png16(tmp_path / "out" / f"{name}_depth.png"), depth)
    by_hand = predict_files(teacher(), rig / "left", tmp_path / "again", right=rig / "right")
    assert [p.relative_to(tmp_path / "again") for p in by_hand.written] == [
        p.relative_to(tmp_path / "out") for p in outcome.written
    ]
    (rig / "right" / "tuesday" / "2.jpg").unlink()
    [(failed, reason)] = predict_files(teacher(), rig, tmp_path / "out").failures
    assert failed == rig / "left" / "tuesday" / "2.png"
    assert str(rig / "right" / "tuesday" / "2.png") in reason


def test_the_camera_beside_a_link_is_meant(tmp_path: Path) -> None:
    write_images(tmp_path / "disk" / "deep", "l.png", "r.png")
    write_cameras(tmp_path / "disk" / "camera.toml", {"l": Camera(7.0, 7.0, 0.0, 0.0, 7.0)})
    for side in ("left", "right"):
        (tmp_path / "rig" / side).mkdir(parents=True)
        (tmp_path / "rig" / side / "l.png").symlink_to(tmp_path / "disk" / "deep" / f"{side[0]}.png")
    write_cameras(tmp_path / "rig" / "camera.toml", {"l": CAMERA})
    for source, right in (
        (tmp_path / "rig", None),
        *[(tmp_path / "rig" / "left" / "l.png", tmp_path / "rig/right/l.png")],
    ):
        predict_files(teacher(), source, tmp_path / "out", right=right)
        assert np.allclose(read_png16(tmp_path / "out" / "l_depth.png"), 10.0)


def test_a_camera_file_above_the_folder_of_pairs_is_of_other_images(tmp_path: Path) -> None:
    for side in ("left", "right"):
        write_images(tmp_path / "set" / "rig" / side / "monday", "1.png")
    write_cameras(tmp_path / "set" / "camera.toml", {"1": CAMERA})
    [(_, reason)] = predict_files(teacher(), tmp_path / "set" / "rig", tmp_path / "out").failures
    assert f"put it into {tmp_path / 'set' / 'rig' / 'camera.toml'}" in reason
    left, right = (tmp_path / "set" / "rig" / side for side in ("left", "right"))
    [(_, reason)] = predict_files(teacher(), left, tmp_path / "out", right=right).failures
    assert "no calibration" in reason
    write_cameras(tmp_path / "set" / "rig" / "camera.toml", {"1": CAMERA})
    assert predict_files(teacher(), left, tmp_path / "out", right=right).failures == []


def test_a_temperature_makes_the_uncertainty_picture_another_and_the_depth_not(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png")
    for name, temperature in (("plain", 1.0), ("hot", 3.0)):
        predict_files(student(), tmp_path / "a.png", tmp_path / name, temperature=temperature)
    pictures = [
        [(tmp_path / n / f"a_{k}.png").read_bytes() for n in ("plain", "hot")] for k in ("depth", "uncertainty")
    ]
    assert pictures[0][0] == pictures[0][1]
    expected = uncertainty_picture(np.full((32, 64), -2.0 + np.log(3.0), np.float32))
    assert np.array_equal(cv2.imread(str(tmp_path / "hot" / "a_uncertainty.png"))[..., ::-1], expected)
    assert pictures[1][0] != pictures[1][1]
    for wrong in (0.0, -1.0, float("nan"), float("inf"), 1e308):
        with pytest.raises(InputError, match="temperature: expected a positive number"):
            predict_files(student(), tmp_path / "a.png", tmp_path / "out", temperature=wrong)


def test_cameras_come_back_as_written_one_by_one(tmp_path: Path) -> None:
    other = Camera(fx=123.456789, fy=99.0, cx=1.5, cy=-2.25, baseline=0.54, disparity_offset=3.0)
    write_cameras(tmp_path / "camera.toml", {"000000": CAMERA, "odd name.1": other}, (32, 64))
    assert read_camera(tmp_path / "camera.toml", "000000", (32, 64)) == CAMERA
    assert read_camera(tmp_path / "camera.toml", "odd name.1", (32, 64)) == other
    with pytest.raises(InputError, match=r"width 64.*width 65"):
        read_camera(tmp_path / "camera.toml", "000000", (32, 65))


def test_the_camera_file_is_toml(tmp_path: Path) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    write_cameras(tmp_path / "camera.toml", {"a": CAMERA, "b c": Camera(1.0, 2.0, 3.0, 4.0, 0.5)}, (32, 64))
    table = tomllib.loads((tmp_path / "camera.toml").read_text())
    assert table["baseline"] == 0.5
    assert table["b c"]["fy"] == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fx = 100\ncx = 1", "lacks cy"),
        ("fx = wide\n", "line 1: fx must be a number, got 'wide'"),
        ("# c\nfocal = 3", "line 2: expected `name = number`"),
        ("fx = -1\ncx = 1\ncy = 1", "fx of .* must be positive"),
        ("fx = nan\ncx = 1\ncy = 1", "fx of .* must be finite"),
        ("fx = 1e300\ncx = 1\ncy = 1", "fx of .* must be at most 1,000,000 .*, got 1e\\+300"),
        ("fx = 1\ncx = -1e7\ncy = 1", "cx of .* must be at most 1,000,000"),
        ("fx = 1\ncx = 1\ncy = 1\nfx = 2", "line 4: fx is there twice, 1 and 2"),
    ],
)
def test_a_bad_camera_file_says_where(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "camera.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_camera(tmp_path / "camera.toml")


def test_camera_from_numbers() -> None:
    assert camera_from_numbers() is None
    assert camera_from_numbers(100.0, cx=1.0, cy=2.0) == Camera(100.0, 100.0, 1.0, 2.0, 0.0)
    with pytest.raises(InputError, match="--fx lacks cx, cy"):
        camera_from_numbers(100.0, baseline=0.5, source="--fx")


class Scenes:
    """Two scenes of a plane, each with its camera."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> StereoSample:
        image = torch.rand(3, 32, 64, generator=torch.Generator().manual_seed(index))
        camera = Camera(100.0 + index, 100.0 + index, 31.5, 15.5, 0.5)
        depth = torch.linspace(4, 40, 32 * 64).reshape(1, 32, 64)
        valid = torch.ones_like(depth, dtype=torch.bool)
        valid[:, :4] = False
        sparse = torch.where(torch.arange(64) % 7 == 0, depth, 0.0)
        return StereoSample(
            image, image.flip(-1), depth, depth_to_disparity(depth, camera), valid, camera, ~valid, sparse
        )


def test_samples_are_written_so_that_predict_reads_them(tmp_path: Path) -> None:
    previews = write_samples(Scenes(), tmp_path / "scenes", 2)
    folders = ["camera.toml", "depth", "disparity", "left", "occluded", "preview", "right", "sparse_depth"]
    assert names_in(tmp_path / "scenes") == folders
    assert all(p.is_file() for p in previews)
    sample, scenes = Scenes()[1], tmp_path / "scenes"
    assert (read_image(scenes / "left" / "000001.png") - sample.left).abs().max() <= 0.5 / 255 + 1e-6
    depth = read_png16(scenes / "depth" / "000001.png")
    assert (depth[:4] == 0).all()
    assert np.abs(depth[4:] - sample.depth[0, 4:].numpy()).max() <= 0.5 / 256 + 1e-5
    disparity = read_png16(scenes / "disparity" / "000001.png")
    assert np.abs(disparity[4:] - sample.disparity[0, 4:].numpy()).max() <= 0.5 / 256 + 1e-5
    assert (read_png16(scenes / "sparse_depth" / "000001.png") > 0).mean() == pytest.approx(10 / 64)
    outcome = predict_files(teacher(), scenes, tmp_path / "out")
    assert outcome.failures == []
    for index in (0, 1):  # disparity 5 with each scene's own focal length
        predicted = read_png16(tmp_path / "out" / f"{index:06d}_depth.png")
        assert np.allclose(predicted, (100 + index) * 0.5 / 5, atol=1 / 256)


@pytest.mark.parametrize("count", [0, 3])
def test_a_count_that_the_data_set_does_not_have(tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match="from 1 to 2"):
        write_samples(Scenes(), tmp_path, count)
