"""The evaluator: per-image metrics, their means, windows, files, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adu_depth.data import StereoSample
from adu_depth.errors import InputError
from adu_depth.evaluation import (
    PROTOCOLS,
    comparison_table,
    depth_metrics,
    evaluate,
    markdown_table,
    stereo_metrics,
    uncertainty_metrics,
)
from adu_depth.evaluation.protocols import window_mask
from adu_depth.geometry import Camera
from adu_depth.models.prediction import DepthPrediction

CAMERA = Camera(fx=100.0, fy=100.0, cx=8.0, cy=6.0, baseline=0.5)


def make_sample(seed: int, size: tuple[int, int] = (12, 16), name: str = "") -> StereoSample:
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(1, *size, generator=generator) * 40 + 2
    valid = torch.rand(1, *size, generator=generator) < 0.7
    image = torch.rand(3, *size, generator=generator)
    disparity = torch.where(valid, 50.0 / depth, 0.0)
    # What stands in `depth` outside `valid` must not be looked at.
    depth = torch.where(valid, depth, 5.0)
    return StereoSample(image, image, depth, disparity, valid, CAMERA, name=name or f"image{seed}")


def predict_from_image(batch: StereoSample) -> DepthPrediction:
    """Depends on the pixels, so that a mixed-up order in a batch shows."""
    depth = 5 + 30 * batch.left.mean(1, keepdim=True)
    return DepthPrediction(depth, batch.left[:, :1] - 2, (), disparity=50.0 / depth)


def without_disparity(batch: StereoSample) -> DepthPrediction:
    return replace(predict_from_image(batch), disparity=None)


def expected_row(sample: StereoSample, window: torch.Tensor | None = None) -> dict[str, float]:
    depth = 5 + 30 * sample.left.mean(0)
    seen = sample.valid[0] if window is None else sample.valid[0] & window
    target = torch.where(seen, sample.depth[0], torch.nan)
    truth = torch.where(seen, sample.disparity[0], torch.nan)
    return {
        **depth_metrics(depth, target),
        **stereo_metrics(50.0 / depth, truth),
        **uncertainty_metrics(depth, sample.left[0] - 2, target),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_rows_are_per_image_and_means_count_images_alike(batch_size: int) -> None:
    sizes = [(12, 16), (12, 16), (12, 16), (10, 20), (12, 16)]
    dataset = [make_sample(i, size) for i, size in enumerate(sizes)]
    dataset[1] = replace(dataset[1], valid=dataset[1].valid & (torch.arange(16) < 3))  # few pixels, full weight
    result = evaluate(predict_from_image, dataset, batch_size=batch_size, uncertainty=True)
    assert list(result.rows) == [f"image{i}" for i in range(5)]
    for sample in dataset:
        assert result.rows[str(sample.name)] == pytest.approx(expected_row(sample), rel=1e-5, abs=1e-9)
    for metric, mean in result.means().items():
        assert mean == pytest.approx(sum(row[metric] for row in result.rows.values()) / 5)


def test_batches_join_neighbours_of_one_size() -> None:
    seen: list[int] = []
    done: list[tuple[int, int]] = []

    def spy(batch: StereoSample) -> DepthPrediction:
        assert not torch.is_grad_enabled()
        seen.append(len(batch.left))
        return predict_from_image(batch)

    sizes = [(12, 16)] * 3 + [(10, 20)] + [(12, 16)]
    dataset = [make_sample(i, size) for i, size in enumerate(sizes)]
    evaluate(spy, dataset, batch_size=2, progress=lambda n, total: done.append((n, total)))
    assert seen == [2, 1, 1, 1]
    assert done == [(2, 5), (3, 5), (4, 5), (5, 5)]


def test_only_what_was_predicted_is_scored() -> None:
    result = evaluate(without_disparity, [make_sample(0)])
    assert "epe" not in result.means()
    assert "nll" not in result.means()
    assert set(evaluate(predict_from_image, [make_sample(0)]).means()) - set(result.means()) == {"epe", "d1"}


def test_windows_of_kitti() -> None:
    """The pixel borders that the published code gets on 375×1242 images."""
    garg = window_mask("garg", 375, 1242)
    rows, columns = torch.nonzero(garg, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (153, 370, 44, 1196)
    assert garg.sum() == (371 - 153) * (1197 - 44)
    rows, columns = torch.nonzero(window_mask("eigen", 375, 1242), as_tuple=True)
    assert (rows.min(), rows.max() + 1) == (124, 342)
    assert window_mask("none", 7, 5).all()


@pytest.mark.parametrize("protocol", ["garg", "eigen"])
def test_a_window_holds_for_every_metric(protocol: str) -> None:
    sample = make_sample(3, (50, 60))
    row = evaluate(predict_from_image, [sample], protocol=protocol, uncertainty=True).means()
    assert row == pytest.approx(expected_row(sample, window_mask(protocol, 50, 60)), rel=1e-5, abs=1e-9)
    assert row["rmse"] != pytest.approx(expected_row(sample)["rmse"])


def test_the_depth_range_is_passed_on() -> None:
    sample = make_sample(0)
    result = evaluate(without_disparity, [sample], min_depth=3.0, max_depth=20.0)
    depth = 5 + 30 * sample.left.mean(0)
    assert result.means() == pytest.approx(
        depth_metrics(depth, torch.where(sample.valid[0], sample.depth[0], 0), 3.0, 20.0), rel=1e-5
    )


def test_images_of_one_name_keep_their_own_rows() -> None:
    result = evaluate(predict_from_image, [make_sample(i, name="same") for i in range(3)])
    assert list(result.rows) == ["same", "same#1", "same#2"]


def test_images_without_ground_truth_are_listed_not_averaged() -> None:
    blank = replace(make_sample(1), valid=torch.zeros(1, 12, 16, dtype=torch.bool))
    with pytest.warns(UserWarning, match="1 images without valid depth were skipped: image1"):
        result = evaluate(predict_from_image, [make_sample(0), blank])
    assert result.skipped == ("image1",)
    assert result.as_dict()["skipped"] == ["image1"]
    assert result.means() == result.rows["image0"]
    with pytest.raises(InputError, match="none of 1 images has a valid depth"):
        evaluate(predict_from_image, [blank])


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="dataset: empty"):
        evaluate(predict_from_image, [])
    with pytest.raises(InputError, match="batch_size: expected at least 1, got 0"):
        evaluate(predict_from_image, [make_sample(0)], batch_size=0)
    with pytest.raises(InputError, match="protocol: expected one of none, garg, eigen"):
        evaluate(predict_from_image, [make_sample(0)], protocol="gard")

    def spoiled(batch: StereoSample) -> DepthPrediction:
        return replace(predict_from_image(batch), depth=batch.depth * torch.nan)

    def too_small(batch: StereoSample) -> DepthPrediction:
        return replace(predict_from_image(batch), depth=batch.depth[..., ::2])

    with pytest.raises(InputError, match="image image0: prediction: NaN at"):
        evaluate(spoiled, [make_sample(0)])
    with pytest.raises(InputError, match=r"prediction.depth: expected shape \(1, 1, 12, 16\), got \(1, 1, 12, 8\)"):
        evaluate(too_small, [make_sample(0)])


def test_tables_put_methods_side_by_side() -> None:
    methods = {"stereo": predict_from_image, "mono": without_disparity}
    results = {name: evaluate(method, [make_sample(0)], protocol="eigen") for name, method in methods.items()}
    assert all(result.protocol == "eigen" for result in results.values())
    header, rule, stereo, mono = markdown_table(results, ["d1", "abs_rel"]).splitlines()
    assert header == "| method | d1 | abs_rel |"
    assert rule == "| - | -: | -: |"
    means = results["stereo"].means()
    assert stereo == f"| stereo | {means['d1']:.3f} | {means['abs_rel']:.3f} |"
    assert mono.startswith("| mono | – |")
    assert "epe" in markdown_table(results).splitlines()[0]
    assert "epe" not in markdown_table({"mono": results["mono"]}).splitlines()[0]
    table = comparison_table(results, ["d1", "abs_rel"])
    assert [column.header for column in table.columns] == ["method", "d1", "abs_rel"]
    assert table.row_count == 2


def test_every_protocol_is_within_the_image() -> None:
    for name, window in PROTOCOLS.items():
        assert 0 <= window.top < window.bottom <= 1, name
        assert 0 <= window.left < window.right <= 1, name
