"""DrivingStereo: Chinese roads, depth and disparity both stored, at half and at full size."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from adu_depth.data.calibration import calibration_matrix, read_kitti_calibration, usable_camera
from adu_depth.data.dataset import (
    FileDataset,
    depth_disparity_product,
    maps_from_both,
    maps_from_depth,
    maps_from_disparity,
    no_maps,
    read_pair,
    require_size,
)
from adu_depth.data.file_index import IMAGE_SUFFIXES, images_below
from adu_depth.data.image_files import read_png16
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera

LEFT_FOLDER = re.compile(r"(train-|test-)?left-image(-half-size|-full-size)?")
SEQUENCE = re.compile(r"\d{4}(-\d\d){5}")
ROLES = {"left": "left-image", "right": "right-image", "depth": "depth-map", "disparity": "disparity-map"}
CALIBRATION_PLACES = ("", "calib", "train_calib", "test_calib", "calib_train", "calib_test")
PRODUCT_TOLERANCE = 0.1


class DrivingStereo(FileDataset):
    """One part of DrivingStereo: the training set, the test set, or one weather, at one size.

    root: a folder that holds one folder of left images (`train-left-image`, `test-left-image`, `left-image-half-size`,
    `test-left-image-full-size`, …, in it or one level down), or that folder itself where several lie side by side.
    The right image, depth and disparity of a left one are at the same path with `left-image` replaced. Names are
    `<sequence>/<file>`, whether or not the part keeps its sequences in folders.
    Depth is uint16 / 256 metres, disparity uint16 / 256 px at half size and / 128 at full size, 0 = none; a frame needs
    one of them, and where both are there, both are handed out as stored.
    Calibration: `half-image-calib/<sequence>.txt` (`full-image-calib` at full size) beside the part or above. The
    baseline is |T_103|: P_rect_103[0,3] of the half-size files gives twice that. The first pair that is loaded must
    have median(disparity · depth) within a tenth of f·B. Raises InputError if there is no pair.
    """

    def __init__(self, root: str | Path) -> None:
        lefts = find_left_folders(Path(root))
        if len(lefts) > 1:
            found = ", ".join(map(str, lefts))
            raise InputError(f"{root}: holds several parts; name the folder of left images of the one meant: {found}")
        if not lefts:
            raise InputError(f"{root}: no folder of left images (train-left-image, left-image-half-size, …)")
        self.lefts = lefts[0]
        self.part = _outermost(self.lefts).parent
        images = images_below(self.lefts)
        sizes = {"full-size" in image.relative_to(self.part).as_posix() for image in images}
        if len(sizes) > 1:
            raise InputError(f"{self.lefts}: holds images of half and of full size; name the inner folder meant")
        self.full_size = True in sizes
        self.images = {f"{sequence_of(image)}/{image.stem}": image for image in images}
        if not self.images:
            raise InputError(f"{self.lefts}: no stereo pairs, expected <sequence>/*.jpg or *.jpg")
        super().__init__(root, list(self.images))
        self._product_seen = False

    def files(self, name: str) -> dict[str, Path]:
        left = self.images[name]
        found = {"left": left, "right": self._counterpart(left, "right"), "calibration": self._calibration(name)}
        maps = {role: self._counterpart(left, role).with_suffix(".png") for role in ("depth", "disparity")}
        stored = {role: path for role, path in maps.items() if self.file_index.holds(path)}
        return found | (stored or {"depth": maps["depth"]})

    def load_stored(self, name: str) -> StereoSample:
        files = self.read_files(name)
        left, right = read_pair(files["left"], files["right"])
        camera = read_calibration(files["calibration"])
        scales = {"depth": 256.0, "disparity": 128.0 if self.full_size else 256.0}
        maps: dict[str, np.ndarray] = {}
        for role in scales.keys() & files.keys():
            maps[role] = read_png16(files[role], scales[role])
            require_size(maps[role].shape, left, files[role])
        if not maps:
            known = no_maps(left)
        elif len(maps) == 1:
            known = maps_from_depth(maps["depth"], camera) if "depth" in maps else maps_from_disparity(
                maps["disparity"], camera
            )  # fmt: skip
        else:
            known = maps_from_both(maps["depth"], maps["disparity"])
            self._check_product(depth_disparity_product(known, camera), files)
        return StereoSample(left=left, right=right, **known, camera=camera, name=name)

    def _check_product(self, product: float, files: dict[str, Path]) -> None:
        if self._product_seen or np.isnan(product):
            return
        if abs(product - 1) > PRODUCT_TOLERANCE:
            raise InputError(
                f"{files['depth']}: depth · disparity is {product:.2f} times f·B of {files['calibration']}, not 1: "
                "maps and calibration are of different sizes (half and full), or the maps' scale is not DrivingStereo's"
            )
        self._product_seen = True

    def _counterpart(self, left: Path, role: str) -> Path:
        path = self.part / left.relative_to(self.part).as_posix().replace(ROLES["left"], ROLES[role])
        if role == "right":
            return self.file_index.find(path.parent, path.stem, IMAGE_SUFFIXES) or path
        return path

    def _calibration(self, name: str) -> Path:
        folder = "full-image-calib" if self.full_size else "half-image-calib"
        above = (self.part, *self.part.absolute().parents[:2])
        places = [a / place / folder for a in above for place in CALIBRATION_PLACES]
        file = f"{self.sequence(name)}.txt"
        candidates = [p / file for place in places for p in (place, place / folder)]
        return next((path for path in candidates if self.file_index.holds(path)), candidates[0])


def sequence_of(image: Path) -> str:
    """The recording an image is from: its name begins with it, `2018-07-09-16-11-56_2018-…`; else its folder."""
    start = SEQUENCE.match(image.stem)
    return start[0] if start else image.parent.name


def _outermost(folder: Path) -> Path:
    """The outermost of nested folders of left images, as in `test-left-image/left-image-half-size`."""
    while LEFT_FOLDER.fullmatch(folder.absolute().parent.name):
        folder = folder.absolute().parent
    return folder


def find_left_folders(root: Path) -> list[Path]:
    """The topmost folders of left images: `root` itself, or in it, or one level down."""
    if LEFT_FOLDER.fullmatch(root.resolve().name):
        return [root]
    found = [p for p in sorted(root.glob("*")) if LEFT_FOLDER.fullmatch(p.name)]
    return found or [p for p in sorted(root.glob("*/*")) if LEFT_FOLDER.fullmatch(p.name)]


def read_calibration(path: Path) -> Camera:
    """The camera of a sequence: P_rect_101 and P_rect_103 without their last columns, baseline |T_103| in metres."""
    values = read_kitti_calibration(path)
    left, right = (calibration_matrix(values, f"P_rect_{side}", (3, 4), path) for side in (101, 103))
    baseline = float(np.linalg.norm(calibration_matrix(values, "T_103", (3, 1), path)))
    camera = Camera(
        fx=float(left[0, 0]), fy=float(left[1, 1]), cx=float(left[0, 2]), cy=float(left[1, 2]),
        baseline=baseline, disparity_offset=float(right[0, 2] - left[0, 2]),
    )  # fmt: skip
    return usable_camera(camera, path)
