"""Reading and writing what the data sets are made of: colour images, 16-bit maps, PFM maps."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from adu_depth.data.foreign_files import foreign
from adu_depth.data.image_decoding import decode_stored, turned_upright
from adu_depth.data.image_header import ImageHeader, orientation_in
from adu_depth.errors import InputError
from adu_depth.files import open_regular, read_bytes, refuse_larger, replacing
from adu_depth.images import check_image, from_levels, refuse_unscaled

_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,40})[ \t]*\r?\n")
_PFM_START = 512  # bytes in which a PFM's header ends
MAP_SHARE = 3  # a value of 4 bytes is held three times while a map is read and cleaned, as a picture's three colours


def read_image(path: str | Path, *, upright: bool = False) -> Tensor:
    """A PNG, JPEG, WebP, TIFF, BMP or PPM as 3×H×W float32 RGB in [0, 1], as stored or, if asked for, `upright`.

    Grey becomes three equal channels, alpha is dropped. 8 and 16 bits per channel are understood. upright: turn the
    picture as its EXIF orientation says. Data sets do so where no map is read with it; maps are of the stored pixels.

    Raises InputError naming the file if it is missing, no regular file, cut short, damaged, no image, larger than
    `files.size_limit`, or of 16 bits of which 12 are used.
    """
    return from_levels(read_view(path, upright=upright))


def read_view(path: str | Path, *, upright: bool = False) -> Tensor:
    """`read_image`, but 8 bits a channel as they are stored: 3×H×W uint8. `images.from_levels` gives the rest of it."""
    pixels, header = _decode(Path(path))
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: expected 8 or 16 bits per channel, got {pixels.dtype}")
    top = header.top or int(np.iinfo(pixels.dtype).max)
    if top == 65535:
        refuse_unscaled(pixels, path)
    planes = [pixels] * 3 if pixels.ndim == 2 else cv2.split(pixels)[2::-1]
    if upright:
        planes = [turned_upright(plane, header.orientation) for plane in planes]
    colour = np.stack(planes)
    if colour.dtype == np.uint8 and not header.top:
        return torch.from_numpy(colour)
    scaled = colour.astype(np.float32)
    scaled /= float(top)
    if header.top:
        np.minimum(scaled, 1, out=scaled)  # the file's own white need not be its largest value
    return torch.from_numpy(scaled)


def orientation_of(path: str | Path) -> int:
    """EXIF's orientation of an image, 1 (upright) to 8; 1 too where it is no image. No pixel is decoded.

    InputError if it is no regular file, or cannot be read.
    """
    with open_regular(path) as file:
        refuse_larger(path, os.fstat(file.fileno()).st_size)
        return orientation_in(file)


def grey_levels(image: Tensor) -> np.ndarray:
    """A 3×H×W image in [0, 1] as H×W uint8 grey, for OpenCV's matchers."""
    check_image("image", image, "3×H×W")
    levels = (image.detach().cpu() * 255.0).round().clamp(0, 255).byte().numpy().transpose(1, 2, 0)
    grey: np.ndarray = cv2.cvtColor(np.ascontiguousarray(levels), cv2.COLOR_RGB2GRAY)
    return grey


def read_png16(path: str | Path, scale: float = 256.0) -> np.ndarray:
    """A map stored as uint16 PNG, H×W float32 = stored value / scale. KITTI's maps: scale 256, 0 = none."""
    return _one_channel(path, 16).astype(np.float32) / np.float32(scale)


def write_png16(path: str | Path, values: np.ndarray, scale: float = 256.0) -> None:
    """Writes an H×W map as uint16 PNG of round(value · scale), too large as 65535, not finite or negative as 0.

    A positive value that would round to 0, the mark for "none", is stored as 1.
    """
    values = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    stored = np.clip(np.round(values * scale), 0, 65535)
    stored[(values > 0) & (stored == 0)] = 1
    write_levels(path, stored.astype(np.uint16))


def read_levels(path: str | Path) -> np.ndarray:
    """A one-channel PNG of 8 or 16 bits as it is stored, H×W uint8 or uint16."""
    return _one_channel(path, 8, 16)


def write_levels(path: str | Path, levels: np.ndarray) -> None:
    """Writes H×W uint8 or uint16 as a one-channel PNG, as it is."""
    _write_bytes(Path(path), cv2.imencode(".png", levels)[1].tobytes())


def read_mask(path: str | Path) -> np.ndarray:
    """A one-channel 8-bit PNG as it is stored, H×W uint8 (Middlebury's masks)."""
    return _one_channel(path, 8)


def _one_channel(path: str | Path, *bits: int) -> np.ndarray:
    """H×W as stored, of one of these numbers of bits."""
    stored = _decode(Path(path))[0]
    if stored.ndim != 2 or stored.dtype not in [np.dtype(f"uint{count}") for count in bits]:
        kinds = " or ".join(f"{count}-bit" for count in bits)
        raise InputError(f"{path}: expected a one-channel {kinds} PNG, got {stored.dtype} of shape {stored.shape}")
    return stored


def read_pfm(path: str | Path) -> np.ndarray:
    """A one-channel PFM map as H×W float32, first row on top (the file stores the bottom row first).

    The sign of the header's third number tells the byte order, and that is all it tells: values are returned as stored,
    inf included.
    """
    data = read_bytes(path, MAP_SHARE)
    header = _PFM_HEADER.match(data, 0, _PFM_START)
    if header is None:
        raise InputError(f"{path}: not a PFM file, it should start with 'Pf', width, height and the byte-order number")
    kind, width, height = header[1], int(header[2]), int(header[3])
    if kind != b"Pf":
        raise InputError(f"{path}: expected a one-channel PFM ('Pf'), got a colour one ('PF')")
    try:
        order = "<" if float(header[4]) < 0 else ">"
    except ValueError as error:
        raise InputError(f"{path}: expected a number for the byte order, got {header[4].decode()!r}") from error
    if width < 1 or height < 1:
        raise InputError(f"{path}: the map has no values, {width}×{height} (width×height)")
    expected, found = 4 * width * height, len(data) - header.end()
    if found < expected:
        raise InputError(f"{path}: cut short, {width}×{height} needs {expected} bytes of values, got {found}")
    rows = np.frombuffer(data, dtype=f"{order}f4", count=width * height, offset=header.end()).reshape(height, width)
    return np.flipud(rows).astype(np.float32)


def write_pfm(path: str | Path, values: np.ndarray) -> None:
    """Writes an H×W map as a little-endian one-channel PFM."""
    height, width = values.shape
    rows = np.ascontiguousarray(np.flipud(values), dtype="<f4")
    _write_bytes(Path(path), f"Pf\n{width} {height}\n-1.0\n".encode() + rows.tobytes())


def decode_image(data: bytes, name: str | Path) -> np.ndarray:
    """An image's bytes as OpenCV gives its pixels, as stored. InputError, with `name`, as for `decode_stored`."""
    return decode_stored(data, name)[0]


def _decode(path: Path) -> tuple[np.ndarray, ImageHeader]:
    with open_regular(path) as file:
        head = file.read(512)
    if told := foreign(head):  # before a video's gigabytes are read
        raise InputError(f"{path}: not an image that can be read, it is {told}")
    return decode_stored(read_bytes(path), path)


def _write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
