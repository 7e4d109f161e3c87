"""The things that stand in a street, built from prisms and rounds in their real sizes (metres)."""

from __future__ import annotations

import numpy as np

from adu_depth.data.synthetic.shapes import Material, Pattern, Solids, Vec

Rng = np.random.Generator

_PAINT = ((0.55, 0.55, 0.56), (0.04, 0.04, 0.05), (0.30, 0.31, 0.33), (0.75, 0.75, 0.73), (0.35, 0.03, 0.03),
          (0.04, 0.09, 0.28), (0.08, 0.18, 0.12), (0.42, 0.36, 0.24), (0.50, 0.22, 0.04), (0.2, 0.2, 0.3))  # fmt: skip
_WALLS = ((0.55, 0.45, 0.33), (0.42, 0.20, 0.13), (0.60, 0.58, 0.52), (0.50, 0.33, 0.22), (0.36, 0.36, 0.37),
          (0.66, 0.56, 0.38), (0.30, 0.16, 0.11), (0.48, 0.50, 0.46), (0.62, 0.47, 0.40))  # fmt: skip
_LEAVES = ((0.10, 0.17, 0.03), (0.06, 0.12, 0.03), (0.16, 0.20, 0.05), (0.20, 0.15, 0.03), (0.08, 0.14, 0.06))
_CLOTHES = ((0.05, 0.06, 0.12), (0.35, 0.06, 0.05), (0.45, 0.43, 0.38), (0.08, 0.18, 0.12), (0.5, 0.4, 0.1))
RAILS = ((0.05, 0.06, 0.05), (0.45, 0.46, 0.47), (0.04, 0.12, 0.07), (0.55, 0.50, 0.40), (0.30, 0.08, 0.05))
_SIGNS = ((0.60, 0.05, 0.04), (0.04, 0.10, 0.45), (0.75, 0.75, 0.72), (0.65, 0.50, 0.05), (0.05, 0.30, 0.12))

_PAINT_GLOSS, _GLASS_GLOSS = 0.35, 0.9

BARK = Material((0.13, 0.09, 0.06), (0.22, 0.17, 0.12), grain=0.2, contrast=0.9, blotch=0.5)
METAL = Material((0.20, 0.21, 0.21), (0.30, 0.29, 0.27), grain=0.15, contrast=0.5, blotch=0.6)
RUBBER = Material((0.02, 0.02, 0.02), (0.06, 0.06, 0.06), grain=0.1, contrast=0.5, blotch=0.2)
SKIN = Material((0.45, 0.28, 0.20), (0.35, 0.2, 0.14), grain=0.1, contrast=0.3, blotch=0.2)


def pick(rng: Rng, colours: tuple[Vec, ...], spread: float = 0.15) -> Vec:
    """One of the colours, a little lighter or darker."""
    r, g, b = colours[int(rng.integers(len(colours)))]
    gain = float(np.exp(rng.normal(0.0, spread)))
    return min(r * gain, 0.9), min(g * gain, 0.9), min(b * gain, 0.9)


def shade(colour: Vec, gain: float) -> Vec:
    return colour[0] * gain, colour[1] * gain, colour[2] * gain


def _offset(x: float, z: float, yaw: float, right: float, ahead: float) -> tuple[float, float]:
    """The point `right` and `ahead` of (x, z) for something turned by yaw."""
    return x + right * np.cos(yaw) + ahead * np.sin(yaw), z - right * np.sin(yaw) + ahead * np.cos(yaw)


def vehicle_kind(rng: Rng) -> str:
    """One of the kinds of `vehicle`, as often as streets have them."""
    return str(rng.choice(["sedan", "hatchback", "estate", "van", "truck"], p=[0.33, 0.33, 0.18, 0.12, 0.04]))


