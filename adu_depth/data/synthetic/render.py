"""A batch of streets to stereo pairs: cast, shade, measure. All per-pixel work is on the device, without waiting."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.sample import StereoSample
from adu_depth.data.synthetic import cast, shading, sunlight
from adu_depth.data.synthetic.config import LidarConfig, PhotometryConfig, Rig, RigConfig
from adu_depth.data.synthetic.lidar import beam_hits, returns
from adu_depth.data.synthetic.photometry import develop, draw_cameras
from adu_depth.data.synthetic.scene import FARTHEST, Scene, build_scene
from adu_depth.data.synthetic.shapes import MATERIAL_COLUMNS, Material, SolidArrays, material_row, to_arrays
from adu_depth.data.synthetic.tiles import TileGrid, WorkList, box_bounds, hull, swept_bounds, work_list
from adu_depth.geometry import stack_cameras

_MAX_LINES = 6
_OCCLUSION_SLACK = 1e-3  # share of the inverse depth by which something must be nearer to hide a point
_PLANES = tuple(f"plane_{k}_{c}" for k in range(6) for c in "xyzo")
_TABLE = (
    *(f"frame_{i}{j}" for i in range(3) for j in range(3)),
    *("centre_x", "centre_y", "centre_z", "scale_x", "scale_y", "scale_z", "ball", "base_height", "is_prism", "salt"),
    *_PLANES,
    *MATERIAL_COLUMNS,
)


@dataclass(frozen=True)
class Street:
    """Everything drawn for one pair, on the CPU."""

    scene: Scene
    rig: Rig
    arrays: SolidArrays
    cameras: np.ndarray
    phase: float


def draw_street(
    rng: np.random.Generator, height: int, width: int, rig_config: RigConfig, photometry: PhotometryConfig
) -> Street:
    """One street and the rig that looks at it. The order of draws is part of what a seed means."""
    rig = rig_config.draw(rng, height, width)
    cameras = draw_cameras(photometry, rng)
    phase = float(rng.uniform())
    scene = build_scene(rng, float(rig.camera.fx))
    arrays = to_arrays(scene.solids, rig.rotation(), np.array([0.0, rig.height, 0.0]))
    return Street(scene, rig, arrays, cameras, phase)


class Renderer:
    """Renders one batch; holds what the batch's steps share."""

    def __init__(self, streets: list[Street], height: int, width: int, device: torch.device) -> None:
        self.streets, self.device, self.width = streets, device, width
        self.grid = TileGrid(height, width)
        self.arrays = _concatenate([s.arrays for s in streets])
        prisms = [len(s.arrays.planes) for s in streets]
        rounds = [len(s.arrays.ball) for s in streets]
        self.prism_scene, self.round_scene = (np.repeat(np.arange(len(streets)), n) for n in (prisms, rounds))
        self.leafy = cast.is_leafy(self.arrays)
        self.table = self._upload(_object_table(streets, self.arrays, self.prism_scene, self.round_scene))
        self.scene = self._scene_columns()
        self.rotation = np.stack([s.rig.rotation() for s in streets])
        u, v = self.grid.pixels(device)
        self.x = ((u - self._per_image("cx")) / self._per_image("fx")).reshape(-1, u.shape[1])
        self.y = ((v - self._per_image("cy")) / self._per_image("fy")).reshape(-1, u.shape[1])
        index = (v * width + u).int()
        self.pixel_index = index.repeat(len(streets), 1)

    # --- preparation on the CPU -------------------------------------------------------------------------------------

    def _upload(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self.device, non_blocking=True)

    def _per_image(self, name: str) -> Tensor:
        values = [float(getattr(s.rig.camera, name)) for s in self.streets]
        return self._upload(np.array(values)).reshape(-1, 1, 1)

    def _per_tile(self, values: np.ndarray) -> Tensor:
        """B values → (B·tiles)×1."""
        return self._upload(np.repeat(values, self.grid.count)).reshape(-1, 1)

    def _scene_columns(self) -> dict[str, Tensor]:
        rows = [_scene_row(s) for s in self.streets]
        columns = {name: self._per_tile(np.array([r[name] for r in rows])) for name in rows[0] if "line" not in name}
        for name in ("line_x", "line_dashed"):
            values = np.array([r[name] for r in rows])
            columns[name] = torch.stack([self._per_tile(values[:, i]) for i in range(_MAX_LINES)])
        return columns

    def _bounds(self, origins: np.ndarray, corners: np.ndarray, scene: np.ndarray) -> np.ndarray:
        """Pixel bounds of solids seen from per-scene origins (B×3, camera axes)."""
        parts = [np.zeros((0, 4))]
        for b, street in enumerate(self.streets):
            c = street.rig.camera
            args = (float(c.fx), float(c.fy), float(c.cx), float(c.cy))
            parts.append(box_bounds(corners[scene == b], origins[b], *args))
        return np.concatenate(parts)

    def _shadow_bounds(self, origins: np.ndarray, corners: np.ndarray, scene: np.ndarray) -> np.ndarray:
        parts = [np.zeros((0, 4))]
        for b, street in enumerate(self.streets):
            c, turn = street.rig.camera, self.rotation[b]
            box = corners[scene == b]
            up = -(turn[:, 1])  # camera axes of "down"
            height = street.rig.height - box @ up
            sun = np.array(street.scene.sun) @ turn.T
            on_ground = box - sun * (np.maximum(height, 0.0) / street.scene.sun[1])[..., None]
            args = (float(c.fx), float(c.fy), float(c.cx), float(c.cy))
            parts.append(swept_bounds(box - origins[b], on_ground - origins[b], *args))
        return np.concatenate(parts)

    def _groups(self, origins: np.ndarray, target: np.ndarray | None = None) -> list[tuple[cast.Group, WorkList]]:
        """What to cast from per-scene origins (B×3); with `target`, towards points that are seen from there (B×3)."""
        n = len(self.arrays.planes)
        prism = cast.prism_view(self.arrays.planes, origins[self.prism_scene])
        rounds = cast.round_view(self.arrays, origins[self.round_scene])
        scene = np.concatenate([self.prism_scene, self.round_scene])
        bounds = np.concatenate(
            [self._view_bounds(origins, target, self.arrays.corners[:n], self.prism_scene),
             self._view_bounds(origins, target, self.arrays.corners[n:], self.round_scene)]
        )  # fmt: skip
        inside = np.concatenate([prism.inside, rounds.inside])
        bounds[inside] = [np.inf, -np.inf, np.inf, -np.inf]
        first = 2 * len(self.streets)
        kinds = ((cast.hit_prisms, prism, np.arange(n), 0), (cast.hit_rounds, rounds, np.flatnonzero(~self.leafy), n),
                 (cast.hit_leaves, rounds, np.flatnonzero(self.leafy), n))  # fmt: skip
        result = []
        for hit, numbers, chosen, offset in kinds:
            ids = torch.from_numpy((first + offset + chosen).astype(np.int32)).to(self.device)
            group = cast.Group(hit, self._upload(numbers.table[chosen].T), numbers.upper, numbers.lower, ids)
            result.append((group, work_list(bounds[offset + chosen], scene[offset + chosen], self.grid, self.device)))
        return result

    def _view_bounds(
        self, origins: np.ndarray, target: np.ndarray | None, corners: np.ndarray, scene: np.ndarray
    ) -> np.ndarray:  # fmt: skip
        bounds = self._bounds(origins, corners, scene)
        # A point and what hides it from `origin` lie on one line; its picture in the target view is a line between
        # the hiding solid's pictures from both places.
        return bounds if target is None else hull(bounds, self._bounds(target, corners, scene))

    # --- on the device ----------------------------------------------------------------------------------------------

    def nearest(self, origins: np.ndarray) -> tuple[Tensor, Tensor]:
        """(inverse depth, identity) of the first surface along every pixel's ray from per-scene origins."""
        batch = len(self.streets)
        down = [self._per_tile(-self.rotation[:, i, 1]) for i in range(3)]
        above = np.array([s.rig.height for s in self.streets]) - np.einsum("bi,bi->b", origins, -self.rotation[:, :, 1])
        ground = (down[0] * self.x + down[1] * self.y + down[2]) * self._per_tile(1.0 / above)
        best = ground * (ground >= 1.0 / FARTHEST)
        image = torch.arange(batch, dtype=torch.int32, device=self.device).repeat_interleave(self.grid.count)
        best_id = image.reshape(-1, 1) + batch * (best <= 0).int()
        for group, work in self._groups(origins):
            found = cast.inverse_depths(group, work, self.x, self.y)
            cast.merge_nearest(best, best_id, group, work, found)
        return best, best_id

    def hidden(self, origins: np.ndarray, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """Whether a solid stands between each origin and the point at inverse depth w along its ray (x, y, 1)."""
        blocked = torch.zeros_like(x)
        limit = w * (1.0 + _OCCLUSION_SLACK)
        for group, work in self._groups(origins, target=np.zeros_like(origins)):
            found = cast.inverse_depths(group, work, x, y)
            nearer = found > limit.index_select(0, work.tiles)
            blocked.index_add_(0, work.tiles, nearer.float())
        return blocked > 0

    def shade(self, origins: np.ndarray, w: Tensor, identity: Tensor) -> Tensor:
        """B×3×H×W linear light seen from per-scene origins."""
        is_sky = (w <= 0).float()
        depth = 1.0 / w.clamp_min(1e-3)
        m = dict(zip(_TABLE, self.table.index_select(1, identity.reshape(-1)).unbind(0), strict=True))
        m = {name: column.reshape(w.shape) for name, column in m.items()}
        point = [
            self.x * depth + self._per_tile(origins[:, 0]),
            self.y * depth + self._per_tile(origins[:, 1]),
            depth + self._per_tile(origins[:, 2]),
        ]
        surfaces, world = self._surfaces(point, depth, is_sky, m)
        up = self._direction_up(surfaces.normal)
        albedo, grain = shading.surface_colour(surfaces, self.scene, world)
        sunlit = self._sunlit(origins, point)
        lit = shading.light(albedo, surfaces, self.scene, world[1], up, sunlit)
        hazy = shading.add_haze(lit, depth, self.scene)
        length = (self.x * self.x + self.y * self.y + 1.0).sqrt()
        rise = self._direction_up([self.x, self.y, torch.ones_like(self.x)]) / length
        sky = shading.sky_colour(rise, grain, self.scene)
        return torch.stack([self.grid.to_image(h + (k - h) * is_sky) for h, k in zip(hazy, sky, strict=True)], 1)

    def _direction_up(self, direction: list[Tensor]) -> Tensor:
        return self._turn_to_world(direction)[1]

    def _turn_to_world(self, direction: list[Tensor]) -> list[Tensor]:
        x, y, z = direction
        columns = ([self._per_tile(self.rotation[:, i, j]) for i in range(3)] for j in range(3))
        return [c[0] * x + c[1] * y + c[2] * z for c in columns]

    def _to_world(self, point: list[Tensor]) -> list[Tensor]:
        height = self._per_tile(np.array([s.rig.height for s in self.streets]))
        x, y, z = self._turn_to_world(point)
        return [x, y + height, z]

    def _surfaces(
        self, point: list[Tensor], depth: Tensor, is_sky: Tensor, m: dict[str, Tensor]
    ) -> tuple[shading.Surfaces, list[Tensor]]:
        world = self._to_world(point)
        relative = [p - m[f"centre_{c}"] for p, c in zip(point, "xyz", strict=True)]
        q = [
            m[f"frame_{i}0"] * relative[0] + m[f"frame_{i}1"] * relative[1] + m[f"frame_{i}2"] * relative[2]
            for i in range(3)
        ]
        local_normal = shading.local_normal(q, depth, m)
        normal = [
            m[f"frame_0{j}"] * local_normal[0] + m[f"frame_1{j}"] * local_normal[1] + m[f"frame_2{j}"] * local_normal[2]
            for j in range(3)
        ]
        length = (normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]).sqrt().clamp_min(1e-9)
        towards = normal[0] * self.x + normal[1] * self.y + normal[2]
        sign = (1.0 - 2.0 * (towards > 0).float()) / length
        normal = [n * sign for n in normal]
        focal = self._per_tile(np.array([float(s.rig.camera.fx) for s in self.streets]))
        footprint = shading.footprints(normal, self.x, self.y, depth, focal)
        local = [a * m[f"scale_{c}"] for a, c in zip(q, "xyz", strict=True)]
        surfaces = shading.Surfaces(
            local=local,
            normal=normal,
            local_normal=local_normal,
            footprint=footprint,
            is_ground=(1.0 - m["is_prism"]) * (m["ball"] < 0).float(),
            material=m,
        )
        direction = self._turn_to_world([self.x, self.y, torch.ones_like(self.x)])
        return shading.as_clouds(surfaces, is_sky, direction, focal), world

    def _sunlit(self, origins: np.ndarray, point: list[Tensor]) -> Tensor:
        n = len(self.arrays.planes)
        sun = np.stack([np.array(s.scene.sun) @ r.T for s, r in zip(self.streets, self.rotation, strict=True)])
        groups = []
        for numbers, corners, scene in (
            (
                sunlight.prism_shadows(self.arrays.planes, sun[self.prism_scene]),
                self.arrays.corners[:n],
                self.prism_scene,
            ),
            (sunlight.round_shadows(self.arrays, sun[self.round_scene]), self.arrays.corners[n:], self.round_scene),
        ):
            work = work_list(self._shadow_bounds(origins, corners, scene), scene, self.grid, self.device)
            groups.append((numbers, self._upload(numbers.table.T), work))
        return sunlight.shadow(groups, point)

    def lidar(self, config: LidarConfig, w: Tensor) -> Tensor:
        """N×128 sparse depth of the left view, 0 = none."""
        offset = np.array([0.0, config.above, -config.behind])
        origins = np.einsum("bij,j->bi", self.rotation, offset)
        depth = 1.0 / w.clamp_min(1e-3)
        point = [self.x * depth, self.y * depth, depth]
        world = self._to_world(point)
        height = self._per_tile(np.array([s.rig.height for s in self.streets]))
        from_scanner = [world[0], world[1] - height - config.above, world[2] + config.behind]
        focal = self._per_tile(np.array([float(s.rig.camera.fx) for s in self.streets]))
        phase = self._per_tile(np.array([s.phase for s in self.streets]))
        hit = beam_hits(from_scanner, depth / focal, config, phase, self.width) & (w > 0)
        to_point = [p - self._per_tile(origins[:, i]) for i, p in enumerate(point)]
        ahead = to_point[2].clamp_min(0.1)
        hit = hit & ~self.hidden(origins, to_point[0] / ahead, to_point[1] / ahead, 1.0 / ahead)
        distance = sum(p * p for p in to_point).sqrt()  # type: ignore[union-attr]
        salt = self._per_tile(np.array([s.scene.salt % (1 << 23) for s in self.streets])).int()
        return returns(depth, distance, hit, config, salt, self.pixel_index)


