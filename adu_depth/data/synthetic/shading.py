"""What colour a hit surface has: texture, paint and windows, sun and sky light, haze; and the sky itself.

Everything is a function of the 3-D point, so two cameras agree about it; patterns fade out before they get finer than
the pixels. All values are linear light; the camera turns them into a picture (photometry.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adu_depth.data.synthetic.noise import hash_uniform, surface_noise, value_noise
from adu_depth.data.synthetic.streets import MAX_LINES

Colour = list[Tensor]
_SQUEEZE = 12.0  # the most a surface's slant may stretch a pixel's footprint


@dataclass(frozen=True)
class Surfaces:
    """Per-pixel facts of what was hit, N×128 each: place in the solid's own axes (metres), normal in camera and local
    axes, size of a pixel on it (metres), 1 where it is the ground, and the columns of its material."""

    local: Colour
    normal: Colour
    local_normal: Colour
    footprint: Tensor
    is_ground: Tensor
    material: dict[str, Tensor]


def footprints(normal: Colour, x: Tensor, y: Tensor, depth: Tensor, focal: Tensor) -> Tensor:
    """Metres one pixel spans on a surface whose normal faces the camera: the larger of the span along the row and the
    mean of both spans. (Rows cut a surface at the same points in both views, columns do not.)"""
    facing = (normal[0] * x + normal[1] * y + normal[2]).clamp_max(-0.04)
    direction = x * x + y * y + 1.0
    across, down = normal[0] / facing, normal[1] / facing
    row = (1.0 - 2.0 * x * across + direction * across * across).clamp(1.0, _SQUEEZE**2).sqrt()
    column = (1.0 - 2.0 * y * down + direction * down * down).clamp(1.0, _SQUEEZE**2).sqrt()
    return depth / focal * torch.maximum(row, (row * column).sqrt())


def local_normal(q: Colour, depth: Tensor, m: dict[str, Tensor]) -> Colour:
    """Outward direction in local axes (any length). Near an edge of a prism its faces blend, as on a worn edge."""
    width = 0.012 + 4e-4 * depth
    flat = [torch.zeros_like(depth) for _ in range(3)]
    for k in range(6):
        away = m[f"plane_{k}_x"] * q[0] + m[f"plane_{k}_y"] * q[1] + m[f"plane_{k}_z"] * q[2] - m[f"plane_{k}_o"]
        share = (1.0 - away.abs() / width).clamp_min(1e-6)
        flat = [f + share * m[f"plane_{k}_{c}"] for f, c in zip(flat, "xyz", strict=True)]
    is_flat = torch.maximum(m["is_prism"], -m["ball"].clamp_max(0.0))
    on_cap = (q[1] * q[1] > q[0] * q[0] + q[2] * q[2]).float() * (1.0 - m["ball"])
    curved = [q[0] * (1.0 - on_cap), q[1] * torch.maximum(m["ball"], on_cap), q[2] * (1.0 - on_cap)]
    return [c + (f - c) * is_flat for c, f in zip(curved, flat, strict=True)]


def as_clouds(s: Surfaces, is_sky: Tensor, direction: Colour, focal: Tensor) -> Surfaces:
    """The same, with the place on a high layer of clouds where the ray meets the sky. direction: world axes."""
    rise = direction[1].clamp_min(0.0) + 0.15
    place = (direction[0] / rise, rise * 0.0, direction[2] / rise)
    local = [a + (b - a) * is_sky for a, b in zip(s.local, place, strict=True)]
    cloud_pixel = 6.0 / (focal * rise)
    return replace(s, local=local, footprint=s.footprint + (cloud_pixel - s.footprint) * is_sky)


def surfaces(m: dict[str, Tensor], point: Colour, ray: Colour, depth: Tensor, focal: Tensor) -> Surfaces:
    """What was hit, from the solid's columns m, the point, the ray to it, its depth, and the focal length."""
    relative = [p - m[f"centre_{c}"] for p, c in zip(point, "xyz", strict=True)]
    q = [_dot([m[f"frame_{i}{j}"] for j in range(3)], relative) for i in range(3)]
    outward = local_normal(q, depth, m)
    normal = [_dot([m[f"frame_{i}{j}"] for i in range(3)], outward) for j in range(3)]
    # Leaves are seen from inside as well: every normal is turned towards the camera.
    away = (_dot(normal, ray) > 0).float()
    gain = (1.0 - 2.0 * away) / _dot(normal, normal).sqrt().clamp_min(1e-9)
    normal = [n * gain for n in normal]
    return Surfaces(
        local=[a * m[f"scale_{c}"] for a, c in zip(q, "xyz", strict=True)],
        normal=normal,
        local_normal=outward,
        footprint=footprints(normal, ray[0], ray[1], depth, focal),
        is_ground=(m["ball"] < 0).float(),
        material=m,
    )


