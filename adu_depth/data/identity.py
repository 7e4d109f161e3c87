"""Whether two data sets hold the same frames, wherever they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from adu_depth.data.dataset import GROUND_TRUTH_ROLES, FileDataset
from adu_depth.errors import InputError
from adu_depth.files import open_regular

MOST_FRAMES = 4096
MOST_BYTES = 128_000_000


def frames_digest(dataset: FileDataset, truth: bool = True) -> str:
    """SHA-256, in hexadecimal, over the frames of a data set: which, in what order, and from what files they are read.

    Folders, file names and times do not count: a copy has the digest of its original. Whether an image is turned
    upright as it is read does. Of a large data set not every
    byte is read: the names of all frames, the sizes of the files of 4096 evenly spread ones, and of those as much
    content as 128 MB hold, spread too. A pack's shards have digests of their own, which are taken. Without `truth` the
    files of ground truth do not count.
    """
    digest = hashlib.sha256(type(dataset).__name__.encode())
    for name in dataset.names:
        digest.update(os.fsencode(f"{name}\0"))
    if dataset.proxies is not None and truth:
        digest.update(f"proxies {dataset.proxies.digest(filter(dataset.proxied, dataset.names))}\0".encode())
    parts = dataset.part_digests()
    if parts is not None:
        digest.update("".join(parts).encode())
        return digest.hexdigest()
    left, seen = MOST_BYTES, set()
    for index in islice(spread(len(dataset)), MOST_FRAMES):
        name = dataset.names[index]
        if (turn := _orientation(dataset, name)) != 1:  # of frames as stored nothing: their digests stay what they were
            digest.update(f"upright: {turn}\0".encode())
        for role, path in sorted(dataset.files(name).items()):
            if path in seen or (role in GROUND_TRUTH_ROLES and not truth):  # seen: a calibration of many frames
                continue
            seen.add(path)
            try:
                size = path.stat().st_size
            except OSError:
                digest.update(f"{role}: none\0".encode())
                continue
            digest.update(f"{role}: {size}\0".encode())
            if size <= left:
                left -= size
                digest.update(_content(path))
    return digest.hexdigest()


def spread(count: int) -> Iterator[int]:
    """0 to count − 1, each once, in an order in which any first few are spread over all: their bits in reverse."""
    bits = max(count - 1, 0).bit_length()
    for place in range(1 << bits):
        index = int(f"{place:0{bits}b}"[::-1], 2) if bits else 0
        if index < count:
            yield index


def _orientation(dataset: FileDataset, name: str) -> int:
    try:
        return dataset.orientation(name)
    except InputError:  # whoever reads the frame will say so
        return 1


def _content(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except InputError:  # whoever reads the frame will say so
        return b"unreadable"
    return digest.digest()
