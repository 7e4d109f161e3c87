"""One street: a road, what lines it, what drives and stands on it, the light; drawn from a random generator."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from adu_depth.data.synthetic import objects
from adu_depth.data.synthetic.shapes import Material, Solids, Vec

FARTHEST = 200.0  # metres; beyond it everything is sky
PAVEMENT_HEIGHT = 0.13
_CLEAR = 4.7  # metres around the cameras that stay empty
_GREY = Material((0.15, 0.15, 0.15), (0.1, 0.1, 0.1))


@dataclass
class Scene:
    """A street in world axes (x right, y up, z along the road; the camera is above the origin).

    road: (left edge, right edge) in metres. lanes: x of the painted lines and whether each is dashed.
    sun: unit vector towards it. sun_colour, sky_colour: light, linear RGB. texture_seed: that of the textures.
    headlights: light of the car's own, at 5 m. reflections: strength of what glossy surfaces mirror. sky_gain:
    brightness of sky and haze. noise_gain: of the sensor's noise, against that of the day.
    """

    solids: Solids = field(default_factory=Solids)
    road: tuple[float, float] = (-3.5, 3.5)
    lines: list[tuple[float, bool]] = field(default_factory=list)
    verge: Material = _GREY
    asphalt: Material = _GREY
    sun: Vec = (0.3, 0.8, -0.5)
    sun_colour: Vec = (1.0, 0.95, 0.85)
    sky_colour: Vec = (0.4, 0.5, 0.65)
    cloudiness: float = 0.5
    haze: float = 1 / 400.0
    texture_seed: int = 0
    headlights: float = 0.0
    reflections: float = 0.0
    sky_gain: float = 1.0
    noise_gain: float = 1.0


def build_scene(rng: np.random.Generator, focal: float) -> Scene:
    """A new street. focal (pixels) only sets how fine leaves may be so that both views can still resolve them."""
    scene = Scene(texture_seed=int(rng.integers(1 << 31)))
    kind = str(rng.choice(["city", "suburb", "country"], p=[0.5, 0.35, 0.15]))
    _light(scene, rng)
    _road(scene, rng, kind)
    busy = rng.beta(1.2, 1.6)
    _traffic(scene, rng, busy)
    for side in (-1, 1):
        edge = scene.road[0] if side < 0 else scene.road[1]
        walk = rng.uniform(1.6, 3.6) if kind != "country" else rng.uniform(0.8, 2.0)
        blocks = _blocks(rng, kind)
        if kind != "country":
            _pavement(scene, rng, edge, side, walk, blocks)
            _parked(scene, rng, edge, side, busy, blocks)
        _furniture(scene, rng, edge, side, walk, blocks, kind, focal)
        _houses(scene, rng, edge + side * walk, side, blocks, kind, focal)
    _far_end(scene, rng, kind)
    return scene


def sun_at(scene: Scene, rng: np.random.Generator, degrees: float) -> None:
    """Puts the sun so high above the horizon, in any direction."""
    elevation, around = np.deg2rad(degrees), rng.uniform(0, 2 * np.pi)
    flat = np.cos(elevation)
    scene.sun = (float(flat * np.sin(around)), float(np.sin(elevation)), float(flat * np.cos(around)))


def _light(scene: Scene, rng: np.random.Generator) -> None:
    overcast = rng.random() < 0.35
    sun_at(scene, rng, rng.uniform(60, 85) if overcast else rng.uniform(22, 65))
    strength = rng.uniform(0.25, 0.5) if overcast else rng.uniform(1.0, 1.6)
    warmth = rng.uniform(0.75, 0.95)
    scene.sun_colour = (strength, strength * (0.5 + 0.5 * warmth), strength * warmth)
    sky = rng.uniform(0.75, 0.95) if overcast else rng.uniform(0.4, 0.6)
    scene.sky_colour = (sky * 0.95, sky, sky * 1.05) if overcast else (sky * 0.75, sky * 0.92, sky * 1.2)
    scene.cloudiness = float(rng.uniform(0.75, 1.0) if overcast else rng.uniform(0.0, 0.7))
    scene.haze = float(1 / rng.uniform(250, 900))


def _road(scene: Scene, rng: np.random.Generator, kind: str) -> None:
    lane = rng.uniform(2.9, 3.6)
    left, right = int(rng.integers(1, 3)), 1 + int(rng.random() < 0.3)
    shift = rng.uniform(-0.35, 0.35)
    scene.road = (float(-lane * (left + 0.5) + shift), float(lane * (right - 0.5) + shift))
    lines = [float(scene.road[0] + lane * i) for i in range(1, left + right)]
    marked = rng.random() < 0.85
    scene.lines = [(x, rng.random() < 0.8) for x in lines] if marked else []
    if marked and rng.random() < 0.5:
        scene.lines += [(scene.road[0] + 0.25, False), (scene.road[1] - 0.25, False)]
    grey = rng.uniform(0.07, 0.17)
    tint = rng.uniform(0.92, 1.08)
    scene.asphalt = Material((grey * tint, grey, grey / tint), (grey * 0.7, grey * 0.7, grey * 0.72),
                             grain=0.2, contrast=rng.uniform(0.4, 0.6), blotch=rng.uniform(1.5, 4.0))  # fmt: skip
    paving = rng.uniform(0.2, 0.32)
    if kind == "city":
        scene.verge = Material((paving, paving * 0.95, paving * 0.88), (paving * 0.75,) * 3, 0.6, 0.55, 2.0)
    else:
        scene.verge = Material((0.11, 0.17, 0.04), (0.20, 0.18, 0.08), grain=0.5, contrast=0.9, blotch=2.5)


def _traffic(scene: Scene, rng: np.random.Generator, busy: float) -> None:
    """Moving vehicles, lane by lane: those left of the middle come towards us."""
    inner = [x for x, _ in scene.lines if scene.road[0] + 1 < x < scene.road[1] - 1]
    bounds = [scene.road[0], *sorted(inner), scene.road[1]]
    for left, right in pairwise(bounds):
        centre = (left + right) / 2
        own = left < 0.3 < right
        z = rng.uniform(8.0, 22.0) if own else rng.uniform(4.0, 25.0)
        while z < 110:
            if rng.random() < busy + 0.1:
                yaw = rng.normal(0, 0.025) + (np.pi if centre < -1.2 else 0.0)
                objects.vehicle(scene.solids, rng, centre + rng.normal(0, 0.15), z + 2.5, yaw)
            z += rng.uniform(8.0, 14.0) + rng.exponential(22.0 * (1.1 - busy))


Blocks = list[tuple[float, float]]


def _blocks(rng: np.random.Generator, kind: str) -> Blocks:
    """Stretches along the road between junctions: (from, to) in metres."""
    blocks, z = [], -24.0
    while z < 150:
        length = rng.uniform(40, 110)
        blocks.append((z, min(z + length, 165.0)))
        z += length + rng.uniform(7, 14)
    return blocks


def _pavement(
    scene: Scene, rng: np.random.Generator, edge: float, side: int, walk: float, blocks: Blocks
) -> None:  # fmt: skip
    grey = rng.uniform(0.22, 0.36)
    stone = Material((grey, grey * 0.97, grey * 0.92), (grey * 0.7,) * 3, grain=0.6, contrast=0.5, blotch=1.5)
    kerb = Material((grey * 1.2,) * 3, (grey,) * 3, grain=0.2, contrast=0.5, blotch=0.6)
    for start, end in blocks:
        middle, half = (start + end) / 2, (end - start) / 2
        solids = scene.solids
        solids.prism((edge + side * 0.08, 0.0, middle), (0.08, PAVEMENT_HEIGHT / 2, half), kerb)
        solids.prism((edge + side * (0.16 + walk / 2), 0.0, middle), (walk / 2, PAVEMENT_HEIGHT / 2, half), stone)


def _parked(scene: Scene, rng: np.random.Generator, edge: float, side: int, busy: float, blocks: Blocks) -> None:
    if rng.random() < 0.35 or abs(edge) < 3.0:
        return
    share = rng.uniform(0.3, 0.9)
    for start, end in blocks:
        z = max(start, 2.0) + rng.uniform(4, 9)
        while z < min(end - 3, 80):
            if rng.random() < share:
                yaw = rng.normal(0, 0.03) + (np.pi if side < 0 and rng.random() < 0.8 else 0.0)
                x = edge - side * (1.05 + rng.uniform(0, 0.15))
                if abs(x) > 2.9:
                    objects.vehicle(scene.solids, rng, x, z, yaw)
            z += rng.uniform(5.3, 7.5)


def _furniture(scene: Scene, rng: np.random.Generator, edge: float, side: int, walk: float, blocks: Blocks, kind: str,
               focal: float) -> None:  # fmt: skip
    """Poles, signs, trees, people along the kerb."""
    solids = scene.solids
    near_kerb = edge + side * rng.uniform(0.45, 0.7)
    has_trees = rng.random() < {"city": 0.4, "suburb": 0.7, "country": 0.8}[kind]
    spacing, offset = rng.uniform(14, 30), rng.uniform(0, 20)
    for z in np.arange(4.0 + offset, 130, spacing).tolist():
        if _in_blocks(z, blocks):
            objects.lamp_post(solids, rng, near_kerb, z)
    if has_trees:
        for z in np.arange(5.0 + rng.uniform(0, 9), 120, rng.uniform(7, 16)).tolist():
            if _in_blocks(z, blocks):
                objects.tree(
                    solids, rng, near_kerb + side * rng.uniform(0, 0.4), z + rng.normal(0, 0.8), leaf_size(z, focal)
                )
    makers = (objects.sign, objects.board, objects.pedestrian, objects.bin_or_box)
    for _ in range(int(rng.integers(3, 13))):
        z = 4.5 + rng.uniform(0, 1) ** 1.7 * 75
        if not _in_blocks(z, blocks):
            continue
        x = edge + side * rng.uniform(0.5, max(0.8, walk - 0.4))
        maker = makers[int(rng.choice(4, p=[0.3, 0.12, 0.36, 0.22]))]
        if maker is objects.board:
            x, z = edge + side * max(1.4, walk - 0.3), z + 5.0
        if abs(x) > 1.5 and np.hypot(x, z) > _CLEAR:
            maker(solids, rng, x, z)


def leaf_size(z: float, focal: float) -> float:
    """Wavelength of a crown's holes: some pixels wide at its distance, never finer than 18 cm."""
    return max(0.18, 5.0 * z / focal)


