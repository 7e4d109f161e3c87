"""Images cut into small tiles, and lists of which solid can touch which tile.

Rays are kept as N×128, one row per tile. A solid is tried only in the tiles its outline can reach; the lists are made
on the CPU from the scene's description, so that the device never has to report back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adu_depth.transfer import upload

TILE_ROWS, TILE_COLUMNS = 8, 16
TILE = TILE_ROWS * TILE_COLUMNS
NEAR = 0.3  # metres; the scene keeps every solid farther from the cameras than this

_BOX_EDGES = np.array([[a, b] for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1])
_SWEPT_BOX_EDGES = np.concatenate([_BOX_EDGES, _BOX_EDGES + 8, np.stack([np.arange(8), np.arange(8) + 8], -1)])


@dataclass(frozen=True)
class TileGrid:
    """An H×W image as tiles; the last row and column of tiles may stick out of it."""

    height: int
    width: int

    @property
    def rows(self) -> int:
        return -(-self.height // TILE_ROWS)

    @property
    def columns(self) -> int:
        return -(-self.width // TILE_COLUMNS)

    @property
    def count(self) -> int:
        return self.rows * self.columns

    def pixels(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Column and row of every pixel: two tiles×128 float32."""
        tile = torch.arange(self.count, device=device).reshape(-1, 1)
        inside = torch.arange(TILE, device=device).reshape(1, -1)
        u = tile % self.columns * TILE_COLUMNS + inside % TILE_COLUMNS
        v = tile // self.columns * TILE_ROWS + inside // TILE_COLUMNS
        return u.to(torch.float32), v.to(torch.float32)

    def to_image(self, tiles: Tensor) -> Tensor:
        """(B·tiles)×128 → B×H×W, contiguous."""
        blocks = tiles.reshape(-1, self.rows, self.columns, TILE_ROWS, TILE_COLUMNS).transpose(2, 3)
        image = blocks.reshape(-1, self.rows * TILE_ROWS, self.columns * TILE_COLUMNS)
        return image[:, : self.height, : self.width].contiguous()


@dataclass(frozen=True)
class WorkList:
    """Pairs of solid and tile, ordered by rank: the k-th solid of every tile before the (k+1)-th of any.

    solids, tiles: P int64 on the device. ranks: how many pairs have rank 0, 1, … (their tiles differ from each other).
    """

    solids: Tensor
    tiles: Tensor
    ranks: list[int]


def box_bounds(corners: np.ndarray, origin: np.ndarray, fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """n×4 pixel bounds (left, right, top, bottom) of n×8×3 corner boxes seen from `origin`; left > right if unseen."""
    return _bounds(corners - origin, _BOX_EDGES, fx, fy, cx, cy)


def swept_bounds(
    corners: np.ndarray, swept: np.ndarray, fx: float, fy: float, cx: float, cy: float
) -> np.ndarray:  # fmt: skip
    """The same for the hull of each box and its image `swept` (n×8×3), such as its shadow on the ground."""
    return _bounds(np.concatenate([corners, swept], 1), _SWEPT_BOX_EDGES, fx, fy, cx, cy)


def _bounds(points: np.ndarray, edges: np.ndarray, fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """Bounds of the part of each polyhedron that lies beyond the near plane."""
    start, end = points[:, edges[:, 0]], points[:, edges[:, 1]]
    rise = end[..., 2] - start[..., 2]
    share = np.clip((NEAR - start[..., 2]) / np.where(np.abs(rise) < 1e-9, 1e-9, rise), 0.0, 1.0)
    crossing = start + share[..., None] * (end - start)
    candidates = np.concatenate([points, crossing], 1)
    seen = candidates[..., 2] >= NEAR * 0.999
    z = np.where(seen, candidates[..., 2], 1.0)
    u, v = fx * candidates[..., 0] / z + cx, fy * candidates[..., 1] / z + cy
    low, high = (lambda x: np.where(seen, x, np.inf).min(1)), (lambda x: np.where(seen, x, -np.inf).max(1))
    return np.stack([low(u), high(u), low(v), high(v)], -1)


def hull(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest bounds around both; unseen if `a` or `b` is."""
    joined = np.stack(
        [np.minimum(a[:, 0], b[:, 0]), np.maximum(a[:, 1], b[:, 1]),
         np.minimum(a[:, 2], b[:, 2]), np.maximum(a[:, 3], b[:, 3])], -1
    )  # fmt: skip
    seen = (a[:, 0] <= a[:, 1]) & (b[:, 0] <= b[:, 1])
    return np.where(seen[:, None], joined, UNSEEN)


UNSEEN = np.array([np.inf, -np.inf, np.inf, -np.inf])


def work_list(bounds: np.ndarray, scene: np.ndarray, grid: TileGrid, device: torch.device) -> WorkList:
    """Which solids to try where. bounds: n×4 pixels, scene: n, the image of the batch each solid belongs to."""
    margin = 0.75  # half a pixel to its centre's neighbours, and rounding
    last = np.array([grid.width - 1.0, grid.height - 1.0])
    low = np.clip(np.ceil(bounds[:, 0::2] - margin), 0, last + 1)
    high = np.clip(np.floor(bounds[:, 1::2] + margin), -1, last)
    tile_size = np.array([TILE_COLUMNS, TILE_ROWS])
    first, final = (low // tile_size).astype(np.int64), (high // tile_size).astype(np.int64)
    span = np.where((low <= high).all(1, keepdims=True), final - first + 1, 0)
    counts = span[:, 0] * span[:, 1]
    solid = np.repeat(np.arange(len(bounds)), counts)
    step = np.arange(len(solid)) - np.repeat(np.cumsum(counts) - counts, counts)
    across = np.maximum(span[solid, 0], 1)
    row, column = first[solid, 1] + step // across, first[solid, 0] + step % across
    tile = scene[solid] * grid.count + row * grid.columns + column

    by_tile = np.argsort(tile, kind="stable")
    sorted_tile = tile[by_tile]
    starts = np.flatnonzero(np.diff(sorted_tile, prepend=-1))
    rank = np.arange(len(tile)) - np.repeat(starts, np.diff(starts, append=len(tile)))
    order = by_tile[np.argsort(rank, kind="stable")]
    ranks = np.bincount(rank).tolist() if len(rank) else []
    solids, tiles = (upload(torch.from_numpy(numbers[order]), device) for numbers in (solid, tile))
    return WorkList(solids, tiles, ranks)
