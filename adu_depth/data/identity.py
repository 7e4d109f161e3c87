"""Whether two data sets hold the same frames, wherever they lie."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from adu_depth.data.dataset import GROUND_TRUTH_ROLES, FileDataset
from adu_depth.errors import InputError
from adu_depth.files import open_regular

MOST_FRAMES = 4096
MOST_BYTES = 128_000_000
UNREADABLE = b"unreadable"
ROWS = 8
"""Of an image in a pack, that are read to see whether it may be another one."""


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


def shared_frames(
    one: FileDataset, other: FileDataset, track: Callable[[Sequence[str]], Iterable[str]] = iter
) -> list[str]:
    """Names of the frames of `one` whose left image `other` has too, by whatever names.

    Of two folders that is the same file, or one of the same bytes: files of other sizes are not read. Where either is a
    pack it is the same pixels, whole frames of one size: of each some rows are compared, and all where these agree. A
    copy that was resized, cut or encoded anew is not found. track: is given the names of `other` whose pixels are read.
    """
    if one.part_digests() is None and other.part_digests() is None:
        return _shared_files(one, other)
    one, other = _whole(one), _whole(other)
    wanted = {one.image_size(index) for index in range(len(one))} - {None}
    names = [name for index, name in enumerate(other.names) if other.image_size(index) in wanted]
    known: dict[bytes, list[str]] = {}
    for name in track(names):
        if (view := _left(other, name)) is not None:
            known.setdefault(_some_rows(view), []).append(name)
    found = []
    for name in one.names if known else ():
        if (view := _left(one, name)) is not None:
            alike = (_left(other, like) for like in known.get(_some_rows(view), ()))
            found += [name] if any(like is not None and torch.equal(view, like) for like in alike) else []
    return found


def _shared_files(one: FileDataset, other: FileDataset) -> list[str]:
    places: set[tuple[int, int]] = set()
    sizes: dict[int, list[Path]] = {}
    for path, stat in _left_files(other).values():
        places.add((stat.st_dev, stat.st_ino))
        sizes.setdefault(stat.st_size, []).append(path)
    content = cache(_content)
    return [
        name
        for name, (path, stat) in _left_files(one).items()
        if (stat.st_dev, stat.st_ino) in places
        or any(content(path) == content(like) != UNREADABLE for like in sizes.get(stat.st_size, ()))
    ]


def _left_files(dataset: FileDataset) -> dict[str, tuple[Path, os.stat_result]]:
    found = {}
    for name in dataset.names:
        path = dataset.files(name)["left"]
        with suppress(OSError):  # whoever reads the frame will say so
            found[name] = path, path.stat()
    return found


def _whole(dataset: FileDataset) -> FileDataset:
    """Its frames as they are stored, no ground truth read."""
    whole = copy.copy(dataset)
    whole.kb_crop, whole.truth, whole.proxies = False, False, None
    return whole


def _left(dataset: FileDataset, name: str) -> Tensor | None:
    try:
        return dataset.load_stored(name).left
    except InputError:  # whoever reads the frame will say so
        return None


def _some_rows(view: Tensor) -> bytes:
    rows = view[:, :: max(1, view.shape[1] // ROWS)].contiguous()
    return hashlib.sha256(f"{tuple(view.shape)} {view.dtype}".encode() + rows.numpy().tobytes()).digest()


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
        return UNREADABLE
    return digest.digest()