def _in_blocks(z: float, blocks: Blocks) -> bool:
    return any(start + 1 < z < end - 1 for start, end in blocks)


def _houses(
    scene: Scene, rng: np.random.Generator, line: float, side: int, blocks: Blocks, kind: str, focal: float
) -> None:  # fmt: skip
    solids = scene.solids
    if kind == "country":
        _fields(scene, rng, line, side, focal)
        return
    setback = rng.uniform(0.2, 0.8) if kind == "city" else rng.uniform(3.0, 9.0)
    if kind == "suburb":
        for start, end in blocks:
            maker = objects.hedge if rng.random() < 0.55 else objects.fence
            maker(solids, rng, line + side * 0.5, (max(start, 1.0) + end) / 2, max((end - max(start, 1.0)) / 2, 1.0))
    for start, end in blocks:
        z = start
        while z < end - 5:
            width = min(rng.uniform(8, 20), end - z)
            deep, high = rng.uniform(4, 7), rng.uniform(6, 15) if kind == "city" else rng.uniform(5, 8)
            if rng.random() < (0.95 if kind == "city" else 0.8):
                x = line + side * (setback + deep + rng.uniform(0, 0.5))
                objects.building(
                    solids, rng, x, z + width / 2, (deep, width / 2 - (0.0 if kind == "city" else 1.0)), high
                )
            elif z > 0:
                objects.tree(solids, rng, line + side * 3, z + width / 2, leaf_size(z, focal))
            z += width + (0.0 if kind == "city" and rng.random() < 0.8 else rng.uniform(1, 5))
        if kind == "suburb":
            for _ in range(int(rng.integers(1, 4))):
                zt = rng.uniform(max(start, 6), max(end, 7))
                objects.tree(solids, rng, line + side * rng.uniform(1.5, max(setback, 2)), zt, leaf_size(zt, focal))


