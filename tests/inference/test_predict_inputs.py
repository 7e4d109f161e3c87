"""One rule for EXIF's orientation in every command, and what is said to what cannot be predicted from."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adu_depth.data import open_dataset
from adu_depth.data.image_files import read_png16
from adu_depth.doctor import WARNING
from adu_depth.errors import InputError
from adu_depth.inference.predict_files import predict_files
from adu_depth.inference.predictor import Predictor
from adu_depth.inference.render import write_samples
from tests.data.trees import scenes, write_driving_stereo, write_kitti_raw
from tests.doctor.test_doctor import diagnose, levels, text_of
from tests.inference.test_predict_files import Student, student, teacher, write_images


def turn_all(root: Path, pattern: str, orientation: int = 3) -> list[Path]:
    """Writes the EXIF mark into images; their pixels stay."""
    exif = Image.Exif()
    exif[274] = orientation
    images = sorted(root.glob(pattern))
    assert images
    for path in images:
        image = Image.open(path)
        image.load()
        image.save(path, exif=exif, **({"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}))
    return images


LAYOUTS = {
    "rig": lambda root: (write_samples(scenes(2), root, 2), "left/*.png"),
    "driving_stereo": lambda root: (write_driving_stereo(root), "train-left-image/*/*.jpg"),
    "kitti_eigen": lambda root: (write_kitti_raw(root, root, suffix=".jpg"), "*/*/image_02/data/*.jpg"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_predict_sees_a_data_sets_pixels_as_training_and_evaluation_do(layout: str, tmp_path: Path) -> None:
    _, pattern = LAYOUTS[layout](tmp_path / "data")
    images = turn_all(tmp_path / "data", pattern)
    dataset = open_dataset(tmp_path / "data", layout)
    name = next(name for name in dataset.names if dataset.files(name)["left"] == images[0])
    predictor = Predictor(Student(), size=None)
    expected = predictor.predict_image(dataset.load(name).left).depth[0, 0].numpy()
    for source in (images[0], images[0].parent):
        outcome = predict_files(predictor, source, tmp_path / "out")
        found = read_png16(tmp_path / "out" / f"{images[0].stem}_depth.png")
        assert np.abs(found - expected).max() < 1 / 256
        assert images[0] in outcome.as_stored
        assert outcome.turned == []


def test_a_photo_of_no_data_set_is_turned_and_listed(tmp_path: Path) -> None:
    write_images(tmp_path, "photo.jpg", "plain.jpg")
    turn_all(tmp_path, "photo.jpg", 6)
    outcome = predict_files(Predictor(Student(), size=None), tmp_path, tmp_path / "out")
    assert outcome.turned == [tmp_path / "photo.jpg"]
    assert read_png16(tmp_path / "out" / "photo_depth.png").shape == (64, 32)
    assert read_png16(tmp_path / "out" / "plain_depth.png").shape == (32, 64)


def test_the_doctor_says_that_images_are_taken_as_stored(tmp_path: Path) -> None:
    write_samples(scenes(2), tmp_path, 2)
    assert "orientation" not in levels(diagnose(tmp_path))
    turn_all(tmp_path, "left/000001.png")
    report = diagnose(tmp_path)
    assert levels(report)["orientation"] == WARNING
    assert "1 image with an EXIF orientation" in text_of(report, "orientation")
    assert "left/000001.png" in text_of(report, "orientation")


def refused(source: Path | str, predictor: Predictor | None = None) -> str:
    with pytest.raises(InputError) as raised:
        predict_files(predictor or student(), source, Path(source).parent / "out")
    return str(raised.value)


def test_a_video_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "drive.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 64)
    assert "a video: take its frames out first, such as by `ffmpeg" in refused(tmp_path / "drive.mp4")
    assert "drive.mp4 is a video: give its own path, or take its frames out first" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("drive.mp4", b"\0\0\0\x20ftypisom" + b"\0" * 64, "a video: take its frames out first"),
        ("pairs.zip", b"PK\x03\x04" + b"\0" * 64, "a zip: unpack it first"),
        ("pairs.tar.gz", b"\x1f\x8b" + b"\0" * 64, "a compressed file: unpack it first"),
        ("a.txt", b"pairs", "a file"),
    ],
    ids=["video", "zip", "gzip", "text"],
)
def test_a_file_in_a_data_sets_place_is_told_what_to_do(name: str, data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    for layout in ("auto", "rig"):
        with pytest.raises(InputError, match=f"{name}: expected a data set's folder, got {told}"):
            open_dataset(tmp_path / name, layout)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: expected a regular file, got a named pipe"):
        open_dataset(tmp_path / "pipe")


@pytest.mark.parametrize("camera", ["0", "rtsp://camera/stream", "http://camera/stream.mjpg"])
def test_a_camera_is_told_what_to_do(camera: str) -> None:
    assert "a camera of this machine is camera:0; a stream is not read: save its pictures" in refused(camera)


def test_a_device_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    assert "got a device (a camera, a terminal); save a camera's pictures" in refused("/dev/zero")
    os.mkfifo(tmp_path / "a.png")
    assert "got a named pipe" in refused(tmp_path / "a.png")
    write_images(tmp_path, "b.png")
    outcome = predict_files(student(), tmp_path, tmp_path / "out")
    assert [path.name for path, _ in outcome.failures] == ["a.png"]
    assert len(outcome.written) == 3


def test_k_txt_beside_images_is_told_what_to_do(tmp_path: Path) -> None:
    write_images(tmp_path / "left", "a.png")
    write_images(tmp_path / "right", "a.png")
    (tmp_path / "K.txt").write_text("700 0 320\n0 701 240\n0 0 1\n0.12\n")
    told = "K.txt is not read: write its numbers into .*camera.toml, as it seems fx = 700, fy = 701, cx = 320, cy = 240"
    with pytest.raises(InputError, match=told + ", baseline = 0.12"):
        open_dataset(tmp_path)
    ((_, reason),) = predict_files(teacher(), tmp_path, tmp_path / "out").failures
    assert re.search(told, reason)
    (tmp_path / "left").rename(tmp_path / "images")
    with pytest.raises(InputError, match=told):
        open_dataset(tmp_path)
    (tmp_path / "K.txt").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match=r"K\.txt is not read: write its numbers"):
        open_dataset(tmp_path)
