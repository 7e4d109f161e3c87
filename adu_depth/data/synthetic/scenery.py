"""What a street can hold beside the usual: other hours, mirrors, thin things, patterns that repeat, things near by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adu_depth.data.synthetic import objects
from adu_depth.data.synthetic.config import SceneryConfig
from adu_depth.data.synthetic.scene import Scene, sun_at
from adu_depth.data.synthetic.shapes import MATERIAL_COLUMNS, Material, Pattern

_NEAREST = 1.2  # metres to the side of the left camera: what is placed here is farther
_COLUMN = {name: i for i, name in enumerate(MATERIAL_COLUMNS)}


def add_scenery(scene: Scene, rng: np.random.Generator, config: SceneryConfig) -> None:
    """Changes a street by what the configuration's chances say. Each change has a generator of its own: with one more
    of them the others stay as they are (but that the night takes the sun away)."""
    chances: list[tuple[float, Callable[[Scene, np.random.Generator], None]]] = [
        (config.low_sun, low_sun),
        (config.night, night),
        (config.reflections, reflections),
        (config.thin, thin_things),
        (config.repeated, repeated_patterns),
        (config.near, near_things),
    ]
    generators = (*rng.spawn(len(chances) - 1), rng)
    for (chance, change), own in zip(chances, generators, strict=True):
        if own.random() < chance:
            change(scene, own)


def low_sun(scene: Scene, rng: np.random.Generator) -> None:
    """Morning or evening: long shadows, warm light, a sky that lights little."""
    sun_at(scene, rng, rng.uniform(5, 16))
    strength = rng.uniform(1.0, 1.8)
    scene.sun_colour = (strength, strength * rng.uniform(0.6, 0.8), strength * rng.uniform(0.3, 0.55))
    sky = rng.uniform(0.2, 0.4)
    scene.sky_colour = (sky * 0.9, sky * 0.95, sky * 1.15)
    scene.cloudiness = float(rng.uniform(0.0, 0.6))


def night(scene: Scene, rng: np.random.Generator) -> None:
    """The car's headlights, and a little light from everywhere; the sky is dark and the sensor's noise is high."""
    sun_at(scene, rng, rng.uniform(25, 70))
    moon = rng.uniform(0.0, 0.06)
    scene.sun_colour = (moon * 0.8, moon * 0.9, moon)
    glow = rng.uniform(0.05, 0.3)
    scene.sky_colour = (glow * 1.15, glow, glow * 0.75)
    scene.headlights = float(rng.uniform(0.6, 2.0))
    scene.sky_gain = float(rng.uniform(0.01, 0.12))
    scene.noise_gain = float(rng.uniform(1.5, 3.0))


def reflections(scene: Scene, rng: np.random.Generator) -> None:
    """Glass and paint mirror sky and houses: there the two views show different things, and matching lies."""
    scene.reflections = float(rng.uniform(0.4, 1.0))


def thin_things(scene: Scene, rng: np.random.Generator) -> None:
    """Wires over the road, railings and single rods at its sides."""
    left, right = scene.road
    for _ in range(int(rng.integers(0, 4))):
        height, z = rng.uniform(4.5, 7.5), rng.uniform(7, 45)
        scene.solids.cylinder((rng.uniform(-1, 1), height, z), rng.uniform(0.015, 0.04), 14.0, objects.METAL, axis="x",
                              yaw=rng.normal(0, 0.2))  # fmt: skip
    for side, edge in ((-1, left), (1, right)):
        if rng.random() < 0.6:
            _railing(scene, rng, edge + side * rng.uniform(0.3, 1.6), rng.uniform(0.015, 0.03), rng.uniform(0.1, 0.3))
        for _ in range(int(rng.integers(0, 6))):
            x, z = edge + side * rng.uniform(0.2, 2.5), 5 + 35 * rng.random() ** 1.5
            height = rng.uniform(0.8, 4.0)
            scene.solids.cylinder((x, height / 2, z), rng.uniform(0.012, 0.035), height / 2, objects.METAL)


def _railing(scene: Scene, rng: np.random.Generator, x: float, bar: float, gap: float) -> None:
    """Equal bars between two rails, along the road."""
    if abs(x) < _NEAREST:
        return
    start, height = rng.uniform(3.0, 15.0), rng.uniform(0.8, 1.3)
    count = int(rng.integers(20, 60))
    colour = objects.pick(rng, objects.RAILS, 0.3)
    paint = Material(colour, objects.shade(colour, 0.8), grain=0.1, contrast=0.2, blotch=0.5)
    for i in range(count):
        scene.solids.prism((x, 0.0, start + i * gap), (bar, height / 2, bar), paint)
    for level in (0.12, height - 0.06):
        scene.solids.prism((x, level, start + count * gap / 2), (bar * 1.2, 0.03, count * gap / 2), paint)


def repeated_patterns(scene: Scene, rng: np.random.Generator) -> None:
    """Windows that are all alike and close together, and fences of equal bars: a match one period off fits as well."""
    for i, row in enumerate(scene.solids.prism_materials):
        if row[_COLUMN["variety"]] >= 0.5 and rng.random() < 0.7:
            shrink = rng.uniform(0.25, 0.7)
            changed = list(row)
            changed[_COLUMN["variety"]] = 0.0
            for name in ("period_side", "period_end"):
                changed[_COLUMN[name]] *= shrink
            scene.solids.prism_materials[i] = tuple(changed)
    left, right = scene.road
    for side, edge in ((-1, left), (1, right)):
        if rng.random() < 0.5:
            _railing(scene, rng, edge + side * rng.uniform(0.5, 2.5), rng.uniform(0.03, 0.06), rng.uniform(0.16, 0.4))


def near_things(scene: Scene, rng: np.random.Generator) -> None:
    """A vehicle or a few boxes, posts and people within some metres: large disparities."""
    for _ in range(int(rng.integers(1, 4))):
        z = rng.uniform(2.5, 6.0)
        x = float(rng.choice([-1, 1])) * rng.uniform(_NEAREST + 0.3, _NEAREST + 2.2)
        kind = rng.random()
        if kind < 0.25:
            side, yaw = np.sign(x) * rng.uniform(2.5, 3.2), rng.normal(0, 0.1)
            model = "van" if rng.random() < 0.3 else objects.vehicle_kind(rng)
            # A truck so near would hold a camera.
            objects.vehicle(scene.solids, rng, side, z + 2.0, yaw, "van" if model == "truck" else model)
        elif kind < 0.5:
            objects.pedestrian(scene.solids, rng, x, z)
        elif kind < 0.75:
            objects.bin_or_box(scene.solids, rng, x, z)
        else:
            colour = objects.pick(rng, objects.RAILS, 0.3)
            stripes = Pattern(1e3, 1e3, rng.uniform(0.2, 0.5), 1.0, 1.0, 0.5, 0.1, (0.75, 0.75, 0.72))
            post = Material(colour, objects.shade(colour, 0.8), 0.1, 0.3, 0.5, stripes)
            scene.solids.prism((x, 0.0, z), (rng.uniform(0.04, 0.12), rng.uniform(0.4, 0.7), 0.05), post)
