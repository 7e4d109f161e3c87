"""Everything that is wrong with a submission, before a server says it, or worse, says nothing and scores it badly."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from adu_depth.data.image_files import decode_image
from adu_depth.data.image_header import read_header
from adu_depth.errors import InputError
from adu_depth.files import open_regular
from adu_depth.submission.benchmark import SIZE, STEPS_PER_METRE, file_names

BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, OverflowError,
    NotImplementedError, RuntimeError,
)  # fmt: skip
"""What reading a zip that is damaged, encrypted, or made to do harm, raises."""
SHOWN = 5
"""File names that a message lists before it says how many more there are."""
LARGEST = 4 * 2 * SIZE[0] * SIZE[1]
"""Bytes: four times a map's pixels. What is larger is not unpacked."""
MOST_LISTED = 1_000_000
"""Bytes of a zip's list of its files: of 500 maps it has 30,000, and each entry takes several times its room."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How files may be packed: of the other ways some take as much memory as the zip says."""
NEAREST_STREET = 2.0
"""Metres: a map whose farthest pixel is nearer than this was not stored × 256."""


def validate_zip(path: str | Path, expected: Sequence[str] | None = None) -> list[str]:
    """The faults of a submission, a line each; none means that it is as the benchmark asks for.

    expected: the names that must be there, all 500 by default. Looked at: names, and that they lie in the root; count;
    each file's checksum, kind (one-channel 16-bit PNG), size, zeros, and whether its depths are a street's.
    Nothing is unpacked beyond what a map of this size can need, whatever the zip says of itself.
    Raises InputError if there is no such file, or it is no regular one.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file, expected a zip")
    expected = file_names() if expected is None else expected
    try:
        with open_regular(path) as file:
            _require_short_list(path, file)
            archive = zipfile.ZipFile(file)
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            faults = _name_faults([entry.filename for entry in entries], expected)
            wanted = set(expected)
            for entry in entries:
                if entry.filename in wanted:  # once each: thousands of entries may point to the same bytes
                    wanted.remove(entry.filename)
                    faults += [f"{entry.filename}: {fault}" for fault in _entry_faults(archive, entry)]
            return faults
    except InputError:
        raise
    except BROKEN as error:
        return [f"{path}: not a zip that can be read: {error}"]


def _require_short_list(path: Path, file: BinaryIO) -> None:
    """InputError where the list of files, which is read whole when a zip is opened, is longer than any of these maps'.
    zipfile itself is asked where that list is, so that it reads the same one."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    listed = 0 if end is None else end[zipfile._ECD_SIZE]  # type: ignore[attr-defined]
    if listed > MOST_LISTED:
        raise InputError(f"{path}: its list of files has {listed:,} bytes, expected at most {MOST_LISTED:,}")


def _name_faults(names: list[str], expected: Sequence[str]) -> list[str]:
    faults = []
    if len(names) != len(expected):
        faults.append(f"expected {len(expected)} files, got {len(names)}")
    inside = [name for name in names if "/" in name]
    if inside:
        faults.append(f"in a folder, must lie in the zip's root: {_some(inside)}")
    if missing := sorted(set(expected) - set(names)):
        faults.append(f"missing: {_some(missing)}")
    if strangers := sorted(set(names) - set(expected) - set(inside)):
        faults.append(f"not asked for: {_some(strangers)}")
    if repeated := sorted(name for name, times in Counter(names).items() if times > 1):
        faults.append(f"more than once: {_some(repeated)}")
    return faults


def _entry_faults(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> list[str]:
    if entry.compress_type not in METHODS:
        return [f"packed by method {entry.compress_type}, expected stored or deflated"]
    if entry.file_size > LARGEST:
        return [f"{entry.file_size} bytes, more than a map of this size can need"]
    try:
        with archive.open(entry) as file:
            data = file.read(LARGEST + 1)  # what the zip says of its sizes need not be true
            if len(data) > LARGEST or file.read(1):  # at the end the checksum is compared
                return [f"unpacks to more than {LARGEST} bytes, more than a map of this size can need"]
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            return ["not a PNG file"]
        header = read_header(data, entry.filename)
        if header.width * header.height > 4 * SIZE[0] * SIZE[1]:
            return [f"expected {SIZE[0]}×{SIZE[1]} (height×width), got {header.height}×{header.width}"]
        pixels = decode_image(data, entry.filename)
    except InputError as error:
        return [str(error).removeprefix(f"{entry.filename}: ")]
    except BROKEN as error:
        return [f"cannot be unpacked: {error}"]
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        return [f"expected one channel of 16 bits, got {channels} of {8 * pixels.itemsize} bits"]
    faults = []
    if pixels.shape != SIZE:
        faults.append(f"expected {SIZE[0]}×{SIZE[1]} (height×width), got {pixels.shape[0]}×{pixels.shape[1]}")
    if zeros := int((pixels == 0).sum()):
        faults.append(f"{zeros} of {pixels.size} pixels store 0, which the benchmark takes for no prediction")
    farthest = int(pixels.max()) / STEPS_PER_METRE
    if 0 < farthest < NEAREST_STREET:
        faults.append(f"its farthest depth is {farthest:.2f} m: values must be metres × {STEPS_PER_METRE}")
    return faults


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
