"""Exact rays against convex solids, in inverse depth.

A camera ray is d = (x, y, 1), so its parameter is the depth and w = 1 / depth. Seen from a fixed origin a plane
n·p = o is met at w = (n·d) / (o − n·origin): affine in x and y. Planes with the origin outside bound w from above,
the others from below; the solid is hit where the bounds leave room, first at the upper one. For rounds the quadratic
is solved in w as well. Nothing here branches on a pixel's value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.synthetic.noise import value_noise
from adu_depth.data.synthetic.shapes import NO_CUT, SolidArrays
from adu_depth.data.synthetic.tiles import WorkList

_FREE = 1e9  # a bound that never binds
CPU_CHUNK = 512  # pairs of solid and tile worked on together: the temporaries stay in the cache
DEVICE_CHUNK = 1 << 17


@dataclass(frozen=True)
class Coefficients:
    """Per-solid numbers of one origin: `table` is n×K float32; `upper` and `lower` count the bounding planes in it."""

    table: np.ndarray
    upper: int
    lower: int
    inside: np.ndarray


def _slots(planes: np.ndarray, outside: np.ndarray, width: int, padding: float) -> np.ndarray:
    """n×width×C: the planes of each solid that are marked `outside`, padded with planes that never bind."""
    n = planes.shape[0]
    filled = np.zeros((n, width, planes.shape[-1]))
    filled[..., -1] = padding
    order = np.argsort(~outside, axis=1, kind="stable")[:, :width]
    taken = np.take_along_axis(planes, order[..., None], 1)
    use = np.take_along_axis(outside, order, 1)
    return np.where(use[..., None], taken, filled[:, : taken.shape[1]])


def bounds_table(
    planes: np.ndarray, room: np.ndarray, used: np.ndarray | None = None, flip: bool = False
) -> tuple[np.ndarray, int, int]:
    """Affine bounds: planes n×k×C divided by room n×k; room < 0 bounds from above, > 0 from below (flip: the reverse).

    Returns the n×((upper + lower)·C) table and how many upper and lower bounds each solid has room for in it.
    """
    n, k, columns = planes.shape
    room = np.where(np.abs(room) < 1e-6, 1e-6, room)
    scaled = planes / room[..., None]
    used = np.ones_like(room, dtype=bool) if used is None else used
    above, below = ((room < 0) != flip) & used, ((room > 0) != flip) & used
    upper, lower = (max(1, int(m.sum(1).max())) if n else 1 for m in (above, below))
    table = np.concatenate([_slots(scaled, above, upper, _FREE), _slots(scaled, below, lower, -_FREE)], 1)
    return table.reshape(n, (upper + lower) * columns), upper, lower


def prism_view(planes: np.ndarray, origin: np.ndarray) -> Coefficients:
    """Coefficients of n×6×4 planes for rays from origin (3, or n×3)."""
    room = planes[..., 3] - np.einsum("nki,ni->nk", planes[..., :3], np.broadcast_to(origin, (len(planes), 3)))
    table, upper, lower = bounds_table(planes[..., :3], room, np.ones_like(room, dtype=bool))
    return Coefficients(table, upper, lower, (room > 0).all(1))


def cross_matrix(v: np.ndarray) -> np.ndarray:
    zero = np.zeros(len(v))
    x, y, z = v.T
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)


def round_view(arrays: SolidArrays, origin: np.ndarray) -> Coefficients:
    """Coefficients of the rounds: per solid the frame (9), the moment (9), b (3), 1/c, the local origin (3),
    local-to-noise scale (3), cut, then the slab's bounds."""
    n = len(arrays.ball)
    frame, centre = arrays.frames[-n:] if n else arrays.frames[:0], arrays.centres[-n:] if n else arrays.centres[:0]
    local = np.einsum("nij,nj->ni", frame, np.broadcast_to(origin, (n, 3)) - centre)
    weight = np.stack([np.ones(n), arrays.ball, np.ones(n)], -1)
    weighted, weighted_local = frame * weight[..., None], local * weight
    moment = np.einsum("nij,njk->nik", cross_matrix(weighted_local), weighted)
    c = (weighted_local**2).sum(-1) - 1.0
    b = np.einsum("ni,nij->nj", weighted_local, weighted)
    scale = (arrays.scale[-n:] if n else arrays.scale[:0]) / arrays.leaf_size[:, None]
    axis = frame[:, 1]
    slab = np.stack([axis, -axis], 1)
    room = np.stack([1 - local[:, 1], 1 + local[:, 1]], 1)
    used = np.repeat(arrays.ball[:, None] == 0, 2, 1)
    bounds, upper, lower = bounds_table(slab, room, used)
    parts = [weighted.reshape(n, 9), moment.reshape(n, 9), b, 1 / np.where(np.abs(c) < 1e-6, 1e-6, c)[:, None],
             local, scale, arrays.cut[:, None], bounds]  # fmt: skip
    within = (c < 0) & ((room > 0).all(1) | (arrays.ball > 0))
    return Coefficients(np.concatenate(parts, 1), upper, lower, within)