def render(streets: list[Street], height: int, width: int, lidar: LidarConfig, device: torch.device) -> StereoSample:
    """A batched StereoSample on `device` (without names)."""
    r = Renderer(streets, height, width, device)
    baseline = np.array([float(s.rig.camera.baseline) for s in streets])
    left_origin = np.zeros((len(streets), 3))
    right_origin = baseline[:, None] * np.array([1.0, 0.0, 0.0])
    w, identity = r.nearest(left_origin)
    cameras = r._upload(np.stack([s.cameras for s in streets]))
    left = develop(r.shade(left_origin, w, identity), cameras[:, 0])
    right_w, right_identity = r.nearest(right_origin)
    right = develop(r.shade(right_origin, right_w, right_identity), cameras[:, 1])

    valid = w > 0
    disparity = w * r._per_tile(baseline * np.array([float(s.rig.camera.fx) for s in streets]))
    column = r.pixel_index % width
    u = column.float() - disparity
    occluded = r.hidden(right_origin, r.x - w * r._per_tile(baseline), r.y, w) | (u < 0) | (u > width - 1)
    depth = torch.where(valid, 1.0 / w.clamp_min(1e-3), 0.0)
    sparse = r.lidar(lidar, w)
    maps = {
        "depth": depth,
        "disparity": disparity,
        "valid": valid,
        "occluded": occluded & valid,
        "sparse_depth": sparse,
    }
    images = {name: r.grid.to_image(t).unsqueeze(1) for name, t in maps.items()}
    return StereoSample(
        left=left, right=right, camera=stack_cameras([s.rig.camera for s in streets]).to(device), **images
    )


