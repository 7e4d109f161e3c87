"""Picture, depth and uncertainty beside each other as HTML, with the numbers that a cursor over them reads."""

from __future__ import annotations

import base64
import math
import secrets
from dataclasses import dataclass

import numpy as np

from adu_depth.inference.colour import UNCERTAINTY, ColourScale
from adu_depth.inference.image_files import encode_jpeg, encode_png
from adu_depth.inference.pictures import depth_picture, scale_bar, scaled_to, uncertainty_picture
from adu_depth.inference.predict_files import PredictedImage
from adu_depth.inference.render import to_uint8
from adu_depth.report.document import page_template

WIDEST, MOST_SENT = 1280, 1_500_000
"""Pixels along a row, and in all, that are sent to the page: of a larger picture so many, spread evenly."""
_BAR_WIDTH = 900
_WIDE = 2.0  # width by height from which pictures stand below one another


@dataclass(frozen=True)
class Panel:
    """One picture, and the scale bar below it; both as data: addresses."""

    title: str
    picture: str
    bar: str = ""


def view_of(predicted: PredictedImage, colours: ColourScale) -> str:
    """HTML for `templates/viewer.js`, which reads depth, expected error and, where there are points, the place in space
    of the pixel under the cursor."""
    height, width = predicted.depth.shape
    share = min(1.0, WIDEST / width, math.sqrt(MOST_SENT / (height * width)))
    columns, rows = (_spread(side, max(1, round(side * share))) for side in (width, height))
    at = np.ix_(rows, columns)
    picture = scaled_to(to_uint8(predicted.left), len(columns))
    panels = [
        Panel("picture", _address("jpeg", encode_jpeg(picture))),
        Panel("depth", _png(depth_picture(predicted.depth[at], colours, bar=False)), _bar(colours)),
    ]
    errors = None
    if predicted.log_scale is not None:
        errors = predicted.log_scale[at]
        panels.append(Panel("how sure the network is", _png(uncertainty_picture(errors, bar=False)), _bar(UNCERTAINTY)))
    camera = None if predicted.points is None else predicted.points.camera
    return page_template("viewer.html", "adu_depth.app").render(
        number=secrets.token_hex(8),  # no two views have one
        panels=panels,
        wide=width >= _WIDE * height,
        height=height,
        width=width,
        rows=len(rows),
        columns=len(columns),
        depth=_numbers(predicted.depth[at]),
        log_scale="" if errors is None else _numbers(errors),
        camera="" if camera is None else " ".join(str(float(n)) for n in (camera.fx, camera.fy, camera.cx, camera.cy)),
    )


def _spread(pixels: int, count: int) -> np.ndarray:
    """The pixels that are sent of so many in a row, the first and the last among them; viewer.js counts alike."""
    return np.floor(np.linspace(0, pixels - 1, count) + 0.5).astype(int)


def _numbers(values: np.ndarray) -> str:
    """Little-endian float32, row by row, in base64."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _bar(scale: ColourScale) -> str:
    return _png(scale_bar(scale, _BAR_WIDTH))


def _png(picture: np.ndarray) -> str:
    return _address("png", encode_png(picture))


def _address(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
