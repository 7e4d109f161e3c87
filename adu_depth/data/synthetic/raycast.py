"""Exact rays against convex solids, in inverse depth.

A camera ray is d = (x, y, 1), so its parameter is the depth and w = 1 / depth. Seen from a fixed origin a plane
n·p = o is met at w = (n·d) / (o − n·origin): affine in x and y. Planes with the origin outside bound w from above,
the others from below; the solid is hit where the bounds leave room, first at the upper one. For rounds the quadratic
is solved in w as well. Nothing here branches on a pixel's value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.synthetic.noise import value_noise
from adu_depth.data.synthetic.shapes import NO_CUT, SolidArrays
from adu_depth.data.synthetic.tiles import WorkList

CPU_CHUNK = 512  # pairs of solid and tile worked on together: the temporaries stay in the cache
DEVICE_CHUNK = 1 << 17


Test = Callable[[Tensor, int, int, Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Family:
    """Solids alike enough for one formula. solids: n indices; table: n×K numbers for `test`; upper, lower: how many of
    their bounding planes bound from above and from below (all solids of a family have as many)."""

    test: Test
    solids: np.ndarray
    table: np.ndarray
    upper: int
    lower: int


@dataclass(frozen=True)
class Group:
    """A family on the device: table K×n float32, ids n int32."""

    test: Test
    table: Tensor
    upper: int
    lower: int
    ids: Tensor


def split_bounds(planes: np.ndarray, room: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, int, int]]:
    """Affine bounds planes (n×k×C) / room (n×k), those of negative room first (upper bounds), split by their number.

    Returns (which solids, table n'×(k·C), upper, lower) for each number of upper bounds that occurs.
    """
    n, k, columns = planes.shape
    room = np.where(np.abs(room) < 1e-6, 1e-6, room)
    order = np.argsort(room > 0, axis=1, kind="stable")
    sorted_table = np.take_along_axis(planes / room[..., None], order[..., None], 1).reshape(n, k * columns)
    uppers = (room < 0).sum(1)
    return [
        (chosen, sorted_table[chosen], int(upper), k - int(upper))
        for upper in np.unique(uppers)
        for chosen in [np.flatnonzero(uppers == upper)]
    ]


def prism_families(planes: np.ndarray, origin: np.ndarray) -> list[Family]:
    """Prisms (n×6×4 planes) for rays from n×3 origins. One that contains its origin is left out."""
    room = planes[..., 3] - np.einsum("nki,ni->nk", planes[..., :3], origin)
    return [Family(hit_prisms, *split) for split in split_bounds(planes[..., :3], room) if split[2] > 0]


def cross_matrix(v: np.ndarray) -> np.ndarray:
    zero = np.zeros(len(v))
    x, y, z = v.T
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)


def round_families(arrays: SolidArrays, origin: np.ndarray, first: int) -> list[Family]:
    """Rounds for rays from m×3 origins; `first` is the index of the first round among the solids.

    Columns: frame (9), moment (9), b (3), 1/c, local origin (3), local-to-noise scale (3), cut, then a cylinder's slab.
    """
    frame, centre, ball = arrays.frames[first:], arrays.centres[first:], arrays.ball
    m = len(ball)
    local = np.einsum("nij,nj->ni", frame, origin - centre)
    weight = np.stack([np.ones(m), ball, np.ones(m)], -1)
    curved, curved_local = frame * weight[..., None], local * weight
    moment = np.einsum("nij,njk->nik", cross_matrix(curved_local), curved)
    c = (curved_local**2).sum(-1) - 1.0
    b = np.einsum("ni,nij->nj", curved_local, curved)
    scale = arrays.scale[first:] / arrays.leaf_size[:, None]
    numbers = np.concatenate(
        [curved.reshape(m, 9), moment.reshape(m, 9), b, 1 / np.where(c > 1e-6, c, np.inf)[:, None], local, scale,
         arrays.cut[:, None]], 1
    )  # fmt: skip
    leafy = is_leafy(arrays)
    families = []
    for test, chosen in ((hit_ellipsoids, (ball > 0) & ~leafy), (hit_leaves, (ball > 0) & leafy)):
        solids = np.flatnonzero(chosen & (c > 1e-6))
        families.append(Family(test, first + solids, numbers[solids], 0, 0))
    pipes = np.flatnonzero((ball == 0) & (c > 1e-6))
    slab = np.stack([frame[pipes, 1], -frame[pipes, 1]], 1)
    room = np.stack([1 - local[pipes, 1], 1 + local[pipes, 1]], 1)
    for chosen, table, upper, lower in split_bounds(slab, room):
        columns = np.concatenate([numbers[pipes[chosen]], table], 1)
        families.append(Family(hit_cylinders, first + pipes[chosen], columns, upper, lower))
    return [f for f in families if len(f.solids)]


def _affine(k: Tensor, i: int, x: Tensor, y: Tensor) -> Tensor:
    """k[i]·x + k[i+1]·y + k[i+2] for pairs×1 columns of k and pairs×128 rays."""
    return k[i] * x + (k[i + 1] * y + k[i + 2])


_SLAB = 29  # where a cylinder's slab starts in its numbers


def bound(values: Sequence[Tensor], upper: int) -> tuple[Tensor | None, Tensor | None]:
    """(least of the first `upper` values, greatest of the rest); None where there are none."""
    high = functools.reduce(torch.minimum, values[:upper]) if upper else None
    low = functools.reduce(torch.maximum, values[upper:]) if len(values) > upper else None
    return high, low


def hit_prisms(k: Tensor, upper: int, lower: int, ray: Sequence[Tensor]) -> Tensor:
    """Inverse depth of the first hit, 0 where missed. k: K×pairs×1, ray: (x, y), pairs×128 each."""
    high, low = bound([_affine(k, 3 * s, *ray) for s in range(upper + lower)], upper)
    assert high is not None
    hit = high.clamp_min(0.0)
    return hit if low is None else hit * (low <= high)


def hit_ellipsoids(k: Tensor, upper: int, lower: int, ray: Sequence[Tensor]) -> Tensor:
    """The same for solid ellipsoids."""
    near, _, _ = _ellipsoid_roots(k, ray)
    return near


def hit_cylinders(k: Tensor, upper: int, lower: int, ray: Sequence[Tensor]) -> Tensor:
    """The same for cylinders; the origin is outside the endless cylinder."""
    qx, qz, moment, b = (_affine(k, i, *ray) for i in (0, 6, 12, 18))
    disc = qx * qx + qz * qz - moment * moment
    root = disc.clamp_min(0.0).sqrt()
    near, far = (root - b) * k[21], (-root - b) * k[21]
    high, low = bound([_affine(k, _SLAB + 3 * s, *ray) for s in range(upper + lower)], upper)
    near = near if high is None else torch.minimum(near, high)
    far = far if low is None else torch.maximum(far, low)
    return near.clamp_min(0.0) * ((far <= near) & (disc > 0))


def _ellipsoid_roots(k: Tensor, ray: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(inverse depth of the near, of the far surface, the ray in local axes); 0 where missed.

    In local axes the ray is o + t·q and the surface |·| = 1. With w = 1/t: c·w² + 2b·w + |q|² = 0, c = |o|² − 1,
    b = o·q; its discriminant is |q|² − |o × q|², which keeps its digits where b² − c·|q|² would lose them.
    """
    q = [_affine(k, i, *ray) for i in (0, 3, 6)]
    moment = [_affine(k, i, *ray) for i in (9, 12, 15)]
    disc = (q[0] * q[0] + q[1] * q[1] + q[2] * q[2]) - (
        moment[0] * moment[0] + moment[1] * moment[1] + moment[2] * moment[2]
    )
    root = disc.clamp_min(0.0).sqrt()
    b = _affine(k, 18, *ray)
    hit = (disc > 0) & (b < 0)
    return (root - b) * k[21] * hit, (-root - b) * k[21] * hit, q


def hit_leaves(k: Tensor, upper: int, lower: int, ray: Sequence[Tensor]) -> Tensor:
    """The same for leafy ellipsoids: the near or else the far surface, where the noise leaves it standing."""
    near, far, q = _ellipsoid_roots(k, ray)
    texture_seed = torch.zeros((), dtype=torch.int32, device=near.device)
    result = torch.zeros_like(near)
    for w in (far, near):
        t = 1.0 / w.clamp_min(1e-4)
        x, y, z = ((k[22 + i] + q[i] * t) * k[25 + i] for i in range(3))
        result = torch.where((value_noise(x, y, z, texture_seed) > k[28]) & (w > 0), w, result)
    return result


def inverse_depths(group: Group, work: WorkList, x: Tensor, y: Tensor) -> Tensor:
    """P×128 inverse depth of each pair's first hit, 0 = miss."""
    chunk = CPU_CHUNK if x.device.type == "cpu" else DEVICE_CHUNK
    parts = []
    for start in range(0, work.solids.shape[0], chunk):
        solids, tiles = work.solids[start : start + chunk], work.tiles[start : start + chunk]
        k = group.table.index_select(1, solids).unsqueeze(-1)
        ray = x.index_select(0, tiles), y.index_select(0, tiles)
        parts.append(group.test(k, group.upper, group.lower, ray))
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
