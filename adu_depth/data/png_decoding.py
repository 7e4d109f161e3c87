"""PNG by kornia-rs, where that is installed: the same pixels as OpenCV's in a third of the time.

Only of plain files is anything taken from it: 8-bit grey and RGB and 16-bit grey, not interlaced, with none but the
chunks below, whose sums are right. Whatever else a PNG may be, and whatever it refuses, is OpenCV's to decode or to say
what is wrong with.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module, metadata
from typing import Any

import cv2
import numpy as np

Decode = Callable[[bytes, tuple[int, int], str], Any]
_START = 8
_MOST_CHUNKS = 100_000
_PLAIN = frozenset((b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"tEXt"))


@cache
def decoder() -> str:
    """What plain PNG files are decoded by, with its version."""
    return f"kornia-rs {metadata.version('kornia-rs')}" if _decoders() else f"OpenCV {cv2.__version__}"


def decode_plain(data: bytes) -> np.ndarray | None:
    """A PNG's pixels as OpenCV gives them, H×W or H×W×3 with blue first; None where they are OpenCV's to decode."""
    decoders = _decoders()
    form = _form(data) if decoders else None
    if form is None:
        return None
    height, width, bits, channels = form
    try:
        pixels = np.asarray(decoders[bits](data, (height, width), "rgb" if channels == 3 else "mono"))
    except Exception:  # its errors are plain Exceptions; OpenCV will say what is wrong
        return None
    if channels == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return pixels.reshape(height, width)


@cache
def _decoders() -> dict[int, Decode]:
    """By the bits of a value; none where the library is absent, or is of another form than it was tested in."""
    try:
        io = import_module("kornia_rs.io")
        return {8: io.decode_image_png_u8, 16: io.decode_image_png_u16}
    except (ImportError, AttributeError):
        return {}


def _form(data: bytes) -> tuple[int, int, int, int] | None:
    """Height, width, bits and channels of a plain file; None for any other. Its chunks are whole, `read_header` saw."""
    at, form = _START, None
    for _ in range(_MOST_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 4 : at + 8 + length] if kind != b"IDAT" else b""
        if kind not in _PLAIN or (kind == b"IHDR") != (at == _START):
            return None
        if body and struct.unpack_from(">I", data, at + 8 + length) != (zlib.crc32(body),):
            return None
        if kind == b"IHDR":
            width, height, bits, colour, *methods = struct.unpack_from(">IIBBBBB", data, at + 8)
            channels = {(8, 0): 1, (8, 2): 3, (16, 0): 1}.get((bits, colour))
            if length != 13 or channels is None or any(methods):
                return None
            form = (height, width, bits, channels)
        elif kind == b"IEND":
            return form
        at += 12 + length
    return None
