"""Proxy labels: disparities that a classical matcher is sure of, for frames of which nobody measured the depth.

FOLDER/proxies.json     how they were found, and of which images each map is
FOLDER/NAME.png         of frame NAME: 16-bit PNG of pixels × 256 of the left image, 0 = none
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from adu_depth.data.image_files import read_png16
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.files import checksum
from adu_depth.schema import read_json

FORMAT = 1
NOTE = "proxies.json"
MOST_DISPARITY = 255
"""Pixels: what 16 bits hold in 256ths."""


class ProxiesNote(TypedDict):
    """proxies.json. settings: what every map depends on beside its images. maps: by frame, `views_digest` and the first
    16 digits of the map's SHA-256."""

    format: int
    settings: dict[str, Any]
    maps: dict[str, list[str]]


class Proxies:
    """What `adu-depth proxies` wrote into a folder. InputError where the folder is none."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.maps = read_note(self.root)["maps"]

    def __contains__(self, name: str) -> bool:
        return name in self.maps

    def file(self, name: str) -> Path:
        """Where the map of a frame lies."""
        return self.root / f"{name}.png"

    def disparity(self, sample: StereoSample, name: str) -> np.ndarray:
        """H×W float32 pixels of the left image, 0 = none. InputError if the map is missing, is not what was written, or
        was made of other images than the sample's."""
        views, content = self.maps[name]
        if views_digest(sample) != views:
            raise InputError(
                f"{self.file(name)} was made of other images than {name} has: make the maps of these by "
                "`adu-depth proxies`, in another folder"
            )
        if map_digest(self.file(name)) != content:
            raise InputError(f"{self.file(name)} is not what was written: the same `adu-depth proxies` writes it anew")
        return read_png16(self.file(name))

    def digest(self, names: Iterable[str]) -> str:
        """Of the maps of these frames, in hexadecimal."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(os.fsencode(f"{name}\0{self.maps[name][1]}\0") if name in self.maps else b"\0")
        return digest.hexdigest()


def views_digest(sample: StereoSample) -> str:
    """Of both views as `load_stored` gives them, 16 hexadecimal digits: pixels, so that a pack's are its files'."""
    digest = hashlib.sha256()
    for view in (sample.left, sample.require_right("proxies")):
        digest.update(f"{view.dtype} {tuple(view.shape)}\0".encode())
        digest.update(view.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def map_digest(path: Path) -> str:
    return checksum(path)[:16]


def read_note(root: Path) -> ProxiesNote:
    """proxies.json. InputError where the folder has none."""
    expected = "expected a folder that `adu-depth proxies` wrote"
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, {expected}")
    if not (root / NOTE).is_file():
        raise InputError(f"{root}: no {NOTE}, {expected}")
    note: ProxiesNote = read_json(root / NOTE, ProxiesNote)
    if note["format"] != FORMAT:
        raise InputError(f"{root / NOTE}: expected format {FORMAT}, got {note['format']}: make the maps again")
    if any(len(digests) != 2 for digests in note["maps"].values()):
        raise InputError(f"{root / NOTE}: expected two digests for each map: make the maps again")
    return note
