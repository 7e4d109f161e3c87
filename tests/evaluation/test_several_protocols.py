"""One prediction under several protocols: who is skipped where, scaled to the median, hidden pixels, curves."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from adu_depth.data import StereoSample
from adu_depth.errors import InputError
from adu_depth.evaluation import (
    Scorer,
    depth_metrics,
    evaluate,
    evaluate_protocols,
    kitti_depth_metrics,
    stereo_metrics,
    uncertainty_metrics,
)
from adu_depth.evaluation.protocols import window_mask
from adu_depth.evaluation.result_files import write_csv, write_results
from adu_depth.evaluation.uncertainty import INTERVALS, QUANTILES
from adu_depth.models.prediction import DepthPrediction
from tests.evaluation.test_evaluator import make_sample, predict_from_image, without_disparity

SIZE = (50, 60)


def test_each_image_is_predicted_once_and_scored_under_each() -> None:
    seen: list[int] = []

    def spy(batch: StereoSample) -> DepthPrediction:
        seen.append(len(batch.left))
        return predict_from_image(batch)

    dataset = [make_sample(i, SIZE) for i in range(3)]
    protocols = ("garg", "none", "kitti-depth")
    results = evaluate_protocols(spy, dataset, Scorer(protocols), batch_size=2)
    assert seen == [2, 1]
    assert tuple(results) == protocols
    for name in ("garg", "none"):
        assert results[name].rows == evaluate(predict_from_image, dataset, protocol=name, batch_size=2).rows
    for sample in dataset:
        depth = 5 + 30 * sample.left.mean(0)
        truth = torch.where(sample.valid[0], sample.depth[0], 0)
        expected = kitti_depth_metrics(depth, truth)
        assert results["kitti-depth"].rows[str(sample.name)] == pytest.approx(expected, rel=1e-5)


def test_every_image_counts_once_however_many_pixels_it_has() -> None:
    """Pooling the pixels of all images, a common mistake, gives other numbers."""
    few, many = make_sample(0, SIZE), make_sample(1, SIZE)
    few = replace(few, valid=few.valid & (torch.arange(SIZE[1]) < 2))
    result = evaluate(without_disparity, [few, many])
    rows = [depth_metrics(5 + 30 * s.left.mean(0), torch.where(s.valid[0], s.depth[0], 0)) for s in (few, many)]
    pooled = depth_metrics(
        torch.cat([5 + 30 * s.left.mean(0) for s in (few, many)]),
        torch.cat([torch.where(s.valid[0], s.depth[0], 0) for s in (few, many)]),
    )
    for metric, mean in result.means().items():
        assert mean == pytest.approx((rows[0][metric] + rows[1][metric]) / 2, rel=1e-5)
        if metric.startswith(("abs", "rmse", "silog")):
            assert mean != pytest.approx(pooled[metric], rel=1e-3)


def test_images_without_a_truth_are_skipped_where_they_have_none() -> None:
    outside = make_sample(1, SIZE)
    outside = replace(outside, valid=outside.valid & ~window_mask("garg", *SIZE))
    blank = replace(make_sample(2, SIZE), valid=torch.zeros(1, *SIZE, dtype=torch.bool))
    predicted: list[str] = []

    def spy(batch: StereoSample) -> DepthPrediction:
        predicted.extend(batch.name)
        return predict_from_image(batch)

    with pytest.warns(UserWarning, match="2 images without valid depth were skipped: image1, image2"):
        results = evaluate_protocols(spy, [make_sample(0, SIZE), outside, blank], Scorer(("garg", "none")))
    assert predicted == ["image0", "image1"], "nothing is predicted that nothing can be compared with"
    assert (list(results["garg"].rows), results["garg"].skipped) == (["image0"], ("image1", "image2"))
    assert (list(results["none"].rows), results["none"].skipped) == (["image0", "image1"], ("image2",))
    with pytest.raises(InputError, match="none of 1 images has a valid depth within protocol 'garg'"):
        evaluate_protocols(spy, [outside], Scorer(("none", "garg")))


def test_the_benchmark_counts_what_the_depth_range_leaves_out() -> None:
    sample = make_sample(0, SIZE)
    far = replace(sample, depth=torch.where(sample.valid, 100.0, 0.0))
    results = evaluate_protocols(without_disparity, [sample, far], Scorer(("kitti-depth",)))
    assert len(results["kitti-depth"].rows) == 2
    with pytest.warns(UserWarning, match="image0"):
        assert evaluate(without_disparity, [sample, far]).skipped == ("image0#1",)


def test_the_depth_range_moves_predictions_too() -> None:
    sample = make_sample(0, SIZE)
    capped = evaluate(without_disparity, [sample], max_depth=12.0).means()
    depth, truth = (5 + 30 * sample.left.mean(0)).clamp(max=12.0), torch.where(sample.valid[0], sample.depth[0], 0)
    assert capped == pytest.approx(depth_metrics(depth, torch.where(truth <= 12, truth, 0)), rel=1e-5)
    for near, far in ((0.0, 80.0), (5.0, 5.0), (5.0, 1.0)):
        with pytest.raises(InputError, match="depth range: expected 0 < min_depth < max_depth"):
            Scorer(min_depth=near, max_depth=far)


def test_the_median_of_a_prediction_is_moved_to_the_truths_before_it_is_clamped() -> None:
    sample = make_sample(0, SIZE)

    def tiny(batch: StereoSample) -> DepthPrediction:
        prediction = without_disparity(batch)
        return replace(prediction, depth=prediction.depth * 1e-5)  # all below min_depth before they are scaled

    seen = sample.valid[0] & window_mask("garg", *SIZE)
    depth, truth = (5 + 30 * sample.left.mean(0)).double().numpy(), torch.where(seen, sample.depth[0], 0)
    ratio = np.median(sample.depth[0][seen].double().numpy()) / np.median(depth[seen.numpy()])
    result = evaluate_protocols(tiny, [sample], Scorer(("garg", "kitti-depth"), scale="median"))
    assert result["garg"].means() == pytest.approx(depth_metrics(depth * ratio, truth), rel=1e-4)
    assert result["garg"].as_dict()["scale"] == "median"
    whole = np.median(sample.depth[sample.valid].double().numpy()) / np.median(depth[sample.valid[0].numpy()])
    everywhere = kitti_depth_metrics(depth * whole, torch.where(sample.valid[0], sample.depth[0], 0))
    assert result["kitti-depth"].means() == pytest.approx(everywhere, rel=1e-4)

    def nothing(batch: StereoSample) -> DepthPrediction:
        return replace(without_disparity(batch), depth=0 * batch.depth)

    with pytest.raises(InputError, match="image image0: scale: expected a positive median of the predicted depths"):
        evaluate_protocols(nothing, [sample], Scorer(scale="median"))


def test_hidden_pixels_are_told_apart_where_the_data_set_knows_them() -> None:
    sample = make_sample(0, SIZE)
    hidden = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(9)) < 0.3
    row = evaluate(predict_from_image, [replace(sample, occluded=hidden)]).means()
    found, truth = 50.0 / (5 + 30 * sample.left.mean(0)), torch.where(sample.valid[0], sample.disparity[0], 0)
    seen_by_both = stereo_metrics(found, torch.where(hidden[0], 0, truth))
    assert {k: row[f"{k}_noc"] for k in ("epe", "d1")} == pytest.approx(seen_by_both, rel=1e-5)
    assert {k: row[k] for k in ("epe", "d1")} == pytest.approx(stereo_metrics(found, truth), rel=1e-5)
    assert row["epe"] != row["epe_noc"]
    assert "epe_noc" not in evaluate(predict_from_image, [sample]).means()
    mixed = evaluate(predict_from_image, [sample, replace(sample, occluded=hidden, name="other")])
    assert mixed.means()["epe_noc"] == mixed.rows["other"]["epe_noc"], "a mean of those that have it"


def test_curves_are_means_over_the_images_and_their_areas_the_table() -> None:
    dataset = [make_sample(i, SIZE) for i in range(3)]
    blank = replace(make_sample(3, SIZE), valid=torch.zeros(1, *SIZE, dtype=torch.bool))
    scorer = Scorer(uncertainty=True, temperature=0.7)
    with pytest.warns(UserWarning, match="image3"):
        result = evaluate_protocols(predict_from_image, [*dataset, blank], scorer)["none"]
    means = result.means()
    assert set(result.curves) == {
        *(f"{who}_{error}" for who in ("method", "oracle") for error in ("abs_rel", "rmse", "a1")),
        "coverage",
        "coverage_scaled",
    }
    for error in ("abs_rel", "rmse", "a1"):
        method, oracle = (result.curves[f"{who}_{error}"] for who in ("method", "oracle"))
        assert method.shape == oracle.shape == (INTERVALS + 1,)
        area, best = (sum((a + b) / 2 for a, b in pairwise(curve)) / INTERVALS for curve in (method, oracle))
        assert means[f"ause_{error}"] == pytest.approx(area - best, rel=1e-9)
        assert means[f"aurg_{error}"] == pytest.approx(method[0] - area, rel=1e-9)
    assert result.curves["coverage"].shape == QUANTILES.shape
    single = evaluate_protocols(predict_from_image, dataset[:1], Scorer(uncertainty=True))["none"]
    curve = np.abs(single.curves["coverage"] - QUANTILES).mean()
    assert single.means()["calibration_error"] == pytest.approx(curve)


def test_files_hold_every_image_and_every_protocol(tmp_path: Path) -> None:
    dataset = [make_sample(0, SIZE), make_sample(1, SIZE, name="ä, b")]
    results = evaluate_protocols(predict_from_image, dataset, Scorer(("garg", "kitti-depth"), uncertainty=True))
    settings = {"checkpoint": "runs/x", "data": "somewhere"}
    write_results(tmp_path / "out", {"my net": results}, settings)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "metrics.json",
        "metrics.md",
        "my_net.csv",
        "my_net.json",
        "my_net_calibration.svg",
        "my_net_sparsification.svg",
    ]
    with (tmp_path / "out" / "my_net.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["name"], line["protocol"]) for line in lines] == [
        ("image0", "garg"),
        ("ä, b", "garg"),
        ("image0", "kitti-depth"),
        ("ä, b", "kitti-depth"),
    ]
    for line, row in ((lines[1], results["garg"].rows["ä, b"]), (lines[3], results["kitti-depth"].rows["ä, b"])):
        assert {k: float(v) for k, v in line.items() if v and k not in ("name", "protocol")} == row
    content = json.loads((tmp_path / "out" / "my_net.json").read_text(encoding="utf-8"))
    assert content["garg"]["rows"] == results["garg"].rows
    assert content["garg"]["curves"]["coverage"] == results["garg"].curves["coverage"].tolist()
    kept = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert kept["checkpoint"] == "runs/x"
    garg = kept["methods"]["my net"]["garg"]
    assert garg["means"] == results["garg"].means()
    assert (garg["protocol"], garg["images"], garg["depth_range_m"]) == ("garg", 2, [0.001, 80.0])
    assert "rows" not in garg
    page = (tmp_path / "out" / "metrics.md").read_text(encoding="utf-8")
    assert f"| kitti-depth | {results['kitti-depth'].means()['SILog']:.4f} |" in page
    assert "- garg: Garg's window of the whole ground truth; depths 0.001 to 80 m; 2 images" in page
    write_csv(tmp_path / "one.csv", {"garg": results["garg"]})
    assert len((tmp_path / "one.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_without_matplotlib_all_numbers_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    results = evaluate_protocols(predict_from_image, [make_sample(0, SIZE)], Scorer(uncertainty=True))
    with pytest.raises(InputError, match="pip install matplotlib"):
        write_results(tmp_path, {"net": results}, {"checkpoint": "runs/x", "data": "somewhere"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "metrics.md", "net.csv", "net.json"]


def test_a_score_with_uncertainty_is_that_of_the_public_function() -> None:
    sample = make_sample(0, SIZE)
    row = evaluate(predict_from_image, [sample], uncertainty=True).means()
    truth = torch.where(sample.valid[0], sample.depth[0], 0)
    expected = uncertainty_metrics(5 + 30 * sample.left.mean(0), sample.left[0] - 2, truth)
    assert {k: row[k] for k in expected} == pytest.approx(expected, rel=1e-5, abs=1e-9)