def _dot(a: Colour, b: Colour) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def stripe(distance: Tensor, half_width: Tensor | float, footprint: Tensor) -> Tensor:
    """Share of a pixel covered by a stripe whose middle is `distance` away, metres."""
    covered = ((half_width - distance.abs()) / footprint + 0.5).clamp(0.0, 1.0)
    return torch.minimum(covered, 2.0 * half_width / footprint)


def _rectangles(place: Tensor, period: Tensor, fill: Tensor, footprint: Tensor) -> tuple[Tensor, Tensor]:
    """(share covered by rectangles at every whole number of periods, which one). Fades to the mean when too fine."""
    phase = place / period
    index = (phase + 0.5).floor()
    covered = stripe((phase - index) * period, 0.5 * fill * period, footprint)
    fine = (footprint / period * 2.0 - 0.6).clamp(0.0, 1.0)
    return covered + (fill - covered) * fine, index


def paint_pattern(colour: Colour, gloss: Tensor, s: Surfaces, base: Tensor) -> tuple[Colour, Tensor]:
    """Windows and the like on upright faces of prisms: colour and gloss with them."""
    m = s.material
    side = (s.local_normal[0].abs() > s.local_normal[2].abs()).float()
    upright = (1.6 - 2.0 * s.local_normal[1].abs()).clamp(0.0, 1.0) * m["is_prism"]
    across = s.local[0] + (s.local[2] - s.local[0]) * side
    period = m["period_end"] + (m["period_side"] - m["period_end"]) * side
    fill = m["fill_end"] + (m["fill_side"] - m["fill_end"]) * side
    shift = 0.5 - 0.5 * m["middle_end"] * (1.0 - side)
    on_u, index_u = _rectangles(across - shift * period, period, fill, s.footprint)
    on_v, index_v = _rectangles(s.local[1] - base - m["start_up"], m["period_up"], m["fill_up"], s.footprint)
    key = index_u.int() * 7919 + index_v.int() * 104729 + m["texture_seed"].int() + side.int()
    bright = 1.0 + m["variety"] * (2.5 * hash_uniform(key) ** 3 - 0.4)
    share = on_u * on_v * upright
    names = ("pattern_r", "pattern_g", "pattern_b")
    painted = [c + (m[n] * bright - c) * share for c, n in zip(colour, names, strict=True)]
    return painted, gloss + (m["pattern_gloss"] - gloss) * share


def surface_colour(s: Surfaces, scene: dict[str, Tensor], world: Colour) -> tuple[Colour, Tensor, Tensor]:
    """Albedo and gloss at every pixel, and the noise that made its grain (which makes the clouds at sky pixels)."""
    m = s.material
    texture_seed = m["texture_seed"].int()
    grain = surface_noise(s.local, s.footprint, m["grain"], texture_seed)
    blotch = value_noise(*(p / m["blotch"] for p in s.local), texture_seed + 77)  # type: ignore[call-arg]
    share = (0.5 + 0.8 * blotch).clamp(0.0, 1.0)
    albedo = [m[f"base_{c}"] + (m[f"second_{c}"] - m[f"base_{c}"]) * share for c in "rgb"]
    albedo = road_colour(albedo, s, scene, world, share)
    albedo, gloss = paint_pattern(albedo, m["gloss"], s, m["base_height"])
    gain = (1.0 + m["contrast"] * grain).clamp_min(0.1)
    return [a * gain for a in albedo], gloss, grain


def road_colour(albedo: Colour, s: Surfaces, scene: dict[str, Tensor], world: Colour, share: Tensor) -> Colour:
    """Asphalt and painted lines on the ground between the road's edges."""
    x, z = world[0], world[2]
    middle, half = scene["road_middle"], scene["road_half"]
    on_road = ((half - (x - middle).abs()) / s.footprint + 0.5).clamp(0.0, 1.0) * s.is_ground
    paint = torch.zeros_like(x)
    dash = _rectangles(z, torch.full_like(z, 9.0), torch.full_like(z, 0.45), s.footprint)[0]
    for i in range(MAX_LINES):
        line = stripe(x - scene[f"line_{i}_x"], 0.07, s.footprint)
        paint = torch.maximum(paint, line * (1.0 + (dash - 1.0) * scene[f"line_{i}_dashed"]))
    paint = paint * on_road * 0.85
    result = []
    for c, a in zip("rgb", albedo, strict=True):
        asphalt = scene[f"asphalt_{c}"] + (scene[f"asphalt2_{c}"] - scene[f"asphalt_{c}"]) * share
        ground = a + (asphalt - a) * on_road
        result.append(ground + (0.55 - ground) * paint)
    return result


