"""Folders of pictures: maps among them are known by what the files are, whatever they are called."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from adu_depth.data import open_dataset
from adu_depth.data.image_files import read_view, write_pfm
from adu_depth.data.image_look import Look, look_at
from adu_depth.errors import InputError
from adu_depth.inference.predict_files import camera_beside, find_tasks

SIZE = (24, 40)
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
GREY = COLOURS[..., 0].copy()
MILLIMETRES = RNG.integers(500, 5000, SIZE, dtype=np.uint16)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.mark.parametrize("name", ["gt/0.png", "disp/0.png", "0_d.png", "anything.png", "a.tif", "a.tiff", "a.ppm"])
def test_maps_of_16_bits_are_refused(name: str, tmp_path: Path) -> None:
    save(tmp_path / "7.jpg", COLOURS)
    if name.endswith("ppm"):
        (tmp_path / name).write_bytes(b"P5 40 24 65535\n" + MILLIMETRES.astype(">u2").tobytes())
    else:
        save(tmp_path / name, MILLIMETRES)
    with pytest.raises(InputError, match=rf"{name} of 2 images: one channel of 16 bits, as a map of depth has, exp"):
        open_dataset(tmp_path, "pictures")


def test_floats_are_refused_by_what_they_are(tmp_path: Path) -> None:
    save(tmp_path / "7.jpg", COLOURS)
    save(tmp_path / "a.tif", MILLIMETRES.astype(np.float32))
    with pytest.raises(InputError, match=r"a.tif of 2 images: floating-point numbers, as a map of depth has"):
        open_dataset(tmp_path, "pictures")
    (tmp_path / "a.tif").unlink()
    write_pfm(tmp_path / "a.pfm", MILLIMETRES.astype(np.float32))
    (tmp_path / "a.pfm").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png: not an image that can be read, it is a PFM map, of depth or dispar"):
        open_dataset(tmp_path, "pictures")
    (tmp_path / "a.png").write_bytes(b"v/1\x01" + bytes(100))
    with pytest.raises(InputError, match=r"a.png: not an image that can be read, it is an OpenEXR image"):
        open_dataset(tmp_path, "pictures")


@pytest.mark.parametrize("name", ["gt/0.png", "0_d.png", "room/depth/1.png", "Disparity_0.png", "masks/a.jpg"])
def test_grey_maps_of_8_bits_are_known_by_their_names_too(name: str, tmp_path: Path) -> None:
    save(tmp_path / "7.jpg", COLOURS)
    save(tmp_path / name, GREY)
    with pytest.raises(InputError, match=rf"{name} of 2 images: grey and called a map: name their layout \(layout="):
        open_dataset(tmp_path, "pictures")


def test_grey_photos_are_pictures_and_counted(tmp_path: Path) -> None:
    save(tmp_path / "7.jpg", COLOURS)
    assert open_dataset(tmp_path, "pictures").notes == []
    save(tmp_path / "old" / "8.jpg", GREY)
    save(tmp_path / "old" / "9.png", GREY)
    dataset = open_dataset(tmp_path, "pictures")
    assert len(dataset) == 3
    [note] = dataset.notes
    assert note.startswith(f"{tmp_path}: 2 of 3 pictures are grey (such as old/8.jpg): they are read as three equal")
    assert np.array_equal(read_view(tmp_path / "old" / "9.png")[2], GREY)


def test_pictures_of_colours_stay_whatever_they_are_called(tmp_path: Path) -> None:
    for name in ("depth/0.png", "0.jpg", "0.png", "sync_depth_1.png"):
        save(tmp_path / name, COLOURS)
    save(tmp_path / "deep.png", COLOURS.astype(np.uint16) * 257)
    dataset = open_dataset(tmp_path, "pictures")
    assert len(dataset) == 5
    painted, twice = dataset.notes
    assert "2 of 5 pictures are of colours and called maps (such as depth/0.png)" in painted
    assert "1 names are there with two endings (such as 0): all are read" in twice


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "ppm"])
@pytest.mark.parametrize("grey", [False, True])
def test_a_look_says_what_the_decoder_finds(suffix: str, grey: bool, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    written = path.with_suffix(".pgm") if grey and suffix == "ppm" else path
    save(written, GREY if grey else COLOURS)
    written.rename(path)
    one = grey and suffix in ("png", "jpg", "tif", "ppm")  # a BMP has a palette then, a WebP three channels
    found = look_at(path)
    assert found == Look(*SIZE, 1 if one else 3)
    assert tuple(read_view(path).shape[-2:]) == (found.height, found.width)


def test_a_look_passes_over_what_stands_before_the_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[270] = "a description " * 2000
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=exif)
    assert look_at(tmp_path / "a.jpg") == Look(*SIZE)
    Image.fromarray(COLOURS).convert("LA").save(tmp_path / "la.png")
    assert look_at(tmp_path / "la.png") == Look(*SIZE, 1, 8)
    Image.fromarray(COLOURS).convert("P").save(tmp_path / "p.png")
    assert look_at(tmp_path / "p.png") == Look(*SIZE, 3, 8)
    Image.fromarray(GREY > 100).save(tmp_path / "mask.png")
    assert look_at(tmp_path / "mask.png") == Look(*SIZE, 1, 1)
    for kind in ({"lossless": True}, {"quality": 80}, {"quality": 80, "exif": exif}):
        Image.fromarray(COLOURS).save(tmp_path / "a.webp", **kind)
        assert look_at(tmp_path / "a.webp") == Look(*SIZE)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"P6 # no end", b"BM", b"text"])
def test_what_says_nothing_is_left_to_who_reads_it(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(data)
    assert look_at(tmp_path / "a.png") is None
    (tmp_path / "a.png").write_bytes(b"\xff\xd8\xff\xe1" + struct.pack(">H", 9000) + b"cut")
    assert look_at(tmp_path / "a.png") is None


def test_camera_toml_calls_pictures_without_their_ending(tmp_path: Path) -> None:
    """As predict does, and every other layout: what it said of one picture was passed over."""
    for name in ("a/0.jpg", "a/1.jpg", "b/0.png"):
        save(tmp_path / name, COLOURS)
    (tmp_path / "camera.toml").write_text('fx = 30\n["a/0"]\nfx = 40\n["b"]\nfx = 50\n')
    dataset = open_dataset(tmp_path, "pictures")
    assert {name: dataset.load(name).camera.fx for name in dataset.names} == {
        "a/0.jpg": 40,
        "a/1.jpg": 30,
        "b/0.png": 50,
    }


def test_a_camera_file_calls_images_from_its_own_folder_for_training_and_predict(tmp_path: Path) -> None:
    """A section by folder held in training alone, one in a file nearer to the images in predict alone."""
    for name in ("mon/1.jpg", "mon/2.jpg", "tue/am/1.jpg", "left/1.jpg"):
        save(tmp_path / name, COLOURS)
    (tmp_path / "camera.toml").write_text('fx = 50\n["mon/1"]\nfx = 90\n[tue]\nfx = 7\n[left]\nfx = 20\n')
    (tmp_path / "tue" / "camera.toml").write_text('fx = 30\n["1"]\nfx = 8\n["am/1"]\nfx = 40\n["tue/am/1"]\nfx = 9\n')
    expected = {"left/1.jpg": 20, "mon/1.jpg": 90, "mon/2.jpg": 50, "tue/am/1.jpg": 40}
    dataset = open_dataset(tmp_path, "pictures")
    assert {name: dataset.load(name).camera.fx for name in dataset.names} == expected
    for name, fx in expected.items():
        path = tmp_path / name
        alone, *folder = find_tasks(path, None, False) + find_tasks(path.parent, None, False)
        for task in (alone, *(task for task in folder if task.left == path)):
            assert camera_beside(task, SIZE, False).fx == fx
