"""Solids a scene is made of, and what they look like. Collected in world axes, handed over as arrays.

Two kinds of convex solid are enough for a street: a *prism* (six planes: boxes, car cabins, gabled roofs) and a
*round* (ellipsoid or cylinder). A round may be leafy: only the part of its surface where a noise is high exists.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Vec = tuple[float, float, float]
NO_CUT = -10.0


@dataclass(frozen=True)
class Pattern:
    """A grid of rectangles on upright faces: windows, lamps, stripes.

    period_side, period_end: metres between rectangles on the faces to the sides (x) and at the ends (z), with a gap in
    the middle of the face, or a rectangle for `middle_end`. period_up: metres between rows. fill_side, fill_end,
    fill_up: share of the period covered. start_up: metres from the solid's base to the first row's middle.
    colour: of the rectangles, linear RGB. variety: how much single rectangles differ in brightness. gloss: theirs, as
    Material's.
    """

    period_side: float
    period_end: float
    period_up: float
    fill_side: float
    fill_end: float
    fill_up: float
    start_up: float
    colour: Vec
    variety: float = 0.0
    middle_end: bool = False
    gloss: float = 0.0


NO_PATTERN = Pattern(1e3, 1e3, 1e3, 0.0, 0.0, 0.0, 0.0, (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Material:
    """base, second: linear RGB between which large blotches blend. grain: metres, the texture's largest wavelength.
    contrast: of the grain. blotch: metres, the blotches' size. gloss: share of light that is mirrored, from 0 to 1, in
    scenes with reflections."""

    base: Vec
    second: Vec
    grain: float = 0.5
    contrast: float = 0.5
    blotch: float = 2.0
    pattern: Pattern = NO_PATTERN
    gloss: float = 0.0


MATERIAL_COLUMNS = (
    *("base_r", "base_g", "base_b", "second_r", "second_g", "second_b", "grain", "contrast", "blotch"),
    *("period_side", "period_end", "period_up", "fill_side", "fill_end", "fill_up", "start_up"),
    *("pattern_r", "pattern_g", "pattern_b", "variety", "middle_end", "gloss", "pattern_gloss"),
)


def material_row(m: Material) -> tuple[float, ...]:
    p = m.pattern
    return (
        *(*m.base, *m.second, m.grain, m.contrast, m.blotch),
        *(p.period_side, p.period_end, p.period_up, p.fill_side, p.fill_end, p.fill_up, p.start_up),
        *(*p.colour, p.variety, float(p.middle_end), m.gloss, p.gloss),
    )


@dataclass
class Solids:
    """Growing lists of solids. Positions in metres: x to the right of the road, y up from it, z along it."""

    prisms: list[tuple[float, ...]] = field(default_factory=list)
    prism_materials: list[tuple[float, ...]] = field(default_factory=list)
    rounds: list[tuple[float, ...]] = field(default_factory=list)
    round_materials: list[tuple[float, ...]] = field(default_factory=list)

    def prism(
        self,
        base: Vec,
        half: Vec,
        material: Material,
        yaw: float = 0.0,
        tilt: float = 0.0,
        inset: Vec = (0.0, 0.0, 0.0),
    ) -> None:
        """A box with its base centre at `base` and half extents `half`, turned by `yaw` about the vertical, then leant
        by `tilt` (radians). inset: how far the top is drawn in at each side, at the far (+z) and at the near end."""
        self.prisms.append((*base, *half, yaw, tilt, *inset))
        self.prism_materials.append(material_row(material))

    def ellipsoid(self, centre: Vec, radii: Vec, material: Material, yaw: float = 0.0, leaf: float = 0.0,
                  leaf_size: float = 1.0) -> None:  # fmt: skip
        """leaf: share of the surface cut away, 0 = solid. leaf_size: metres, wavelength of the cut-out."""
        cut = NO_CUT if leaf <= 0 else (leaf - 0.5) * 1.2
        self.rounds.append((*centre, *radii, yaw, 0.0, 1.0, cut, leaf_size))
        self.round_materials.append(material_row(material))

    def cylinder(self, centre: Vec, radius: float, half_length: float, material: Material, axis: str = "y",
                 yaw: float = 0.0) -> None:  # fmt: skip
        """axis: "y" stands up, "x" lies across the solid's own forward direction."""
        roll = 0.0 if axis == "y" else np.pi / 2
        self.rounds.append((*centre, radius, half_length, radius, yaw, roll, 0.0, NO_CUT, 1.0))
        self.round_materials.append(material_row(material))