def light(
    albedo: Colour, s: Surfaces, scene: dict[str, Tensor], height: Tensor, normal_up: Tensor, sunlit: Tensor
) -> Colour:
    """Lambert: sun where it reaches, sky light from above, some light back from the ground, darker near the ground."""
    cosine = s.normal[0] * scene["sun_x"] + s.normal[1] * scene["sun_y"] + s.normal[2] * scene["sun_z"]
    sun = cosine.clamp_min(0.0) * sunlit
    contact = 1.0 - 0.45 * (1.0 - (height / 0.9).clamp(0.0, 1.0)) ** 2 * (1.0 - s.is_ground)
    sky = (0.62 + 0.38 * normal_up) * contact * (0.55 + 0.45 * sunlit)
    return [a * (sun * scene[f"light_{c}"] + sky * scene[f"sky_{c}"] * 0.9) for c, a in zip("rgb", albedo, strict=True)]


def sky_colour(up: Tensor, cloud: Tensor, scene: dict[str, Tensor]) -> Colour:
    """Gradient from the horizon, and clouds. up: sine of the ray's elevation."""
    rise = up.clamp(0.0, 1.0).sqrt()
    cover = ((cloud * 0.9 + scene["cloudiness"] * 1.6 - 0.8) * 1.5).clamp(0.0, 1.0)
    zenith, horizon, white = (0.22, 0.42, 0.85), (0.75, 0.82, 0.90), 0.92 + 0.25 * cloud
    day = [(h + (z - h) * rise) * (1.0 - cover) + white * cover for z, h in zip(zenith, horizon, strict=True)]
    return [c * scene["sky_gain"] for c in day]


def add_haze(colour: Colour, depth: Tensor, scene: dict[str, Tensor]) -> Colour:
    share = 1.0 - 1.0 / (1.0 + depth * scene["haze"] * 0.8)
    return [c + (h * scene["sky_gain"] - c) * share for c, h in zip(colour, (0.70, 0.75, 0.80), strict=True)]


_HEADLIGHT = (1.0, 0.95, 0.85)


def add_headlights(colour: Colour, albedo: Colour, s: Surfaces, scene: dict[str, Tensor], point: Colour) -> Colour:
    """Light from a lamp between the cameras, straight ahead, that falls with the square of the distance. point: in the
    left camera's axes."""
    away = [point[0] - 0.5 * scene["baseline"], point[1], point[2]]
    square = _dot(away, away)
    facing = (-_dot(s.normal, away) / square.clamp_min(1e-6).sqrt()).clamp_min(0.0)
    x, y = (c / away[2].clamp_min(0.1) for c in away[:2])
    cone = (1.0 - (x * x + 4.0 * (y - 0.05) ** 2) * 1.4).clamp(0.05, 1.0)
    strength = scene["headlights"] * facing * cone * 50.0 / (25.0 + square)
    return [c + a * h * strength for c, a, h in zip(colour, albedo, _HEADLIGHT, strict=True)]


def add_reflections(
    colour: Colour,
    gloss: Tensor,
    s: Surfaces,
    scene: dict[str, Tensor],
    ray: Colour,
    length: Tensor,
    to_world: Callable[[Colour], Colour],
) -> Colour:
    """What glossy surfaces mirror: the sky with its clouds, and below an uneven skyline dark houses and the ground. It
    is infinitely far: the views see it shifted against the surface, as they do real mirrors."""
    facing = (_dot(s.normal, ray) / length).clamp(-1.0, 0.0)
    mirrored = to_world([r / length - 2.0 * facing * n for r, n in zip(ray, s.normal, strict=True)])
    seed = scene["texture_seed"].int() + 4242
    x, y, z = mirrored
    cloud = value_noise(x * 6.0, y * 15.0, z * 6.0, seed)
    skyline = 0.18 + 0.22 * value_noise(x * 5.0, z * 5.0, torch.zeros_like(x), seed + 1)
    is_sky = ((y - skyline) * 30.0 + 0.5).clamp(0.0, 1.0)
    houses = 0.22 + 0.18 * value_noise(x * 14.0, y * 14.0, z * 14.0, seed + 2)
    sky = sky_colour(y, cloud, scene)
    share = scene["reflections"] * gloss * (0.12 + 0.88 * (1.0 + facing) ** 4)
    return [
        c + share * (houses * scene[f"sky_{n}"] * (1.0 - is_sky) + k * is_sky - 0.5 * c)
        for c, k, n in zip(colour, sky, "rgb", strict=True)
    ]
