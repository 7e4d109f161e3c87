"""How a picture is to be turned: EXIF's orientation, from wherever a format keeps EXIF or XMP."""

from __future__ import annotations

import re
import struct
import zlib
from typing import BinaryIO

from adu_depth.data.tiff_tags import TagError, Tags, read_tags

ORIENTATION, XMP_PACKET = 274, 700
MOST_BYTES = 1 << 20  # of one chunk that is looked at, unpacked
MOST_PARTS = 200_000  # chunks or markers: PNG writers make one of every 8 kB
PNG_CHUNKS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
_PREFIX = b"Exif\0\0"  # before a block in JPEG; some writers put it before those of other formats too
_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")
_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_IN_PNG = b"XML:com.adobe.xmp"
_PROFILES_IN_PNG = (b"Raw profile type exif", b"Raw profile type APP1")  # ImageMagick's EXIF, as text


class Orientation:
    """Gathers what a file's parts say; `value` is 1 (upright) to 8. EXIF that has one is taken before XMP."""

    def __init__(self) -> None:
        self._exif = self._xmp = 0

    @property
    def value(self) -> int:
        return self._exif or self._xmp or 1

    def tags(self, tags: Tags) -> None:
        """A directory of TIFF, which EXIF is one of. What cannot be understood says nothing."""
        if not self._exif:
            self._exif = _known(_number(tags))
        packet = _packet(tags)
        if packet:
            self.xmp(packet)

    def exif(self, block: bytes) -> None:
        while block.startswith(_PREFIX):
            block = block.removeprefix(_PREFIX)
        try:
            self.tags(read_tags(block))
        except (TagError, struct.error, IndexError):
            return

    def xmp(self, packet: bytes) -> None:
        found = _XMP.search(packet)
        if found and not self._xmp:
            self._xmp = int(found[1])

    def jpeg_segment(self, body: bytes) -> None:
        """An APP1 segment, without its length."""
        if body.startswith(b"Exif\0"):
            self.exif(body[len(_PREFIX) :])
        elif body.startswith(_XMP_IN_JPEG):
            self.xmp(body)

    def png_chunk(self, kind: bytes, body: bytes) -> None:
        """One of PNG_CHUNKS."""
        if kind == b"eXIf":
            self.exif(body)
            return
        key, _, rest = body.partition(b"\0")
        if kind == b"iTXt" and key == _XMP_IN_PNG:
            packed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
            self.xmp(_unpacked(text) if packed else text)
        elif kind != b"iTXt" and key in _PROFILES_IN_PNG:
            text = _unpacked(rest[1:]) if kind == b"zTXt" else rest
            numbers = b"".join(text.split(b"\n")[3:])  # a line break, the kind and the length stand before them
            try:
                self.exif(bytes.fromhex(numbers.decode("ascii")))
            except ValueError:
                return


def jpeg_orientation(file: BinaryIO) -> int:
    """Of an open JPEG, by its segments before the first scan; of those without EXIF or XMP the heads alone are read."""
    found, at = Orientation(), 2
    for _ in range(MOST_PARTS):
        file.seek(at)
        head = file.read(4)
        if len(head) == 4 and head[:2] == b"\xff\xff":  # fill
            at += 1
            continue
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xDA, 0xD9):
            break
        length = int.from_bytes(head[2:], "big")
        if head[1] == 0xE1:
            found.jpeg_segment(file.read(max(0, length - 2)))
        at += 2 + max(length, 2)
    return found.value


def png_orientation(file: BinaryIO) -> int:
    """Of an open PNG; of its pixels nothing is read."""
    found, at = Orientation(), 8
    for _ in range(MOST_PARTS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if kind in PNG_CHUNKS:
            found.png_chunk(kind, file.read(min(length, MOST_BYTES)))
        at += 12 + length
    return found.value


def _number(tags: Tags) -> int:
    try:
        return tags.number(ORIENTATION, 0)
    except TagError:
        return 0


def _packet(tags: Tags) -> bytes:
    try:
        return tags.data(XMP_PACKET)
    except TagError:
        return b""


def _known(value: int) -> int:
    return value if 1 <= value <= 8 else 0


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MOST_BYTES)
    except zlib.error:
        return b""
