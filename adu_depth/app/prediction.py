"""What the page does with the pictures that were dropped on it: what `adu-depth predict` does with the same files."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from adu_depth.app.cloud import write_glb
from adu_depth.app.viewer import view_of
from adu_depth.data.camera_file import ALL_NEEDED, FILE_NAME, CameraFile, camera_from_numbers
from adu_depth.data.config import MOST_AREA
from adu_depth.data.image_files import read_view
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference.colour import DEPTH, ColourScale, depth_scale
from adu_depth.inference.point_cloud import PointCloudConfig
from adu_depth.inference.point_output import PointOutput
from adu_depth.inference.predict_files import (
    ImageTask,
    PredictOutcome,
    exif_notes,
    needed_numbers,
    predict_one,
    to_be_turned,
    write_predicted,
)
from adu_depth.inference.predictor import Predictor

CameraSource = Literal["none", "numbers", "camera.toml"]
NUMBERS = {
    "fx": "fx",
    "cx": "cx",
    "cy": "cy",
    "baseline": "baseline",
    "near": "colours from",
    "far": "colours to",
    "max_depth": "points up to",
    "min_angle": "points' edges",
    "max_error": "points' largest error",
}
"""The numbers of a request, and what the page calls them."""
NUMBERS_OF_CAMERA = ("fx", "cx", "cy", "baseline")
NUMBERS_OF_POINTS = ("max_depth", "min_angle", "max_error")
_OF_CAMERA = "the camera's numbers"


@dataclass(frozen=True)
class Request:
    """What stands on the page when its button is pressed. Numbers that nobody wrote are None."""

    image: Path | None = None
    right: Path | None = None
    camera_file: Path | None = None
    camera_source: CameraSource = "none"
    section: str = ""
    """Of camera.toml: the image, or the folder of a sequence, whose numbers are taken; "" for that of the picture's own
    name, for a dropped file has no folder."""
    points: bool = True
    """Whether points are made where there is a camera."""
    fx: float | None = None
    cx: float | None = None
    cy: float | None = None
    baseline: float | None = None
    near: float | None = DEPTH.low
    """Metres that the colours begin at."""
    far: float | None = DEPTH.high
    max_depth: float | None = None
    """Metres up to which there are points; None: all."""
    min_angle: float | None = PointCloudConfig.min_angle
    """Degrees, see PointCloudConfig; None: all are kept."""
    max_error: float | None = None
    """Percent of depth that a point's expected error may be; None: all are kept."""


class Answer(NamedTuple):
    """What the page shows then."""

    view: str
    """HTML: picture, depth and uncertainty, with what a cursor reads of them."""
    cloud: Path | None
    """The points as GLB, in the axes of such files."""
    files: list[Path]
    """What `adu-depth predict` writes for this picture."""
    notes: list[str]


def number_of(name: str, text: str) -> float | None:
    """What somebody wrote into a field: a number, or nothing. InputError, naming the field, for anything else."""
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name}: expected a number such as 721.5, or nothing, got {text.strip()!r:.60}") from None


def predict_request(predictor: Predictor, request: Request, folder: Path) -> Answer:
    """Predicts, and writes files into `folder`, which is to be empty.

    The picture is taken as `adu-depth predict` takes one: turned upright as EXIF says if it is single, as stored if it
    is one of a pair; its camera from the numbers, or from a camera.toml, which may have other numbers for this name.
    Raises InputError for what that command refuses; files are then called by their own names.
    """
    try:
        return _answer(predictor, request, folder)
    except InputError as error:
        text = str(error).replace(f"{folder}/", "")
        if request.camera_file is not None:
            text = text.replace(str(request.camera_file), request.camera_file.name)
        raise InputError(text) from None


def _answer(predictor: Predictor, request: Request, folder: Path) -> Answer:
    colours = _colours(request)
    task = _laid_out(predictor, request, folder)
    points = _points(predictor, request)
    outcome = PredictOutcome()
    orientation = to_be_turned(task.left, outcome, {task.left.parent: frozenset()}, predictor.stereo)
    height, width = read_view(task.left, upright=orientation != 1).shape[-2:]
    seen = _require_bearable(predictor, (height, width))
    camera, told = _camera(predictor, request, task.name, (height, width), orientation, points is not None)
    predicted = predict_one(predictor, task, camera, orientation=orientation, points=points)
    written = folder / "predicted"
    written.mkdir()
    files = write_predicted(written, task.name, predicted, colours, points)
    notes = [f"{height}×{width} pixels{seen}", *exif_notes(outcome), *told]
    cloud = None
    if predicted.points is not None:
        cloud = folder / f"{task.name}.glb"
        shown = write_glb(cloud, predicted.points.cloud)
        notes.append(_points_note(len(predicted.points.cloud.positions), predicted.depth.size, shown))
    elif request.points:
        notes.append("no points in space: they need a camera with fx, cx and cy")
    return Answer(view_of(predicted, colours), cloud, files, notes)


