"""Cast shadows: how much of a solid lies between a surface point and the sun."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.synthetic.raycast import (
    CPU_CHUNK,
    DEVICE_CHUNK,
    Family,
    Group,
    bound,
    cross_matrix,
    is_leafy,
    split_bounds,
)
from adu_depth.data.synthetic.shapes import SolidArrays
from adu_depth.data.synthetic.tiles import WorkList

_SOFT = 0.12  # metres of solid that stop the sun wholly: thinner rims give a soft edge
_LEAF_DENSITY = 0.8  # share of the sun a crown stops
_SLAB = 19  # where a cylinder's slab starts in its numbers
_STEPS = 32.0  # shadows are counted in whole steps, so that sums do not depend on their order


def prism_families(planes: np.ndarray, sun: np.ndarray) -> list[Family]:
    """Prisms (n×6×4 planes) for rays along the n×3 sun directions; the bounds are affine in the starting point."""
    slope = np.einsum("nki,ni->nk", planes[..., :3], sun)
    return [Family(_through_prism, *split) for split in split_bounds(planes * [1.0, 1.0, 1.0, -1.0], -slope)]


def round_families(arrays: SolidArrays, sun: np.ndarray, first: int) -> list[Family]:
    """Rounds likewise. Columns: |l|², its inverse, b (4), moment (12), density, then a cylinder's slab."""
    frame, centre = arrays.frames[first:], arrays.centres[first:]
    m = len(frame)
    weight = np.stack([np.ones(m), arrays.ball, np.ones(m)], -1)
    curved = frame * weight[..., None]
    to_local = np.concatenate([curved, -np.einsum("nij,nj->ni", curved, centre)[..., None]], -1)
    ray = np.einsum("nij,nj->ni", curved, sun)
    square = (ray**2).sum(-1, keepdims=True)
    b = np.einsum("ni,nij->nj", ray, to_local)
    moment = np.einsum("nij,njk->nik", cross_matrix(ray), to_local)
    density = np.where(is_leafy(arrays), _LEAF_DENSITY, 1.0)
    numbers = np.concatenate([square, 1 / np.maximum(square, 1e-9), b, moment.reshape(m, 12), density[:, None]], 1)
    balls, pipes = np.flatnonzero(arrays.ball > 0), np.flatnonzero(arrays.ball == 0)
    families = [Family(_through_ellipsoid, first + balls, numbers[balls], 0, 0)]
    axis = np.concatenate([frame[pipes, 1], -np.einsum("ni,ni->n", frame[pipes, 1], centre[pipes])[:, None]], -1)
    end = np.array([0.0, 0.0, 0.0, 1.0])
    slope = np.einsum("ni,ni->n", frame[pipes, 1], sun[pipes])
    for chosen, table, upper, lower in split_bounds(
        np.stack([axis - end, -axis - end], 1), np.stack([-slope, slope], 1)
    ):
        columns = np.concatenate([numbers[pipes[chosen]], table], 1)
        families.append(Family(_through_cylinder, first + pipes[chosen], columns, upper, lower))
    return [f for f in families if len(f.solids)]


def _affine(k: Tensor, i: int, p: Sequence[Tensor]) -> Tensor:
    return k[i] * p[0] + k[i + 1] * p[1] + (k[i + 2] * p[2] + k[i + 3])


def _length(high: Tensor | None, low: Tensor | None) -> Tensor:
    """How much of the ray, which starts at 0, lies between the bounds."""
    assert high is not None
    return high if low is None else high - low.clamp_min(0.0)


def _through_prism(k: Tensor, upper: int, lower: int, p: Sequence[Tensor]) -> Tensor:
    return _length(*bound([_affine(k, 4 * s, p) for s in range(upper + lower)], upper))


def _through_ellipsoid(k: Tensor, upper: int, lower: int, p: Sequence[Tensor]) -> Tensor:
    b, mx, my, mz = (_affine(k, i, p) for i in (2, 6, 10, 14))
    root = (k[0] - (mx * mx + my * my + mz * mz)).clamp_min(0.0).sqrt()
    return _length((root - b) * k[1], (-root - b) * k[1]) * k[18]


def _through_cylinder(k: Tensor, upper: int, lower: int, p: Sequence[Tensor]) -> Tensor:
    b, moment = _affine(k, 2, p), _affine(k, 10, p)
    root = (k[0] - moment * moment).clamp_min(0.0).sqrt()
    high, low = bound([_affine(k, _SLAB + 4 * s, p) for s in range(upper + lower)], upper)
    assert high is not None
    assert low is not None
    return _length(torch.minimum((root - b) * k[1], high), torch.maximum((-root - b) * k[1], low))


def sunlit(groups: list[tuple[Group, WorkList]], point: list[Tensor]) -> Tensor:
    """N×128 share of the sun that reaches each point (N×128 coordinates)."""
    stopped = torch.zeros_like(point[0])
    chunk = CPU_CHUNK if stopped.device.type == "cpu" else DEVICE_CHUNK
    for group, work in groups:
        for start in range(0, work.solids.shape[0], chunk):
            solids, tiles = work.solids[start : start + chunk], work.tiles[start : start + chunk]
            k = group.table.index_select(1, solids).unsqueeze(-1)
            inside = group.test(k, group.upper, group.lower, [p.index_select(0, tiles) for p in point])
            stopped.index_add_(0, tiles, (inside * (_STEPS / _SOFT)).clamp(0.0, _STEPS).floor())
    return 1.0 - (stopped * (1.0 / _STEPS)).clamp_max(1.0)
