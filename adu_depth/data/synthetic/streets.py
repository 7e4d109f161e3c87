"""What is drawn for each pair, and the tables that carry a batch of it to the device."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from adu_depth.data.synthetic.config import PhotometryConfig, Rig, RigConfig, SceneryConfig
from adu_depth.data.synthetic.photometry import draw_cameras, make_noisier
from adu_depth.data.synthetic.scene import Scene, build_scene
from adu_depth.data.synthetic.scenery import add_scenery
from adu_depth.data.synthetic.shapes import MATERIAL_COLUMNS, Material, SolidArrays, material_row, to_arrays

MAX_LINES = 6
OBJECT_COLUMNS = (
    *(f"frame_{i}{j}" for i in range(3) for j in range(3)),
    *("centre_x", "centre_y", "centre_z", "scale_x", "scale_y", "scale_z"),
    *("ball", "base_height", "is_prism", "texture_seed"),
    *(f"plane_{k}_{c}" for k in range(6) for c in "xyzo"),
    *MATERIAL_COLUMNS,
)


@dataclass(frozen=True)
class Street:
    """Everything drawn for one pair. cameras: 2×10, see photometry. phase: where the scanner's turn starts."""

    scene: Scene
    rig: Rig
    arrays: SolidArrays
    cameras: np.ndarray
    phase: float


def draw_street(
    rng: np.random.Generator,
    height: int,
    width: int,
    rig_config: RigConfig,
    photometry: PhotometryConfig,
    scenery: SceneryConfig,
    scenery_rng: np.random.Generator,
) -> Street:
    """One street and the rig that looks at it. The order of draws is part of what a seed means; what photometry and
    scenery add to the usual comes from a generator of its own, so that the street stays the same."""
    rig = rig_config.draw(rng, height, width)
    cameras = draw_cameras(photometry, rng, scenery_rng)
    phase = float(rng.uniform())
    scene = build_scene(rng, float(rig.camera.fx))
    add_scenery(scene, scenery_rng, scenery)
    make_noisier(cameras, scene.noise_gain)
    arrays = to_arrays(scene.solids, rig.rotation(), np.array([0.0, rig.height, 0.0]))
    return Street(scene, rig, arrays, cameras, phase)


def scene_facts(street: Street) -> dict[str, float]:
    """Numbers that hold for a whole pair; `sun_*` and `turn_*` (world to camera) in camera axes."""
    scene, rig = street.scene, street.rig
    turn = rig.rotation()
    facts = {
        "fx": float(rig.camera.fx), "fy": float(rig.camera.fy), "cx": float(rig.camera.cx), "cy": float(rig.camera.cy),
        "baseline": float(rig.camera.baseline), "height": rig.height, "phase": street.phase,
        "texture_seed": float(scene.texture_seed % (1 << 23)), "haze": scene.haze, "cloudiness": scene.cloudiness,
        "headlights": scene.headlights, "reflections": scene.reflections, "sky_gain": scene.sky_gain,
        "road_middle": (scene.road[0] + scene.road[1]) / 2, "road_half": (scene.road[1] - scene.road[0]) / 2,
    }  # fmt: skip
    facts |= {f"turn_{i}{j}": turn[i, j] for i in range(3) for j in range(3)}
    facts |= {f"sun_{c}": value for c, value in zip("xyz", turn @ np.array(scene.sun), strict=True)}
    for i, c in enumerate("rgb"):
        facts |= {f"asphalt_{c}": scene.asphalt.base[i], f"asphalt2_{c}": scene.asphalt.second[i]}
        facts |= {f"light_{c}": scene.sun_colour[i], f"sky_{c}": scene.sky_colour[i]}
    for i in range(MAX_LINES):
        x, dashed = scene.lines[i] if i < len(scene.lines) else (1e3, False)
        facts |= {f"line_{i}_x": x, f"line_{i}_dashed": float(dashed)}
    return facts


def concatenate(arrays: list[SolidArrays]) -> SolidArrays:
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


def object_table(
    streets: list[Street], a: SolidArrays, prism_scene: np.ndarray, round_scene: np.ndarray
) -> np.ndarray:  # fmt: skip
    """columns×objects: the grounds and the skies of all scenes, all prisms, all rounds."""
    n, m = len(a.planes), len(a.ball)
    solid_seeds = []
    for scene in (prism_scene, round_scene):
        first = np.searchsorted(scene, scene)
        seeds = np.array([s.scene.texture_seed for s in streets])[scene]
        solid_seeds.append((np.arange(len(scene)) - first) * 4099 + seeds)
    solids = np.concatenate(
        [
            a.frames.reshape(-1, 9),
            a.centres,
            a.scale,
            np.concatenate([np.zeros(n), a.ball])[:, None],
            a.base[:, None],
            np.concatenate([np.ones(n), np.zeros(m)])[:, None],
            (np.concatenate(solid_seeds) % (1 << 23))[:, None],
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
    facts = [1.0, 1.0, 1.0, -1.0, 0.0, 0.0, street.scene.texture_seed % (1 << 23)]
    return [*turn.T.reshape(-1), *centre, *facts, *planes.reshape(-1), *material_row(material)]