def _fields(scene: Scene, rng: np.random.Generator, line: float, side: int, focal: float) -> None:
    for _ in range(int(rng.integers(8, 22))):
        z = 6 + rng.uniform(0, 1) ** 1.5 * 120
        x = line + side * (0.5 + rng.exponential(5.0))
        maker = objects.tree if rng.random() < 0.55 else objects.bush
        maker(scene.solids, rng, x, z, leaf_size(z, focal))


def _far_end(scene: Scene, rng: np.random.Generator, kind: str) -> None:
    """What closes the view: houses across the road's end, or hills."""
    if kind == "city" and rng.random() < 0.6:
        for x in np.arange(-50.0, 60.0, 14.0).tolist():
            objects.building(scene.solids, rng, x, rng.uniform(165, 172), (7.0, 5.0), rng.uniform(6, 16))
        return
    green = (0.07, 0.10, 0.05)
    hill = Material(green, (0.12, 0.13, 0.07), grain=3.0, contrast=0.8, blotch=12.0)
    for _ in range(int(rng.integers(2, 6))):
        radius = rng.uniform(25, 60)
        scene.solids.ellipsoid(
            (rng.uniform(-120, 120), 0.0, rng.uniform(178, 190)), (radius, rng.uniform(5, 16), 12.0), hill
        )