def vehicle(solids: Solids, rng: Rng, x: float, z: float, yaw: float, kind: str | None = None) -> None:
    """A car, van or truck with its centre at (x, z), its front towards +z turned by yaw."""
    kind = kind or vehicle_kind(rng)
    oncoming = abs(yaw) > np.pi / 2
    if kind == "truck":
        _truck(solids, rng, x, z, yaw, oncoming)
        return
    length, width, height = {
        "sedan": (4.5, 1.78, 1.45), "hatchback": (4.0, 1.75, 1.5), "estate": (4.6, 1.8, 1.5), "van": (5.0, 1.95, 2.1)
    }[kind]  # fmt: skip
    length, width, height = (
        length * rng.uniform(0.93, 1.07),
        width * rng.uniform(0.97, 1.03),
        height * rng.uniform(0.95, 1.05),
    )
    clearance, waist = 0.22, height * (0.6 if kind != "van" else 0.5)
    paint = pick(rng, _PAINT, 0.2)
    lamp = (0.8, 0.8, 0.75) if oncoming else (0.5, 0.02, 0.02)
    lamps = Pattern(1e3, width * 0.78, 1e3, 0.0, 0.24, 0.00016, waist * 0.55, lamp)
    body = Material(paint, shade(paint, 0.8), grain=0.12, contrast=0.16, blotch=0.8, pattern=lamps, gloss=_PAINT_GLOSS)
    solids.prism(
        (x, clearance, z), (width / 2, (waist - clearance) / 2, length / 2), body, yaw, inset=(0.06, 0.12, 0.06)
    )
    front, rear = {"sedan": (0.30, 0.14), "hatchback": (0.28, 0.02), "estate": (0.28, 0.02), "van": (0.16, 0.01)}[kind]
    cabin_length = length * (1 - front - rear)
    cabin_x, cabin_z = _offset(x, z, yaw, 0.0, length * (rear - front) / 2)
    cabin_height = height - waist
    glass = Pattern(
        cabin_length * 0.46,
        width * 1.2,
        1e3,
        0.86,
        0.66,
        0.00072 * cabin_height,
        0.48 * cabin_height,
        (0.02, 0.025, 0.03),
        0.3,
        True,
        _GLASS_GLOSS,
    )
    cabin = Material(paint, shade(paint, 0.8), grain=0.12, contrast=0.16, blotch=0.8, pattern=glass, gloss=_PAINT_GLOSS)
    windscreen = 0.75 * cabin_height / 0.55 if kind != "van" else 0.5
    tail = {"sedan": 0.6, "hatchback": 0.35, "estate": 0.2, "van": 0.05}[kind]
    solids.prism((cabin_x, waist, cabin_z), (width / 2 - 0.05, cabin_height / 2, cabin_length / 2), cabin, yaw,
                 inset=(0.17, windscreen, tail))  # fmt: skip
    for ahead in (-0.31 * length, 0.31 * length):
        for side in (-1, 1):
            wx, wz = _offset(x, z, yaw, side * (width / 2 - 0.09), ahead)
            solids.cylinder((wx, 0.32, wz), 0.32, 0.11, RUBBER, axis="x", yaw=yaw)


def _truck(solids: Solids, rng: Rng, x: float, z: float, yaw: float, oncoming: bool) -> None:
    length, width, height = rng.uniform(6.5, 10.0), rng.uniform(2.3, 2.55), rng.uniform(2.9, 3.6)
    colour, cabin_colour = pick(rng, _PAINT), pick(rng, _PAINT)
    stripes = Pattern(1e3, 1e3, rng.uniform(0.8, 1.6), 1.0, 1.0, rng.uniform(0.1, 0.5), 0.3, pick(rng, _PAINT))
    box = Material(colour, shade(colour, 0.75), grain=0.3, contrast=0.25, blotch=1.5, pattern=stripes)
    glass = Pattern(2.4, width * 1.1, 1e3, 0.5, 0.75, 0.0008, 1.35, (0.02, 0.025, 0.03), 0.0, True, _GLASS_GLOSS)
    cab = Material(cabin_colour, shade(cabin_colour, 0.8), grain=0.15, contrast=0.2, blotch=1.0, pattern=glass)
    bx, bz = _offset(x, z, yaw, 0.0, -1.0)
    solids.prism((bx, 0.75, bz), (width / 2, (height - 0.75) / 2, length / 2 - 1.0), box, yaw)
    cx, cz = _offset(x, z, yaw, 0.0, length / 2 - 1.0)
    solids.prism((cx, 0.4, cz), (width / 2 - 0.05, 1.1, 0.95), cab, yaw, inset=(0.05, 0.2, 0.0))
    for ahead in (-0.36 * length, -0.22 * length, 0.36 * length):
        for side in (-1, 1):
            wx, wz = _offset(x, z, yaw, side * (width / 2 - 0.15), ahead)
            solids.cylinder((wx, 0.48, wz), 0.48, 0.14, RUBBER, axis="x", yaw=yaw)


