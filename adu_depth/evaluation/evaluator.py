"""One evaluation for every method: metrics of each image, then their mean over the images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.dataset import Dataset
from adu_depth.data.mixed import without_truth
from adu_depth.data.sample import StereoSample, collate
from adu_depth.distillation.left_right import disparity_of_right
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError, SharedInputError
from adu_depth.evaluation.scoring import ImageScore, Row, Scorer
from adu_depth.geometry import Camera
from adu_depth.models.prediction import DepthPrediction

Predict: TypeAlias = Callable[[StereoSample], DepthPrediction]


class NanPrediction(SharedInputError):
    """A prediction has NaN; the message names the image."""


@dataclass(frozen=True)
class EvaluationResult:
    """What one method scored on one data set under one protocol.

    rows: image name → its metrics, in the data set's order. skipped: images without ground truth to compare with.
    curves: means over the images of the curves of UncertaintyScore, where uncertainty was measured.
    """

    rows: dict[str, Row]
    protocol: str
    min_depth: float
    max_depth: float
    skipped: tuple[str, ...] = ()
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    scale: str = "none"

    def metrics(self) -> list[str]:
        """Every metric that an image has."""
        return list(dict.fromkeys(metric for row in self.rows.values() for metric in row))

    def means(self) -> Row:
        """Every metric averaged over the images that have it, each counting once however many valid pixels it has."""
        values = {metric: [row[metric] for row in self.rows.values() if metric in row] for metric in self.metrics()}
        return {metric: sum(found) / len(found) for metric, found in values.items()}

    def as_dict(self) -> dict[str, Any]:
        return {
            "protocol": self.protocol,
            "depth_range_m": [self.min_depth, self.max_depth],
            "scale": self.scale,
            "images": len(self.rows),
            "skipped": list(self.skipped),
            "means": self.means(),
            "curves": {name: curve.tolist() for name, curve in self.curves.items()},
            "rows": self.rows,
        }


def evaluate(
    predict: Predict,
    dataset: Dataset,
    *,
    protocol: str = "none",
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    batch_size: int = 1,
    uncertainty: bool = False,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """`evaluate_protocols` for one protocol, in this process alone."""
    scorer = Scorer((protocol,), min_depth, max_depth, uncertainty)
    return evaluate_protocols(predict, dataset, scorer, batch_size=batch_size, device=device, progress=progress)[
        protocol
    ]


def evaluate_protocols(
    predict: Predict,
    dataset: Dataset,
    scorer: Scorer,
    *,
    batch_size: int = 1,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    processes: ProcessGroup | None = None,
    read: Callable[[list[int]], Generator[StereoSample, None, None]] | None = None,
) -> dict[str, EvaluationResult]:
    """Scores `predict`, a function from a batched StereoSample to a DepthPrediction, on the dense ground truth.

    Every image is predicted once and measured under each protocol of `scorer`, on the valid pixels inside its window:
    depth metrics always, epe and d1 where the prediction has a disparity, uncertainty if asked. Under "pair", which
    needs no ground truth, it is predicted once more, with the views exchanged and mirrored. `batch_size` images
    that follow one another share a batch, as far as they have one size. `device` is where `predict` gets its batch.
    processes: share the batches between them; each makes the batches that one process alone would make, and all
    return the same result. progress: called as progress(images done, images in all), of this process's share.
    read: gives the samples of these indices one after the other, where it is not `dataset` itself that is to be asked.
    An image without a valid pixel is skipped, with a warning, and listed in the result. Raises InputError for an empty
    data set, a protocol that has no ground truth at all, an unknown protocol, or a prediction of the wrong shape or
    with NaN (NanPrediction, which names the image); in several processes all of them raise it.
    """
    processes = processes or ProcessGroup()
    if len(dataset) == 0:
        raise InputError("dataset: empty, expected at least one image to evaluate on")
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    found: list[_Scored] = []
    failure: InputError | None = None
    try:
        own = share_of(len(dataset), batch_size, processes)
        indices = [index for block in own for index in block]
        with closing(_read_here(dataset, indices) if read is None else read(indices)) as samples:
            for scored in _score_share(predict, samples, scorer, own, device):
                found.append(scored)
                if progress is not None and scored.ends_batch:
                    progress(len(found), len(indices))
    except InputError as error:  # told to all, or the others would wait for this process for ever
        failure = error
    shares = processes.gather((found, failure))
    failures = [failure for _, failure in shares if failure is not None]
    if failures:  # what cannot be read comes before what was predicted wrongly
        first = min(failures, key=lambda failure: isinstance(failure, NanPrediction))
        raise first if isinstance(first, NanPrediction) else SharedInputError(str(first))
    everything = sorted((scored for share, _ in shares for scored in share), key=lambda scored: scored.index)
    results = {name: _result(name, everything, scorer) for name in scorer.protocols}
    skipped = list(dict.fromkeys(name for result in results.values() for name in result.skipped))
    if skipped and processes.is_main:
        warnings.warn(f"{len(skipped)} images without valid depth were skipped: {', '.join(skipped[:5])}", stacklevel=2)
    return results


def share_of(images: int, batch_size: int, processes: ProcessGroup) -> list[range]:
    """The images of one process: every world_size-th block of batch_size, which are the batches of a process alone."""
    blocks = [range(first, min(first + batch_size, images)) for first in range(0, images, batch_size)]
    return blocks[processes.rank :: processes.world_size]


@dataclass(frozen=True)
class _Scored:
    index: int
    name: str
    scores: dict[str, ImageScore]
    ends_batch: bool


def _read_here(dataset: Dataset, indices: list[int]) -> Generator[StereoSample, None, None]:
    yield from (dataset[index] for index in indices)


def _score_share(
    predict: Predict,
    read: Iterator[StereoSample],
    scorer: Scorer,
    own: list[range],
    device: torch.device | str,
) -> Iterator[_Scored]:
    """This process's images, which `read` gives, scored."""
    for block in own:
        for batch in _batches(block, read):
            samples = [sample for _, sample in batch]
            windows = [_windows(scorer, sample) for sample in samples]
            prediction = right = None
            if any(windows):  # no time is spent on what nothing can be compared with
                whole = collate(samples).to(device)
                with torch.no_grad():
                    prediction = predict(whole)
                _require_shape(prediction, samples)
                if scorer.looks_back and prediction.disparity is not None:
                    right = _right_disparity(predict, whole, samples)
            for place, (index, sample) in enumerate(batch):
                name = str(sample.name)
                if prediction is not None:  # also where no truth is, which no metric looks at
                    _require_no_nan(prediction, place, name or index)
                try:
                    scores = (
                        {} if prediction is None else scorer.score(prediction, place, sample, windows[place], right)
                    )
                except InputError as error:
                    raise InputError(f"image {name or index}: {error}") from error
                yield _Scored(index, name, scores, place == len(batch) - 1)


