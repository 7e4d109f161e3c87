"""Which solids of a batch can matter where: the work lists of every cast, made on the CPU."""

from __future__ import annotations

import numpy as np
import torch

from adu_depth.data.synthetic import raycast, shadows
from adu_depth.data.synthetic.raycast import Family, Group
from adu_depth.data.synthetic.shapes import SolidArrays
from adu_depth.data.synthetic.streets import Street, concatenate
from adu_depth.data.synthetic.tiles import UNSEEN, TileGrid, WorkList, box_bounds, hull, swept_bounds, work_list
from adu_depth.transfer import upload


class Planner:
    """Plans casts for a batch. Origins are B×3, one per scene, in the axes of its left camera."""

    def __init__(self, streets: list[Street], grid: TileGrid, device: torch.device) -> None:
        self.streets, self.grid, self.device = streets, grid, device
        self.arrays: SolidArrays = concatenate([s.arrays for s in streets])
        self.prism_scene = np.repeat(np.arange(len(streets)), [len(s.arrays.planes) for s in streets])
        self.round_scene = np.repeat(np.arange(len(streets)), [len(s.arrays.ball) for s in streets])
        self.scene = np.concatenate([self.prism_scene, self.round_scene])
        self.turn = np.stack([s.rig.rotation() for s in streets])
        self._seen_from: dict[bytes, np.ndarray] = {}

    def towards(self, origins: np.ndarray, target: np.ndarray | None = None) -> list[tuple[Group, WorkList]]:
        """What rays from the origins can hit. With `target`: rays to points that are pixels of a view from there.

        A point and what hides it from an origin lie on one line through the origin; in the target view that line
        runs between the hiding solid's pictures from both places, so their hull is where to look.
        """
        bounds = self._view_bounds(origins)
        if target is not None:
            bounds = hull(bounds, self._view_bounds(target))
        planes, arrays = self.arrays.planes, self.arrays
        families = raycast.prism_families(planes, origins[self.prism_scene])
        families += raycast.round_families(arrays, origins[self.round_scene], first=len(planes))
        return [(self._upload(f), self._work(f, bounds)) for f in families]

    def towards_sun(self, origins: np.ndarray) -> list[tuple[Group, WorkList]]:
        """What can shade the points seen from the origins."""
        bounds = self._shadow_bounds(origins)
        sun = np.stack([t @ np.array(s.scene.sun) for s, t in zip(self.streets, self.turn, strict=True)])
        families = shadows.prism_families(self.arrays.planes, sun[self.prism_scene])
        families += shadows.round_families(self.arrays, sun[self.round_scene], first=len(self.arrays.planes))
        return [(self._upload(f), self._work(f, bounds)) for f in families]

    def _upload(self, family: Family) -> Group:
        table = upload(torch.from_numpy(np.ascontiguousarray(family.table.T, dtype=np.float32)), self.device)
        ids = upload(torch.from_numpy((2 * len(self.streets) + family.solids).astype(np.int32)), self.device)
        return Group(family.test, table, family.upper, family.lower, ids)

    def _work(self, family: Family, bounds: np.ndarray) -> WorkList:
        return work_list(bounds[family.solids], self.scene[family.solids], self.grid, self.device)

    def _lens(self, b: int) -> tuple[float, float, float, float]:
        c = self.streets[b].rig.camera
        return float(c.fx), float(c.fy), float(c.cx), float(c.cy)

    def _view_bounds(self, origins: np.ndarray) -> np.ndarray:
        """n×4 pixel bounds of all solids seen from the origins."""
        key = origins.tobytes()
        if key not in self._seen_from:
            bounds = np.tile(UNSEEN, (len(self.scene), 1))
            for b in range(len(self.streets)):
                mine = self.scene == b
                bounds[mine] = box_bounds(self.arrays.corners[mine], origins[b], *self._lens(b))
            self._seen_from[key] = bounds
        return self._seen_from[key]

    def _shadow_bounds(self, origins: np.ndarray) -> np.ndarray:
        """n×4 pixel bounds of where each solid's shadow can fall: between it and its shadow on the ground."""
        bounds = np.tile(UNSEEN, (len(self.scene), 1))
        for b, street in enumerate(self.streets):
            mine = self.scene == b
            box, up = self.arrays.corners[mine], self.turn[b][:, 1]
            height = np.maximum(street.rig.height + box @ up, 0.0)
            sun = self.turn[b] @ np.array(street.scene.sun)
            shadow = box - sun * (height / street.scene.sun[1])[..., None]
            bounds[mine] = swept_bounds(box - origins[b], shadow - origins[b], *self._lens(b))
        return bounds