def _concatenate(arrays: list[SolidArrays]) -> SolidArrays:
    """Prisms of all scenes first, then all rounds."""
    joined = {}
    for f in fields(SolidArrays):
        values = [getattr(a, f.name) for a in arrays]
        if f.name in ("frames", "centres", "scale", "corners", "materials", "base"):
            values = [v[: len(a.planes)] for v, a in zip(values, arrays, strict=True)] + [
                v[len(a.planes) :] for v, a in zip(values, arrays, strict=True)
            ]
        joined[f.name] = np.concatenate(values)
    return SolidArrays(**joined)


def _object_table(
    streets: list[Street], a: SolidArrays, prism_scene: np.ndarray, round_scene: np.ndarray
) -> np.ndarray:  # fmt: skip
    """columns×objects: the grounds and the skies of all scenes, all prisms, all rounds."""
    n, m = len(a.planes), len(a.ball)
    solid_salt = []
    for scene in (prism_scene, round_scene):
        first = np.searchsorted(scene, scene)
        solid_salt.append((np.arange(len(scene)) - first) * 4099 + np.array([s.scene.salt for s in streets])[scene])
    solids = np.concatenate(
        [
            a.frames.reshape(-1, 9),
            a.centres,
            a.scale,
            np.concatenate([np.zeros(n), a.ball])[:, None],
            a.base[:, None],
            np.concatenate([np.ones(n), np.zeros(m)])[:, None],
            (np.concatenate(solid_salt) % (1 << 23))[:, None],
            np.concatenate([a.local_planes.reshape(n, 24), np.zeros((m, 24))]),
            a.materials,
        ],
        1,
    )
    grounds = [_ground_row(s, s.scene.verge) for s in streets]
    skies = [_ground_row(s, Material((0, 0, 0), (0, 0, 0), grain=0.6, contrast=0.0)) for s in streets]
    return np.concatenate([np.array(grounds + skies), solids]).T


