"""Writes stereo samples as files that a person can look at and `predict` can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from adu_depth.data.camera_file import FILE_NAME, write_cameras
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.folder_lock import locked
from adu_depth.geometry import Camera
from adu_depth.images import check_image
from adu_depth.inference.image_files import write_depth_png, write_png
from adu_depth.inference.pictures import depth_picture, lidar_overlay, side_by_side


class Samples(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> StereoSample: ...


def write_samples(
    dataset: Samples, directory: str | Path, count: int, progress: Callable[[Path], None] | None = None
) -> list[Path]:
    """Writes the data set's first `count` samples; returns their previews. `progress` is called with each preview.

        left/ right/              000000.png …   8-bit RGB
        depth/ sparse_depth/      000000.png …   16-bit, metres × 256, 0 = none
        disparity/                000000.png …   16-bit, pixels × 256, 0 = none
        occluded/                 000000.png …   255 where the right camera cannot see the left image's pixel
        preview/                  000000.png …   both views, depth and LiDAR points in colour
        camera.toml               calibration (see data/camera_file.py)

    This is the layout `rig` of open_dataset: what is written here can be trained and evaluated on.
    Maps that the samples do not have are left out. Raises InputError if `count` is not from 1 to the data set's length.
    """
    if not 1 <= count <= len(dataset):
        raise InputError(f"count must be from 1 to {len(dataset)} (the data set's length), got {count}")
    directory = Path(directory)
    cameras: dict[str, Camera] = {}
    previews = []
    sizes = set()
    with locked(directory, "render"):
        for index in range(count):
            sample = dataset[index]
            name = f"{index:06d}"
            previews.append(_write_sample(sample, directory, name))
            cameras[name] = sample.camera
            sizes.add((sample.left.shape[-2], sample.left.shape[-1]))
            if progress is not None:
                progress(previews[-1])
        write_cameras(directory / FILE_NAME, cameras, sizes.pop() if len(sizes) == 1 else None)
    return previews


def _write_sample(sample: StereoSample, directory: Path, name: str) -> Path:
    file = f"{name}.png"
    left, right = to_uint8(sample.left), to_uint8(sample.require_right("writing a pair"))
    write_png(directory / "left" / file, left)
    write_png(directory / "right" / file, right)
    depth, disparity = (np.where(to_map(sample.valid), to_map(m), 0.0) for m in (sample.depth, sample.disparity))
    write_depth_png(directory / "depth" / file, depth)
    write_depth_png(directory / "disparity" / file, disparity)
    panels = {"left": left, "right": right, "depth": depth_picture(depth)}
    if sample.sparse_depth is not None:
        sparse = to_map(sample.sparse_depth)
        write_depth_png(directory / "sparse_depth" / file, sparse)
        panels["sparse depth (LiDAR)"] = lidar_overlay(left, sparse)
    if sample.occluded is not None:
        write_png(directory / "occluded" / file, to_map(sample.occluded).astype(np.uint8) * 255)
    preview = directory / "preview" / file
    write_png(preview, side_by_side(panels, columns=2))
    return preview


def to_uint8(image: Tensor) -> np.ndarray:
    """3×H×W floats in [0, 1] to H×W×3 uint8."""
    check_image("image", image, "3×H×W")
    return (image.detach().permute(1, 2, 0).clamp(0, 1) * 255).round().cpu().numpy().astype(np.uint8)


def to_map(values: Tensor) -> np.ndarray:
    """1×H×W (or 1×1×H×W) tensor to an H×W array."""
    return values.detach().reshape(values.shape[-2:]).cpu().numpy()
