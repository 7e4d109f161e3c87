"""A batch of streets to stereo pairs: cast, shade, measure. All per-pixel work is on the device, without waiting."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.sample import StereoSample
from adu_depth.data.synthetic import raycast, shading, shadows
from adu_depth.data.synthetic.config import LidarConfig
from adu_depth.data.synthetic.culling import Planner
from adu_depth.data.synthetic.lidar import beam_hits, returns
from adu_depth.data.synthetic.photometry import develop, is_plain
from adu_depth.data.synthetic.scene import FARTHEST
from adu_depth.data.synthetic.streets import OBJECT_COLUMNS, Street, object_table, scene_facts
from adu_depth.data.synthetic.tiles import TileGrid
from adu_depth.geometry import stack_cameras
from adu_depth.transfer import upload

_OCCLUSION_SLACK = 1e-3  # share of the inverse depth by which something must be nearer to hide a point
_FARTHEST_SHADED = 1e3  # metres; stands in for infinity where the sky is shaded


def render(streets: list[Street], height: int, width: int, lidar: LidarConfig, device: torch.device) -> StereoSample:
    """A batched StereoSample on `device` (without names)."""
    r = Renderer(streets, height, width, device)
    left_origin = np.zeros((len(streets), 3))
    right_origin = np.array([[float(s.rig.camera.baseline), 0.0, 0.0] for s in streets])
    drawn = np.stack([s.cameras for s in streets])
    cameras, plain = r.upload(drawn), is_plain(drawn)
    w, identity = r.nearest(left_origin)
    left = develop(r.shade(left_origin, w, identity), cameras[:, 0], plain)
    right = develop(r.shade(right_origin, *r.nearest(right_origin)), cameras[:, 1], plain)

    shift = w * r.facts["baseline"]
    disparity = shift * r.facts["fx"]
    column = r.column - disparity
    outside = (column < 0) | (column > width - 1)
    maps = {
        "depth": r.depth(w) * (w > 0),
        "disparity": disparity,
        "valid": w > 0,
        "occluded": (r.hidden(right_origin, r.x - shift, r.y, w) | outside) & (w > 0),
        "sparse_depth": r.lidar(lidar, w),
    }
    images = {name: r.grid.to_image(t).unsqueeze(1) for name, t in maps.items()}
    camera = stack_cameras([s.rig.camera for s in streets]).map(lambda t: upload(t, device))
    return StereoSample(left=left, right=right, camera=camera, name="", **images)  # type: ignore[arg-type]


class Renderer:
    """The steps of rendering one batch. Per-pixel tensors are N×128, N = batch · tiles; w is inverse depth, 0 = sky.

    facts: numbers of the pair each tile belongs to, N×1. x, y: the pixels' rays are (x, y, 1) in camera axes.
    """

    def __init__(self, streets: list[Street], height: int, width: int, device: torch.device) -> None:
        self.streets, self.device, self.width = streets, device, width
        self.grid = TileGrid(height, width)
        self.plan = Planner(streets, self.grid, device)
        plan = self.plan
        self.objects = self.upload(object_table(streets, plan.arrays, plan.prism_scene, plan.round_scene))
        rows = [scene_facts(s) for s in streets]
        table = self.upload(np.array([list(row.values()) for row in rows]))
        per_tile = table.repeat_interleave(self.grid.count, 0).t().contiguous().unsqueeze(-1)
        self.facts = dict(zip(rows[0], per_tile.unbind(0), strict=True))
        u, v = (c.repeat(len(streets), 1) for c in self.grid.pixels(device))
        self.x = (u - self.facts["cx"]) / self.facts["fx"]
        self.y = (v - self.facts["cy"]) / self.facts["fy"]
        self.column, self.pixel = u, (v * width + u).int()

    def upload(self, array: np.ndarray) -> Tensor:
        return upload(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), self.device)

    @staticmethod
    def depth(w: Tensor) -> Tensor:
        """Metres; in the sky a large number."""
        return 1.0 / w.clamp_min(1.0 / _FARTHEST_SHADED)

    def to_world(self, direction: list[Tensor]) -> list[Tensor]:
        """Camera axes to world axes (x right of the road, y up, z along it); directions only."""
        x, y, z = direction
        f = self.facts
        return [f[f"turn_0{j}"] * x + f[f"turn_1{j}"] * y + f[f"turn_2{j}"] * z for j in range(3)]

    def points(self, origins: np.ndarray, depth: Tensor) -> list[Tensor]:
        """Where the rays from per-scene origins (B×3) are at this depth, in the left camera's axes."""
        start = self.upload(origins).repeat_interleave(self.grid.count, 0)
        return [self.x * depth + start[:, 0:1], self.y * depth + start[:, 1:2], depth + start[:, 2:3]]

    def nearest(self, origins: np.ndarray) -> tuple[Tensor, Tensor]:
        """(w, identity) of the first surface along every pixel's ray. The origins are at the left camera's height."""
        f, batch = self.facts, len(self.streets)
        sinking = -(f["turn_01"] * self.x + f["turn_11"] * self.y + f["turn_21"])
        ground = sinking / f["height"]
        best = ground * (ground >= 1.0 / FARTHEST)
        image = torch.arange(batch, dtype=torch.int32, device=self.device).repeat_interleave(self.grid.count)
        identity = image.unsqueeze(-1) + batch * (best <= 0).int()
        for group, work in self.plan.towards(origins):
            found = raycast.inverse_depths(group, work, self.x, self.y)
            raycast.merge_nearest(best, identity, group, work, found)
        return best, identity

    def hidden(self, origins: np.ndarray, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """Whether a solid hides a pixel of the left view from an origin, which sees its point at w along (x, y, 1)."""
        blocked = torch.zeros_like(x)
        limit = w * (1.0 + _OCCLUSION_SLACK)
        for group, work in self.plan.towards(origins, target=np.zeros_like(origins)):
            nearer = raycast.inverse_depths(group, work, x, y) > limit.index_select(0, work.tiles)
            blocked.index_add_(0, work.tiles, nearer.float())
        return blocked > 0

    def shade(self, origins: np.ndarray, w: Tensor, identity: Tensor) -> Tensor:
        """B×3×H×W linear light seen from per-scene origins."""
        is_sky = (w <= 0).float()
        depth = self.depth(w)
        point = self.points(origins, depth)
        ray = [self.x, self.y, torch.ones_like(self.x)]
        world, ray_world = self.to_world(point), self.to_world(ray)
        world[1] = world[1] + self.facts["height"]
        columns = self.objects.index_select(1, identity.reshape(-1)).reshape(-1, *w.shape).unbind(0)
        material = dict(zip(OBJECT_COLUMNS, columns, strict=True))
        surfaces = shading.surfaces(material, point, ray, depth, self.facts["fx"])
        surfaces = shading.as_clouds(surfaces, is_sky, ray_world, self.facts["fx"])
        albedo, gloss, grain = shading.surface_colour(surfaces, self.facts, world)
        sunlit = shadows.sunlit(self.plan.towards_sun(origins), point)
        lit = shading.light(albedo, surfaces, self.facts, world[1], self.to_world(surfaces.normal)[1], sunlit)
        length = (self.x * self.x + self.y * self.y + 1.0).sqrt()
        if any(s.scene.headlights for s in self.streets):
            lit = shading.add_headlights(lit, albedo, surfaces, self.facts, point)
        if any(s.scene.reflections for s in self.streets):
            lit = shading.add_reflections(lit, gloss, surfaces, self.facts, ray, length, self.to_world)
        hazy = shading.add_haze(lit, depth, self.facts)
        sky = shading.sky_colour(ray_world[1] / length, grain, self.facts)
        return torch.stack([self.grid.to_image(h + (k - h) * is_sky) for h, k in zip(hazy, sky, strict=True)], 1)

    def lidar(self, config: LidarConfig, w: Tensor) -> Tensor:
        """Sparse depth of the left view in metres, 0 = none."""
        offset = np.array([0.0, config.above, -config.behind])
        scanner = np.stack([t @ offset for t in self.plan.turn])
        depth = self.depth(w)
        start = self.upload(scanner).repeat_interleave(self.grid.count, 0)
        seen = [p - start[:, i : i + 1] for i, p in enumerate(self.points(np.zeros_like(scanner), depth))]
        hit = beam_hits(self.to_world(seen), depth / self.facts["fx"], config, self.facts["phase"], self.width)
        ahead = seen[2].clamp_min(0.1)
        hit = hit & (w > 0) & ~self.hidden(scanner, seen[0] / ahead, seen[1] / ahead, 1.0 / ahead)
        distance = (seen[0] * seen[0] + seen[1] * seen[1] + seen[2] * seen[2]).sqrt()
        return returns(depth, distance, hit, config, self.facts["texture_seed"].int(), self.pixel)
