"""The uncertainty's curves as SVG files: sparsification (method, oracle, random) and calibration."""

from __future__ import annotations

import numpy as np

from adu_depth.charts import Panel, Series, picture
from adu_depth.evaluation.evaluator import EvaluationResult
from adu_depth.evaluation.uncertainty import INTERVALS, QUANTILES, RANKED_ERRORS

_ERROR_NAMES = {"abs_rel": "abs_rel", "rmse": "rmse, m", "a1": "1 − a1"}


def sparsification_picture(result: EvaluationResult, method: str) -> str:
    """Three charts: the error that is left when the pixels called most uncertain are dropped first.

    The curves are means over the images, so the areas between them are the AUSE and AURG of the table.
    """
    dropped = 100.0 * np.arange(INTERVALS + 1) / INTERVALS
    means = result.means()
    panels = []
    for error in RANKED_ERRORS:
        left = result.curves[f"method_{error}"]
        lines = {
            method: Series(dropped, left),
            "oracle": Series(dropped, result.curves[f"oracle_{error}"]),
            "random": Series(dropped, np.full_like(left, left[0])),
        }
        about = f"AUSE {means[f'ause_{error}']:.4f}, AURG {means[f'aurg_{error}']:.4f}, {_what(result)}"
        panels.append(Panel(_ERROR_NAMES[error], lines, "pixels dropped, %", _ERROR_NAMES[error], about))
    return picture(panels)


def calibration_picture(result: EvaluationResult, method: str) -> str:
    """How many truths lie below each predicted quantile, against how many should; also after the temperature."""
    lines = {method: Series(100.0 * QUANTILES, 100.0 * result.curves["coverage"])}
    means = result.means()
    about = f"calibration error {means['calibration_error']:.4f}"
    if "coverage_scaled" in result.curves:
        lines["with temperature"] = Series(100.0 * QUANTILES, 100.0 * result.curves["coverage_scaled"])
        about += f", with temperature {means['calibration_error_scaled']:.4f}"
    lines["calibrated"] = Series(100.0 * QUANTILES, 100.0 * QUANTILES)
    about = f"{about}, {_what(result)}"
    return picture([Panel("calibration", lines, "predicted quantile, %", "truths below it, %", about)])


def _what(result: EvaluationResult) -> str:
    return f"{len(result.rows)} images, protocol {result.protocol}"
