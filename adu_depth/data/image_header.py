"""What an image's bytes say of it before they are decoded: its kind, size, orientation, and where it ends.

Each format is followed by its own marks (JPEG's markers, PNG's and WebP's chunks, TIFF's directory, the headers of BMP
and PPM): what lies behind a picture's end is not its own (a phone puts a video there), and a picture that should go on
where the file ends is cut short. Nothing is allocated here by a number that a file gives.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from adu_depth.data.foreign_files import what_it_is
from adu_depth.data.orientation import MOST_PARTS, PNG_CHUNKS, Orientation, jpeg_orientation, png_orientation
from adu_depth.data.tiff_tags import TagError, Tags, read_tags
from adu_depth.errors import InputError
from adu_depth.files import refuse_larger

BYTES_PER_PIXEL = 12  # three float32: what a picture takes once it is read
MOST_SCANS = 100  # of a JPEG; progressive ones have about ten
MOST_SCANNED = 600e6  # pixels of all scans together: each is a pass over the whole picture
COPY_AGAIN = "copy or download it again"
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a stuffed 0xFF, a restart or fill
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_COLOURS = frozenset(range(7))
_TIFF_OTHERS = {8: "CIELab", 9: "CIELab", 10: "CIELab", 32803: "a camera's raw mosaic", 34892: "a camera's raw colours"}
_PPM_TOKEN = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*(\d{1,9})(?!\d)")
_PPM_HEADER = 1 << 16  # bytes: each space or comment that is passed over is remembered by the expression


class ImageHeader(NamedTuple):
    """kind: "PNG", "JPEG", "WebP", "TIFF", "BMP" or "PPM". width, height: pixels as stored.

    end: how many of the bytes are the picture's. orientation: EXIF's, 1 to 8; 1 is upright. top: the number that stands
    for white where the file says it (PPM), 0 for the type's largest. premultiplied: its colours are stored times alpha.
    inverted: 0 is white, which the decoder passes over. patches: bytes to put into a TIFF, by place, for a decoder that
    would turn it, or multiply its colours by alpha.
    """

    kind: str
    width: int
    height: int
    end: int
    orientation: int = 1
    top: int = 0
    premultiplied: bool = False
    inverted: bool = False
    patches: tuple[tuple[int, bytes], ...] = ()


class CutShort(Exception):
    """The picture's own marks say that it goes on behind the end of the bytes. orientation: EXIF's, if it was met."""

    def __init__(self, orientation: int = 1) -> None:
        super().__init__()
        self.orientation = orientation


class NotReadHere(Exception):
    """The picture is whole, and of a kind that nothing here reads; the message says what was expected."""


def read_header(data: bytes, name: str | Path) -> ImageHeader:
    """What the bytes say of themselves. InputError, with `name`, if they are no image of a known kind, cut short, or
    of more pixels than one file may hold (see `files.size_limit`)."""
    read = next((reader for mark, reader in _READERS if mark.match(data)), None)
    if read is None:
        raise InputError(f"{name}: not an image that can be read, {what_it_is(data)}")
    try:
        header = read(data)
    except (CutShort, struct.error, IndexError) as error:
        raise InputError(f"{name}: the image is cut short ({len(data)} bytes); {COPY_AGAIN}") from error
    except (TagError, OverflowError) as error:
        raise InputError(f"{name}: the image is damaged: {error}; {COPY_AGAIN}") from error
    except NotReadHere as error:
        raise InputError(f"{name}: {error}") from error
    if header.width < 1 or header.height < 1:
        raise InputError(f"{name}: the image has no pixels, {header.width}×{header.height} (width×height)")
    size = f"an image of {header.width}×{header.height} pixels"
    refuse_larger(name, BYTES_PER_PIXEL * header.width * header.height, size)
    return header


def orientation_in(file: BinaryIO) -> int:
    """EXIF's orientation, 1 to 8, of an open image; 1, upright, where it is no image or does not say. Of a JPEG and a
    PNG the heads of their parts are read, of others everything."""
    head = file.read(16)
    read = next((reader for mark, reader in _READERS if mark.match(head)), None)
    try:
        if read is _jpeg:
            return jpeg_orientation(file)
        if read is _png:
            return png_orientation(file)
        return 1 if read is None else read(head + file.read()).orientation
    except CutShort as found:
        return found.orientation
    except (struct.error, IndexError, TagError, OverflowError, NotReadHere):
        return 1


def _png(data: bytes) -> ImageHeader:
    at, width, height, turned = 8, 0, 0, Orientation()
    for _ in range(MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise CutShort(turned.value)
        if kind == b"IHDR":
            wide, high = struct.unpack_from(">II", data, at + 8)
            width, height = max(width, wide), max(height, high)
        elif kind in PNG_CHUNKS:
            turned.png_chunk(kind, data[at + 8 : at + 8 + length])
        elif kind == b"IEND":
            return ImageHeader("PNG", width, height, end, turned.value)
        at = end
    raise TagError(f"more than {MOST_PARTS} chunks")


def _jpeg(data: bytes) -> ImageHeader:
    at, width, height, turned, scans = 2, 0, 0, Orientation(), 0
    for _ in range(MOST_PARTS):
        found = _MARKER.search(data, at)
        if found is None:
            raise CutShort(turned.value)
        kind, at = data[found.start() + 1], found.end()
        if kind == 0xD9:
            return ImageHeader("JPEG", width, height, at, turned.value)
        if kind in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if kind == 0xE1 and not scans:
            turned.jpeg_segment(data[at + 2 : at + length])
        if at + length > len(data):
            raise CutShort(turned.value)
        if kind in _FRAMES:
            frame_height, frame_width = struct.unpack_from(">HH", data, at + 3)
            width, height = max(width, frame_width), max(height, frame_height)
        elif kind == 0xDA:
            scans += 1
            if scans > MOST_SCANS or (scans > 1 and scans * width * height > MOST_SCANNED):
                raise TagError(f"{scans} scans or more of {width}×{height} pixels")
        at += max(length, 2)
    raise TagError(f"more than {MOST_PARTS} markers")


def _webp(data: bytes) -> ImageHeader:
    (length,) = struct.unpack_from("<I", data, 4)
    whole = 8 + length
    if whole > len(data):
        raise CutShort
    at, width, height, turned, parts = 12, 0, 0, Orientation(), 0
    while at + 8 <= whole and (parts := parts + 1) <= MOST_PARTS:
        kind, size = struct.unpack_from("<4sI", data, at)
        body = at + 8
        if body + size > whole:
            raise CutShort
        if kind == b"VP8X":
            wide, high = (int.from_bytes(data[body + place : body + place + 3], "little") + 1 for place in (4, 7))
        elif kind == b"VP8 ":
            wide, high = (side & 0x3FFF for side in struct.unpack_from("<HH", data, body + 6))
        elif kind == b"VP8L":
            (packed,) = struct.unpack_from("<I", data, body + 1)
            wide, high = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        else:
            wide, high = 0, 0
            if kind == b"EXIF":
                turned.exif(data[body : body + size])
            elif kind == b"XMP ":
                turned.xmp(data[body : body + size])
        width, height = max(width, wide), max(height, high)
        at = body + size + size % 2
    return ImageHeader("WebP", width, height, whole, turned.value)


def _tiff(data: bytes) -> ImageHeader:
    tags = read_tags(data)
    width, height = tags.number(256), tags.number(257)
    for starts, lengths in ((273, 279), (324, 325)):  # strips, tiles
        places, sizes = tags.numbers(starts), tags.numbers(lengths)
        if any(place + size > len(data) for place, size in zip(places, sizes, strict=False)):
            raise CutShort
    _require_read(tags)
    # A tile is allocated whole.
    if tags.number(322, 0) * tags.number(323, 0) > max(4 * width * height, 1 << 22):
        raise TagError("its tiles are far larger than the picture")
    patches = []
    if tags.number(274, 1) != 1:
        patches.append(tags.patch(274, 1))  # else libtiff turns the picture, whatever is asked for
    alpha = tags.numbers(338) if tags.number(277, 1) == 4 and tags.number(262, 0) == 2 else ()
    if alpha and alpha[0] != 1:
        patches.append(tags.patch(338, 1))  # else libtiff multiplies the colours by alpha
    turned = Orientation()
    turned.tags(tags)
    return ImageHeader(
        "TIFF", width, height, len(data), turned.value,
        premultiplied=bool(alpha) and alpha[0] == 1,
        inverted=tags.number(262, 1) == 0 and tags.number(258, 1) > 8,  # up to 8 bits libtiff itself sees to it
        patches=tuple(patches),
    )  # fmt: skip


def _require_read(tags: Tags) -> None:
    """NotReadHere for what OpenCV refuses without saying why, or gives other pixels of than are stored."""
    bits, channels, form = max(tags.numbers(258), default=1), tags.number(277, 1), tags.number(339, 1)
    kind, apart = tags.number(262, 1), tags.number(284, 1) == 2
    if bits > 16:  # such pixels take several times the room that is counted for them
        raise NotReadHere(f"expected 8 or 16 bits per channel, got {bits}")
    kinds = _TIFF_COLOURS if bits in (1, 8) else (0, 1, 2) if bits > 8 else (3,) if bits == 4 else ()
    what = ""
    if kind not in _TIFF_COLOURS:
        what = f"colours of kind {kind} ({_TIFF_OTHERS.get(kind, 'PhotometricInterpretation')})"
    elif form != 1:
        what = f"{'floating-point' if form == 3 else 'signed'} numbers"
    elif kind not in kinds or channels > 4:
        what = f"{channels} channels of {bits} bits and colours of kind {kind}"
    elif apart and channels > 1 and bits > 8:
        what = f"{channels} channels of {bits} bits that are kept apart (PlanarConfiguration 2)"
    elif channels == 2 and tags.numbers(338)[:1] == (1,):
        what = "grey that was multiplied by alpha"
    if what:
        raise NotReadHere(f"TIFF images of {what} are not read: save it with 8 or 16 bits per channel, as PNG say")


def _bmp(data: bytes) -> ImageHeader:
    start, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packed = 0
    else:
        width, height, _, bits, packed = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    if packed in (0, 3) and start + (width * bits + 31) // 32 * 4 * height > len(data):
        raise CutShort
    return ImageHeader("BMP", width, height, len(data))


def _ppm(data: bytes) -> ImageHeader:
    numbers, at = [], 2
    for _ in range(2 if data[1:2] in b"14" else 3):
        found = _PPM_TOKEN.match(data, at, _PPM_HEADER)
        if found is None:
            raise TagError("expected the numbers width, height and largest value after its first two letters")
        numbers.append(int(found[1]))
        at = found.end()
    width, height, top = (*numbers, 1)[:3]
    if not 0 < top < 65536:
        raise TagError(f"its largest value is {top}, expected 1 to 65535")
    channels, wide = (3 if data[1:2] in b"36" else 1), (2 if top > 255 else 1)
    sizes = {b"4": (width + 7) // 8 * height, b"5": width * height * wide, b"6": width * height * channels * wide}
    if data[1:2] in sizes and at + 1 + sizes[data[1:2]] > len(data):
        raise CutShort
    scaled = data[1:2] in b"14" or (data[1:2] in b"23" and top < 256)  # by the decoder, to 255
    return ImageHeader("PPM", width, height, len(data), top=0 if scaled else top)


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], ImageHeader]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    (re.compile(rb"BM"), _bmp),
    (re.compile(rb"P[1-6][\s#]"), _ppm),
)
