"""Cast shadows: how much of a solid lies between a surface point and the sun."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.synthetic.cast import (
    CPU_CHUNK,
    DEVICE_CHUNK,
    Coefficients,
    bounds_table,
    cross_matrix,
    is_leafy,
)
from adu_depth.data.synthetic.shapes import SolidArrays
from adu_depth.data.synthetic.tiles import WorkList

_SOFT = 0.12  # metres of solid that stop the sun wholly: thinner rims give a soft edge
_STEPS = 32.0  # shadows are counted in whole steps, so that sums do not depend on their order


def prism_shadows(planes: np.ndarray, sun: np.ndarray) -> Coefficients:
    """Bounds, affine in the point, on the distance along the n×3 sun directions inside n×6×4 planes."""
    slope = np.einsum("nki,ni->nk", planes[..., :3], sun)
    affine = planes * np.array([-1.0, -1.0, -1.0, 1.0])
    table, upper, lower = bounds_table(affine, slope, flip=True)
    return Coefficients(table, upper, lower, np.zeros(len(planes), dtype=bool))


def round_shadows(arrays: SolidArrays, sun: np.ndarray) -> Coefficients:
    """Per round: |l|² and its inverse, b (4), moment (12), density, then the slab's bounds."""
    n = len(arrays.ball)
    first = len(arrays.centres) - n
    frame, centre = arrays.frames[first:], arrays.centres[first:]
    weight = np.stack([np.ones(n), arrays.ball, np.ones(n)], -1)
    weighted = frame * weight[..., None]
    to_local = np.concatenate([weighted, -np.einsum("nij,nj->ni", weighted, centre)[..., None]], -1)
    ray = np.einsum("nij,nj->ni", weighted, sun)
    square = (ray**2).sum(-1, keepdims=True)
    b = np.einsum("ni,nij->nj", ray, to_local)
    moment = np.einsum("nij,njk->nik", cross_matrix(ray), to_local)
    axis = np.concatenate([frame[:, 1], -np.einsum("ni,ni->n", frame[:, 1], centre)[:, None]], -1)
    one = np.array([0.0, 0.0, 0.0, 1.0])
    slab = np.stack([one - axis, one + axis], 1)
    slope = np.einsum("ni,ni->n", frame[:, 1], sun)
    slab_table, upper, lower = bounds_table(
        slab, np.stack([slope, -slope], 1), np.repeat(arrays.ball[:, None] == 0, 2, 1), flip=True
    )
    density = np.where(is_leafy(arrays), 0.8, 1.0)
    parts = [square, 1 / np.maximum(square, 1e-9), b, moment.reshape(n, 12), density[:, None], slab_table]
    return Coefficients(np.concatenate(parts, 1), upper, lower, np.zeros(n, dtype=bool))


def _affine(k: Tensor, i: int, p: list[Tensor]) -> Tensor:
    return k[i] * p[0] + k[i + 1] * p[1] + (k[i + 2] * p[2] + k[i + 3])


def _room(k: Tensor, start: int, upper: int, lower: int, p: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    high: Tensor | None = None
    low: Tensor | None = None
    for s in range(upper + lower):
        value = _affine(k, start + 4 * s, p)
        if s < upper:
            high = value if high is None else torch.minimum(high, value)
        else:
            low = value if low is None else torch.maximum(low, value)
    return high, low


def _through_prism(k: Tensor, upper: int, lower: int, p: list[Tensor]) -> Tensor:
    high, low = _room(k, 0, upper, lower, p)
    assert high is not None
    assert low is not None
    return high - low.clamp_min(0.0)


def _through_round(k: Tensor, upper: int, lower: int, p: list[Tensor]) -> Tensor:
    b = _affine(k, 2, p)
    mx, my, mz = (_affine(k, i, p) for i in (6, 10, 14))
    disc = k[0] - (mx * mx + my * my + mz * mz)
    root = disc.clamp_min(0.0).sqrt()
    high, low = (root - b) * k[1], (-root - b) * k[1]
    slab_high, slab_low = _room(k, 19, upper, lower, p)
    if slab_high is not None and slab_low is not None:
        high, low = torch.minimum(high, slab_high), torch.maximum(low, slab_low)
    return (high - low.clamp_min(0.0)) * k[18]


def shadow(
    groups: list[tuple[Coefficients, Tensor, WorkList]], point: list[Tensor]
) -> Tensor:  # fmt: skip
    """N×128 share of the sun that reaches each point (N×128 coordinates)."""
    stopped = torch.zeros_like(point[0])
    chunk = CPU_CHUNK if stopped.device.type == "cpu" else DEVICE_CHUNK
    for through, (numbers, table, work) in zip((_through_prism, _through_round), groups, strict=True):
        for start in range(0, work.solids.shape[0], chunk):
            solids, tiles = work.solids[start : start + chunk], work.tiles[start : start + chunk]
            k = table.index_select(1, solids).unsqueeze(-1)
            inside = through(k, numbers.upper, numbers.lower, [p.index_select(0, tiles) for p in point])
            steps = (inside * (_STEPS / _SOFT)).clamp(0.0, _STEPS).floor()
            stopped.index_add_(0, tiles, steps)
    return 1.0 - (stopped * (1.0 / _STEPS)).clamp_max(1.0)
