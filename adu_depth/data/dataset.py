"""What a data set is here, and the parts every data set of files shares."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.file_index import IMAGE_SUFFIXES, FileIndex
from adu_depth.data.image_files import orientation_of, read_view
from adu_depth.data.image_look import look_at
from adu_depth.data.proxies import Proxies
from adu_depth.data.sample import ProxiedSample, StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera, Turning, depth_to_disparity, disparity_to_depth

GROUND_TRUTH_ROLES = frozenset({"depth", "disparity", "scan"})
TRUTH_FILES = GROUND_TRUTH_ROLES | {"sparse_depth", "occluded", "scale"}
"""What nobody reads where a data set's ground truth is left aside."""
KB_SIZE = (352, 1216)


class SeveralFrames(InputError):
    """A line of a split file that may mean several frames."""


class Dataset(Protocol):
    """A finite list of stereo pairs; may be handed to torch.utils.data.DataLoader with `collate`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> StereoSample: ...


class FileDataset(ABC):
    """A data set read from files, one frame at a time.

    names: which frame stands at which index; `select` narrows them. notes: what a user should hear of this data set
    (frames without ground truth, skipped ones), a sentence each. kb_crop: hand out KITTI's benchmark window of each
    frame, see `kb_window`. truth: whether ground truth is read; without it frames have none known, and its files need
    not be there, nor be whole. proxies: maps that stand in for ground truth, in the frames that have none.
    """

    def __init__(self, root: str | Path, names: list[str]) -> None:
        self.root = Path(root)
        self.names = names
        self.notes: list[str] = []
        self.kb_crop = False
        self.truth = True
        self.proxies: Proxies | None = None
        self.file_index = FileIndex()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> StereoSample:
        return self.stored(index).floats()

    def stored(self, index: int) -> StereoSample:
        """`self[index]` with views of 8 bits as they are kept, uint8: a quarter to copy to a device, and a batch's
        `floats` there are the same bits."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a data set of {len(self)} pairs")
        name = self.names[index]
        sample = self.load_stored(name)
        if self.proxies is not None and self.proxied(name):
            disparity = self.proxies.disparity(sample, name)
            require_size(disparity.shape, sample.left, self.proxies.file(name))
            known = maps_from_disparity(disparity, sample.camera)
            # sparse_depth too: a batch in which one lacks it would learn from nobody's
            sample = ProxiedSample(**{**vars(sample), **known, "sparse_depth": known["depth"]})
        return kb_window(sample) if self.kb_crop else sample

    def load(self, name: str) -> StereoSample:
        """The frame of this name, whole. Raises InputError naming the file that is missing or wrong."""
        return self.load_stored(name).floats()

    def image_size(self, index: int) -> tuple[int, int] | None:
        """Height and width of `self[index]`, by its image's first bytes; None where they do not tell."""
        if self.kb_crop:
            return KB_SIZE
        name = self.names[index]
        size = size_by_look(self.read_files(name)["left"])
        return None if size is None else Turning.of(self.orientation(name)).size(*size)

    @abstractmethod
    def load_stored(self, name: str) -> StereoSample:
        """`load`, its views as floats or as 8-bit levels, uint8."""

    @abstractmethod
    def files(self, name: str) -> dict[str, Path]:
        """A frame's files, by role: left, right, depth, disparity, scan, calibration, … Each must be there; what a
        frame may lack (ground truth of some layouts) is left out where it is absent. `load` reads `read_files`."""

    def read_files(self, name: str) -> dict[str, Path]:
        """Those of `files` that `load` reads: without ground truth, where that is left aside."""
        files = self.files(name)
        return files if self.truth else {role: path for role, path in files.items() if role not in TRUTH_FILES}

    def upright(self, name: str) -> bool:
        """Whether the frame's image is turned upright as EXIF says: where nothing is read that is of its pixels as they
        are stored, or it is turned along."""
        return False

    def orientation(self, name: str) -> int:
        """EXIF's orientation by which the frame's image is turned upright, 1 to 8; 1 where it is read as stored."""
        return orientation_of(self.files(name)["left"]) if self.upright(name) else 1

    def missing(self, name: str) -> list[Path]:
        """Those of a frame's files that are to be read and are not there."""
        wanted = self.read_files(name) | self.proxy_files(name)
        return [path for path in wanted.values() if not self.file_index.holds(path)]

    def use_proxies(self, folder: str | Path) -> None:
        """Lets the proxies of a folder stand in for ground truth, and notes in how many frames. InputError where one
        lacks them."""
        self.proxies = Proxies(folder)
        wanted = [name for name in self.names if self.proxied(name)]
        missing = [name for name in wanted if name not in self.proxies or not self.proxies.file(name).is_file()]
        if missing:
            raise InputError(
                f"proxies {folder}: {len(missing):,} of the {len(wanted):,} frames of {self.root} without ground truth "
                f"have none there, such as {missing[0]}: `adu-depth proxies {self.root} --output {folder}` adds them"
            )
        self.notes.append(
            f"{self.root}: proxies of a classical matcher stand in for ground truth in {len(wanted):,} of "
            f"{len(self):,} frames"
        )

    def proxied(self, name: str) -> bool:
        """Whether proxies stand in for the frame's ground truth."""
        return self.proxies is not None and not (self.truth and self.teaches(name))

    def supervised(self, name: str) -> bool:
        """Whether a training has something to learn from in the frame: ground truth, or proxies in its place."""
        return self.teaches(name) or self.proxied(name)

    def proxy_files(self, name: str) -> dict[str, Path]:
        """The file of the frame's proxies, by its role; none where it needs none."""
        return {"proxy": self.proxies.file(name)} if self.proxies is not None and self.proxied(name) else {}

    def part_digests(self) -> list[str] | None:
        """Digests of all that the frames are read from, where there are such beforehand."""
        return None

    where_focal_is = "expected fx in a camera.toml there"
    """What to do for a frame of unknown focal length."""

    def focal_known(self, name: str) -> bool:
        """Whether the frame's files say a focal length; those of pairs always do."""
        return True

    def labelled(self, name: str) -> bool:
        """Whether the frame has a file of ground truth to measure on."""
        return any(role in GROUND_TRUTH_ROLES for role in self.files(name))

    def teaches(self, name: str) -> bool:
        """Whether the frame has a file of ground truth to learn from: the same, or a LiDAR's points alone."""
        return self.labelled(name) or "sparse_depth" in self.files(name)

    def measurable(self) -> bool:
        """Whether some frame has something to measure depths on: a file of ground truth, or proxies in its place."""
        return any(self.proxied(name) or self.labelled(name) for name in self.names)

    def unused(self) -> list[Path]:
        """Files beside those of the frames that look as if they were meant to be read, and are not; where it shows."""
        return []

    def parts(self) -> list[str]:
        """Parts that are read together, one perhaps for training and one for evaluation; empty where it is one."""
        return []

    def sequence(self, name: str) -> str:
        """The recording a frame is part of, "" where the layout does not say. Frames of one must not be both trained
        and validated on: neighbours look alike."""
        return name.rpartition("/")[0]

    def split_entry(self, line: str, listed: str = "") -> str:
        """The name of the frame that a line of a split file means; listed: that file's name. Raises InputError if it
        cannot be understood, SeveralFrames if it may mean several."""
        stem, dot, suffix = line.rpartition(".")
        return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else line

    def select(self, names: list[str]) -> None:
        """Leaves these frames, in this order."""
        self.names = names


