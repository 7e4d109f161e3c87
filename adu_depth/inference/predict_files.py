"""The work of `adu-depth predict`: image files in, depth and uncertainty pictures out."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from adu_depth.data.camera_file import ALL_NEEDED, FILE_NAME, find_camera_file, name_in, other_calibration, read_camera
from adu_depth.data.file_index import IMAGE_SUFFIXES, FileIndex, files_below, images_below, is_image, suffixes_like
from adu_depth.data.foreign_files import TAKE_FRAMES, VIDEO_SUFFIXES
from adu_depth.data.image_files import orientation_of, read_image
from adu_depth.data.layouts import views_above
from adu_depth.errors import InputError
from adu_depth.folder_lock import locked
from adu_depth.geometry import Camera
from adu_depth.inference.colour import DEPTH, ColourScale
from adu_depth.inference.image_files import write_depth_png, write_png
from adu_depth.inference.pictures import depth_picture, uncertainty_picture
from adu_depth.inference.point_cloud import PointFrame
from adu_depth.inference.point_output import PointOutput
from adu_depth.inference.predictor import Predictor
from adu_depth.inference.recording import RecordingError
from adu_depth.inference.render import to_map
from adu_depth.models.prediction import require_temperature
from adu_depth.terminal import printable_name

SAVE_FRAMES = "save its pictures as files first, such as by `ffmpeg -i STREAM FOLDER/%06d.png`"
PAIR_FOLDERS = (("left", "right"), ("image_2", "image_3"), ("image_02/data", "image_03/data"))


@dataclass(frozen=True)
class ImageTask:
    """One picture to predict: the name its results get, the left image, the right one of a pair.

    views: the folder of a pair's left images, from which camera.toml calls them, `monday/000001`. top: the last folder
    to look for camera.toml in; None is the one above the image's.
    """

    name: str
    left: Path
    right: Path | None = None
    views: Path | None = None
    top: Path | None = None


@dataclass
class PredictOutcome:
    """What a run wrote, and what it could not do: (file, reason).

    turned: images that were turned upright, as EXIF says. as_stored: those that were not though EXIF says so, because
    they are read so in a data set, or as a pair.
    """

    written: list[Path] = field(default_factory=list)
    turned: list[Path] = field(default_factory=list)
    as_stored: list[Path] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)


def predict_files(
    predictor: Predictor,
    source: str | Path,
    output: str | Path,
    *,
    right: str | Path | None = None,
    camera: Camera | None = None,
    temperature: float = 1.0,
    depth_colours: ColourScale = DEPTH,
    points: PointOutput | None = None,
    progress: Callable[[ImageTask, str | None], None] | None = None,
) -> PredictOutcome:
    """Predicts for an image, a pair or a folder, and writes three files for each into `output`:

        NAME_depth.png         16-bit, metres × 256
        NAME_depth_color.png   depth in colour with a scale bar in metres
        NAME_uncertainty.png   expected relative error in percent, with its bar
        NAME_points.ply        with `points`: coloured points with normals, in the axes of the left camera

    source: an image, or a folder; with a stereo predictor a folder that holds left/ and right/ (or image_2/, image_3/).
    right: the right image of `source`, or the folder of right images by the same names; another ending is fine. Pairs
    may lie in folders of sequences, `left/monday/000001.jpg`, and their results then do too.
    camera: calibration, of images turned upright where they are; where None and the predictor needs one, camera.toml
    beside the images or in the folder above, which is turned with them.
    temperature: factor on the predicted scale of the error, as `adu-depth evaluate --fit-temperature` finds one.
    points: where points go, and which; a camera with fx, cx and cy is needed for them, of a student too.
    progress: called after each image with the reason it failed, or None.

    An image with ground truth of a data set that open_dataset recognises, and a pair, is taken as stored, as in
    training, evaluation and the doctor; any other is turned upright as EXIF says. The outcome lists both.
    A single image or pair that cannot be used raises InputError. In a folder such a file goes to `failures` and the
    rest is done; a folder without any image raises InputError, and so does an output that another process writes into,
    and a recording that cannot be written any more.
    """
    source, output = Path(source), Path(output)
    require_temperature(temperature)
    if points is not None:
        points.require(predictor.predicts_uncertainty)
    tasks = find_tasks(source, None if right is None else Path(right), predictor.stereo)
    if source.is_dir() and output.resolve() in {task.left.parent.resolve() for task in tasks}:
        raise InputError(f"output must be another folder than that of the images, got {output} for both")
    outcome = PredictOutcome()
    views: dict[Path, frozenset[str]] = {}
    with locked(output, "predict"):
        for task in tasks:
            reason = None
            try:
                orientation = to_be_turned(task.left, outcome, views, predictor.stereo)
                predicted = predict_one(predictor, task, camera, temperature, orientation, points)
                outcome.written += write_predicted(output, task.name, predicted, depth_colours, points)
            except InputError as error:
                if not source.is_dir() or isinstance(error, RecordingError):
                    raise
                reason = str(error)
                outcome.failures.append((task.left, reason))
            if progress is not None:
                progress(task, reason)
    return outcome


class PredictedImage(NamedTuple):
    """What a network says of one picture."""

    left: Tensor
    """3×H×W in [0, 1], as the network was given it, turned upright or not."""
    depth: np.ndarray
    """H×W metres."""
    log_scale: np.ndarray | None
    """H×W, the natural logarithm of the expected error of ln depth; None of a network that predicts none."""
    points: PointFrame | None
    """With its camera; None where no points were asked for."""


def predict_one(
    predictor: Predictor,
    task: ImageTask,
    camera: Camera | None,
    temperature: float = 1.0,
    orientation: int = 1,
    points: PointOutput | None = None,
) -> PredictedImage:
    """Predicts one task. orientation: EXIF's, if the image is to be turned upright by it, and the camera beside it too;
    1 leaves both as they are. points: which are made of it, None: none.

    Raises InputError if the input cannot be used.
    """
    left = read_image(task.left, upright=orientation != 1)
    right = None
    if predictor.stereo:
        if task.right is None:
            raise InputError(f"a stereo teacher needs the right image of {task.left} too, got none")
        right = read_image(task.right)
        if left.shape != right.shape:
            sizes = " and ".join(f"{v.shape[1]}×{v.shape[2]}" for v in (left, right))
            raise InputError(f"{task.left} and {task.right} must have one size, got {sizes}")
    if camera is None and (predictor.needs_camera or points is not None):
        size = (left.shape[1], left.shape[2])
        camera = camera_beside(task, size, predictor.stereo, orientation, points is not None)
    prediction = predictor.predict_image(left, right, camera, task.left)
    depth = to_map(prediction.depth)
    log_scale = None if prediction.log_scale is None else to_map(prediction.log_scale) + math.log(temperature)
    frame = None
    if points is not None:
        assert camera is not None
        frame = points.frame(left, depth, camera, log_scale, task.left)
    return PredictedImage(left, depth, log_scale, frame)


def write_predicted(
    output: Path,
    name: str,
    predicted: PredictedImage,
    depth_colours: ColourScale = DEPTH,
    points: PointOutput | None = None,
) -> list[Path]:
    """Writes the files that `predict_files` lists; returns them."""
    paths = [output / f"{name}_{kind}.png" for kind in ("depth", "depth_color", "uncertainty")]
    write_depth_png(paths[0], predicted.depth)
    write_png(paths[1], depth_picture(predicted.depth, depth_colours))
    if predicted.log_scale is None:
        paths.pop()
    else:
        write_png(paths[2], uncertainty_picture(predicted.log_scale))
    if points is not None and predicted.points is not None:
        paths += points.write(output / f"{name}_points.ply", name, predicted.points)
    return paths


def to_be_turned(image: Path, outcome: PredictOutcome, views: dict[Path, frozenset[str]], stereo: bool) -> int:
    """EXIF's orientation of an image that is to be turned by it, 1 of any other; noted in `outcome`."""
    orientation = orientation_of(image)
    if orientation == 1:
        return 1
    folder = image.parent
    if not stereo and folder not in views:
        views[folder] = views_above(folder)
    stored = stereo or os.path.abspath(image) in views[folder]
    (outcome.as_stored if stored else outcome.turned).append(image)
    return 1 if stored else orientation


