"""What a clip that is not finished keeps: the network's answer for each frame done so far. And how folders of ours are
told from others, which are never removed: by their record.json.

FOLDER/record.json       of what clip, network and settings the frames are
FOLDER/000000_depth.png  ln metres and, of a network that predicts it, ln of the scale of the error, as 16-bit PNGs:
FOLDER/000000_scale.png  (value − 1) / 4096 − 8, 0 = none
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from adu_depth.data.image_files import read_levels, write_levels
from adu_depth.errors import InputError
from adu_depth.files import make_folder, remove_folder, write_json
from adu_depth.leftovers import sweep
from adu_depth.schema import read_json

RECORD = "record.json"
_FRAME_FILE = re.compile(r"\d{6,}(_depth\.png|\.npz)")
STEPS, LOWEST = 4096.0, -8.0
"""Of a natural logarithm: from e⁻⁸ (0.3 mm, 0.03 %) to e⁸ (3 km), to 0.012 % of the value."""


class Unfinished:
    """Frames that a run has predicted, for the one that goes on. InputError where they are of another clip, network or
    settings than `record`, a dictionary of texts and numbers."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record
        make_folder(folder)
        sweep(folder)  # a run may have been killed before its record was whole
        if not (folder / RECORD).is_file():
            if any(folder.iterdir()):
                raise InputError(f"{folder} holds files and no {RECORD}: name another output")
            write_json(folder / RECORD, record)
            return
        found = read_json(folder / RECORD)
        for name in [*record, *found]:
            if record.get(name) != found.get(name):
                raise InputError(
                    f"{folder} holds the unfinished frames of another run: {name} was {found.get(name)}, now it is "
                    f"{record.get(name)}; give the settings that it was begun with, remove it, or name another output"
                )

    @property
    def done(self) -> int:
        """How many frames are there, from the first one on without a gap."""
        count = 0
        while self._path(count, "depth").is_file():
            count += 1
        return count

    def write(self, number: int, depth: np.ndarray, log_scale: np.ndarray | None) -> None:
        """Keeps H×W metres (≤ 0 is none) and the log scale of frame `number`."""
        if log_scale is not None:
            write_levels(self._path(number, "scale"), _levels(log_scale))
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithm = np.log(depth.astype(np.float64))
        write_levels(self._path(number, "depth"), _levels(logarithm))  # the last one: it says that all is there

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """ln metres and log scale, H×W float32, NaN where there is none."""
        scale = self._path(number, "scale")
        return _values(self._path(number, "depth")), _values(scale) if scale.is_file() else None

    def _path(self, number: int, kind: str) -> Path:
        return self.folder / f"{number:06d}_{kind}.png"


def remove_unfinished(folder: Path) -> None:
    """Nothing if there is no such folder; InputError where it is another's."""
    if folder.exists() and not (folder / RECORD).is_file():
        raise InputError(f"{folder} holds no {RECORD}: name another output")
    if folder.exists():
        remove_folder(folder)


def require_frames_are_ours(folder: Path) -> None:
    """InputError where `folder` is there and holds anything that is not known to be of an earlier run: no record.json,
    as in a folder of pictures that somebody took out of the clip, or other files beside a run's."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise InputError(f"{folder} is in the place of the folder of frames: name another --output, or move it")
    if not (folder / RECORD).is_file():
        raise InputError(f"{folder} holds no {RECORD}, so it is of no earlier run: name another --output, or move it")
    for name in sorted(os.listdir(folder)):
        if name != RECORD and not _FRAME_FILE.fullmatch(name):
            raise InputError(
                f"{folder} would be replaced, and {name} in it is of no earlier run: name another --output, or move it"
            )


def _levels(logarithms: np.ndarray) -> np.ndarray:
    there = np.isfinite(logarithms)
    levels = np.clip(np.round((np.where(there, logarithms, 0.0) - LOWEST) * STEPS) + 1, 1, 65535)
    return np.where(there, levels, 0).astype(np.uint16)


def _values(path: Path) -> np.ndarray:
    levels = read_levels(path).astype(np.float32)
    return np.where(levels > 0, (levels - 1) / np.float32(STEPS) + np.float32(LOWEST), np.float32(np.nan))