def size_by_look(path: Path) -> tuple[int, int] | None:
    """Height and width of an image as stored, by its first bytes; None where they do not tell: whoever reads it will
    say why."""
    try:
        look = look_at(path)
    except InputError:
        return None
    return None if look is None else (look.height, look.width)


def find_names(folder: Path, pattern: str) -> list[str]:
    """Sorted names, without suffix, of the files in `folder` that match, but for hidden ones; InputError if none do."""
    names = sorted(path.stem for path in folder.glob(pattern) if not path.name.startswith("."))
    if not names:
        raise InputError(f"{folder}: no stereo pairs, expected files named {pattern}")
    return names


def read_pair(left: Path, right: Path) -> tuple[Tensor, Tensor]:
    """Both views as `read_view` gives them, 3×H×W each. InputError if one is missing or their sizes differ."""
    if left.is_file() and not right.is_file():
        raise InputError(f"{right}: the right image of {left} is missing")
    views = read_view(left), read_view(right)
    if views[0].shape != views[1].shape:
        sizes = [f"{tuple(view.shape[-2:])} in {path}" for view, path in zip(views, (left, right), strict=True)]
        raise InputError(f"the images of a pair must have one size (height, width), got {' and '.join(sizes)}")
    return views


def require_size(found: tuple[int, ...], image: Tensor, what: str | Path, stored: Path | None = None) -> None:
    """InputError unless (height, width) is the image's. stored: the image's file, as which it was read."""
    if tuple(found) == tuple(image.shape[-2:]):
        return
    turn = 1 if stored is None else orientation_of(stored)
    why = ""
    if Turning.of(turn).sideways:
        why = f": {stored} is stored turned (EXIF's orientation {turn}), store it upright as its map is"
    raise InputError(
        f"{what}: expected the image's height and width {tuple(image.shape[-2:])}, got {tuple(found)}{why}"
    )


