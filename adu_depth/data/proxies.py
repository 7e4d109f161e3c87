"""Proxy labels: disparities that a classical matcher is sure of, for frames of which nobody measured the depth.

FOLDER/proxies.json     how they were found, and a digest of the maps; written last
FOLDER/NAME.png         of frame NAME: 16-bit PNG of pixels × 256 of the left image, 0 = none
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from adu_depth.data.image_files import read_png16
from adu_depth.errors import InputError
from adu_depth.schema import read_json

FORMAT = 1
NOTE, UNFINISHED = "proxies.json", "unfinished.json"
MOST_DISPARITY = 255
"""Pixels: what 16 bits hold in 256ths."""


class ProxiesNote(TypedDict):
    """proxies.json. settings: what the maps depend on. frames: how many there are. digest: SHA-256 of all maps."""

    format: int
    settings: dict[str, Any]
    frames: int
    digest: str


class Proxies:
    """What `adu-depth proxies` wrote into a folder. digest: of all its maps.

    Raises InputError where the folder is none, or unfinished.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.digest = read_note(self.root)["digest"]

    def file(self, name: str) -> Path:
        """Where the map of a frame lies."""
        return proxy_file(self.root, name)

    def disparity(self, name: str) -> np.ndarray:
        """H×W float32 pixels of the left image, 0 = none. InputError if the map is missing or damaged."""
        return read_png16(self.file(name))


def proxy_file(root: Path, name: str) -> Path:
    return root / f"{name}.png"


def read_note(root: Path) -> ProxiesNote:
    """proxies.json. InputError where the folder has none."""
    expected = "expected a folder that `adu-depth proxies` wrote"
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, {expected}")
    if not (root / NOTE).is_file():
        unfinished = (root / UNFINISHED).is_file()
        told = "unfinished: the same `adu-depth proxies` goes on with it" if unfinished else f"no {NOTE}, {expected}"
        raise InputError(f"{root}: {told}")
    note: ProxiesNote = read_json(root / NOTE, ProxiesNote)
    if note["format"] != FORMAT:
        raise InputError(f"{root / NOTE}: expected format {FORMAT}, got {note['format']}: make the maps again")
    return note
