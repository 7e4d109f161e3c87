"""Damaged data files by the thousand: seeded changes of good files, and what reading each must give."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from adu_depth.data import open_dataset
from adu_depth.data.calibration import (
    calibration_matrix,
    camera_from_projections,
    read_frame_table,
    read_kitti_calibration,
    read_middlebury_calibration,
)
from adu_depth.data.camera_file import CameraFile
from adu_depth.data.driving_stereo import read_calibration
from adu_depth.data.image_files import orientation_of, read_image, read_mask, read_pfm, read_png16
from adu_depth.data.kitti_depth import read_intrinsics
from adu_depth.data.kitti_object import project_points, read_velodyne
from adu_depth.data.rig import read_map
from adu_depth.evaluation.temperature import read_temperature
from adu_depth.geometry import Camera
from adu_depth.inference.render import write_samples
from adu_depth.submission.validate import validate_zip
from tests.data.trees import projection, row, scenes

HEIGHT, WIDTH = 24, 40


@dataclass(frozen=True)
class Format:
    """A kind of file. good: its bytes. read: reads the file and asserts that what it gave makes sense."""

    name: str
    good: Callable[[], bytes]
    read: Callable[[Path], None]


def change(data: bytes, rng: random.Random) -> bytes:
    """One to four changes of the kinds that disks, transfers, editors and attackers make."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not changed:
            break
        at = rng.randrange(len(changed))
        some = rng.randint(1, min(64, len(changed)))
        kind = rng.randrange(9)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at : at + some] = rng.randbytes(some)
        elif kind == 2:
            del changed[at : at + some]
        elif kind == 3:
            changed[at:at] = rng.randbytes(some)
        elif kind == 4:
            del changed[at:]
        elif kind == 5:  # numbers at the edge of what they can be
            number = rng.choice([b"\0\0\0\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\x80\0"])
            changed[at : at + 4] = number
        elif kind == 6:
            other = rng.randrange(len(changed))
            changed[at : at + some] = changed[other : other + some]
        elif kind == 7:
            text = rng.choice([b"nan", b"inf", b"-1", b"1e999", b"9" * 5000, b"\0", b"\xff\xfe", b",", b"=", b"["])
            changed[at : at + rng.randint(0, 3)] = text
        else:
            changed[at : at + some] = b"\0" * some
    return bytes(changed)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks' checksums are right again: what is wrong in them then reaches the decoder."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, at)
        if at + 12 + length > len(fixed):
            break
        struct.pack_into(">I", fixed, at + 8 + length, zlib.crc32(fixed[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(fixed)


def mutated(form: Format, seed: int) -> bytes:
    rng = random.Random(f"{form.name} {seed}")
    data = change(form.good(), rng)
    return with_checksums(data) if data.startswith(b"\x89PNG") and rng.random() < 0.6 else data


@cache
def pixels() -> np.ndarray:
    return cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 10, 4), dtype=np.uint8), (WIDTH, HEIGHT))


def pillow(kind: str, mode: str = "RGB", **options: object) -> Callable[[], bytes]:
    @cache
    def make() -> bytes:
        exif = Image.Exif()
        exif[274] = 6
        image = Image.fromarray(pixels()).convert("RGBA")
        image = image.quantize(20) if mode == "P" else image.convert(mode)
        file = io.BytesIO()
        image.save(file, kind, exif=exif, **options) if kind in ("JPEG", "PNG", "WEBP", "TIFF") else image.save(
            file, kind
        )
        return file.getvalue()

    return make


def opencv(suffix: str, values: Callable[[], np.ndarray]) -> Callable[[], bytes]:
    return cache(lambda: bytes(cv2.imencode(suffix, values())[1].tobytes()))


def sixteen() -> np.ndarray:
    return pixels().astype(np.uint16) * 257


def saved(write: Callable[[io.BytesIO], object]) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        write(file)
        return file.getvalue()

    return cache(make)


def an_image(path: Path) -> None:
    orientation_of(path)
    for upright in (False, True):
        image = read_image(path, upright=upright)
        assert image.dtype == torch.float32
        assert image.shape[0] == 3
        assert 0 <= float(image.min()) <= float(image.max()) <= 1


def a_map(values: np.ndarray) -> None:
    assert values.ndim == 2
    assert values.size


def a_rig_map(path: Path) -> None:
    values = read_map(path, torch.zeros(3, HEIGHT, WIDTH))
    assert values.shape == (HEIGHT, WIDTH)
    assert np.isfinite(values).all()
    assert (values >= 0).all()


def a_camera(camera: Camera) -> None:
    assert all(np.isfinite(value) for value in vars(camera).values()), camera
    assert camera.fx > 0
    assert camera.fy > 0
    assert camera.baseline >= 0


def a_scan(path: Path) -> None:
    depth = project_points(read_velodyne(path), projection(Camera(30.0, 30.0, 20.0, 12.0, 0.5), 0), HEIGHT, WIDTH)
    assert np.isfinite(depth).all()


def kitti_cameras(path: Path) -> None:
    values = read_kitti_calibration(path)
    a_camera(
        camera_from_projections(*(calibration_matrix(values, f"P_rect_0{side}", (3, 4), path) for side in "23"), path)
    )


