"""A student's depth for each of the benchmark's test images, as PNGs and as the zip to send."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adu_depth.data.file_index import is_image
from adu_depth.data.image_files import read_image
from adu_depth.data.kitti_depth import PARTS, find_parts, read_intrinsics
from adu_depth.errors import InputError
from adu_depth.files import replacing
from adu_depth.folder_lock import locked
from adu_depth.inference import Predictor
from adu_depth.inference.image_files import write_depth_png
from adu_depth.submission.benchmark import IMAGES, NAME, SIZE, STEPS_PER_METRE, file_names

DEPTH_FOLDER, ZIP_NAME = "depth", "submission.zip"
STORABLE = (1 / STEPS_PER_METRE, 65535 / STEPS_PER_METRE)
"""Metres that a map can hold; 0 is no depth but the mark for none."""


@dataclass(frozen=True)
class TestImage:
    """One image of the benchmark; `intrinsics` is None where the folder has none for it."""

    image: Path
    intrinsics: Path | None


def find_test_images(folder: str | Path, partial: bool = False) -> list[TestImage]:
    """The test images in `folder`: test_depth_prediction_anonymous, or the folder it lies in, or its `image`.

    partial: take fewer than all 500. Raises InputError where images are missing, and names them, or others are there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected {PARTS[1]}")
    parts = [part for part in find_parts(folder) if part.name == PARTS[1]] or [folder]
    pictures = parts[0] / "image" if (parts[0] / "image").is_dir() else parts[0]
    found = sorted(path for path in pictures.glob("*.png") if is_image(path.name))
    strangers = [path.name for path in found if not NAME.fullmatch(path.name) or int(path.stem) >= IMAGES]
    if strangers:
        raise InputError(f"{pictures}: expected images {NAME_RANGE}, got {strangers[0]} ({len(strangers)} such)")
    missing = sorted(set(file_names()) - {path.name for path in found})
    if not found or (missing and not partial):
        raise InputError(
            f"{pictures}: expected the benchmark's {IMAGES} images {NAME_RANGE}, got {len(found)}; the first missing "
            f"is {missing[0]} (partial: write those that are there)"
        )
    intrinsics = pictures.parent / "intrinsics"
    cameras = [intrinsics / f"{path.stem}.txt" for path in found]
    return [TestImage(path, camera if camera.is_file() else None) for path, camera in zip(found, cameras, strict=True)]


NAME_RANGE = f"{file_names()[0]} to {file_names()[-1]}"


def write_submission(
    predictor: Predictor,
    images: Sequence[TestImage],
    output: str | Path,
    progress: Callable[[], None] | None = None,
) -> Path:
    """Writes output/depth/NNNNNNNNNN.png and output/submission.zip; returns the zip's path.

    Depths are clamped to what a map can hold, 1/256 to 255.996 m, so that no 0 is stored. Both are there whole or not
    at all; those of an earlier call are replaced, but a folder `depth` with anything else in it is not touched.
    progress: called after each image. Raises InputError for a stereo network, a student that needs a camera which an
    image lacks, an image of another size than 352×1216, or a prediction with NaN.
    """
    output = Path(output)
    if predictor.stereo:
        raise InputError("the benchmark has single images: expected a student's checkpoint, got a stereo teacher's")
    for image in images:
        if predictor.needs_camera and image.intrinsics is None:
            raise InputError(f"{image.image}: this student needs the focal length, but there are no intrinsics for it")
    target = output / DEPTH_FOLDER
    if target.exists():
        strangers = [p.name for p in target.iterdir() if not NAME.fullmatch(p.name)] if target.is_dir() else [""]
        if strangers:
            raise InputError(f"{target} holds more than depth maps ({strangers[0]!r}): name another output")
    archive = output / ZIP_NAME
    with locked(output, "submit"):
        with replacing(target) as folder:
            folder.mkdir()
            for image in images:
                write_depth_png(folder / image.image.name, _predict(predictor, image))
                if progress is not None:
                    progress()
        with replacing(archive) as temporary, zipfile.ZipFile(temporary, "w") as file:
            for image in images:
                # A fixed date, so that the same maps make the same zip; PNGs do not get smaller by packing.
                file.writestr(zipfile.ZipInfo(image.image.name), (target / image.image.name).read_bytes())
    return archive


def _predict(predictor: Predictor, image: TestImage) -> np.ndarray:
    pixels = read_image(image.image)
    if tuple(pixels.shape[-2:]) != SIZE:
        height, width = pixels.shape[-2:]
        raise InputError(f"{image.image}: expected {SIZE[0]}×{SIZE[1]} (height×width), got {height}×{width}")
    camera = None if image.intrinsics is None else read_intrinsics(image.intrinsics)
    depth: np.ndarray = predictor.predict_image(pixels, camera=camera, name=image.image).depth[0, 0].cpu().numpy()
    return depth.clip(*STORABLE)
