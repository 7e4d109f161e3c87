"""Your own stereo rig: two folders of images and one camera.toml."""

from __future__ import annotations

import io
import math
import tokenize
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.camera_file import ALL_NEEDED, FILE_NAME, LEAST, CameraFile, other_calibration
from adu_depth.data.dataset import (
    FileDataset,
    maps_from_both,
    maps_from_depth,
    maps_from_disparity,
    no_maps,
    read_pair,
    require_size,
)
from adu_depth.data.file_index import IMAGE_SUFFIXES, files_below, images_below, suffixes_like
from adu_depth.data.image_files import MAP_SHARE, read_mask, read_pfm, read_png16
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.files import read_bytes

MAP_SUFFIXES = (".png", ".PNG", ".pfm", ".PFM", ".npy")
MAP_ROLES = ("depth", "disparity", "sparse_depth")
# numpy reads an array's header as Python's source.
BROKEN_NPY = (
    OSError, ValueError, EOFError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError,
    OverflowError, AttributeError, KeyError,
)  # fmt: skip
NEEDED = (*ALL_NEEDED, "baseline")


class Rig(FileDataset):
    """Rectified pairs in folders, as you would put your own, and as `adu-depth render` writes them.

        left/ right/      images of any common kind; a pair is two files of one name, extensions may differ
        camera.toml       fx, fy, cx, cy (pixels) and baseline (metres), for all images or by name (data/camera_file.py)
        depth/            optional: ground truth in metres
        disparity/        optional: ground truth in pixels of the left image
        sparse_depth/     optional: a LiDAR's points in metres, for training; evaluation is on the two above
        occluded/         optional: 8-bit PNG, not 0 where the right camera does not see the left image's pixel

    Maps are named as the left image: 16-bit PNG of value · 256 (0 = none), PFM, or a float .npy of H×W (0, NaN and inf
    = none); the first of the three that is there is read. Depth and disparity follow from each other where only one is
    given, and are handed out as stored where both are. Frames without ground truth have none known.
    Images may lie in folders of sequences, `left/monday/000001.jpg`; the frame is then called `monday/000001`.
    Raises InputError if there is no pair or no camera.toml.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        lefts = root / "left"
        images = images_below(lefts)
        self.lefts: dict[str, Path] = {}
        for image in images:
            name = image.relative_to(lefts).with_suffix("").as_posix()
            if name in self.lefts:
                raise InputError(f"{image} and {self.lefts[name]} have one name: a frame needs a single left image")
            self.lefts[name] = image
        if not images:
            raise InputError(f"{lefts}: no images, expected files ending in {', '.join(IMAGE_SUFFIXES)}")
        if not (root / FILE_NAME).is_file():
            wanted = ", ".join(f"{key} = …" for key in NEEDED)
            told = f"{root / FILE_NAME} is missing: expected a line each of {wanted} (pixels; baseline in metres)"
            raise InputError("; ".join(filter(None, (told, other_calibration(root, lefts)))))
        self.cameras = CameraFile(root / FILE_NAME)
        super().__init__(root, list(self.lefts))

    def files(self, name: str) -> dict[str, Path]:
        folder, stem = (self.root / "right" / name).parent, Path(name).name
        right = self.file_index.find(folder, stem, suffixes_like(self.lefts[name].suffix))
        found = {
            "left": self.lefts[name],
            "right": right or folder / self.lefts[name].name,
            "calibration": self.cameras.path,
        }
        for role in MAP_ROLES:
            if path := self.file_index.find((self.root / role / name).parent, stem, MAP_SUFFIXES):
                found[role] = path
        if occluded := self.file_index.find((self.root / "occluded" / name).parent, stem, (".png",)):
            found["occluded"] = occluded
        return found

    def unused(self) -> list[Path]:
        used = {path for name in self.lefts for path in self.files(name).values()}
        folders = (self.root / role for role in ("right", *MAP_ROLES, "occluded"))
        return [path for folder in folders for path in files_below(folder) if path not in used]

    def load_stored(self, name: str) -> StereoSample:
        files = self.read_files(name)
        left, right = read_pair(files["left"], files["right"])
        camera = self.cameras.camera(name, (left.shape[1], left.shape[2]), NEEDED)
        if not camera.baseline >= LEAST:
            raise InputError(
                f"{self.cameras.path}: baseline must be positive, at least {LEAST:g}, got {camera.baseline}"
            )
        maps = {role: read_map(files[role], left) for role in MAP_ROLES if role in files}
        if "depth" in maps and "disparity" in maps:
            known = maps_from_both(maps["depth"], maps["disparity"])
        elif "depth" in maps:
            known = maps_from_depth(maps["depth"], camera)
        elif "disparity" in maps:
            known = maps_from_disparity(maps["disparity"], camera)
        else:
            known = no_maps(left)
        return StereoSample(
            left=left,
            right=right,
            **known,
            camera=camera,
            occluded=_occluded(files["occluded"], left) if "occluded" in files else None,
            sparse_depth=torch.from_numpy(maps["sparse_depth"])[None] if "sparse_depth" in maps else None,
            name=name,
        )


def read_map(path: Path, image: Tensor) -> np.ndarray:
    """H×W float32 of a 16-bit PNG (value / 256), a PFM or a float .npy, of the image's size; none known = 0."""
    values = read_map_values(path)
    require_size(values.shape, image, path)
    return np.where(np.isfinite(values) & (values > 0), values, 0).astype(np.float32)


def read_map_values(path: Path) -> np.ndarray:
    """H×W floats of such a map as they are stored, negative ones and NaN included."""
    if path.suffix.lower() == ".png":
        return read_png16(path)
    if path.suffix.lower() == ".pfm":
        return read_pfm(path)
    return _read_npy(path)


def _read_npy(path: Path) -> np.ndarray:
    data = io.BytesIO(read_bytes(path, MAP_SHARE))
    try:
        if np.lib.format.read_magic(data) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(data)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(data)
        promised = math.prod(shape) * dtype.itemsize
        if min(shape, default=1) < 0 or promised > len(data.getbuffer()) - data.tell():
            raise ValueError(f"its header promises {promised} bytes, {len(data.getbuffer()) - data.tell()} are there")
        data.seek(0)
        values: np.ndarray = np.load(data, allow_pickle=False)
    except BROKEN_NPY as error:
        raise InputError(f"{path}: not an array that can be read: {error}") from error
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"{path}: expected H×W floats, got {values.dtype} of shape {values.shape}")
    return values


def _occluded(path: Path, image: Tensor) -> Tensor:
    mask = read_mask(path)
    require_size(mask.shape, image, path)
    return torch.from_numpy(mask > 0)[None]