def _affine(k: Tensor, i: int, x: Tensor, y: Tensor) -> Tensor:
    """k[i]·x + k[i+1]·y + k[i+2] for pairs×1 columns of k and pairs×128 rays."""
    return k[i] * x + (k[i + 1] * y + k[i + 2])


def _bound(k: Tensor, start: int, upper: int, lower: int, x: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
    high: Tensor | None = None
    low: Tensor | None = None
    for s in range(upper):
        value = _affine(k, start + 3 * s, x, y)
        high = value if high is None else torch.minimum(high, value)
    for s in range(upper, upper + lower):
        value = _affine(k, start + 3 * s, x, y)
        low = value if low is None else torch.maximum(low, value)
    return high, low


def hit_prisms(k: Tensor, upper: int, lower: int, x: Tensor, y: Tensor) -> Tensor:
    """Inverse depth of the first hit, 0 where missed. k: K×pairs×1, x and y: pairs×128."""
    high, low = _bound(k, 0, upper, lower, x, y)
    assert high is not None
    assert low is not None
    return high.clamp_min(0.0) * (low <= high)


def hit_rounds(k: Tensor, upper: int, lower: int, x: Tensor, y: Tensor) -> Tensor:
    """The same for solid rounds."""
    near, _, _ = _round_roots(k, upper, lower, x, y)
    return near


def _round_roots(k: Tensor, upper: int, lower: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    qx, qy, qz = (_affine(k, i, x, y) for i in (0, 3, 6))
    mx, my, mz = (_affine(k, i, x, y) for i in (9, 12, 15))
    disc = (qx * qx + qy * qy + qz * qz) - (mx * mx + my * my + mz * mz)
    root = disc.clamp_min(0.0).sqrt()
    b = _affine(k, 18, x, y)
    high, low = (root - b) * k[21], (-root - b) * k[21]
    slab_high, slab_low = _bound(k, 29, upper, lower, x, y)
    near = torch.minimum(high, slab_high) if slab_high is not None else high
    bottom = torch.maximum(low, slab_low) if slab_low is not None else low
    hit = (bottom <= near) & (disc > 0)
    return near.clamp_min(0.0) * hit, low * hit, (qx, qy, qz)


def hit_leaves(k: Tensor, upper: int, lower: int, x: Tensor, y: Tensor) -> Tensor:
    """The same for leafy ellipsoids: the near or else the far surface, where the noise leaves it standing."""
    near, far, q = _round_roots(k, 0, 0, x, y)
    salt = torch.zeros((), dtype=torch.int32, device=x.device)
    result = torch.zeros_like(near)
    for w in (far, near):
        t = 1.0 / w.clamp_min(1e-4)
        place = [(k[22 + i] + q[i] * t) * k[25 + i] for i in range(3)]
        stands = (value_noise(*place, salt) > k[28]) & (w > 0)  # type: ignore[misc]
        result = torch.where(stands, w, result)
    return result


Hit = Callable[[Tensor, int, int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Group:
    """Solids of one kind in a batch, for one origin: how to hit them, their numbers, and the first one's identity."""

    hit: Hit
    table: Tensor
    upper: int
    lower: int
    ids: Tensor


def inverse_depths(group: Group, work: WorkList, x: Tensor, y: Tensor) -> Tensor:
    """P×128 inverse depth of each pair's first hit, 0 = miss."""
    chunk = CPU_CHUNK if x.device.type == "cpu" else DEVICE_CHUNK
    parts = []
    for start in range(0, work.solids.shape[0], chunk):
        solids, tiles = work.solids[start : start + chunk], work.tiles[start : start + chunk]
        k = group.table.index_select(1, solids).unsqueeze(-1)
        parts.append(group.hit(k, group.upper, group.lower, x.index_select(0, tiles), y.index_select(0, tiles)))
    return torch.cat(parts) if parts else x.new_zeros(0, x.shape[1])


def merge_nearest(best: Tensor, best_id: Tensor, group: Group, work: WorkList, found: Tensor) -> None:
    """Keep, per ray, the largest inverse depth and whose it is. Writes into best (N×128) and best_id (N×128 int32)."""
    start = 0
    for count in work.ranks:
        tiles = work.tiles[start : start + count]
        w = found[start : start + count]
        ids = group.ids.index_select(0, work.solids[start : start + count]).unsqueeze(-1)
        old = best.index_select(0, tiles)
        old_id = best_id.index_select(0, tiles)
        best_id.index_copy_(0, tiles, torch.where(w > old, ids, old_id))
        best.index_copy_(0, tiles, torch.maximum(w, old))
        start += count


def is_leafy(arrays: SolidArrays) -> np.ndarray:
    """Which rounds are leafy."""
    return arrays.cut > NO_CUT