def tree(solids: Solids, rng: Rng, x: float, z: float, leaf_size: float) -> None:
    """Trunk and a crown of overlapping leafy ellipsoids, 4 to 9 m high."""
    height = rng.uniform(4.0, 9.0)
    trunk = height * rng.uniform(0.3, 0.42)
    radius = rng.uniform(0.10, 0.24)
    stem = trunk + 0.4 * (height - trunk)
    solids.cylinder((x, stem / 2, z), radius, stem / 2, BARK)
    leaves = _leaves(rng)
    spread = height * rng.uniform(0.18, 0.26)
    for part in range(int(rng.integers(4, 7))):
        angle, reach = rng.uniform(0, 2 * np.pi), spread * rng.uniform(0.1, 0.8) * (part > 0)
        size = spread * rng.uniform(0.55, 0.95)
        centre = (
            x + reach * np.cos(angle),
            trunk + rng.uniform(0.15, 0.85) * (height - trunk),
            z + reach * np.sin(angle),
        )
        solids.ellipsoid(centre, (size, size * rng.uniform(0.7, 1.0), size), leaves, rng.uniform(0, 3.1),
                         rng.uniform(0.3, 0.5), leaf_size)  # fmt: skip


def bush(solids: Solids, rng: Rng, x: float, z: float, leaf_size: float) -> None:
    leaves = _leaves(rng)
    for _ in range(int(rng.integers(1, 4))):
        r = rng.uniform(0.4, 0.9)
        centre = (x + rng.uniform(-0.5, 0.5), r * 0.6, z + rng.uniform(-0.5, 0.5))
        solids.ellipsoid(centre, (r, r * 0.9, r), leaves, rng.uniform(0, 3.1), rng.uniform(0.2, 0.35), leaf_size)


def _leaves(rng: Rng) -> Material:
    colour = pick(rng, _LEAVES, 0.25)
    return Material(colour, shade(colour, 1.7), grain=0.6, contrast=1.0, blotch=0.7)


def hedge(solids: Solids, rng: Rng, x: float, z: float, half_length: float, along: bool = True) -> None:
    half = (0.35, rng.uniform(0.5, 0.9), half_length) if along else (half_length, rng.uniform(0.5, 0.9), 0.35)
    solids.prism((x, 0.0, z), half, _leaves(rng), inset=(0.06, 0.06, 0.06))


def fence(solids: Solids, rng: Rng, x: float, z: float, half_length: float) -> None:
    """A low wall of bricks or planks along the road."""
    colour = pick(rng, _WALLS)
    gaps = Pattern(rng.uniform(0.5, 2.5), 0.6, rng.uniform(0.3, 0.6), 0.93, 0.9, 0.9, 0.1, shade(colour, 1.25), 0.5)
    wall = Material(shade(colour, 0.6), shade(colour, 0.5), grain=0.2, contrast=0.6, blotch=1.0, pattern=gaps)
    solids.prism((x, 0.0, z), (0.12, rng.uniform(0.4, 0.8), half_length), wall)


def lamp_post(solids: Solids, rng: Rng, x: float, z: float) -> None:
    height, inwards = rng.uniform(5.0, 7.0), -np.sign(x)
    solids.cylinder((x, height / 2, z), rng.uniform(0.07, 0.11), height / 2, METAL)
    solids.cylinder((x + inwards * 0.7, height, z), 0.05, 0.75, METAL, axis="x")
    solids.ellipsoid((x + inwards * 1.4, height, z), (0.35, 0.09, 0.15), METAL)


def sign(solids: Solids, rng: Rng, x: float, z: float) -> None:
    """A round or square road sign on a pole."""
    height, size, yaw = rng.uniform(2.0, 2.6), rng.uniform(0.3, 0.42), rng.uniform(-0.3, 0.3)
    solids.cylinder((x, height / 2, z), 0.04, height / 2, METAL)
    colour = pick(rng, _SIGNS, 0.05)
    face = Material(colour, shade(colour, 0.8), grain=0.1, contrast=0.25, blotch=0.3)
    if rng.random() < 0.5:
        solids.ellipsoid((x, height, z - 0.06), (size, size, 0.03), face, yaw)
    else:
        bars = Pattern(1e3, size * 4, 1e3, 0.0, 0.3, 0.0004 * size, size, (0.75, 0.75, 0.72), 0.0, True)
        plate = Material(colour, shade(colour, 0.8), grain=0.1, contrast=0.25, blotch=0.3, pattern=bars)
        solids.prism((x, height - size, z - 0.06), (size, size, 0.02), plate, yaw)


