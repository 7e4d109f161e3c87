"""Pixels from an image's bytes, as they are stored, and what the decoders say while they work.

OpenCV's decoders (libjpeg, libpng, libtiff) write their complaints to standard error, without a file name, and hand out
a picture of which half may be wrong. Here they are caught: a picture that its decoder calls damaged is refused by name;
what else it says becomes a `DecoderWarning` that names the file. Formats without redundancy (BMP, PPM, plain TIFF, most
of WebP) do not show a changed byte to any decoder.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from adu_depth.data.image_header import COPY_AGAIN, ImageHeader, read_header
from adu_depth.data.png_decoding import decode_plain
from adu_depth.errors import InputError
from adu_depth.geometry import Turning
from adu_depth.terminal import printable

MOST_TEXT = 1 << 24  # bytes that are read of what was written meanwhile
_SPOKEN = re.compile(  # how the decoders' lines begin; another thread may write at the same time
    r"corrupt|premature end|inconsistent progression|unsupported|invalid sos|(warning: )?unknown (adobe|jfif)|libpng "
    r"|opencv tiff: |\[ *(warn|error|info|debug)[:@]",
    re.IGNORECASE,
)
_LOG_EVERYTHING = 5
_DAMAGE = {
    "JPEG": re.compile(r"corrupt|premature end|inconsistent progression", re.IGNORECASE),
    "PNG": re.compile(r"libpng error|IDAT|not enough|CRC error"),
    "TIFF": re.compile(r"OpenCV TIFF: (?!TIFFReadDirectory|TIFFFetch|TIFFReadCustom)"),  # remarks on tags are harmless
}
_EXTRA_BYTES = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_redirecting = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child must not start with its standard error, or the lock, in a decoder's hands
    os.register_at_fork(
        before=_redirecting.acquire, after_in_parent=_redirecting.release, after_in_child=_redirecting.release
    )
_told: set[str] = set()


class DecoderWarning(UserWarning):
    """Something that an image's decoder remarked on; the pixels are taken to be right."""


def decode_stored(data: bytes, name: str | Path) -> tuple[np.ndarray, ImageHeader]:
    """The pixels as OpenCV gives them, H×W or H×W×C (blue first), as stored: not turned, colours not times alpha.

    Bytes behind the picture's own end are not looked at. Raises InputError, with `name`, if the bytes are no image of a
    known kind, cut short, damaged, or of more pixels than one file may hold.
    """
    header = read_header(data, name)
    own = data[: header.end]
    if header.kind == "PNG" and (plain := decode_plain(own)) is not None:
        return plain, header
    for place, patch in header.patches:
        own = own[:place] + patch + own[place + len(patch) :]
    if header.kind == "PPM":
        own += b"\n"  # OpenCV wants something behind the last number of a text
    reason = ""
    with _standard_error() as said, _libtiff_speaks(header.kind == "TIFF"):
        try:
            pixels = cv2.imdecode(np.frombuffer(own, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            pixels, reason = None, str(error.err or error)
    said = [line for line in said if not _is_padding(line, own)]
    if pixels is None:
        reason = reason or next(iter(said), "")
    else:
        reason = next((line for line in said if header.kind in _DAMAGE and _DAMAGE[header.kind].search(line)), "")
    if pixels is None or reason:
        told = f": {reason}" if reason else ""
        raise InputError(f"{name}: the {header.kind} image is damaged or cannot be decoded{told}; {COPY_AGAIN}")
    for line in said:
        _warn(name, line)
    if header.inverted:
        pixels = np.iinfo(pixels.dtype).max - pixels
    if header.premultiplied and pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = _divided_by_alpha(pixels)
    return pixels, header


def turned_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """H×W×… as EXIF's orientation, 1 to 8, says that it is to be looked at."""
    turning = Turning.of(orientation)
    if turning.sideways:
        pixels = np.swapaxes(pixels, 0, 1)
    if turning.upside_down:
        pixels = pixels[::-1]
    if turning.mirrored:
        pixels = pixels[:, ::-1]
    return pixels


def _is_padding(line: str, data: bytes) -> bool:
    """Whether libjpeg speaks of zeros before the end mark, with which some cameras fill up a whole picture."""
    extra = _EXTRA_BYTES.search(line)
    if extra is None:
        return False
    before = data[max(0, len(data) - 2 - int(extra[1])) : -2]
    return not before.strip(b"\0") or not before.strip(b"\xff")


def _warn(name: str | Path, line: str) -> None:
    """Once for each kind of remark: a data set may have the same in every file. `every_decoder_warning` lifts that."""
    kind = re.sub(r"\d+", "", line)
    if kind not in _told:
        _told.add(kind)
        warnings.warn(printable(f"{name}: {line}"), DecoderWarning, stacklevel=2)


@contextmanager
def every_decoder_warning() -> Iterator[list[str]]:
    """Gathers what decoders remark on, of every file: `name: text`, and shows none of it."""
    global _told
    kept, _told = _told, _Forgetful()
    found: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DecoderWarning)
            yield found
            found += [str(each.message) for each in caught if each.category is DecoderWarning]
    finally:
        _told = kept


class _Forgetful(set[str]):
    def __contains__(self, item: object) -> bool:
        return False


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Catches what C libraries write to standard error; the lines are there after the block. What is none of a
    decoder's (another thread may write at the same time) is written on."""
    lines: list[str] = []
    with _redirecting, _scratch() as scratch:
        _open_standard_error()
        kept = os.dup(2)
        try:
            os.dup2(scratch, 2)
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said = os.pread(scratch, MOST_TEXT, 0) if hasattr(os, "pread") else _reread(scratch)
    others: list[str] = []
    continues = False
    for line in filter(None, said.decode(errors="replace").splitlines()):
        if continues and line.startswith("> "):  # OpenCV's, of several lines
            lines[-1] += f" {line[2:].strip()}"
            continue
        continues = _SPOKEN.match(line) is not None
        (lines if continues else others).append(line)
    if others:
        with suppress(OSError):
            os.write(2, "".join(f"{line}\n" for line in others).encode())


@contextmanager
def _libtiff_speaks(wanted: bool) -> Iterator[None]:
    """OpenCV keeps what libtiff says to itself, errors in the pixels too, unless its log is of the finest kind."""
    level = cv2.setLogLevel(_LOG_EVERYTHING) if wanted else None
    try:
        yield
    finally:
        if level is not None:
            cv2.setLogLevel(level)


@contextmanager
def _scratch() -> Iterator[int]:
    """A file without a name."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("decoder")
        try:
            yield number
        finally:
            os.close(number)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()


def _reread(scratch: int) -> bytes:
    os.lseek(scratch, 0, os.SEEK_SET)
    return os.read(scratch, MOST_TEXT)


def _open_standard_error() -> None:
    """Where the process was started without one, its number must not fall to a file that is opened later."""
    try:
        os.fstat(2)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != 2:
            os.dup2(null, 2)
            os.close(null)


def _divided_by_alpha(pixels: np.ndarray) -> np.ndarray:
    top = np.iinfo(pixels.dtype).max
    for row in pixels:  # in float64 a whole picture takes a dozen times its room
        alpha = row[:, 3:].astype(np.float64)
        row[:, :3] = (row[:, :3] * (top / np.maximum(alpha, 1))).round().clip(0, top)
    return pixels
