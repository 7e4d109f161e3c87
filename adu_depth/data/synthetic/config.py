"""What can be chosen about the built-in scenes: the rig, the differences between the views, the scanner."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np

from adu_depth import schema
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.schema import check_ranges

Range = tuple[float, float]
Share = Annotated[float, schema.Range(0, 1)]
Deviation = Annotated[float, schema.Range(0, 0.5)]
Defocus = Annotated[float, schema.Range(0, 0.3)]
Vignette = Annotated[float, schema.Range(0, 0.9)]
Quality = Annotated[float, schema.Range(0, 100)]
Elevation = Annotated[float, schema.Range(-89, 89)]
KITTI_WIDTH = 1242.0


def _check_ranges(config: object, minimum: dict[str, float]) -> None:
    """InputError for what `check_ranges` refuses, and for a (low, high) pair that is not ordered, finite and at least
    its minimum."""
    check_ranges(config, f"{type(config).__name__}.")
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if not isinstance(value, tuple | list):
            continue
        name = f"{type(config).__name__}.{field.name}"
        if not all(np.isfinite(value)) or value[0] > value[1]:
            raise InputError(f"{name} must be a finite (low, high) pair with low <= high, got {value}")
        if value[0] < minimum.get(field.name, -np.inf):
            raise InputError(f"{name} must be at least {minimum[field.name]}, got {value}")


@dataclass(frozen=True)
class RigConfig:
    """Ranges (low, high) from which each pair's rig is drawn uniformly; equal ends fix a value.

    focal: focal length in image widths (KITTI: 721.5 / 1242). baseline: metres.
    principal_x, principal_y: principal point in image widths and heights. height: camera above the road, metres.
    pitch: degrees, positive looks down. heading: degrees between the viewing direction and the road.
    Both views share the rotation and the focal length: the pair is rectified by construction.
    """

    focal: Range = (721.5 / KITTI_WIDTH, 721.5 / KITTI_WIDTH)
    baseline: Range = (0.54, 0.54)
    principal_x: Range = (0.49, 0.49)
    principal_y: Range = (0.46, 0.46)
    height: Range = (1.58, 1.72)
    pitch: Range = (-0.8, 0.8)
    heading: Range = (-4.0, 4.0)

    def __post_init__(self) -> None:
        _check_ranges(self, {"focal": 0.05, "baseline": 0.01, "height": 0.5})
        if max(map(abs, self.pitch)) > 15 or max(map(abs, self.heading)) > 30:
            raise InputError(
                f"RigConfig: |pitch| may be at most 15 and |heading| 30 degrees, got {self.pitch}, {self.heading}"
            )

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Rig:
        """One rig for an image of this size."""
        focal = float(rng.uniform(*self.focal)) * width
        baseline = float(rng.uniform(*self.baseline))
        cx = float(rng.uniform(*self.principal_x)) * width
        cy = float(rng.uniform(*self.principal_y)) * height
        return Rig(
            Camera(fx=focal, fy=focal, cx=cx, cy=cy, baseline=baseline),
            height=float(rng.uniform(*self.height)),
            pitch=float(np.deg2rad(rng.uniform(*self.pitch))),
            heading=float(np.deg2rad(rng.uniform(*self.heading))),
        )


@dataclass(frozen=True)
class Rig:
    """One drawn rig: the camera, its height above the road in metres, pitch and heading in radians."""

    camera: Camera
    height: float
    pitch: float
    heading: float

    def rotation(self) -> np.ndarray:
        """3×3 from world axes (x right of the road, y up, z along it) to camera axes (x right, y down, z ahead)."""
        sin_p, cos_p, sin_h, cos_h = np.sin(self.pitch), np.cos(self.pitch), np.sin(self.heading), np.cos(self.heading)
        right = (cos_h, 0.0, -sin_h)
        down = (-sin_p * sin_h, -cos_p, -sin_p * cos_h)
        ahead = (cos_p * sin_h, -sin_p, cos_p * cos_h)
        return np.array([right, down, ahead])


@dataclass(frozen=True)
class PhotometryConfig:
    """How the two views' pictures differ although they show the same scene.

    exposure: log-gain of both views (standard deviation). exposure_difference, gamma_difference, colour_difference:
    standard deviation of the right view's log-gain, log-gamma and per-channel log-gain against the left's.
    noise: (low, high) standard deviation of the sensor noise at white, drawn per pair, independent per view and pixel.
    blur: share of light that the optics move to the neighbouring pixel on each side, per axis.
    defocus: (low, high) more of that, drawn per view. rolling: standard deviation of the log-gain between a picture's
    first and last row, per view, as where exposure changes while the rows are read. vignette: (low, high) share of
    light that the corners lack, drawn per pair. jpeg: (low, high) quality from 1 to 100 that both pictures are
    compressed with, drawn per pair, of which one in two is; (0, 0): never.
    """

    exposure: Deviation = 0.12
    exposure_difference: Deviation = 0.05
    gamma_difference: Deviation = 0.03
    colour_difference: Deviation = 0.02
    noise: Range = (0.004, 0.014)
    blur: Deviation = 0.1
    defocus: tuple[Defocus, Defocus] = (0.0, 0.0)
    rolling: Deviation = 0.0
    vignette: tuple[Vignette, Vignette] = (0.0, 0.0)
    jpeg: tuple[Quality, Quality] = (0.0, 0.0)

    def __post_init__(self) -> None:
        _check_ranges(self, {"noise": 0.0})
        if self.jpeg[1] and self.jpeg[0] < 1:
            raise InputError(f"PhotometryConfig.jpeg: expected qualities from 1 to 100, or (0, 0), got {self.jpeg}")

    @classmethod
    def off(cls) -> PhotometryConfig:
        """Two ideal cameras: both pictures show the shaded surfaces as they are."""
        return cls(0.0, 0.0, 0.0, 0.0, (0.0, 0.0), 0.0)


@dataclass(frozen=True)
class SceneryConfig:
    """What streets hold beside the usual, each as the share of the scenes that have it.

    low_sun: morning and evening light (where it is not night). night: headlights, dark sky, much noise. reflections:
    glass and paint that mirror. thin: wires, railings, rods. repeated: equal windows and bars close together. near:
    things within metres.
    """

    low_sun: Share = 0.0
    night: Share = 0.0
    reflections: Share = 0.0
    thin: Share = 0.0
    repeated: Share = 0.0
    near: Share = 0.0

    def __post_init__(self) -> None:
        check_ranges(self, "SceneryConfig.")


@dataclass(frozen=True)
class LidarConfig:
    """A spinning scanner above the camera, HDL-64E-like: beams fan out over an elevation range.

    beams: number of scan lines; None scales 64 with the root of the image width, so that small training pictures
    get fewer lines and the measured share of pixels stays alike. azimuth_step: degrees; None scales 0.06 likewise.
    elevation: (lowest, highest) in degrees. above, behind: position against the left camera, metres.
    drop_out: share of returns lost at random. noise: metres, and noise_relative: share of the range (both standard
    deviations). max_range: metres.
    """

    beams: Annotated[int, schema.Range(2, 100_000)] | None = None
    azimuth_step: Annotated[float, schema.Range(0, 90, above=True)] | None = None
    elevation: tuple[Elevation, Elevation] = (-24.8, 2.0)
    above: float = 0.08
    behind: float = 0.27
    drop_out: Share = 0.1
    noise: float = 0.015
    noise_relative: float = 0.0003
    max_range: float = 80.0

    def __post_init__(self) -> None:
        _check_ranges(self, {})
        if self.elevation[0] == self.elevation[1]:
            raise InputError(f"LidarConfig.elevation must be two angles, got {self.elevation}")

    def steps(self, width: int) -> tuple[float, float]:
        """(elevation step, azimuth step) in radians for an image of this width."""
        scale = KITTI_WIDTH / width
        beams = self.beams if self.beams is not None else max(8, round(64 / scale**0.5))
        azimuth = self.azimuth_step if self.azimuth_step is not None else 0.06 * scale**1.5
        return float(np.deg2rad((self.elevation[1] - self.elevation[0]) / (beams - 1))), float(np.deg2rad(azimuth))
