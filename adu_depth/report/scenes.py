"""Held-out scenes as rows of pictures: what was given, and each model's depth, error and uncertainty."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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


class Reference(NamedTuple):
    """What depths are compared with. dense: known at most pixels; else its points are drawn on the image."""

    label: str
    errors: str
    dense: bool = True


TRUTH = Reference("Dense ground truth", "Error of depth, % of the true depth")


class _Figure(NamedTuple):
    """source: a data URL."""

    caption: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class ScenePanel:
    """One scene: image H×W×3 uint8 RGB; truth and sparse H×W metres (0 = none) or None; by model depth H×W metres and
    log-scale H×W (natural log of the Laplace scale of ln depth). reference: what `truth` holds, where it is another."""

    name: str
    image: np.ndarray
    truth: np.ndarray | None = None
    sparse: np.ndarray | None = None
    depths: Mapping[str, np.ndarray] = field(default_factory=dict)
    log_scales: Mapping[str, np.ndarray] = field(default_factory=dict)
    reference: Reference = TRUTH

    @classmethod
    def from_sample(
        cls, sample: StereoSample, predictions: Mapping[str, DepthPrediction], reference: Reference = TRUTH
    ) -> ScenePanel:
        """From one unbatched sample and what each model ("teacher", "student_alone", …) said of it (batches of 1)."""
        return cls(
            name=str(sample.name),
            image=to_uint8(sample.left),
            truth=to_map(sample.depth) * to_map(sample.valid),
            sparse=None if sample.sparse_depth is None or sample.proxied else to_map(sample.sparse_depth),
            depths={model: to_map(p.depth) for model, p in predictions.items()},
            log_scales={m: to_map(p.log_scale) for m, p in predictions.items() if p.log_scale is not None},
            reference=reference,
        )


def model_label(model: str) -> str:
    return MODEL_LABELS.get(model, model.replace("_", " "))


def scene_rows(panel: ScenePanel) -> list[dict[str, Any]]:
    """A scene's rows of pictures for the template, each row under the one colour scale it shares."""
    depths = [_figure(model_label(m), depth_picture(d, bar=False)) for m, d in panel.depths.items()]
    errors = []
    if panel.truth is not None:
        truth = np.where(panel.truth <= DEPTH.high, panel.truth, 0.0)
        widen = not panel.reference.dense
        errors = [_error_figure(model, depth, truth, widen) for model, depth in panel.depths.items()]
    scales = [_figure(model_label(m), uncertainty_picture(s, bar=False)) for m, s in panel.log_scales.items()]
    rows: list[tuple[str, ColourScale | None, list[_Figure]]] = [
        ("What was given", None, _given(panel)),
        ("Depth, metres", DEPTH, depths),
        (panel.reference.errors, ERROR, errors),
        ("Uncertainty: the error each model expects, % of depth", UNCERTAINTY, scales),
    ]
    return [
        {"title": title, "bar": None if scale is None else colour_bar(scale), "pictures": pictures}
        for title, scale, pictures in rows
        if pictures
    ]


def colour_bar(scale: ColourScale) -> dict[str, Any]:
    """The scale as a strip with its ticks."""
    colours = scale.colours()
    stops = ["#{:02x}{:02x}{:02x}".format(*colours[i]) for i in np.linspace(0, 255, 17).round().astype(int)]
    ticks = [{"percent": f"{100 * float(scale.position(t)):.1f}", "text": scale.tick_label(t)} for t in scale.ticks()]
    label = f"{scale.label} from {scale.low:g} to {scale.high:g} {scale.unit}"
    return {"label": label, "stops": ",".join(stops), "ticks": ticks}


def _given(panel: ScenePanel) -> list[_Figure]:
    figures = [_figure("Left image", panel.image, photo=True)]
    if panel.sparse is not None:
        share = 100.0 * float((panel.sparse > 0).mean())
        caption = f"Sparse ground truth, {share:.0f} % of pixels"
        figures.append(_figure(caption, lidar_overlay(panel.image, panel.sparse, bar=False)))
    if panel.truth is not None:
        label, _, dense = panel.reference
        picture = depth_picture(panel.truth, bar=False) if dense else lidar_overlay(panel.image, panel.truth, bar=False)
        figures.append(_figure(label, picture))
    return figures


def _error_figure(model: str, depth: np.ndarray, truth: np.ndarray, widen: bool) -> _Figure:
    caption = model_label(model)
    if (truth > 0).any():
        caption += f", mean {100 * depth_metrics(depth, truth)['abs_rel']:.1f} %"
    return _figure(caption, error_picture(depth, truth, bar=False, widen=widen))


def _figure(caption: str, picture: np.ndarray, photo: bool = False) -> _Figure:
    if picture.shape[1] > _WIDEST:
        height = max(1, round(picture.shape[0] * _WIDEST / picture.shape[1]))
        picture = cv2.resize(picture, (_WIDEST, height), interpolation=cv2.INTER_AREA)
    kind, data = ("jpeg", encode_jpeg(picture)) if photo else ("png", encode_png(picture))
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    height, width = picture.shape[:2]
    return _Figure(caption, source, width, height)