def exif_notes(outcome: PredictOutcome) -> list[str]:
    """What a user is told of EXIF's orientations: how many images, and the names of the first ones."""
    notes = []
    for images, told in (
        (outcome.turned, "turned upright, as EXIF says"),
        (outcome.as_stored, "taken as stored though EXIF says turned, as images with ground truth and pairs are"),
    ):
        if images:
            names = ", ".join(printable_name(image.name) for image in images[:3])
            notes.append(f"{told}: {len(images)} ({names}{', …' if len(images) > 3 else ''})")
    return notes


def camera_beside(
    task: ImageTask, size: tuple[int, int], stereo: bool, orientation: int = 1, points: bool = False
) -> Camera:
    """The camera that camera.toml gives for an image of `size` (height, width), turned upright by `orientation`.
    points: whether it is for points in space, too. Raises InputError if there is none."""
    file = find_camera_file(task.left, task.top)
    if file is None:
        wanted = ", ".join(f"--{name}" for name in needed_numbers(stereo, points)) + " (pixels)"
        wanted += " and --baseline (metres)" if stereo else ""
        place = (task.top or task.left.parent) / FILE_NAME
        other = other_calibration(task.left.parent, task.left.absolute().parent.parent)
        more = f"; {other}" if other else ""
        raise InputError(f"no calibration for {task.left}: give {wanted}, or put it into {place}{more}")
    return read_camera(file, name_in(file, task.left, task.views), size, needed_numbers(stereo, points), orientation)