def board(solids: Solids, rng: Rng, x: float, z: float) -> None:
    """A slanted advertising board on two legs."""
    width, height, foot = rng.uniform(0.5, 1.4), rng.uniform(0.4, 0.9), rng.uniform(0.3, 1.6)
    yaw, tilt = rng.uniform(-0.9, 0.9), rng.uniform(-0.3, 0.3)
    blocks = Pattern(0.5, rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.7), 0.6, rng.uniform(0.5, 0.9), 0.6, 0.2,
                     pick(rng, _SIGNS), 0.9)  # fmt: skip
    colour = pick(rng, _SIGNS)
    face = Material(colour, shade(colour, 0.7), grain=0.2, contrast=0.4, blotch=0.5, pattern=blocks)
    solids.prism((x, foot, z), (width, height, 0.04), face, yaw, tilt)
    for side in (-0.7, 0.7):
        lx, lz = _offset(x, z, yaw, side * width, 0.06)
        solids.cylinder((lx, (foot + 0.4) / 2, lz), 0.05, (foot + 0.4) / 2, METAL)


def pedestrian(solids: Solids, rng: Rng, x: float, z: float) -> None:
    height, yaw = rng.uniform(1.5, 1.9), rng.uniform(0, 2 * np.pi)
    coat, trousers = (Material(c := pick(rng, _CLOTHES, 0.3), shade(c, 0.6), 0.2, 0.6, 0.3) for _ in range(2))
    for side in (-0.1, 0.1):
        lx, lz = _offset(x, z, yaw, side, side * 1.5)
        solids.cylinder((lx, height * 0.24, lz), 0.08, height * 0.24, trousers)
    solids.ellipsoid((x, height * 0.65, z), (0.22, height * 0.22, 0.15), coat, yaw)
    solids.ellipsoid((x, height * 0.925, z), (0.09, height * 0.075, 0.1), SKIN, yaw)


def bin_or_box(solids: Solids, rng: Rng, x: float, z: float) -> None:
    colour = pick(rng, _PAINT, 0.3)
    half = (rng.uniform(0.2, 0.5), rng.uniform(0.35, 0.7), rng.uniform(0.2, 0.5))
    solids.prism((x, 0.0, z), half, Material(colour, shade(colour, 0.6), 0.2, 0.5, 0.4), rng.uniform(-0.6, 0.6))


def building(solids: Solids, rng: Rng, x: float, z: float, half: tuple[float, float], height: float) -> None:
    """A house with rows of windows, centre (x, z), half extents across and along the road; some have a gabled roof."""
    colour = pick(rng, _WALLS, 0.2)
    storey, spacing = rng.uniform(2.8, 3.4), rng.uniform(1.8, 3.4)
    storeys = max(2, round(height / storey))
    storey = height / storeys
    bright = rng.random() < 0.2
    pane = (0.35, 0.4, 0.45) if bright else (0.05, 0.06, 0.075)
    windows = Pattern(half[1] / max(1, round(half[1] / spacing)), half[0] / max(1, round(half[0] / spacing)),
                      storey, rng.uniform(0.38, 0.65), rng.uniform(0.38, 0.6), rng.uniform(0.4, 0.62),
                      storey * 0.55, pane, 0.7, gloss=_GLASS_GLOSS)  # fmt: skip
    wall = Material(
        colour, shade(colour, rng.uniform(0.6, 0.9)), rng.uniform(0.15, 0.4), rng.uniform(0.4, 0.7), 2.5, windows
    )
    solids.prism((x, 0.0, z), (half[0], height / 2, half[1]), wall)
    roof_colour = (0.20, 0.09, 0.06) if rng.random() < 0.6 else (0.12, 0.12, 0.13)
    roof = Material(roof_colour, shade(roof_colour, 0.7), grain=0.4, contrast=0.7, blotch=1.5)
    if rng.random() < 0.45:
        rise = rng.uniform(1.5, 3.0)
        solids.prism((x, height, z), (half[0] + 0.25, rise / 2, half[1]), roof, inset=(half[0] + 0.2, 0.0, 0.0))
    else:
        solids.prism((x, height, z), (half[0] + 0.15, 0.2, half[1]), roof)
