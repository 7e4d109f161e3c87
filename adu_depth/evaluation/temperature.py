"""One factor on the predicted scale, fitted where the truth is known: the simplest recalibration (after 1706.04599).

For a Laplace distribution of scale b the likelihood of T·b over given pixels is best at T = mean |r|/b, in closed form.
It moves neither the depths nor the order of the uncertainties, so AUSE and AURG stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from adu_depth.data.dataset import Dataset
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.evaluation.evaluator import EvaluationResult
from adu_depth.schema import read_json

FILE_NAME = "temperature.json"


class Part:
    """Some samples of a data set, in the order of `indices`."""

    def __init__(self, samples: Dataset, indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> StereoSample:
        return self.samples[self.indices[index]]


def split_for_fit(samples: Dataset, share: float) -> tuple[Part, Part]:
    """The part to fit on and the part to evaluate on, each with an image at least.

    The first `share` of the images is fitted on: in a data set of videos neighbours then stay on one side. Raises
    InputError unless 0 < share < 1 and there are two images.
    """
    if not 0 < share < 1:
        raise InputError(f"fit_temperature: expected a share of the images between 0 and 1, got {share}")
    if len(samples) < 2:
        raise InputError(f"fit_temperature: needs an image to fit on and one to evaluate on, got {len(samples)}")
    first = min(max(1, round(share * len(samples))), len(samples) - 1)
    return Part(samples, range(first)), Part(samples, range(first, len(samples)))


def fitted_temperature(result: EvaluationResult) -> float:
    """The factor on b that gives these images their best mean nll, each image counting once."""
    return result.means()["best_temperature"]


def temperature_record(result: EvaluationResult) -> dict[str, Any]:
    """A fit as JSON keeps it: the factor, and what it was fitted on."""
    value = fitted_temperature(result)
    return {
        "temperature": value,
        "log_temperature": math.log(value) if value > 0 else None,
        "fitted_on_images": len(result.rows),
        "protocol": result.protocol,
    }


def read_temperature(given: str) -> float:
    """A number, or the file in which an earlier fit was kept. Raises InputError for anything else."""
    try:
        return float(given)
    except ValueError:
        pass
    try:
        kept = read_json(given).get("temperature")
    except InputError as error:
        raise InputError(f"temperature: expected a number or a {FILE_NAME}, got {given!r}: {error}") from error
    if isinstance(kept, bool) or not isinstance(kept, (int, float)):
        raise InputError(
            f"temperature: expected a number or a {FILE_NAME}, got {given!r}, whose temperature is {kept!r:.40}"
        )
    return float(kept)