def _right_disparity(predict: Predict, batch: StereoSample, samples: list[StereoSample]) -> Tensor:
    """The right views' disparities by the same method, B×1×H×W. Ground truth, of the left ones, is not shown."""

    def look(left: Tensor, right: Tensor, camera: Camera) -> DepthPrediction:
        second = predict(replace(without_truth(batch), left=left, right=right, camera=camera))
        _require_shape(second, samples)
        for place, sample in enumerate(samples):
            _require_no_nan(second, place, f"{sample.name}, its views exchanged and mirrored")
        return second

    with torch.no_grad():
        return disparity_of_right(look, batch.left, batch.require_right("a second look"), batch.camera)


def _windows(scorer: Scorer, sample: StereoSample) -> dict[str, Tensor]:
    try:
        return scorer.windows(sample)
    except InputError as error:
        raise InputError(f"image {sample.name}: {error}") from error


def _batches(block: range, read: Iterator[StereoSample]) -> Iterator[list[tuple[int, StereoSample]]]:
    waiting: list[tuple[int, StereoSample]] = []
    for index in block:
        sample = next(read)
        if waiting and sample.left.shape != waiting[0][1].left.shape:
            yield waiting
            waiting = []
        waiting.append((index, sample))
    yield waiting


def _result(protocol: str, images: list[_Scored], scorer: Scorer) -> EvaluationResult:
    rows: dict[str, Row] = {}
    skipped: list[str] = []
    curves: dict[str, np.ndarray] = {}
    for image in images:
        name = _unused_name(image.name, rows)
        if protocol not in image.scores:
            skipped.append(name)
            continue
        score = image.scores[protocol]
        rows[name] = score.row
        for curve, values in score.curves.items():
            curves[curve] = curves.get(curve, 0.0) + values
    if not rows:
        raise InputError(
            f"dataset: none of {len(images)} images has a valid depth within protocol {protocol!r}: it compares with "
            "ground truth, or with proxies (`adu-depth proxies`) in its place"
        )
    return EvaluationResult(
        rows,
        protocol,
        scorer.min_depth,
        scorer.max_depth,
        tuple(skipped),
        {name: total / len(rows) for name, total in curves.items()},
        scorer.scale,
    )


def _unused_name(name: str, rows: dict[str, Row]) -> str:
    if name and name not in rows:
        return name
    return next(c for n in range(1, len(rows) + 2) if (c := f"{name or 'image'}#{n}") not in rows)


def _require_no_nan(prediction: DepthPrediction, place: int, name: str | int) -> None:
    maps = {"depth": prediction.depth, "log_scale": prediction.log_scale, "disparity": prediction.disparity}
    for of, values in maps.items():
        bad = 0 if values is None else int(torch.isnan(values[place]).sum())
        if bad:
            raise NanPrediction(f"image {name}: prediction: NaN at {bad} pixels of its {of}")


def _require_shape(prediction: DepthPrediction, samples: list[StereoSample]) -> None:
    expected = (len(samples), 1, *samples[0].left.shape[-2:])
    maps = {"depth": prediction.depth, "log_scale": prediction.log_scale, "disparity": prediction.disparity}
    for name, values in maps.items():
        if values is not None and tuple(values.shape) != expected:
            raise InputError(f"prediction.{name}: expected shape {expected}, got {tuple(values.shape)}")
