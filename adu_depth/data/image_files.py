"""Reading and writing what the data sets are made of: colour images, 16-bit maps, PFM maps."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from adu_depth.errors import InputError
from adu_depth.files import replacing

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d+)\s+(\d+)\s+([-+.\deE]+)[ \t]*\r?\n")


def images_below(folder: Path) -> list[Path]:
    """Every image file in `folder` and its folders, sorted."""
    return [path for path in files_below(folder) if is_image(path.name)]


def files_below(folder: Path) -> list[Path]:
    """Every file in `folder` and its folders, sorted, but for hidden ones (macOS leaves `._000001.png`).

    Links to folders are followed (`Path.rglob` leaves them out), but not back to a folder that they stand in.
    """
    found: list[Path] = []
    for at, folders, files in os.walk(folder, followlinks=True):
        here = Path(at).resolve()
        folders[:] = [name for name in folders if (here / name).resolve() not in (here, *here.parents)]
        found += (Path(at, name) for name in files if not name.startswith("."))
    return sorted(path for path in found if path.is_file())


def is_image(name: str) -> bool:
    """Whether a file of this name is to be taken as an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def suffixes_like(suffix: str) -> tuple[str, ...]:
    """Endings of the right image of a pair, in the order in which to look: the left one's, else any, in both cases."""
    return (suffix, *(form for known in IMAGE_SUFFIXES for form in (known, known.upper())))


def read_image(path: str | Path, *, upright: bool = False) -> Tensor:
    """A PNG or JPEG as 3×H×W float32 RGB in [0, 1]. Grey becomes three equal channels, alpha is dropped.

    upright: turn the picture as its EXIF orientation says. Data sets leave it: their maps and calibration are of the
    pixels as stored. 8 and 16 bits per channel are understood. Raises InputError naming the file if it is missing, cut
    short or no image.
    """
    # OpenCV turns a picture with every flag but UNCHANGED; ANYDEPTH keeps 16 bits.
    pixels = _decode(Path(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if upright else cv2.IMREAD_UNCHANGED)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: expected 8 or 16 bits per channel, got {pixels.dtype}")
    colour = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., 2::-1]
    scaled = colour.astype(np.float32) / float(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def grey_levels(image: Tensor) -> np.ndarray:
    """A 3×H×W image in [0, 1] as H×W uint8 grey, for OpenCV's matchers."""
    levels = (image.detach().cpu() * 255.0).round().clamp(0, 255).byte().numpy().transpose(1, 2, 0)
    grey: np.ndarray = cv2.cvtColor(np.ascontiguousarray(levels), cv2.COLOR_RGB2GRAY)
    return grey


def read_png16(path: str | Path, scale: float = 256.0) -> np.ndarray:
    """A map stored as uint16 PNG, H×W float32 = stored value / scale. KITTI's maps: scale 256, 0 = none."""
    stored = _decode(Path(path))
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise InputError(f"{path}: expected a one-channel 16-bit PNG, got {stored.dtype} of shape {stored.shape}")
    return stored.astype(np.float32) / np.float32(scale)


def write_png16(path: str | Path, values: np.ndarray, scale: float = 256.0) -> None:
    """Writes an H×W map as uint16 PNG of round(value · scale), too large as 65535, not finite or negative as 0.

    A positive value that would round to 0, the mark for "none", is stored as 1.
    """
    values = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    stored = np.clip(np.round(values * scale), 0, 65535)
    stored[(values > 0) & (stored == 0)] = 1
    _write_bytes(Path(path), cv2.imencode(".png", stored.astype(np.uint16))[1].tobytes())


def read_mask(path: str | Path) -> np.ndarray:
    """A one-channel 8-bit PNG as it is stored, H×W uint8 (Middlebury's masks)."""
    stored = _decode(Path(path))
    if stored.dtype != np.uint8 or stored.ndim != 2:
        raise InputError(f"{path}: expected a one-channel 8-bit PNG, got {stored.dtype} of shape {stored.shape}")
    return stored


def read_pfm(path: str | Path) -> np.ndarray:
    """A one-channel PFM map as H×W float32, first row on top (the file stores the bottom row first).

    The sign of the header's third number tells the byte order, and that is all it tells: values are returned as stored,
    inf included.
    """
    data = _read_bytes(Path(path))
    header = _PFM_HEADER.match(data)
    if header is None:
        raise InputError(f"{path}: not a PFM file, it should start with 'Pf', width, height and the byte-order number")
    kind, width, height = header[1], int(header[2]), int(header[3])
    if kind != b"Pf":
        raise InputError(f"{path}: expected a one-channel PFM ('Pf'), got a colour one ('PF')")
    expected, found = 4 * width * height, len(data) - header.end()
    if found < expected:
        raise InputError(f"{path}: cut short, {width}×{height} needs {expected} bytes of values, got {found}")
    order = "<" if float(header[4]) < 0 else ">"
    rows = np.frombuffer(data, dtype=f"{order}f4", count=width * height, offset=header.end()).reshape(height, width)
    return np.flipud(rows).astype(np.float32)


def write_pfm(path: str | Path, values: np.ndarray) -> None:
    """Writes an H×W map as a little-endian one-channel PFM."""
    height, width = values.shape
    rows = np.ascontiguousarray(np.flipud(values), dtype="<f4")
    _write_bytes(Path(path), f"Pf\n{width} {height}\n-1.0\n".encode() + rows.tobytes())


def decode_image(data: bytes, name: str | Path, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """A PNG's or JPEG's bytes as OpenCV gives its pixels. InputError, with `name`, if cut short or no image."""
    if not _complete(data):
        raise InputError(f"{name}: the image is cut short ({len(data)} bytes); copy or download it again")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags) if data else None
    except cv2.error as error:  # a header that promises more pixels than OpenCV will hold
        raise InputError(f"{name}: the image cannot be decoded: {error.err or error}") from error
    if pixels is None:
        raise InputError(f"{name}: not an image that can be read, expected PNG or JPEG ({len(data)} bytes)")
    return pixels


def _decode(path: Path, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    return decode_image(_read_bytes(path), path, flags)


def _complete(data: bytes) -> bool:
    """Whether a PNG or JPEG has its end mark; some decoders return a half-grey picture where it is missing."""
    if data.startswith(b"\x89PNG"):
        return data.rfind(b"IEND") > 0
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    return True


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