def _turn(yaw: np.ndarray, tilt: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """n×3×3 rotations, local to world: about z by roll, about x by tilt, then about the vertical by yaw."""
    n = yaw.shape[0]
    zero, one = np.zeros(n), np.ones(n)

    def stack(*rows: np.ndarray) -> np.ndarray:
        return np.stack(rows, -1).reshape(n, 3, 3)

    cy, sy, ct, st, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt), np.cos(roll), np.sin(roll)
    about_y = stack(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    about_x = stack(one, zero, zero, zero, ct, -st, zero, st, ct)
    about_z = stack(cr, -sr, zero, sr, cr, zero, zero, zero, one)
    return about_y @ about_x @ about_z


_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)


@dataclass(frozen=True)
class SolidArrays:
    """All solids of a scene in camera axes (float64). n prisms, m rounds.

    planes: n×6×4, outward normal and offset, inside is normal·p <= offset. local_planes: the same in local axes.
    frames: (n+m)×3×3 and centres (n+m)×3: local = frame @ (p − centre); a round's local surface is the unit sphere or
    the unit cylinder about y. scale: (n+m)×3, local to metres. corners: (n+m)×8×3 of a bounding box.
    ball: m, 1 for an ellipsoid, 0 for a cylinder. cut, leaf_size: m. materials: (n+m)×columns.
    base: (n+m), local y of the solid's base, in metres.
    """

    planes: np.ndarray
    local_planes: np.ndarray
    frames: np.ndarray
    centres: np.ndarray
    scale: np.ndarray
    corners: np.ndarray
    ball: np.ndarray
    cut: np.ndarray
    leaf_size: np.ndarray
    materials: np.ndarray
    base: np.ndarray


def to_arrays(solids: Solids, rotation: np.ndarray, position: np.ndarray) -> SolidArrays:
    """Solids in the axes of a camera at `position` (world) with world-to-camera `rotation`."""
    prism = np.array(solids.prisms, dtype=np.float64).reshape(-1, 11)
    half, inset = prism[:, 3:6], prism[:, 8:11]
    turn = _turn(prism[:, 6], prism[:, 7], np.zeros(len(prism)))
    centre = prism[:, :3] + np.einsum("nij,nj->ni", turn, half * np.array([0.0, 1.0, 0.0]))
    local_planes = _prism_planes(half, inset)
    frame = np.einsum("nji,kj->nik", turn, rotation)
    centre_c = (centre - position) @ rotation.T
    normal_c = np.einsum("nkj,nji->nki", local_planes[..., :3], frame)
    offset_c = local_planes[..., 3] + np.einsum("nki,ni->nk", normal_c, centre_c)
    planes = np.concatenate([normal_c, offset_c[..., None]], -1)
    corners = centre_c[:, None] + np.einsum("ncj,nji->nci", _CORNERS * half[:, None], frame)

    rnd = np.array(solids.rounds, dtype=np.float64).reshape(-1, 11)
    radii = rnd[:, 3:6]
    round_turn = np.einsum("nji,kj->nik", _turn(rnd[:, 6], np.zeros(len(rnd)), rnd[:, 7]), rotation)
    round_c = (rnd[:, :3] - position) @ rotation.T
    round_corners = round_c[:, None] + np.einsum("ncj,nji->nci", _CORNERS * radii[:, None], round_turn)
    return SolidArrays(
        planes=planes,
        local_planes=local_planes,
        frames=np.concatenate([frame, round_turn / radii[..., None]]),
        centres=np.concatenate([centre_c, round_c]),
        scale=np.concatenate([np.ones_like(half), radii]),
        corners=np.concatenate([corners, round_corners]),
        ball=rnd[:, 8],
        cut=rnd[:, 9],
        leaf_size=rnd[:, 10],
        materials=np.array(solids.prism_materials + solids.round_materials).reshape(-1, len(MATERIAL_COLUMNS)),
        base=np.concatenate([-half[:, 1], -radii[:, 1]]),
    )


def _prism_planes(half: np.ndarray, inset: np.ndarray) -> np.ndarray:
    """n×6×4 planes in local axes; each leaning plane runs through the base's edge."""
    n = half.shape[0]
    hx, hy, hz = half.T
    zero = np.zeros(n)
    normals = np.stack(
        [
            np.stack([2 * hy, inset[:, 0], zero], -1),
            np.stack([-2 * hy, inset[:, 0], zero], -1),
            np.stack([zero, inset[:, 1], 2 * hy], -1),
            np.stack([zero, inset[:, 2], -2 * hy], -1),
            np.stack([zero, zero + 1, zero], -1),
            np.stack([zero, zero - 1, zero], -1),
        ],
        1,
    )
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    point = np.stack(
        [
            np.stack([hx, -hy, zero], -1),
            np.stack([-hx, -hy, zero], -1),
            np.stack([zero, -hy, hz], -1),
            np.stack([zero, -hy, -hz], -1),
            np.stack([zero, hy, zero], -1),
            np.stack([zero, -hy, zero], -1),
        ],
        1,
    )
    return np.concatenate([normals, (normals * point).sum(-1, keepdims=True)], -1)