def kb_window(sample: StereoSample) -> StereoSample:
    """The 352×1216 window of a KITTI frame that its depth benchmark is cut to: at the bottom, in the middle.

    top = H − 352, left = int((W − 1216) / 2); the principal point moves along. InputError if the frame is smaller.
    """
    height, width = sample.left.shape[-2:]
    if height < KB_SIZE[0] or width < KB_SIZE[1]:
        raise InputError(
            f"{sample.name}: kb_crop needs at least {KB_SIZE[0]}×{KB_SIZE[1]} pixels, got {height}×{width}"
        )
    return sample.crop(height - KB_SIZE[0], (width - KB_SIZE[1]) // 2, *KB_SIZE)


def no_maps(image: Tensor) -> dict[str, Tensor]:
    """StereoSample's depth, disparity and valid of a frame without ground truth: nothing known."""
    return _as_maps(*(np.zeros(tuple(image.shape[-2:]), dtype=np.float32) for _ in range(2)))


def maps_from_disparity(disparity: np.ndarray, camera: Camera) -> dict[str, Tensor]:
    """StereoSample's depth, disparity and valid from an H×W disparity; 0, negative, NaN and inf mean unknown."""
    places = np.flatnonzero(np.isfinite(disparity) & (disparity > 0))
    known = disparity.reshape(-1)[places].astype(np.float32)
    return _maps_at(places, disparity_to_depth(known, camera), known, disparity.shape)


def maps_from_depth(depth: np.ndarray, camera: Camera) -> dict[str, Tensor]:
    """StereoSample's depth, disparity and valid from an H×W depth; 0, negative, NaN and inf mean unknown.

    A camera without a baseline has no disparities: they are 0, and valid is where the depth is known.
    """
    known = np.isfinite(depth) & (depth > 0)
    if not float(camera.baseline) > 0:
        depth = np.where(known, depth, 0).astype(np.float32)
        return {
            "depth": torch.from_numpy(depth)[None],
            "disparity": torch.zeros(1, *depth.shape),
            "valid": torch.from_numpy(known)[None],
        }
    places = np.flatnonzero(known)
    values = depth.reshape(-1)[places].astype(np.float32)
    return _maps_at(places, values, depth_to_disparity(values, camera), depth.shape)


def _maps_at(places: np.ndarray, depth: np.ndarray, disparity: np.ndarray, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The maps of values at `places` alone: a LiDAR knows a fifth of the pixels, or less."""
    known = (depth > 0) & (disparity > 0)
    places = places[known]
    maps = {}
    for name, values in (("depth", depth[known]), ("disparity", disparity[known]), ("valid", known[known])):
        flat = np.zeros(math.prod(shape), dtype=values.dtype)
        flat[places] = values
        maps[name] = torch.from_numpy(flat.reshape(shape))[None]
    return maps


def maps_from_both(depth: np.ndarray, disparity: np.ndarray) -> dict[str, Tensor]:
    """StereoSample's maps from a depth and a disparity that were both stored: known where both are."""
    known = np.isfinite(depth) & (depth > 0) & np.isfinite(disparity) & (disparity > 0)
    return _as_maps(np.where(known, depth, 0), np.where(known, disparity, 0))


def depth_disparity_product(maps: dict[str, Tensor], camera: Camera) -> float:
    """median(depth · (disparity + offset)) / (f · B) over the known pixels: 1 where maps and calibration agree; NaN
    where nothing is known."""
    depth, disparity = maps["depth"][maps["valid"]], maps["disparity"][maps["valid"]]
    product = (depth * (disparity + camera.disparity_offset)).median() if depth.numel() else torch.tensor(torch.nan)
    return float(product) / (float(camera.fx) * float(camera.baseline))


def _as_maps(depth: np.ndarray, disparity: np.ndarray) -> dict[str, Tensor]:
    known = (depth > 0) & (disparity > 0)
    maps = (np.where(known, depth, 0).astype(np.float32), np.where(known, disparity, 0).astype(np.float32), known)
    return {
        name: torch.from_numpy(values)[None] for name, values in zip(("depth", "disparity", "valid"), maps, strict=True)
    }
