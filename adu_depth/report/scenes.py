"""Held-out scenes as rows of pictures: what was given, and each model's depth, error and uncertainty."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import cv2
import numpy as np

from adu_depth.data.sample import StereoSample
from adu_depth.evaluation.metrics import depth_metrics
from adu_depth.inference.colour import DEPTH, ERROR, UNCERTAINTY, ColourScale
from adu_depth.inference.image_files import encode_jpeg, encode_png
from adu_depth.inference.pictures import depth_picture, error_picture, lidar_overlay, uncertainty_picture
from adu_depth.inference.render import to_map, to_uint8
from adu_depth.models.prediction import DepthPrediction

MODEL_LABELS = {
    "teacher": "Teacher (stereo)",
    "student_alone": "Student alone",
    "student_distilled": "Student distilled",
}
_WIDEST = 800


@dataclass(frozen=True)
class ScenePanel:
    """One scene: image H×W×3 uint8 RGB; truth and sparse H×W metres (0 = none) or None; by model depth H×W metres and
    log-scale H×W (natural log of the Laplace scale of ln depth)."""

    name: str
    image: np.ndarray
    truth: np.ndarray | None = None
    sparse: np.ndarray | None = None
    depths: Mapping[str, np.ndarray] = field(default_factory=dict)
    log_scales: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_sample(cls, sample: StereoSample, predictions: Mapping[str, DepthPrediction]) -> ScenePanel:
        """From one unbatched sample and what each model ("teacher", "student_alone", …) said of it (batches of 1)."""
        return cls(
            name=str(sample.name),
            image=to_uint8(sample.left),
            truth=to_map(sample.depth) * to_map(sample.valid),
            sparse=None if sample.sparse_depth is None else to_map(sample.sparse_depth),
            depths={model: to_map(p.depth) for model, p in predictions.items()},
            log_scales={model: to_map(p.log_scale) for model, p in predictions.items()},
        )


def scenes_html(panels: Sequence[ScenePanel]) -> str:
    """All scenes, each row of pictures under the one colour scale it shares."""
    return "".join(_scene(panel) for panel in panels)


def model_label(model: str) -> str:
    return MODEL_LABELS.get(model, model.replace("_", " "))


def colour_bar(scale: ColourScale) -> str:
    """The scale as a strip with its ticks."""
    colours = scale.colours()
    stops = ",".join("#{:02x}{:02x}{:02x}".format(*colours[i]) for i in np.linspace(0, 255, 17).round().astype(int))
    ticks = "".join(
        f'<span style="left:{100 * float(scale.position(t)):.1f}%">{escape(scale.tick_label(t))}</span>'
        for t in scale.ticks()
    )
    return (
        f'<div class="bar" role="img" aria-label="{escape(scale.label)} from {scale.low:g} to {scale.high:g} '
        f'{escape(scale.unit)}"><div class="ramp" style="background:linear-gradient(to right,{stops})"></div>'
        f'<div class="ticks">{ticks}</div></div>'
    )


def _scene(panel: ScenePanel) -> str:
    rows = [_row("What was given", None, _given(panel))]
    depths = [_figure(model_label(m), depth_picture(d, bar=False)) for m, d in panel.depths.items()]
    rows.append(_row("Depth, metres", DEPTH, depths))
    if panel.truth is not None:
        truth = np.where(panel.truth <= DEPTH.high, panel.truth, 0.0)
        errors = [_error_figure(model, depth, truth) for model, depth in panel.depths.items()]
        rows.append(_row("Error of depth, % of the true depth", ERROR, errors))
    scales = [_figure(model_label(m), uncertainty_picture(s, bar=False)) for m, s in panel.log_scales.items()]
    rows.append(_row("Uncertainty: the error each model expects, % of depth", UNCERTAINTY, scales))
    return f'<article class="scene"><h3>{escape(panel.name)}</h3>{"".join(rows)}</article>'


def _given(panel: ScenePanel) -> list[str]:
    figures = [_figure("Left image", panel.image, photo=True)]
    if panel.sparse is not None:
        share = 100.0 * float((panel.sparse > 0).mean())
        caption = f"Sparse ground truth, {share:.0f} % of pixels"
        figures.append(_figure(caption, lidar_overlay(panel.image, panel.sparse, bar=False)))
    if panel.truth is not None:
        figures.append(_figure("Dense ground truth", depth_picture(panel.truth, bar=False)))
    return figures


def _error_figure(model: str, depth: np.ndarray, truth: np.ndarray) -> str:
    caption = model_label(model)
    if (truth > 0).any():
        caption += f", mean {100 * depth_metrics(depth, truth)['abs_rel']:.1f} %"
    return _figure(caption, error_picture(depth, truth, bar=False))


def _row(title: str, scale: ColourScale | None, figures: list[str]) -> str:
    if not figures:
        return ""
    bar = "" if scale is None else colour_bar(scale)
    head = f'<div class="rowhead"><h4>{escape(title)}</h4>{bar}</div>'
    return f'<div class="row">{head}<div class="pics">{"".join(figures)}</div></div>'


def _figure(caption: str, picture: np.ndarray, photo: bool = False) -> str:
    if picture.shape[1] > _WIDEST:
        height = max(1, round(picture.shape[0] * _WIDEST / picture.shape[1]))
        picture = cv2.resize(picture, (_WIDEST, height), interpolation=cv2.INTER_AREA)
    kind, data = ("jpeg", encode_jpeg(picture)) if photo else ("png", encode_png(picture))
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    height, width = picture.shape[:2]
    image = f'<img src="{source}" width="{width}" height="{height}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
