"""KITTI's raw recordings with the depth maps annotated for them: what the Eigen split and others are drawn from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from adu_depth.data.calibration import calibration_matrix, camera_from_projections, read_kitti_calibration
from adu_depth.data.dataset import FileDataset, maps_from_depth, no_maps, read_pair, require_size
from adu_depth.data.file_index import IMAGE_SUFFIXES
from adu_depth.data.image_files import read_png16
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera

DATE = re.compile(r"\d{4}_\d\d_\d\d")
SIDES = {"l": "image_02", "r": "image_03"}
USUAL_TRUTH = ("", "data_depth_annotated", "../data_depth_annotated")
FORMATS = (
    "`rgb depth focal` (BTS: paths below the raw and the ground-truth folder, depth may be None), "
    "`folder frame l|r` (Monodepth2), or a name such as 2011_09_26/2011_09_26_drive_0001_sync/image_02/0000000005"
)


@dataclass(frozen=True)
class RawFrame:
    """What a name says: `date/drive/image_02/0000000005`, image_03 for the right camera's view."""

    date: str
    drive: str
    camera: str
    stem: str

    @classmethod
    def parse(cls, name: str) -> RawFrame:
        parts = [part for part in name.split("/") if part not in ("", "data")]
        if len(parts) != 4 or parts[2] not in SIDES.values():
            raise InputError(f"expected {FORMATS}; got {name!r}")
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.date}/{self.drive}/{self.camera}/{self.stem}"


