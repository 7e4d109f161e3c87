"""A file against the network that it was made from: the same images through both, how far apart, how long they take."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn

from adu_depth.data import SyntheticStereo, open_dataset
from adu_depth.data.identity import spread
from adu_depth.data.image_files import read_image
from adu_depth.data.layouts import recognised
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.export.config import ExportConfig
from adu_depth.export.note import LARGEST_SIDE, Note, Precision
from adu_depth.export.opened import ExportedNetwork
from adu_depth.geometry import Camera, stack_cameras
from adu_depth.images import image_batch
from adu_depth.inference.predict_files import ImageTask, camera_beside
from adu_depth.inference.predictor import Predictor
from adu_depth.models.padding import CELL
from adu_depth.models.prediction import DepthPrediction

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2}
"""Relative, of depth: fp32's on the largest difference of all pixels, fp16's on the mean one."""
UNCERTAINTY_TOLERANCE = 10
"""Times as much for the log scale: a logarithm of a variance, which near its least is a sum of small numbers."""
SCENES, SCENE_SEED = 2, 4
TIMED = 5
"""Calls of each that are timed, in turn, after one that is not."""


@dataclass(frozen=True)
class CheckImage:
    """What one comparison is made on: views 1×3×H×W in [0, 1] as they lie on the disk, and the camera there."""

    name: str
    left: Tensor
    right: Tensor | None
    camera: Camera | None


@dataclass
class Difference:
    """Of one output over all images: relative for depth, of the disparity too (to a pixel at least), plain for the log
    scale, which is a logarithm."""

    largest: float = 0.0
    total: float = 0.0
    pixels: int = 0
    worst: str = ""

    @property
    def mean(self) -> float:
        return self.total / max(self.pixels, 1)

    def add(self, name: str, found: Tensor, expected: Tensor, image: str) -> None:
        scale = {"depth": expected.abs(), "disparity": expected.abs().clamp(min=1.0)}.get(name)
        apart = (found.double() - expected.double()).abs()
        apart = (apart if scale is None else apart / scale.double()).nan_to_num(math.inf, math.inf)
        self.total, self.pixels = self.total + float(apart.sum()), self.pixels + apart.numel()
        if float(apart.max()) >= self.largest:
            self.largest, self.worst = float(apart.max()), image


@dataclass
class Comparison:
    """How a file did. seconds: of one call, of PyTorch and of the file, with the size that they were timed at."""

    differences: dict[str, Difference] = field(default_factory=dict)
    images: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    seconds: tuple[float, float] = (0.0, 0.0)
    timed_at: tuple[int, int] = (0, 0)

    def refusal(self, precision: Precision, tolerance: float | None) -> str:
        """Why the file may not be written, "" where it may."""
        limit, largest = TOLERANCE[precision] if tolerance is None else tolerance, precision == "fp32"
        for name, difference in self.differences.items():
            found = difference.largest if largest else difference.mean
            allowed = limit * UNCERTAINTY_TOLERANCE if name == "log_scale" else limit
            if not found <= allowed:
                kind = "largest" if largest else "mean"
                return (
                    f"the file's {name} is not PyTorch's: expected a {kind} difference of at most {allowed:g} "
                    f"({precision}), got {found:.3g}, the largest on {difference.worst}"
                )
        return ""


def compare(
    predictor: Predictor, exported: ExportedNetwork, images: Iterator[CheckImage], predicts: Note
) -> Comparison:
    """Both networks on every image, at the size that the file works at; of a file for any size on the first image at
    another one too, for those that the images are brought to may be one alone."""
    outcome = Comparison({name: Difference() for name in predicts.outputs})
    for image in images:
        sizes = [working_size(predictor, image, predicts)]
        if outcome.images == 0 and predicts.size is None:
            sizes.append(another_size(sizes[0], predicts))
        for size in sizes:
            views, camera = _given(predictor, image, predicts, size)
            with torch.no_grad():
                expected, found = predictor.model(*views, camera), exported(*views, camera)
            for name, difference in outcome.differences.items():
                difference.add(name, _map(found, name), _map(expected, name), image.name)
            if not outcome.sizes:
                outcome.timed_at = size
                outcome.seconds = _timed(predictor.model, exported, views, camera)
            outcome.sizes.add(size)
        outcome.images += 1
    return outcome


def check_images(config: ExportConfig, predictor: Predictor, note: Note) -> Iterator[CheckImage]:
    """The images of --images, or rendered scenes of the size that the network works at. InputError for what cannot be
    read, is of single images where pairs are needed, or lacks a camera that is needed."""
    if not config.images:
        size = note.size or note.trained_size
        yield from (_of_sample(sample) for sample in SyntheticStereo(SCENES, *size, seed=SCENE_SEED))
        return
    for path in config.images:
        if path.is_dir():
            dataset = open_dataset(path, "auto" if recognised(path) else "pictures", truth=False, together=True)
            for index in islice(spread(len(dataset)), config.count):
                sample = dataset[index]
                if predictor.stereo:
                    sample.require_right("a stereo teacher")
                elif predictor.needs_camera:
                    sample.require_focal(
                        f"reference_focal of {config.checkpoint} scales depth by a focal length", str(path)
                    )
                yield _of_sample(sample)
        else:
            left = read_image(path)
            size = (left.shape[1], left.shape[2])
            camera = camera_beside(ImageTask(path.stem, path), size, False) if predictor.needs_camera else None
            batched = None if camera is None else stack_cameras([camera])
            yield CheckImage(str(path), image_batch(str(path), left), None, batched)


def require_images(config: ExportConfig, stereo: bool) -> None:
    """InputError for a path of --images that is not there, or is one image where pairs are needed."""
    for path in config.images:
        if not path.exists():
            raise InputError(f"images {path} does not exist: expected a data set, a folder of pictures or an image")
        if stereo and not path.is_dir():
            raise InputError(f"images {path}: a stereo teacher needs pairs: expected a data set's folder, got a file")


def _of_sample(sample: StereoSample) -> CheckImage:
    right = None if sample.right is None else sample.right[None]
    return CheckImage(str(sample.name), sample.left[None], right, stack_cameras([sample.camera]))


def working_size(predictor: Predictor, image: CheckImage, note: Note) -> tuple[int, int]:
    """(height, width) that an image is compared at: the file's, else the one that the run's predictor works at, or the
    nearest one that the file takes."""
    if note.size is not None:
        return note.size
    height, width = predictor.working_size((image.left.shape[-2], image.left.shape[-1]))
    if note.pads:
        return max(CELL + 1, height), max(CELL + 1, width)
    return max(2, round(height / CELL)) * CELL, max(2, round(width / CELL)) * CELL


def another_size(size: tuple[int, int], note: Note) -> tuple[int, int]:
    """A size unlike it along both sides, and in shape: lower and wider, odd where the file pads."""
    height, width = size
    if note.pads:
        return max(CELL + 1, height * 3 // 4 | 1), min(width * 5 // 4 | 1, LARGEST_SIDE - 1)
    return (height - CELL if height > 2 * CELL else height + CELL), min(width + CELL, LARGEST_SIDE)


def _given(
    predictor: Predictor, image: CheckImage, note: Note, size: tuple[int, int]
) -> tuple[tuple[Tensor, ...], Camera | None]:
    """What both networks are given: the views at this size; of levels of 8 bits where the file takes bytes."""
    right = image.right if predictor.stereo else None
    views, camera = predictor.prepared(image.left, right, image.camera, size)
    if note.uint8:
        views = tuple((view * 255).round().clamp(0, 255) / 255 for view in views)
    return views, camera


def _map(prediction: DepthPrediction, name: str) -> Tensor:
    found = getattr(prediction, name)
    assert isinstance(found, Tensor)
    return found


def _timed(
    model: nn.Module, exported: ExportedNetwork, views: tuple[Tensor, ...], camera: Camera | None
) -> tuple[float, float]:
    """Median seconds of a call of each; in turn, so that both meet the same company on the machine."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(TIMED):
        for network, times in zip((model, exported), seconds, strict=True):
            began = time.perf_counter()
            with torch.no_grad():
                network(*views, camera)
            times.append(time.perf_counter() - began)
    return statistics.median(seconds[0]), statistics.median(seconds[1])
