"""What a data set is here, and the parts every data set of files shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.image_files import read_image
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera, depth_to_disparity, disparity_to_depth


class Dataset(Protocol):
    """A finite list of stereo pairs; may be handed to torch.utils.data.DataLoader with `collate`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> StereoSample: ...


class FileDataset(ABC):
    """A data set read from files, one frame at a time. `names` says which frame stands at which index."""

    def __init__(self, root: str | Path, names: list[str]) -> None:
        self.root = Path(root)
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> StereoSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a data set of {len(self)} pairs")
        return self.load(self.names[index])

    @abstractmethod
    def load(self, name: str) -> StereoSample:
        """The frame of this name. Raises InputError naming the file that is missing or wrong."""


def find_names(folder: Path, pattern: str) -> list[str]:
    """Sorted names, without suffix, of the files in `folder` that match; InputError if there are none."""
    names = sorted(path.stem for path in folder.glob(pattern))
    if not names:
        raise InputError(f"{folder}: no stereo pairs, expected files named {pattern}")
    return names


def read_pair(left: Path, right: Path) -> tuple[Tensor, Tensor]:
    """Both views, 3×H×W each. InputError if one is missing or their sizes differ."""
    if left.is_file() and not right.is_file():
        raise InputError(f"{right}: the right image of {left} is missing")
    views = read_image(left), read_image(right)
    if views[0].shape != views[1].shape:
        sizes = [f"{tuple(view.shape[-2:])} in {path}" for view, path in zip(views, (left, right), strict=True)]
        raise InputError(f"the images of a pair must have one size (height, width), got {' and '.join(sizes)}")
    return views


def require_size(found: tuple[int, ...], image: Tensor, what: str | Path) -> None:
    """InputError unless (height, width) is the image's."""
    if tuple(found) != tuple(image.shape[-2:]):
        raise InputError(f"{what}: expected the image's height and width {tuple(image.shape[-2:])}, got {tuple(found)}")


def maps_from_disparity(disparity: np.ndarray, camera: Camera) -> dict[str, Tensor]:
    """StereoSample's depth, disparity and valid from an H×W disparity; 0, negative, NaN and inf mean unknown."""
    known = np.isfinite(disparity) & (disparity > 0)
    disparity = np.where(known, disparity, 0).astype(np.float32)
    return _as_maps(np.where(known, disparity_to_depth(disparity, camera), 0), disparity)


def maps_from_depth(depth: np.ndarray, camera: Camera) -> dict[str, Tensor]:
    """StereoSample's depth, disparity and valid from an H×W depth; 0, negative, NaN and inf mean unknown."""
    known = np.isfinite(depth) & (depth > 0)
    depth = np.where(known, depth, 0).astype(np.float32)
    return _as_maps(depth, depth_to_disparity(depth, camera))


def _as_maps(depth: np.ndarray, disparity: np.ndarray) -> dict[str, Tensor]:
    known = (depth > 0) & (disparity > 0)
    maps = (np.where(known, depth, 0).astype(np.float32), np.where(known, disparity, 0).astype(np.float32), known)
    return {
        name: torch.from_numpy(values)[None] for name, values in zip(("depth", "disparity", "valid"), maps, strict=True)
    }