def _ground_row(street: Street, material: Material) -> list[float]:
    turn = street.rig.rotation()
    centre = -turn @ np.array([0.0, street.rig.height, 0.0])
    planes = np.zeros((6, 4))
    planes[:] = (0.0, 1.0, 0.0, 0.0)
    facts = [1.0, 1.0, 1.0, -1.0, 0.0, 0.0, street.scene.salt % (1 << 23)]
    return [*turn.T.reshape(-1), *centre, *facts, *planes.reshape(-1), *material_row(material)]


def _scene_row(street: Street) -> dict[str, object]:
    scene = street.scene
    lines = [*scene.lines[:_MAX_LINES], *[(1e3, False)] * (_MAX_LINES - len(scene.lines))]
    sun = np.array(scene.sun) @ street.rig.rotation().T
    row: dict[str, object] = {
        "road_middle": (scene.road[0] + scene.road[1]) / 2,
        "road_half": (scene.road[1] - scene.road[0]) / 2,
        "line_x": [x for x, _ in lines],
        "line_dashed": [float(d) for _, d in lines],
        "haze": scene.haze,
        "cloudiness": scene.cloudiness,
    }
    for i, c in enumerate("xyz"):
        row[f"sun_{c}"] = sun[i]
    for i, c in enumerate("rgb"):
        row[f"asphalt_{c}"], row[f"asphalt2_{c}"] = scene.asphalt.base[i], scene.asphalt.second[i]
        row[f"light_{c}"], row[f"sky_{c}"] = scene.sun_colour[i], scene.sky_colour[i]
    return row
