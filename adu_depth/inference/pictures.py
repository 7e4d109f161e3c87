"""Pictures a person can read: depth, uncertainty and error in colour, each with its scale bar, and panels of them.

All pictures are H×W×3 uint8 RGB; encode them with `image_files.encode_png`.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from adu_depth.inference.colour import DEPTH, ERROR, UNCERTAINTY, ColourScale

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER, _INK = (255, 255, 255), (28, 28, 30)


def depth_picture(depth: np.ndarray, scale: ColourScale = DEPTH, bar: bool = True) -> np.ndarray:
    """H×W metres in colour, grey where not finite or ≤ 0, with a scale bar in metres below."""
    return _with_bar(scale.colourise(depth, depth > 0), scale, bar)


def uncertainty_picture(log_scale: np.ndarray, scale: ColourScale = UNCERTAINTY, bar: bool = True) -> np.ndarray:
    """H×W log-scale (natural log of the Laplace scale b of ln depth) as the expected relative error 100·b in percent.

    E|ln d − ln d*| = b, and for small errors the difference of logarithms is the relative error.
    """
    percent = 100.0 * np.exp(log_scale.astype(np.float64))
    return _with_bar(scale.colourise(percent), scale, bar)


def error_picture(
    depth: np.ndarray, truth: np.ndarray, scale: ColourScale = ERROR, bar: bool = True, widen: bool = False
) -> np.ndarray:
    """|depth − truth| / truth in percent, both H×W metres; grey where either is unknown (not finite or ≤ 0).

    widen: for a truth of single points, an unknown pixel has the mean error of the known ones among its eight
    neighbours, so that the points are seen in a smaller picture too.
    """
    known = np.isfinite(depth) & np.isfinite(truth) & (depth > 0) & (truth > 0)
    percent = np.where(known, 100.0 * np.abs(depth - truth) / np.where(known, truth, 1.0), 0.0)
    if widen:
        sums, counts = (
            cv2.boxFilter(m.astype(np.float64), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
            for m in (percent, known)
        )
        near = counts > 0.5
        percent = np.where(known, percent, sums / np.where(near, counts, 1.0))
        known = near
    return _with_bar(scale.colourise(percent, known), scale, bar)


def lidar_overlay(
    image: np.ndarray, sparse_depth: np.ndarray, scale: ColourScale = DEPTH, bar: bool = True, radius: int | None = None
) -> np.ndarray:
    """LiDAR points (H×W metres, 0 = none) as coloured dots on the image in pale grey, near ones drawn last.

    radius: of a dot in pixels; None takes 1 for images from 600 pixels wide, more for wider ones.
    """
    radius = round(image.shape[1] / 1200) if radius is None else radius
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((grey * 0.3 + 175).astype(np.uint8)[..., None], 3, axis=2)
    points = np.argwhere(np.isfinite(sparse_depth) & (sparse_depth > 0))
    depths = sparse_depth[tuple(points.T)]
    far_first = np.argsort(-depths, kind="stable")
    reach = range(-radius, radius + 1)
    disc = np.array([(y, x) for y in reach for x in reach if y * y + x * x <= radius**2])
    pixels = (points[far_first, None] + disc).reshape(-1, 2).clip(0, np.array(picture.shape[:2]) - 1)
    colours = scale.colourise(depths[None, far_first])[0]
    picture[tuple(pixels.T)] = np.repeat(colours, len(disc), axis=0)  # where dots meet, the last one stays
    return _with_bar(picture, scale, bar)


def scale_bar(scale: ColourScale, width: int) -> np.ndarray:
    """The strip below a picture: the ramp from low to high with ticks, numbers and unit; height × width × 3."""
    size = float(np.clip(width / 1000, 0.4, 1.2))
    text_height = cv2.getTextSize("0", _FONT, size, 1)[0][1]
    gap = max(3, round(text_height * 0.5))
    ramp_height, margin = round(text_height * 1.6), min(round(text_height * 2.2), width // 4)
    title = f"{scale.label} [{scale.unit}]"
    strip = np.full((3 * gap + 3 * text_height + ramp_height + gap, width, 3), _PAPER, np.uint8)
    left, right = margin, width - 1 - margin
    top = 2 * gap + text_height
    _text(strip, title, (left, gap + text_height), size)
    along = np.linspace(0, 255, right - left + 1).round().astype(np.uint8)
    strip[top : top + ramp_height, left : right + 1] = scale.colours()[along]
    free_from = 0
    for value in scale.ticks():
        x = left + round(float(scale.position(value)) * (right - left))
        cv2.line(strip, (x, top), (x, top + ramp_height + gap), _INK, 1)
        label = scale.tick_label(value, at_least=">")
        label_width = cv2.getTextSize(label, _FONT, size, 1)[0][0]
        start = min(max(0, x - label_width // 2), width - label_width)
        if start >= free_from:
            _text(strip, label, (start, top + ramp_height + 2 * gap + text_height), size)
            free_from = start + label_width + gap
    return strip


def side_by_side(pictures: Mapping[str, np.ndarray], columns: int = 0, gap: int = 8) -> np.ndarray:
    """Pictures with their captions (the keys) above them in a grid, `columns` wide (0: all in one row).

    Each is scaled to the width of the first; captions are cut by the picture's edge if too long.
    """
    if not pictures:
        raise ValueError("side_by_side needs at least one picture, got none")
    width = next(iter(pictures.values())).shape[1]
    cells = [_captioned(scaled_to(p, width), caption) for caption, p in pictures.items()]
    columns = columns or len(cells)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    sheet = np.full((sum(heights) + gap * (len(rows) + 1), columns * (width + gap) + gap, 3), _PAPER, np.uint8)
    for number, row in enumerate(rows):
        top = gap + sum(heights[:number]) + gap * number
        for column, cell in enumerate(row):
            left = gap + column * (width + gap)
            sheet[top : top + cell.shape[0], left : left + width] = cell
    return sheet


def _with_bar(picture: np.ndarray, scale: ColourScale, bar: bool) -> np.ndarray:
    return np.concatenate([picture, scale_bar(scale, picture.shape[1])]) if bar else picture


def _captioned(picture: np.ndarray, caption: str) -> np.ndarray:
    size = float(np.clip(picture.shape[1] / 1000, 0.4, 1.2))
    text_height = cv2.getTextSize("0", _FONT, size, 1)[0][1]
    strip = np.full((2 * text_height + 4, picture.shape[1], 3), _PAPER, np.uint8)
    _text(strip, caption, (0, text_height + text_height // 2 + 1), size)
    return np.concatenate([strip, picture])


def scaled_to(picture: np.ndarray, width: int) -> np.ndarray:
    """The picture at this width, as high as it then is."""
    if picture.shape[1] == width:
        return picture
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    shrinks = width < picture.shape[1]
    return np.asarray(
        cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    )


def _text(picture: np.ndarray, text: str, baseline_left: tuple[int, int], size: float) -> None:
    thickness = 2 if size > 0.8 else 1
    cv2.putText(picture, text, baseline_left, _FONT, size, _INK, thickness, cv2.LINE_AA)