def _laid_out(predictor: Predictor, request: Request, folder: Path) -> ImageTask:
    """The files as a folder of pairs, but that there may be no right one."""
    if request.image is None:
        raise InputError(f"image: expected {'a left image' if predictor.stereo else 'an image'}, got none")
    if predictor.stereo and request.right is None:
        raise InputError("right image: a stereo teacher sees a pair, got the left image only")
    left = _copied(request.image, folder / "left")
    right = _copied(request.right, folder / "right") if predictor.stereo and request.right is not None else None
    return ImageTask(left.stem.lstrip(".") or "picture", left, right)  # gradio hands out no file whose name begins so


def _copied(file: Path, folder: Path) -> Path:
    folder.mkdir()
    copy = folder / file.name
    shutil.copyfile(file, copy)
    return copy


def _camera(
    predictor: Predictor, request: Request, name: str, size: tuple[int, int], orientation: int, points: bool
) -> tuple[Camera | None, list[str]]:
    """The camera of the picture `name`, None where there is none, and what is to be said of it."""
    needed = needed_numbers(predictor.stereo, points)
    if request.camera_source == "camera.toml":
        return _camera_of_file(request, name, size, orientation, needed)
    if request.camera_source == "none":
        if predictor.needs_camera:
            raise InputError(
                f"camera: this network needs {', '.join(needed)} (pixels){' and baseline (metres)' * predictor.stereo}"
                f": write its numbers, or drop a {FILE_NAME}"
            )
        return None, []
    needed = (*needed, "baseline") if predictor.stereo else needed
    numbers = {number: getattr(request, number) for number in NUMBERS_OF_CAMERA}
    camera = camera_from_numbers(**numbers, source=_OF_CAMERA, needed=needed)
    if camera is None:
        raise InputError(f"{_OF_CAMERA}: expected {', '.join(needed)} (pixels), got none")
    return camera, []


def _camera_of_file(
    request: Request, name: str, size: tuple[int, int], orientation: int, needed: tuple[str, ...]
) -> tuple[Camera, list[str]]:
    if request.camera_file is None:
        raise InputError(f"camera: expected a {FILE_NAME}, got none")
    file, notes, called = CameraFile(request.camera_file), [], request.camera_file.name
    if request.section and request.section not in file.sections:
        raise InputError(f"section: expected one of {called}, got {request.section!r:.60}")
    if file.sections and not request.section and name not in file.sections:
        notes.append(f"camera: the numbers above the sections of {called}, none is called {name}")
    name = f"{request.section}/{name}" if request.section else name
    return file.camera(name, size, needed, orientation), notes


def _points(predictor: Predictor, request: Request) -> PointOutput | None:
    """Which points are made; None where they are not asked for, or cannot be: then nobody said what the camera is, or
    (of a network whose depth needs no more) its focal length alone."""
    if not request.points or request.camera_source == "none":
        return None
    numbers = [getattr(request, name) for name in ALL_NEEDED]
    if request.camera_source == "numbers" and None in numbers and not predictor.stereo:
        return None
    most = request.max_error
    if most is not None and not 0 < most < math.inf:
        raise InputError(f"points' largest error: expected percent above 0, got {most:g}")
    cuts = PointCloudConfig(
        max_depth=math.inf if request.max_depth is None else request.max_depth,
        max_uncertainty=None if most is None else math.log(most / 100.0),
        min_angle=0.0 if request.min_angle is None else request.min_angle,
    )
    points = PointOutput(cuts)
    points.require(predictor.predicts_uncertainty)
    return points


def _colours(request: Request) -> ColourScale:
    near = DEPTH.low if request.near is None else request.near
    far = DEPTH.high if request.far is None else request.far
    if not (math.isfinite(near) and math.isfinite(far) and 0 < near < far):
        raise InputError(f"colours: expected metres with 0 < from < to, got from {near:g} to {far:g}")
    return depth_scale(near, far)


def _require_bearable(predictor: Predictor, own: tuple[int, int]) -> str:
    """How the network sees a picture of this height and width, in words. InputError where that is larger than any that
    a network is trained at: a pair of 12 megapixels takes 22 GB, and the page would go with it."""
    height, width = predictor.working_size(own)
    if height * width > MOST_AREA:
        raise InputError(
            f"picture: the network would see it at {height}×{width}, expected at most {MOST_AREA:,} pixels: a smaller "
            "picture, or the page begun with a factor such as --size 0.5"
        )
    return "" if (height, width) == own else f", which the network saw at {height}×{width}"


def _points_note(kept: int, pixels: int, shown: int) -> str:
    less = "" if shown == kept else f", {shown:,} of them drawn here"
    return f"{kept:,} points of {pixels:,} pixels{less}"
