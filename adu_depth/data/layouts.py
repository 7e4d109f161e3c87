"""Which data sets can be opened, how each is recognised, and the one function that opens any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adu_depth.data.dataset import Dataset
from adu_depth.data.kitti import KITTI_2012, KITTI_2015, KittiStereo, training_folder
from adu_depth.data.kitti_object import KittiObject
from adu_depth.data.middlebury import MiddleburyStereo
from adu_depth.errors import InputError


@dataclass(frozen=True)
class Layout:
    """One way a data set lies on disk: what tells it from the others, and how it is opened."""

    name: str
    looks_for: str
    recognises: Callable[[Path], bool]
    opens: Callable[[Path], Dataset]


def _holds(root: Path, *groups: tuple[str, ...]) -> bool:
    """Whether for every group one of its folders is in root/training or root."""
    training = training_folder(root)
    return all(any((training / folder).is_dir() for folder in group) for group in groups)


def _has_file(root: Path, *patterns: str) -> bool:
    return any(next(root.glob(pattern), None) is not None for pattern in patterns)


LAYOUTS = (
    Layout(
        "kitti2015",
        "[training/]image_2, image_3, and disp_noc_0 or disp_occ_0",
        lambda root: _holds(root, ("image_2",), ("disp_noc_0", "disp_occ_0")),
        lambda root: KittiStereo(root, folders=KITTI_2015),
    ),
    Layout(
        "kitti2012",
        "[training/]colored_0, colored_1, and disp_noc or disp_occ",
        lambda root: _holds(root, ("colored_0",), ("disp_noc", "disp_occ")),
        lambda root: KittiStereo(root, folders=KITTI_2012),
    ),
    Layout(
        "kitti_object",
        "[training/]image_2, image_3, velodyne, calib; or folders of left.png, right.png, lidar.bin, calib.txt",
        lambda root: _holds(root, ("image_2",), ("velodyne",)) or _has_file(root, "lidar.bin", "*/lidar.bin"),
        KittiObject,
    ),
    Layout(
        "middlebury",
        "im0.png, im1.png, calib.txt, and disp0GT.pfm or disp0.pfm, in this or its folders",
        lambda root: _has_file(root, "im0.png", "*/im0.png"),
        MiddleburyStereo,
    ),
    Layout(
        "eth3d",
        "two_view_training and two_view_training_gt (a scene unpacked alone opens as middlebury: same format)",
        lambda root: _has_file(root, "two_view_training/*/im0.png"),
        MiddleburyStereo,
    ),
)


def open_dataset(root: str | Path, layout: str = "auto") -> Dataset:
    """The data set at `root`, a sequence of StereoSample. `layout` is a name in LAYOUTS, or "auto" to recognise it.

    Raises InputError if there is no such folder, the layout is unknown, none or several are recognised, or it is empty.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, expected a data set")
    chosen = [known for known in LAYOUTS if (known.recognises(root) if layout == "auto" else known.name == layout)]
    if len(chosen) == 1:
        return chosen[0].opens(root)
    table = "".join(f"\n  {known.name}: {known.looks_for}" for known in LAYOUTS)
    if layout != "auto":
        raise InputError(f"layout: {layout!r} is not known, expected 'auto' or one of{table}")
    if chosen:
        names = ", ".join(known.name for known in chosen)
        raise InputError(f"{root}: looks like more than one layout ({names}); name the one meant, or the inner folder")
    raise InputError(f"{root}: no known layout of stereo pairs; looked for{table}")
