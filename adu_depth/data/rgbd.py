"""Single images with depth, as indoor data sets are kept: lists of image and depth, or two folders, and depth.toml.

# stored values per metre; 0 is "no depth" in any case
depth_scale = 1000          # 16-bit PNGs in millimetres

["nyu2_train.csv"]          # optional: of one list
depth_scale = 25.5          # 8-bit PNGs, 255 = 10 m
"""

from __future__ import annotations

import csv
import math
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adu_depth.data.camera_file import CameraFile, find_camera_file, name_in
from adu_depth.data.dataset import FileDataset, maps_from_depth, no_maps, require_size
from adu_depth.data.file_index import images_below
from adu_depth.data.image_files import read_levels, read_view
from adu_depth.data.image_look import look_at
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.files import read_name_lines, read_text
from adu_depth.geometry import Camera

FILE_NAME = "depth.toml"
SCALE = "depth_scale"
EXAMPLE = f"{SCALE} = 1000 for 16-bit millimetres, 25.5 for 8 bits of 10 m, 5000 for TUM's"
NEAREST_REACH, FARTHEST_REACH = 1.0, 1000.0
"""Metres: what 8 bits reach at least, and 16 at most. Beyond it the scale is that of other maps."""
UNKNOWN_CAMERA = Camera(fx=math.nan, fy=math.nan, cx=math.nan, cy=math.nan, baseline=0.0)


class _Frame(NamedTuple):
    image: Path
    top: Path
    """The folder that its path is from: camera.toml is looked for up to here."""
    depth: Path | None
    scale: float


