"""A drive through one built-in street: what a clip's frames show, with the depth of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.synthetic import PhotometryConfig, SyntheticStereo
from adu_depth.data.synthetic.config import Rig
from adu_depth.data.synthetic.photometry import develop
from adu_depth.data.synthetic.render import Renderer
from adu_depth.data.synthetic.shapes import to_arrays
from adu_depth.data.synthetic.streets import Street
from adu_depth.geometry import Camera


def street(height: int, width: int, seed: int = 0) -> SyntheticStereo:
    """Streets as ideal cameras see them: without noise, which would be the same in every frame."""
    return SyntheticStereo(1, height, width, seed=seed, photometry=PhotometryConfig.off())


@torch.no_grad()
def drive(scenes: SyntheticStereo, metres: list[float], degrees: list[float]) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Per frame the picture, 3×H×W in [0, 1], and its depth, H×W metres, 0 in the sky.

    metres: how far ahead along the road the camera is; degrees: how far it has turned. Nothing else in the street
    moves.
    """
    start = scenes._street(0)
    for ahead, turned in zip(metres, degrees, strict=True):
        rig = replace(start.rig, heading=start.rig.heading + float(np.deg2rad(turned)))
        here = replace_rig(start, rig)
        r = Renderer([here], scenes.height, scenes.width, torch.device("cpu"))
        origin = (rig.rotation() @ np.array([0.0, 0.0, ahead]))[None]
        w, identity = r.nearest(origin)
        picture = develop(r.shade(origin, w, identity), r.upload(np.stack([here.cameras]))[:, 0], plain=True)[0]
        yield picture, r.grid.to_image(r.depth(w) * (w > 0))[0].numpy()


def replace_rig(start: Street, rig: Rig) -> Street:
    """The same street seen by a turned rig."""
    arrays = to_arrays(start.scene.solids, rig.rotation(), np.array([0.0, rig.height, 0.0]))
    return replace(start, rig=rig, arrays=arrays)


def camera_of(scenes: SyntheticStereo) -> Camera:
    return scenes._street(0).rig.camera