class KittiRaw(FileDataset):
    """Pairs of KITTI's raw recordings, with the annotated depth where there is one.

    root: the folder of `2011_09_26`, `2011_09_28`, … with `<drive>/image_02|image_03/data` (PNG, or JPEG as Monodepth2
    converts them) and `calib_cam_to_cam.txt`. ground_truth: the folder of `<drive>/proj_depth/groundtruth`, of
    `<date>/<drive>/…`, or of `{train,val}/<drive>/…`: all three are tried. By default `root`, or `data_depth_annotated`
    in it or beside it.
    Without a split every frame of the left colour camera is a sample. Split lines: see FORMATS. The focal length of a
    BTS line is not used: focal length, principal point and baseline are read from the recording day's calibration.
    A frame of the right camera (`r`, image_03) is handed out mirrored, as the left view of the mirrored pair: that is a
    true rectified pair, with positive disparities and its own ground truth.
    depth: uint16 / 256 metres; none known for a frame without annotation. No LiDAR map of single scans: sparse_depth is
    None. Raises InputError if there is no frame.
    """

    def __init__(self, root: str | Path, ground_truth: str | Path | None = None) -> None:
        super().__init__(root, [])
        if ground_truth is not None and not Path(ground_truth).is_dir():
            raise InputError(f"ground_truth {ground_truth}: no such folder")
        self.truth_roots = [self.root / u for u in USUAL_TRUTH] if ground_truth is None else [Path(ground_truth)]
        self.without_truth: set[str] = set()
        """Frames whose split line says that they have no depth."""
        self.listed_truth: dict[str, str] = {}
        """Depth paths that split lines name, below a ground-truth folder."""
        self.names = self._names_on_disk()
        if not self.names:
            raise InputError(f"{root}: no frames, expected 2011_09_26/2011_09_26_drive_0001_sync/image_02/data/*.png")
        if ground_truth is not None and not any(self.labelled(name) for name in self.names):
            tried = ", ".join(map(str, self._truth_files(RawFrame.parse(self.names[-1]))))
            raise InputError(f"ground_truth {ground_truth}: no depth of any frame; looked for {tried} and the like")

    def files(self, name: str) -> dict[str, Path]:
        frame = RawFrame.parse(name)
        found = {"calibration": self.root / frame.date / "calib_cam_to_cam.txt"}
        for role, camera in zip(("left", "right"), SIDES.values(), strict=True):
            folder = self.root / frame.date / frame.drive / camera / "data"
            found[role] = self.file_index.find(folder, frame.stem, IMAGE_SUFFIXES) or folder / f"{frame.stem}.png"
        if name in self.without_truth:
            return found
        if name in self.listed_truth:
            candidates = self._below_truth_roots(self.listed_truth[name])
            found["depth"] = next((path for path in candidates if self.file_index.holds(path)), candidates[0])
        elif depth := next((path for path in self._truth_files(frame) if self.file_index.holds(path)), None):
            found["depth"] = depth
        return found

    def sequence(self, name: str) -> str:
        return RawFrame.parse(name).drive

    def split_entry(self, line: str, listed: str = "") -> str:
        parts = line.split()
        if len(parts) == 1:
            return str(RawFrame.parse(super().split_entry(line)))
        if len(parts) != 3:
            raise InputError(f"expected {FORMATS}; got {line!r}")
        if parts[2] in SIDES:
            return _monodepth2_entry(*parts)
        name = str(RawFrame.parse(super().split_entry(parts[0])))
        if parts[1] == "None":
            self.without_truth.add(name)
        elif ".." in parts[1].split("/"):
            raise InputError(f"expected a path below the ground truth's folder, got {parts[1]!r}")
        else:
            self.listed_truth[name] = parts[1]
        return name

    def load_stored(self, name: str) -> StereoSample:
        frame, files = RawFrame.parse(name), self.read_files(name)
        left, right = read_pair(files["left"], files["right"])
        camera = self._camera(files["calibration"], left.shape[-2:])
        if frame.camera == SIDES["r"]:
            left, right = right.flip(-1), left.flip(-1)
            # The mirrored right camera is the left one of the mirrored pair: its own cx, counted from the other rim.
            cx = left.shape[-1] - 1 - (camera.cx + camera.disparity_offset)
            camera = Camera(camera.fx, camera.fy, cx, camera.cy, camera.baseline, camera.disparity_offset)
        if "depth" not in files:
            return StereoSample(left=left, right=right, **no_maps(left), camera=camera, name=name)
        depth = read_png16(files["depth"])
        require_size(depth.shape, left, files["depth"])
        if frame.camera == SIDES["r"]:
            depth = depth[:, ::-1].copy()
        return StereoSample(left=left, right=right, **maps_from_depth(depth, camera), camera=camera, name=name)

    def _camera(self, path: Path, size: tuple[int, ...]) -> Camera:
        values = read_kitti_calibration(path)
        calibrated = values.get("S_rect_02")
        if calibrated is not None and tuple(calibrated[::-1]) != tuple(size):
            raise InputError(
                f"{path}: is for images of width and height {calibrated.tolist()}, the image has {list(size[::-1])}"
            )
        left, right = (calibration_matrix(values, f"P_rect_0{side}", (3, 4), path) for side in (2, 3))
        return camera_from_projections(left, right, path)

    def _names_on_disk(self) -> list[str]:
        names = []
        for date in sorted(name for name in self.file_index.names(self.root) if DATE.fullmatch(name)):
            for drive in sorted(self.file_index.names(self.root / date)):
                folder = self.root / date / drive / SIDES["l"] / "data"
                files = (name.rpartition(".") for name in sorted(self.file_index.names(folder)))
                stems = [stem for stem, dot, suffix in files if stem.isdigit() and dot + suffix in IMAGE_SUFFIXES]
                names += [str(RawFrame(date, drive, SIDES["l"], stem)) for stem in stems]
        return names

    def _truth_files(self, frame: RawFrame) -> list[Path]:
        return self._below_truth_roots(f"{frame.drive}/proj_depth/groundtruth/{frame.camera}/{frame.stem}.png")

    def _below_truth_roots(self, path: str) -> list[Path]:
        drive = path.lstrip("/").partition("/")[0]
        between = ("", drive[: len("2011_09_26")], "train", "val")
        return [root / folder / path.lstrip("/") for root in self.truth_roots for folder in between]


def recognises(root: Path) -> bool:
    return next(root.glob("????_??_??/*/image_02/data"), None) is not None


def _monodepth2_entry(folder: str, frame: str, side: str) -> str:
    date, _, drive = folder.strip("/").partition("/")
    if not frame.isdigit():
        raise InputError(f"expected a frame's number after its folder, got {frame!r}")
    return str(RawFrame.parse(f"{date}/{drive}/{SIDES[side]}/{int(frame):010d}"))