def needed_numbers(stereo: bool, points: bool = False) -> tuple[str, ...]:
    """What a camera must hold: a student reads the focal length alone; points in space need all."""
    return ALL_NEEDED if stereo or points else ("fx",)


def find_tasks(source: Path, right: Path | None, stereo: bool) -> list[ImageTask]:
    """The images that `source` (a file or a folder) and `right` name. Raises InputError if there is none."""
    if not source.exists():
        live = str(source).isdigit() or re.match(r"[a-z]{3,5}:/", str(source))
        hint = f"; a camera of this machine is camera:0; a stream is not read: {SAVE_FRAMES}" if live else ""
        raise InputError(f"input {source} does not exist: expected an image or a folder of images{hint}")
    if right is not None and not right.exists():
        raise InputError(f"right input {right} does not exist")
    if right is not None and right.is_dir() != source.is_dir():
        raise InputError(f"left and right must both be images or both be folders, got {source} and {right}")
    if not source.is_dir():
        return [ImageTask(source.stem, source, right, None if right is None else source.parent)]
    lefts, rights = (source, right) if right is not None else _pair_folders(source)
    top = source.absolute().parent if lefts == source else source
    if stereo and rights is None:
        expected = " or ".join("/, ".join(pair) + "/" for pair in PAIR_FOLDERS)
        raise InputError(f"a stereo teacher needs pairs: expected {expected} in {source}, or a folder of right images")
    if rights is None:
        images = sorted(p for p in lefts.iterdir() if is_image(p.name) and p.exists() and not p.is_dir())
        images = images or images_below(lefts)  # sequences are folders
    else:
        images = images_below(lefts)
    if not images:
        videos = [p for p in files_below(lefts) if p.suffix.lower() in VIDEO_SUFFIXES]
        hint = f"; {videos[0].name} is a video: give its own path, or {TAKE_FRAMES}" if videos else ""
        raise InputError(f"no image in {lefts}: expected files ending in {', '.join(IMAGE_SUFFIXES)}{hint}")
    names, file_index = _result_names([image.relative_to(lefts) for image in images]), FileIndex()
    return [
        ImageTask(
            name=name,
            left=image,
            right=None if rights is None else _right_of(image.relative_to(lefts), rights, file_index),
            views=None if rights is None else lefts,
            top=top,
        )
        for name, image in zip(names, images, strict=True)
    ]


def _right_of(left: Path, rights: Path, file_index: FileIndex) -> Path:
    """The right image of `left`, a path below the folder of left images; the one of its very name if there is none."""
    found = file_index.find((rights / left).parent, left.stem, suffixes_like(left.suffix))
    return found or rights / left


def _pair_folders(folder: Path) -> tuple[Path, Path | None]:
    for left, right in PAIR_FOLDERS:
        if (folder / left).is_dir() and (folder / right).is_dir():
            return folder / left, folder / right
    return folder, None


def _result_names(images: Sequence[Path]) -> list[str]:
    """The paths without extension; with it where a.png and a.jpg would overwrite each other's results."""
    count = Counter(p.with_suffix("") for p in images)
    named = (
        p.with_suffix("") if count[p.with_suffix("")] == 1 else p.with_name(p.name.replace(".", "_")) for p in images
    )
    return [path.as_posix() for path in named]
