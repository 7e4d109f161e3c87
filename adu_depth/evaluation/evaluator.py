"""One evaluation for every method: metrics of each image, then their mean over the images."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from adu_depth.data.dataset import Dataset
from adu_depth.data.sample import StereoSample, collate
from adu_depth.errors import InputError
from adu_depth.evaluation.metrics import depth_metrics, stereo_metrics
from adu_depth.evaluation.protocols import window_mask
from adu_depth.evaluation.uncertainty import uncertainty_metrics
from adu_depth.files import replacing, write_json
from adu_depth.models.prediction import DepthPrediction

Predict: TypeAlias = Callable[[StereoSample], DepthPrediction]
Row: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class EvaluationResult:
    """What one method scored on one data set.

    rows: image name → its metrics, in the data set's order. skipped: images without ground truth to compare with.
    """

    rows: dict[str, Row]
    protocol: str
    min_depth: float
    max_depth: float
    skipped: tuple[str, ...] = ()

    def means(self) -> Row:
        """Every metric averaged over the images, each image counting once however many valid pixels it has."""
        rows = list(self.rows.values())
        return {metric: sum(row[metric] for row in rows) / len(rows) for metric in rows[0]}

    def write_csv(self, path: str | Path) -> None:
        """One line per image: name, then its metrics."""
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", *next(iter(self.rows.values()))])
            writer.writerows([name, *row.values()] for name, row in self.rows.items())

    def write_json(self, path: str | Path) -> None:
        """Protocol, depth range, means, and the rows."""
        write_json(path, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        return {
            "protocol": self.protocol,
            "depth_range_m": [self.min_depth, self.max_depth],
            "images": len(self.rows),
            "skipped": list(self.skipped),
            "means": self.means(),
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
    """Scores `predict`, a function from a batched StereoSample to a DepthPrediction, on the dense ground truth.

    Every metric looks at the valid pixels inside the protocol's window (see PROTOCOLS): depth metrics always, epe and
    d1 where the prediction has a disparity, uncertainty metrics if asked. Neighbouring images share a batch while they
    have one size, so sets of mixed sizes work with any batch_size. `device` is where `predict` gets its batch.
    progress: called as progress(images done, images in all).
    An image without a valid pixel is skipped, with a warning, and listed in the result. Raises InputError for an empty
    data set, one without any ground truth, an unknown protocol, or a prediction of the wrong shape or with NaN (named).
    """
    if len(dataset) == 0:
        raise InputError("dataset: empty, expected at least one image to evaluate on")
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    rows: dict[str, Row] = {}
    skipped: list[str] = []
    for samples in _batches(dataset, batch_size):
        window = window_mask(protocol, *samples[0].left.shape[-2:])
        with torch.no_grad():
            prediction = predict(collate(samples).to(device))
        _require_shape(prediction, samples)
        for i, sample in enumerate(samples):
            name = _unused_name(str(sample.name), rows)
            if not _has_target(sample, window, min_depth, max_depth):
                skipped.append(name)
                continue
            try:
                rows[name] = _score(prediction, i, sample, window, min_depth, max_depth, uncertainty)
            except InputError as error:
                raise InputError(f"image {name}: {error}") from error
        if progress is not None:
            progress(len(rows) + len(skipped), len(dataset))
    if not rows:
        raise InputError(f"dataset: none of {len(dataset)} images has a valid depth within protocol {protocol!r}")
    if skipped:
        warnings.warn(f"{len(skipped)} images without valid depth were skipped: {', '.join(skipped[:5])}", stacklevel=2)
    return EvaluationResult(rows, protocol, min_depth, max_depth, tuple(skipped))


def _batches(dataset: Dataset, batch_size: int) -> Iterator[list[StereoSample]]:
    waiting: list[StereoSample] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        if waiting and (len(waiting) == batch_size or sample.left.shape != waiting[0].left.shape):
            yield waiting
            waiting = []
        waiting.append(sample)
    yield waiting


def _score(
    prediction: DepthPrediction,
    index: int,
    sample: StereoSample,
    window: Tensor,
    min_depth: float,
    max_depth: float,
    uncertainty: bool,
) -> Row:
    seen = sample.valid.cpu() & window
    depth, target = prediction.depth[index], torch.where(seen, sample.depth.cpu(), 0.0)
    row = depth_metrics(depth, target, min_depth, max_depth)
    if prediction.disparity is not None:
        row |= stereo_metrics(prediction.disparity[index], torch.where(seen, sample.disparity.cpu(), 0.0))
    if uncertainty:
        row |= uncertainty_metrics(depth, prediction.log_scale[index], target, min_depth, max_depth)
    return row


def _has_target(sample: StereoSample, window: Tensor, min_depth: float, max_depth: float) -> bool:
    depth = sample.depth.cpu()
    return bool((sample.valid.cpu() & window & (depth >= min_depth) & (depth <= max_depth)).any())


def _unused_name(name: str, rows: dict[str, Row]) -> str:
    if name and name not in rows:
        return name
    return next(c for n in range(1, len(rows) + 2) if (c := f"{name or 'image'}#{n}") not in rows)


def _require_shape(prediction: DepthPrediction, samples: list[StereoSample]) -> None:
    expected = (len(samples), 1, *samples[0].left.shape[-2:])
    maps = {"depth": prediction.depth, "log_scale": prediction.log_scale, "disparity": prediction.disparity}
    for name, values in maps.items():
        if values is not None and tuple(values.shape) != expected:
            raise InputError(f"prediction.{name}: expected shape {expected}, got {tuple(values.shape)}")
