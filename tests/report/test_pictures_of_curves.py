"""Charts that are files of their own: a whole SVG, its lines where the numbers say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from adu_depth.charts import Panel, Series, picture
from adu_depth.evaluation import Scorer, evaluate_protocols
from adu_depth.evaluation.curve_pictures import calibration_picture, sparsification_picture
from tests.evaluation.test_evaluator import make_sample, predict_from_image

SVG = "{http://www.w3.org/2000/svg}"


def lines_of(svg: str) -> list[np.ndarray]:
    """The drawn lines but for the legends', each N×2 points."""
    found = [
        np.array([[float(v) for v in point.split()] for point in re.split("[ML]", path.attrib["d"])[1:]])
        for group in ElementTree.fromstring(svg).iter(f"{SVG}g")
        if "line" in group.attrib.get("class", "").split()
        for path in group.iter(f"{SVG}path")
    ]
    return [points for points in found if len(points) > 2]


def words_of(svg: str) -> str:
    return " ".join(element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text"))


def test_lines_are_drawn_to_scale_and_names_are_escaped() -> None:
    steps = np.array([0.0, 50.0, 100.0])
    lines = {"<a> & b": Series(steps, np.array([4.0, 2.0, 0.0])), "flat": Series(steps, np.array([1.0, 1.0, 1.0]))}
    svg = picture([Panel("T", lines, "share, %", "error", "said of it"), Panel("second", lines, "x", "y")])
    drawn = lines_of(svg)
    assert len(drawn) == 4
    falling, flat = drawn[:2]
    assert falling[1, 0] == pytest.approx((falling[0, 0] + falling[2, 0]) / 2)
    assert falling[1, 1] == pytest.approx((falling[0, 1] + falling[2, 1]) / 2, abs=0.1)
    assert falling[0, 1] < falling[2, 1], "large values stand high"
    assert flat[0, 1] == flat[2, 1] == pytest.approx(falling[2, 1] - (falling[2, 1] - falling[0, 1]) / 4, abs=0.1)
    for word in ("<a> & b", "flat", "share, %", "error", "said of it", "T", "second"):
        assert word in words_of(svg)
    root = ElementTree.fromstring(svg)
    assert root.attrib["viewBox"].split()[2:] == [root.attrib[side].removesuffix("pt") for side in ("width", "height")]
    assert not re.search(r"https?://(?!www\.w3\.org)", svg)
    with pytest.raises(ValueError, match="at least one panel, and a line in each"):
        picture([])


def test_the_pictures_of_an_evaluation() -> None:
    dataset = [make_sample(i, (40, 50)) for i in range(2)]
    result = evaluate_protocols(predict_from_image, dataset, Scorer(uncertainty=True, temperature=2.0))["none"]
    sparsification = sparsification_picture(result, "student")
    means = result.means()
    assert len(lines_of(sparsification)) == 9, "method, oracle and random for three errors"
    for words in ("student", "oracle", "random", "pixels dropped, %", "2 images, protocol none"):
        assert words in words_of(sparsification)
    assert f"AUSE {means['ause_rmse']:.4f}, AURG {means['aurg_rmse']:.4f}" in words_of(sparsification)
    method, oracle, random = lines_of(sparsification)[:3]
    assert method[0, 1] == oracle[0, 1] == random[0, 1]
    assert (oracle[:, 1] >= method[:, 1] - 0.11).all(), "no order is better than the oracle's"
    assert len(set(random[:, 1])) == 1
    calibration = calibration_picture(result, "student")
    said, scaled, ideal = lines_of(calibration)
    up = 100 * np.stack([result.curves["coverage"], result.curves["coverage_scaled"]])
    for drawn, share in zip((said, scaled), up, strict=True):
        assert np.corrcoef(drawn[:, 1], share)[0, 1] == pytest.approx(-1.0, abs=1e-4), "higher shares stand higher"
    assert not np.array_equal(said, scaled)
    assert np.corrcoef(ideal[:, 1], ideal[:, 0])[0, 1] == pytest.approx(-1.0, abs=1e-6)
    assert f"with temperature {means['calibration_error_scaled']:.4f}" in words_of(calibration)
    plain = evaluate_protocols(predict_from_image, dataset, Scorer(uncertainty=True))["none"]
    assert len(lines_of(calibration_picture(plain, "student"))) == 2
