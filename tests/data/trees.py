"""Rendered scenes written as other data sets lie on disk: folders, names, number formats and calibration files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from adu_depth.data import RigConfig, StereoSample, SyntheticStereo
from adu_depth.data.image_files import write_png16
from adu_depth.geometry import Camera

SIZE = (64, 192)
BASELINE = 0.532
KITTI_RIG = RigConfig(baseline=(BASELINE, BASELINE))
DATE, DRIVES = "2011_09_26", ("2011_09_26_drive_0001_sync", "2011_09_26_drive_0002_sync")
SEQUENCES = ("2018-07-09-16-11-56", "2018-07-10-09-54-03")


@cache
def scenes(count: int = 4, size: tuple[int, int] = SIZE) -> tuple[StereoSample, ...]:
    dataset = SyntheticStereo(count, *size, seed=5, rig=KITTI_RIG)
    return tuple(dataset[i] for i in range(count))


def save_image(path: Path, image: object, quality: int = 100) -> None:
    """3×H×W floats as PNG or JPEG, by the path's ending."""
    pixels = (np.asarray(image).transpose(1, 2, 0)[..., ::-1] * 255).round().astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])


def save_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def row(key: str, values: object) -> str:
    return f"{key}: {' '.join(f'{v:e}' for v in np.asarray(values).ravel())}\n"


def projection(camera: Camera, shift: float) -> np.ndarray:
    """3×4; shift: metres to the left of the reference camera."""
    fx, fy, cx, cy = (float(v) for v in (camera.fx, camera.fy, camera.cx, camera.cy))
    return np.array([[fx, 0, cx, fx * shift], [0, fy, cy, 0.2], [0, 0, 1, 0.0027]])


def depth_of(sample: StereoSample) -> np.ndarray:
    return np.where(sample.valid[0], sample.depth[0], 0)


def disparity_of(sample: StereoSample) -> np.ndarray:
    return np.where(sample.valid[0], sample.disparity[0], 0)


def write_kitti_raw(root: Path, truth: Path, form: str = "{drive}", suffix: str = ".png") -> list[str]:
    """Two drives of two frames each in `root`, annotated depth in `truth`/form; returns the frames' names.

    form: where drives stand below the ground-truth folder. The last frame has no annotation, as 45 of the Eigen test's.
    """
    names = []
    for index, sample in enumerate(scenes()):
        drive, stem = DRIVES[index // 2], f"{5 + index % 2:010d}"
        for camera, view in (("image_02", sample.left), ("image_03", sample.right)):
            save_image(root / DATE / drive / camera / "data" / f"{stem}{suffix}", view)
        if index < 3:
            folder = truth / form.format(drive=drive, date=DATE, part="train" if index < 2 else "val")
            write_png16(folder / "proj_depth" / "groundtruth" / "image_02" / f"{stem}.png", depth_of(sample))
        names.append(f"{DATE}/{drive}/image_02/{stem}")
    camera, (height, width) = scenes()[0].camera, SIZE
    save_text(
        root / DATE / "calib_cam_to_cam.txt",
        "calib_time: 09-Jan-2012 13:57:47\n"
        + row("S_rect_02", (width, height))
        + row("P_rect_02", projection(camera, 0.06))
        + row("P_rect_03", projection(camera, 0.06 - float(camera.baseline))),
    )
    return names


def write_kitti_depth(root: Path) -> list[str]:
    """depth_selection/val_selection_cropped and …/test_depth_prediction_anonymous; returns the former's names."""
    names = []
    for index, sample in enumerate(scenes()):
        name = f"{DRIVES[index // 2]}_image_{index:010d}_image_02"
        k = projection(sample.camera, 0)[:, :3]
        val, test = (root / "depth_selection" / p for p in ("val_selection_cropped", "test_depth_prediction_anonymous"))
        save_image(val / "image" / f"{name}.png", sample.left)
        write_png16(
            val / "groundtruth_depth" / f"{name.replace('_image_', '_groundtruth_depth_', 1)}.png", depth_of(sample)
        )
        save_text(val / "intrinsics" / f"{name}.txt", " ".join(f"{v:.6f}" for v in k.ravel()))
        save_image(test / "image" / f"{index:010d}.png", sample.left)
        save_text(test / "intrinsics" / f"{index:010d}.txt", " ".join(f"{v:.6f}" for v in k.ravel()))
        names.append(name)
    return names


def write_driving_stereo(root: Path, part: str = "train-{}", size: str = "half", nested: bool = True) -> list[str]:
    """A part of DrivingStereo at half or full size; `part` is the folders' names with {} for what they hold."""
    names = []
    for index, sample in enumerate(scenes()):
        sequence = SEQUENCES[index // 2]
        stem = f"{sequence}_2018-07-09-16-12-{index:02d}-{262 + index}"
        below = f"{sequence}/{stem}" if nested else stem
        for what, view in (("left-image", sample.left), ("right-image", sample.right)):
            save_image(root / part.format(what) / f"{below}.jpg", view)
        write_png16(root / part.format("depth-map") / f"{below}.png", depth_of(sample))
        disparity_scale = 256.0 if size == "half" else 128.0
        write_png16(root / part.format("disparity-map") / f"{below}.png", disparity_of(sample), disparity_scale)
        names.append(f"{sequence}/{stem}")
        camera = sample.camera
        save_text(
            root / f"{size}-image-calib" / f"{sequence}.txt",
            row("T_101", (0, 0, 0))
            + row("T_103", (-float(camera.baseline), 0, 0))
            + row("P_rect_101", projection(camera, 0))
            + row("P_rect_103", projection(camera, -2 * float(camera.baseline))),  # the trap: twice the baseline
        )
    return names
