"""Which data sets can be opened, how each is recognised, and the one function that opens any of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adu_depth.data import driving_stereo, kitti_depth, kitti_raw
from adu_depth.data.camera_file import other_calibration
from adu_depth.data.dataset import FileDataset
from adu_depth.data.driving_stereo import DrivingStereo
from adu_depth.data.file_index import images_below
from adu_depth.data.foreign_files import foreign
from adu_depth.data.indoor import NyuV2, recognises_nyu
from adu_depth.data.kitti import KITTI_2012, KITTI_2015, KittiStereo, training_folder
from adu_depth.data.kitti_depth import KittiDepth
from adu_depth.data.kitti_object import KittiObject
from adu_depth.data.kitti_raw import KittiRaw
from adu_depth.data.middlebury import MiddleburyStereo
from adu_depth.data.packed import PackedStereo
from adu_depth.data.packed import dataset as packed
from adu_depth.data.pictures import Pictures
from adu_depth.data.rgbd import EXAMPLE as SCALES
from adu_depth.data.rgbd import FILE_NAME as DEPTH_SCALES
from adu_depth.data.rgbd import Rgbd
from adu_depth.data.rig import Rig
from adu_depth.data.scannet import ScanNet, recognises_scannet
from adu_depth.data.splits import leave_out_missing, use_of, use_split
from adu_depth.errors import InputError
from adu_depth.files import open_regular

FOLDER_OPTIONS = ("layout", "split", "ground_truth", "kb_crop", "skip_missing")
"""Settings that say how a folder is opened."""

IMAGE_FOLDERS = ("color", "colour", "rgb", "image", "images")
DEEPEST = 6  # folders from an image to its data set's: KITTI raw has five


@dataclass(frozen=True)
class Layout:
    """One way a data set lies on disk: what tells it from the others, and how it is opened."""

    name: str
    looks_for: str
    recognises: Callable[[Path], bool]
    opens: Callable[[Path], FileDataset]
    opens_with_truth: Callable[[Path, Path], FileDataset] | None = None
    """Where the ground truth may lie in a folder of its own: opens both."""


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
    Layout(
        "kitti_eigen",
        "2011_09_26/<drive>/image_02/data, image_03/data (KITTI raw, for the Eigen split and others)",
        kitti_raw.recognises,
        KittiRaw,
        KittiRaw,
    ),
    Layout(
        "kitti_depth",
        "image, intrinsics and groundtruth_depth (val_selection_cropped, or test_depth_prediction_anonymous without)",
        lambda root: bool(kitti_depth.find_parts(root)),
        KittiDepth,
    ),
    Layout(
        "driving_stereo",
        "train-left-image (test-…, …-half-size, …-full-size) beside right-image, depth-map, disparity-map and calib",
        lambda root: bool(driving_stereo.find_left_folders(root)),
        DrivingStereo,
    ),
    Layout(
        "packed",
        "pack.json (what `adu-depth pack` wrote)",
        packed.recognises,
        PackedStereo,
    ),
    Layout(
        "rgbd",
        "depth.toml, and lists *.csv of image,depth or images and depth (single images; indoor sets)",
        lambda root: (root / DEPTH_SCALES).is_file(),
        Rgbd,
    ),
    Layout(
        "nyu_v2",
        "folders of rgb_00045.jpg and sync_depth_00045.png (NYU-v2 as BTS lays it out; single images)",
        recognises_nyu,
        NyuV2,
    ),
    Layout(
        "scannet",
        "[scans/]scene0000_00/color/0.jpg, depth/0.png, pose or intrinsic (ScanNet's exported frames; single images)",
        recognises_scannet,
        ScanNet,
    ),
    Layout(
        "pictures",
        "any images, without depth (by name alone, or where labels=false)",
        lambda root: False,
        Pictures,
    ),
    Layout(
        "rig",
        "left, right and camera.toml (your own pairs; depth, disparity, sparse_depth where known)",
        lambda root: (root / "left").is_dir() and (root / "right").is_dir(),
        Rig,
    ),
)


def open_dataset(
    root: str | Path,
    layout: str = "auto",
    *,
    split: str | Path | None = None,
    ground_truth: str | Path | None = None,
    kb_crop: bool = False,
    skip_missing: bool = False,
    truth: bool = True,
    together: bool = False,
) -> FileDataset:
    """The data set at `root`, a sequence of StereoSample. `layout` is a name in LAYOUTS, or "auto" to recognise it.

    split: a file that names the samples wanted, one a line (see `use_split`). ground_truth: the folder of the ground
    truth, for layouts that may keep it apart (kitti_eigen). kb_crop: cut frames to KITTI's 352×1216 window.
    skip_missing: leave out, and count in the data set's `notes`, frames whose files are not all there; without it a
    split that names such a frame is refused, and any other is refused when it is loaded. truth: whether ground truth is
    read; without it frames have none known, and its files need not be there. together: read parts that are for training
    and for evaluation by their names as one set, where no split says which is meant; else that is refused.

    Raises InputError if there is no such folder, the layout is unknown, none or several are recognised, or it is empty.
    """
    root = Path(root)
    chosen = find_layout(root, layout)
    if ground_truth is None:
        dataset = chosen.opens(root)
    elif chosen.opens_with_truth is None:
        raise InputError(f"ground_truth {ground_truth}: layout {chosen.name} keeps its ground truth in {root}")
    else:
        dataset = chosen.opens_with_truth(root, Path(ground_truth))
    dataset.truth = truth
    if split is not None:
        use_split(dataset, split, skip_missing)
    elif skip_missing:
        leave_out_missing(dataset)
    if split is None and (parts := dataset.parts()):
        uses = {use for part in parts if (use := use_of(part))}
        if len(uses) > 1 and not together:
            first = next((part for part in parts if use_of(part) == "train"), parts[0])
            raise InputError(
                f"{root}: {', '.join(parts)} are for {' and '.join(sorted(uses))} by their names: name the one meant, "
                f"as by split {root / first} if it is a list, or give the folder of a part"
            )
        dataset.notes.append(
            f"{root}: all of {', '.join(parts)} is read; what is for evaluation is left out by a split"
        )
    dataset.kb_crop = kb_crop
    return dataset


def find_layout(root: Path, layout: str = "auto") -> Layout:
    """The layout of this name, or the one that recognises `root`. InputError as for open_dataset."""
    if root.exists() and not root.is_dir():
        with open_regular(root) as file:
            told = foreign(file.read(512)) or "a file"
        raise InputError(f"{root}: expected a data set's folder, got {told}")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, expected a data set")
    chosen = [known for known in LAYOUTS if (known.recognises(root) if layout == "auto" else known.name == layout)]
    if len(chosen) == 1:
        return chosen[0]
    table = "".join(f"\n  {known.name}: {known.looks_for}" for known in LAYOUTS)
    if layout != "auto":
        raise InputError(f"layout: {layout!r} is not known, expected 'auto' or one of{table}")
    if chosen:
        names = ", ".join(known.name for known in chosen)
        raise InputError(f"{root}: looks like more than one layout ({names}); name the one meant, or the inner folder")
    other = other_calibration(root)
    hint = f"\n{other}, and pairs into left and right" if other else ""
    raise InputError(f"{root}: no known layout of stereo pairs; looked for{table}{hint}{_images_with_depth(root)}")


def is_plain_pictures(root: Path) -> bool:
    """Whether a folder holds images and nothing that says more of them: a layout's marks, calibration, depth."""
    if not root.is_dir() or recognised(root) or other_calibration(root) or _images_with_depth(root):
        return False
    return bool(images_below(root))


