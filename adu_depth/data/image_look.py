"""What the first bytes of an image say of its size and its channels; no pixel is read, nor is the file as a whole."""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from adu_depth.data.foreign_files import foreign
from adu_depth.data.orientation import MOST_PARTS
from adu_depth.data.tiff_tags import TagError, read_tags
from adu_depth.errors import InputError
from adu_depth.files import open_regular

HEAD = 512
_NUMBER = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*(\d{1,9})")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Look(NamedTuple):
    """height, width: pixels as stored. channels: 1 is grey, with alpha or without; a palette counts as 3. bits: of a
    channel. floating: its numbers are floating-point ones."""

    height: int
    width: int
    channels: int = 3
    bits: int = 8
    floating: bool = False

    @property
    def grey(self) -> bool:
        return self.channels == 1

    @property
    def map_like(self) -> bool:
        """Such files hold measurements: pictures are kept so by hardly anybody."""
        return self.floating or self.bits > 16 or (self.grey and self.bits > 8)


def look_at(path: str | Path) -> Look | None:
    """Size and channels of an image; None where they cannot be told so, which whoever reads it will say more of.

    Raises InputError where it is no regular file, cannot be read, or is a file of another kind (a video, a PFM map).
    """
    with open_regular(path) as file:
        head = file.read(HEAD)
        if told := foreign(head):
            raise InputError(f"{path}: not an image that can be read, it is {told}")
        look = next((look for mark, look in _LOOKS if head.startswith(mark)), None)
        try:
            return None if look is None else look(head, file)
        except (struct.error, IndexError, ValueError, TagError, OverflowError):
            return None


def _png(head: bytes, file: BinaryIO) -> Look:
    width, height, bits, kind = struct.unpack_from(">IIBB", head, 16)
    return Look(height, width, 1 if kind in (0, 4) else 3, bits)


def _jpeg(head: bytes, file: BinaryIO) -> Look | None:
    at = 2
    for _ in range(MOST_PARTS):
        file.seek(at)
        mark = file.read(10)
        if mark[:2] == b"\xff\xff":  # fill
            at += 1
            continue
        if mark[0] != 0xFF or mark[1] in (0xDA, 0xD9):
            return None
        if mark[1] in _FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", mark, 4)
            return Look(height, width, channels, bits)
        at += 2 + max(int.from_bytes(mark[2:4], "big"), 2)
    return None


def _tiff(head: bytes, file: BinaryIO) -> Look:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tags = read_tags(data)  # type: ignore[arg-type]
        colours = 3 if tags.number(262, 1) == 3 else tags.number(277, 1)
        bits = max(tags.numbers(258), default=1)
        return Look(tags.number(257), tags.number(256), 1 if colours == 2 else colours, bits, tags.number(339, 1) == 3)


def _ppm(head: bytes, file: BinaryIO) -> Look | None:
    numbers, at = [], 2
    for _ in range(2 if head[1:2] in b"14" else 3):
        found = _NUMBER.match(head, at)
        if found is None:
            return None
        numbers.append(int(found[1]))
        at = found.end()
    width, height, top = (*numbers, 1)[:3]
    return Look(height, width, 3 if head[1:2] in b"36" else 1, 16 if top > 255 else 8)


def _bmp(head: bytes, file: BinaryIO) -> Look:
    form = "<HH" if struct.unpack_from("<I", head, 14) == (12,) else "<ii"
    width, height = struct.unpack_from(form, head, 18)
    return Look(abs(height), width)


def _webp(head: bytes, file: BinaryIO) -> Look | None:
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", head, 26))
    elif kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", head, 21)
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    else:
        return None
    return Look(height, width)


_LOOKS: tuple[tuple[bytes, Callable[[bytes, BinaryIO], Look | None]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"RIFF", _webp),
    (b"II", _tiff),
    (b"MM", _tiff),
    (b"BM", _bmp),
    *((b"P%d" % kind, _ppm) for kind in range(1, 7)),
)