class Rgbd(FileDataset):
    """Colour images with depth maps of their size, from one camera.

        depth.toml        depth_scale: stored values per metre, for all or by list (above)
        train.csv …       lists, image,depth without a header; the second column is empty where no depth is.
                          Paths are from the list's folder, or the one above it
        images/ depth/    without lists: depth maps named as the images
        camera.toml       optional, here or nearer to an image: networks that scale by the focal length need it

    Depth maps are one-channel PNGs of 8 or 16 bits, 0 = none. A frame is called by its image's path, without suffix. A
    list is also a split file: `--data.split train.csv`. There are no right images: a sample's `right` is None, its
    camera's baseline 0. Raises InputError if there is no frame, or depth.toml does not say the scale.
    """

    def __init__(self, root: str | Path, scale: float | None = None) -> None:
        """scale: stored values per metre where no depth.toml says it."""
        root = Path(root)
        self.told = scale is None or (root / FILE_NAME).is_file()
        self.scales = read_scales(root / FILE_NAME) if self.told else {"": float(scale or 0)}
        self.frames: dict[str, _Frame] = {}
        lists = sorted(root.glob("*.csv"))
        self.lists = [path.name for path in lists]
        for path in lists:
            self._add_list(path)
        if not lists:
            self._add_folders(root)
        if not self.frames:
            raise InputError(f"{root}: no image, expected lists (*.csv of image,depth), or images/ and depth/")
        self.cameras: dict[Path, CameraFile] = {}
        super().__init__(root, list(self.frames))

    def _add_list(self, path: Path) -> None:
        scale = self.scales.get(path.name, self.scales[""])
        top: Path | None = None
        looked = False
        for number, row in enumerate(csv.reader(read_name_lines(path)), start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            where = f"{path}, line {number}"
            if len(cells) > 2 or not cells[0]:
                raise InputError(f"{where}: expected image,depth, got {','.join(row)[:200]!r}")
            for cell in filter(None, cells):
                if cell.startswith("/") or ".." in Path(cell).parts:
                    raise InputError(f"{where}: expected a path below the list's folder or the one above, got {cell!r}")
            if top is None:
                top = next((t for t in (path.parent, path.parent.parent) if (t / cells[0]).is_file()), path.parent)
            depth = top / cells[1] if len(cells) == 2 and cells[1] else None
            frame = _Frame(top / cells[0], top, depth, scale)
            if depth is not None and not looked:
                looked = _refuse_exchanged(frame, where)
            self._add(Path(cells[0]), frame, where)

    def _add_folders(self, root: Path) -> None:
        maps = {path.relative_to(root / "depth").with_suffix(""): path for path in images_below(root / "depth")}
        for image in images_below(root / "images"):
            name = image.relative_to(root / "images")
            self._add(name, _Frame(image, root, maps.get(name.with_suffix("")), self.scales[""]), str(image))

    def _add(self, path: Path, frame: _Frame, where: str) -> None:
        name = path.with_suffix("").as_posix()
        if self.frames.setdefault(name, frame) != frame:
            raise InputError(f"{where}: {name} is there already, with another image, depth or {SCALE}")
        if frame.depth is not None and not frame.scale > 0:
            raise InputError(f"{where}: {FILE_NAME} says no {SCALE} for it: expected {EXAMPLE}")

    def parts(self) -> list[str]:
        return self.lists if len(self.lists) > 1 else []

    def files(self, name: str) -> dict[str, Path]:
        frame = self.frames[name]
        found = {"left": frame.image}
        if (camera := find_camera_file(frame.image, frame.top)) is not None:
            found["calibration"] = camera
        if frame.depth is not None:
            found |= {"depth": frame.depth} | ({"scale": self.root / FILE_NAME} if self.told else {})
        return found

    def split_entry(self, line: str, listed: str = "") -> str:
        """A line of a list, or a name."""
        image = next(csv.reader([line]))[0].strip()
        return super().split_entry(Path(image).as_posix())

    def focal_known(self, name: str) -> bool:
        return "calibration" in self.files(name)

    def upright(self, name: str) -> bool:
        return "depth" not in self.read_files(name)

    def load_stored(self, name: str) -> StereoSample:
        frame, orientation = self.frames[name], self.orientation(name)
        image = read_view(frame.image, upright=orientation != 1)
        camera = self._camera(name, (image.shape[1], image.shape[2]), orientation)
        maps = no_maps(image)
        if frame.depth is not None and self.truth:
            depth = read_depth(frame.depth, frame.scale)
            require_size(depth.shape, image, frame.depth, frame.image)
            maps = maps_from_depth(depth, camera)
        return StereoSample(left=image, right=None, **maps, camera=camera, name=name)

    def _camera(self, name: str, size: tuple[int, int], orientation: int) -> Camera:
        path = self.files(name).get("calibration")
        if path is None:
            return UNKNOWN_CAMERA
        if path not in self.cameras:
            self.cameras[path] = CameraFile(path)
        called = name_in(path, self.frames[name].image)
        return self.cameras[path].camera(called, size, ("fx",), orientation)


def _refuse_exchanged(frame: _Frame, where: str) -> bool:
    """InputError for a depth map in the image's column; False where the image is not there to be looked at."""
    if not frame.image.is_file():
        return False
    look = look_at(frame.image)
    if look is not None and look.map_like:
        raise InputError(f"{where}: expected image,depth, got {frame.image.name} first, which is one channel of "
                         f"{look.bits} bits as a map of depth has: exchange the columns")  # fmt: skip
    return True


def read_depth(path: Path, scale: float) -> np.ndarray:
    """H×W float32 metres of a PNG of 8 or 16 bits, 0 = none. InputError where its depths cannot be of that scale."""
    levels = read_levels(path)
    reach = np.iinfo(levels.dtype).max / scale
    if levels.dtype == np.uint8 and reach < NEAREST_REACH:
        raise InputError(f"{path} has 8 bits, which {SCALE} = {scale:g} takes to {reach:.3g} m at most: expected the "
                         f"scale of this map in {FILE_NAME}, such as 25.5 (255 = 10 m)")  # fmt: skip
    if levels.dtype == np.uint16 and reach > FARTHEST_REACH:
        raise InputError(f"{path} has 16 bits, which {SCALE} = {scale:g} takes to {reach:,.0f} m: expected the scale "
                         f"of this map in {FILE_NAME}, such as 1000 (millimetres)")  # fmt: skip
    return levels.astype(np.float32) / np.float32(scale)


def read_scales(path: Path) -> dict[str, float]:
    """By list; "" is for all others, NaN where it is not said. InputError for anything but positive numbers."""
    if not path.is_file():
        raise InputError(f"{path} is missing: expected a line {EXAMPLE}")
    try:
        told = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {str(error)[:200]}") from error
    tables = {"": {key: value for key, value in told.items() if not isinstance(value, dict)}}
    tables |= {key: value for key, value in told.items() if isinstance(value, dict)}
    scales = {"": math.nan}
    for section, table in tables.items():
        for key, value in table.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if key != SCALE or not number or not 0 < value < math.inf:
                raise InputError(f"{path}: expected {EXAMPLE}, got {key} = {str(value)[:200]}")
            scales[section] = float(value)
    return scales
