"""The temperature: fitted on one part, used on the other, kept in a file that a later evaluation takes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.data import StereoSample
from adu_depth.errors import InputError
from adu_depth.evaluation import Scorer, evaluate_protocols
from adu_depth.evaluation.temperature import fitted_temperature, read_temperature, split_for_fit, temperature_record
from adu_depth.models.prediction import DepthPrediction
from tests.evaluation.test_evaluator import make_sample


def three_times_too_sure(batch: StereoSample) -> DepthPrediction:
    """Errors drawn from a Laplace distribution of three times the scale that is said."""
    scale = 0.05
    generator = torch.Generator().manual_seed(len(batch.name[0]))
    share = torch.rand(batch.depth.shape, generator=generator).clamp(1e-6, 1 - 1e-6) - 0.5
    noise = -share.sign() * (1 - 2 * share.abs()).log()
    depth = torch.where(batch.valid, batch.depth, 10.0) * (scale * noise).exp()
    return DepthPrediction(depth, torch.full_like(depth, math.log(scale / 3)), ())


def test_fitted_on_one_part_it_helps_on_the_other() -> None:
    dataset = [make_sample(i, (60, 80)) for i in range(6)]
    fit, rest = split_for_fit(dataset, 0.5)
    assert [s.name for s in fit] == ["image0", "image1", "image2"]  # type: ignore[attr-defined]
    assert [rest[i].name for i in range(len(rest))] == ["image3", "image4", "image5"]
    scorer = Scorer(uncertainty=True, max_depth=1e3)
    fitted = evaluate_protocols(three_times_too_sure, fit, scorer)["none"]
    assert fitted_temperature(fitted) == pytest.approx(3.0, rel=0.05)
    later = replace(scorer, temperature=fitted_temperature(fitted))
    mean = evaluate_protocols(three_times_too_sure, rest, later)["none"].means()
    assert mean["nll_scaled"] < mean["nll"] - 0.5
    assert mean["calibration_error_scaled"] < 0.01 < 0.05 < mean["calibration_error"]


def test_images_count_alike_in_the_fit() -> None:
    few, many = make_sample(0, (60, 80)), make_sample(1, (60, 80))
    few = replace(few, valid=few.valid & (torch.arange(80) < 2))

    def predict(batch: StereoSample) -> DepthPrediction:
        depth = torch.where(batch.valid, batch.depth, 1.0) * (2.0 if batch.name == ["image0"] else 1.1)
        return DepthPrediction(depth, torch.zeros_like(depth), ())

    result = evaluate_protocols(predict, [few, many], Scorer(uncertainty=True, max_depth=1e3))["none"]
    assert fitted_temperature(result) == pytest.approx((math.log(2.0) + math.log(1.1)) / 2, rel=1e-4)


@pytest.mark.parametrize(("share", "images", "fitted"), [(0.5, 7, 4), (0.01, 5, 1), (0.99, 5, 4), (0.5, 2, 1)])
def test_both_parts_get_an_image(share: float, images: int, fitted: int) -> None:
    parts = split_for_fit([make_sample(0)] * images, share)
    assert [len(part) for part in parts] == [fitted, images - fitted]


def test_what_is_refused(tmp_path: Path) -> None:
    for share in (0.0, 1.0, -0.2, math.nan):
        with pytest.raises(InputError, match="fit_temperature: expected a share of the images between 0 and 1"):
            split_for_fit([make_sample(0)] * 4, share)
    with pytest.raises(InputError, match="needs an image to fit on and one to evaluate on, got 1"):
        split_for_fit([make_sample(0)], 0.5)
    for wrong in (0.0, -1.0, math.inf, math.nan, 1e-320, 1e308):
        with pytest.raises(InputError, match="temperature: expected a positive number"):
            Scorer(uncertainty=True, temperature=wrong)
    (tmp_path / "other.json").write_text('{"degrees": 3}')
    for given in ("warm", str(tmp_path / "none.json"), str(tmp_path / "other.json")):
        with pytest.raises(InputError, match=r"temperature: expected a number or a temperature\.json, got"):
            read_temperature(given)


def test_a_kept_fit_is_read_again(tmp_path: Path) -> None:
    dataset = [make_sample(i, (60, 80)) for i in range(2)]
    result = evaluate_protocols(three_times_too_sure, dataset, Scorer(uncertainty=True))["none"]
    record = temperature_record(result)
    assert (record["fitted_on_images"], record["protocol"]) == (2, "none")
    assert record["log_temperature"] == pytest.approx(math.log(record["temperature"]))
    (tmp_path / "temperature.json").write_text(json.dumps(record))
    assert read_temperature(str(tmp_path / "temperature.json")) == record["temperature"] == fitted_temperature(result)
    assert read_temperature("1.5") == 1.5