def a_split(path: Path) -> None:
    root = path.parent / "pairs"
    if not root.is_dir():
        write_samples(scenes(2), root, 2)
    dataset = open_dataset(root, "rig", split=path)
    assert set(dataset.names) <= {"000000", "000001"}


def a_temperature(path: Path) -> None:
    assert isinstance(read_temperature(str(path)), float)


def a_zip(path: Path) -> None:
    assert all(isinstance(fault, str) for fault in validate_zip(path, ["0000000000.png"]))


def some_zip(file: io.BytesIO) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0000000000.png", opencv(".png", lambda: sixteen()[..., 0])())


def text(made: Callable[[], str]) -> Callable[[], bytes]:
    return cache(lambda: made().encode())


CAMERA = Camera(30.0, 30.0, 20.0, 12.0, 0.5)
CALIBRATION = text(
    lambda: row("P_rect_02", projection(CAMERA, 0.06)) + row("P_rect_03", projection(CAMERA, -0.44)) + "S: 4 x\n"
)
DRIVING = text(
    lambda: (
        row("T_103", (-0.5, 0, 0))
        + row("P_rect_101", projection(CAMERA, 0))
        + row("P_rect_103", projection(CAMERA, -1))
    )
)
MIDDLEBURY = b"cam0=[30 0 20; 0 30 12; 0 0 1]\ndoffs=1.5\nbaseline=500\nwidth=40\nheight=24\nndisp=20\n"
TABLE = b"frame,width,height,fx,cx,cy,baseline_m\n000000_10,40,24,30,20,12,0.5\n000001_10,40,24,30,20,12,0.5\n"
TOML = b'fx = 30\ncx = 20\ncy = 12 # pixels\nbaseline = 0.5\nwidth = 40\nheight = 24\n\n["monday/000000"]\nfx = 31.5\n'

FORMATS = {
    form.name: form
    for form in (
        Format("png", pillow("PNG"), an_image),
        Format("png with alpha", pillow("PNG", "RGBA"), an_image),
        Format("png with a palette", pillow("PNG", "P"), an_image),
        Format("png of 16 bits", opencv(".png", sixteen), an_image),
        Format("jpeg", pillow("JPEG", quality=90), an_image),
        Format("progressive jpeg", pillow("JPEG", progressive=True), an_image),
        Format("cmyk jpeg", pillow("JPEG", "CMYK"), an_image),
        Format("webp", pillow("WEBP", "RGBA"), an_image),
        Format("lossless webp", pillow("WEBP", lossless=True), an_image),
        Format("tiff", pillow("TIFF", "RGBA"), an_image),
        Format("lzw tiff", pillow("TIFF", compression="tiff_lzw"), an_image),
        Format("deflate tiff", pillow("TIFF", "L", compression="tiff_adobe_deflate"), an_image),
        Format("tiff of 16 bits", opencv(".tif", sixteen), an_image),
        Format("bmp", pillow("BMP"), an_image),
        Format("bmp with a palette", pillow("BMP", "P"), an_image),
        Format("ppm", pillow("PPM"), an_image),
        Format("ppm of 16 bits", opencv(".ppm", lambda: sixteen()[..., :3]), an_image),
        Format("map png", opencv(".png", lambda: sixteen()[..., 0]), lambda path: a_map(read_png16(path))),
        Format("mask png", opencv(".png", lambda: pixels()[..., 0]), lambda path: a_map(read_mask(path))),
        Format("pfm", lambda: b"Pf\n40 24\n-1.0\n" + pixels().tobytes(), lambda path: a_map(read_pfm(path))),
        Format("npy", saved(lambda file: np.save(file, pixels()[..., 0].astype(np.float32))), a_rig_map),
        Format("velodyne", lambda: np.random.default_rng(0).normal(0, 9, (60, 4)).astype("<f4").tobytes(), a_scan),
        Format("camera.toml", lambda: TOML, lambda p: a_camera(CameraFile(p).camera("monday/000000", (24, 40)))),
        Format("kitti calibration", CALIBRATION, kitti_cameras),
        Format("driving stereo calibration", DRIVING, lambda path: a_camera(read_calibration(path))),
        Format("middlebury calibration", lambda: MIDDLEBURY, lambda p: a_camera(read_middlebury_calibration(p)[0])),
        Format("frame table", lambda: TABLE, lambda path: a_camera(read_frame_table(path, "000000_10")[0])),
        Format("intrinsics", lambda: b"30 0 20 0 30 12 0 0 1\n", lambda path: a_camera(read_intrinsics(path))),
        Format("split", lambda: b"000000\n# some\n000001.png\n", a_split),
        Format("temperature", lambda: json.dumps({"temperature": 1.5, "protocol": "full"}).encode(), a_temperature),
        Format("submission zip", saved(some_zip), a_zip),
    )
}  # fmt: skip
"""Every kind of data file that is read. What a training itself writes has a test of its own."""

SUFFIXES = {"pfm": ".pfm", "npy": ".npy"}


def path_of(form: Format, folder: Path) -> Path:
    return folder / f"file{SUFFIXES.get(form.name, '.bin')}"
