"""KITTI's stereo benchmarks of 2015 and 2012: street pairs with disparity maps stored as uint16 / 256, 0 = none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.calibration import (
    calibration_matrix,
    camera_from_projections,
    read_frame_table,
    read_kitti_calibration,
)
from adu_depth.data.dataset import FileDataset, find_names, maps_from_disparity, no_maps, read_pair, require_size
from adu_depth.data.image_files import read_png16
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera

FRAME_TABLE = "kitti2015_frames.csv"
FIRST_FRAMES = "*_10.png"  # the second frames, *_11, have no ground truth


@dataclass(frozen=True)
class StereoFolders:
    """Where one edition of the benchmark keeps what, below `training`, and its names in the calibration file."""

    left: str
    right: str
    noc: str
    occ: str
    calibration: str
    left_key: str
    right_key: str


KITTI_2015 = StereoFolders(
    "image_2", "image_3", "disp_noc_0", "disp_occ_0", "calib_cam_to_cam", "P_rect_02", "P_rect_03"
)
KITTI_2012 = StereoFolders("colored_0", "colored_1", "disp_noc", "disp_occ", "calib", "P2", "P3")


def training_folder(root: str | Path) -> Path:
    """`root`/training where there is one, else `root`: both the unpacked zip and its training part may be named."""
    inside = Path(root) / "training"
    return inside if inside.is_dir() else Path(root)


class KittiStereo(FileDataset):
    """KITTI stereo 2015 (or 2012 by `folders=KITTI_2012`), as the official zips unpack.

    root: the folder that holds `training`, or that folder.
    occluded_too: read the maps that also cover pixels hidden from the right camera (disp_occ). By default only those
    that both cameras see (disp_noc). `occluded` of a sample is known where both kinds of map are there.
    frame_table: a CSV of per-frame calibration (see `read_frame_table`). Without it a frame's calibration is
    `calib_cam_to_cam/NNNNNN.txt` (2012: `calib/NNNNNN.txt`) of the official zip, or else a row of
    `kitti2015_frames.csv` in, or in a folder `kitti_calib` beside, one of the two folders above the images.
    The benchmark has no LiDAR maps: sparse_depth is None. Raises InputError if there is no pair.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        folders: StereoFolders = KITTI_2015,
        occluded_too: bool = False,
        frame_table: str | Path | None = None,
    ) -> None:
        self.training = training_folder(root)
        self.folders = folders
        self.occluded_too = occluded_too
        self.frame_table = Path(frame_table) if frame_table is not None else None
        super().__init__(root, find_names(self.training / folders.left, FIRST_FRAMES))

    def files(self, name: str) -> dict[str, Path]:
        where = self.folders
        truth = where.occ if self.occluded_too else where.noc
        folders = {"left": where.left, "right": where.right, "disparity": truth}
        found = {role: self.training / folder / f"{name}.png" for role, folder in folders.items()}
        return found | {"calibration": self._calibration_file(name)}

    def sequence(self, name: str) -> str:
        return ""  # the benchmark does not say which frames are of one drive

    def load_stored(self, name: str) -> StereoSample:
        files = self.read_files(name)
        left, right = read_pair(files["left"], files["right"])
        camera = self._camera(name, left)
        if "disparity" not in files:
            return StereoSample(left=left, right=right, **no_maps(left), camera=camera, name=name)
        truth = files["disparity"].parent.name
        disparity = self._disparity(truth, name, left)
        return StereoSample(
            left=left,
            right=right,
            **maps_from_disparity(disparity, camera),
            camera=camera,
            occluded=self._occluded(name, left, {truth: disparity}),
            name=name,
        )

    def _disparity(self, folder: str, name: str, image: Tensor) -> np.ndarray:
        path = self.training / folder / f"{name}.png"
        disparity = read_png16(path)
        require_size(disparity.shape, image, path)
        return disparity

    def _occluded(self, name: str, image: Tensor, read: dict[str, np.ndarray]) -> Tensor | None:
        """read: the map that has been decoded, by its folder."""
        kinds = (self.folders.occ, self.folders.noc)
        if not all((self.training / kind / f"{name}.png").is_file() for kind in kinds):
            return None
        everywhere, seen_by_both = (
            (read[kind] if kind in read else self._disparity(kind, name, image)) > 0 for kind in kinds
        )
        return torch.from_numpy(everywhere & ~seen_by_both)[None]

    def _camera(self, name: str, image: Tensor) -> Camera:
        path = self._calibration_file(name)
        if not path.is_file():
            tried = ", ".join(map(str, self._calibration_files(name)))
            raise InputError(f"no calibration of frame {name}: looked for {tried}")
        if self.frame_table is None and path.suffix == ".txt":
            return self._official_camera(path, image)
        camera, size = read_frame_table(path, name)
        require_size(size, image, f"{path}, frame {name}")
        return camera

    def _calibration_file(self, name: str) -> Path:
        """The first of the files that is there, else the first."""
        paths = self._calibration_files(name)
        return next((path for path in paths if self.file_index.holds(path)), paths[0])

    def _calibration_files(self, name: str) -> list[Path]:
        if self.frame_table is not None:
            return [self.frame_table]
        return [self.training / self.folders.calibration / f"{name.split('_')[0]}.txt", *self._usual_tables()]

    def _official_camera(self, path: Path, image: Tensor) -> Camera:
        values = read_kitti_calibration(path)
        size = values.get(self.folders.left_key.replace("P_", "S_"))
        if size is not None and size.size == 2:
            require_size((int(size[1]), int(size[0])), image, f"{path}, the calibrated size")
        left = calibration_matrix(values, self.folders.left_key, (3, 4), path)
        right = calibration_matrix(values, self.folders.right_key, (3, 4), path)
        return camera_from_projections(left, right, path)

    def _usual_tables(self) -> list[Path]:
        above = (self.training, *self.training.absolute().parents[:2])
        return [folder / sub / FRAME_TABLE for folder in above for sub in ("", "kitti_calib")]
