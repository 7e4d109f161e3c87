"""Points in space for a browser: a GLB, the binary form of glTF 2.0."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adu_depth.export.extras import needed
from adu_depth.files import replacing
from adu_depth.inference.point_cloud import PointCloud

MOST_DRAWN = 400_000
"""Points that a browser still turns smoothly without a graphics card."""


def write_glb(path: Path, cloud: PointCloud) -> int:
    """Writes the points with their colours; returns how many: of more than MOST_DRAWN so many, spread over them all.

    glTF has y up and z towards the viewer; a camera here y down and z ahead. Raises InputError where trimesh is not
    installed.
    """
    trimesh = needed("trimesh", "app", "the page's points")
    count = len(cloud.positions)
    taken = np.linspace(0, count - 1, min(count, MOST_DRAWN)).astype(int)
    positions = cloud.positions[taken] * np.array([1.0, -1.0, -1.0], np.float32)
    points = trimesh.points.PointCloud(positions, colors=cloud.colours[taken])
    with replacing(path) as temporary:
        temporary.write_bytes(trimesh.Scene(points).export(file_type="glb"))
    return len(taken)