def _images_with_depth(root: Path) -> str:
    """What to do with images and depth maps of which nothing says how they are stored; "" where there are none."""
    if lists := sorted(path.name for path in root.glob("*.csv")):
        found = ", ".join(lists[:3])
        return f"\nfound {found}: if they are of image,depth, say what a metre is in {root / DEPTH_SCALES}: {SCALES}"
    for part in ("", "*/"):
        for depth in root.glob(f"{part}depth"):
            beside = next((name for name in IMAGE_FOLDERS if (depth.parent / name).is_dir()), "")
            if beside and depth.is_dir():
                return (
                    f"\nfound {depth.parent / beside} and depth, as several sets have them (7-Scenes, TUM, Redwood, "
                    f"ScanNet): name the layout scannet if depth is 16-bit millimetres in color and depth, else list "
                    f"image,depth in a *.csv and say what a metre is in {DEPTH_SCALES} (layout rgbd): {SCALES}"
                )
    return ""


def recognised(root: Path) -> bool:
    """Whether a folder lies as some layout has it."""
    return any(known.recognises(root) for known in LAYOUTS)


def views_above(folder: Path) -> frozenset[str]:
    """Absolute paths of the views of every data set that one of the folders above `folder`, or itself, is; without
    those that it turns upright itself."""
    found: set[str] = set()
    folder = Path(os.path.abspath(folder))
    for root in (folder, *folder.parents)[:DEEPEST]:
        try:
            dataset = open_dataset(root, together=True)
            files = [dataset.files(name) for name in dataset.names if not dataset.upright(name)]
        except InputError:
            continue
        found |= {os.path.abspath(each[role]) for each in files for role in ("left", "right") if role in each}
    return frozenset(found)


def folder_options(config: object) -> dict[str, Any]:
    """FOLDER_OPTIONS of a dataclass of settings, as `open_dataset` takes them: what is empty is not given."""
    given = {name: getattr(config, name) for name in FOLDER_OPTIONS}
    return given | {name: given[name] or None for name in ("split", "ground_truth")}


def refuse_folder_options(config: object, prefix: str, source: str) -> None:
    """InputError for the first of FOLDER_OPTIONS that a dataclass of settings has away from its default.

    For built-in scenes, which have no folder. prefix: stands before the option's name; source: the setting that chose
    them.
    """
    for name in FOLDER_OPTIONS:
        if getattr(config, name) != getattr(type(config), name):
            raise InputError(f"{prefix}{name} is for a data set's folder, and {source} is the built-in scenes")
