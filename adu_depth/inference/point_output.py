"""What `predict` writes of an image's points: a PLY beside its pictures, a frame of a recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from adu_depth.data.camera_file import ALL_NEEDED
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference.point_cloud import PointCloudConfig, PointFrame, point_cloud, write_ply
from adu_depth.inference.recording import Recording
from adu_depth.inference.render import to_uint8


@dataclass(frozen=True)
class PointOutput:
    """Where points go, and which. The recording is opened and closed by whoever gives it.

    Example:
        >>> PointOutput(PointCloudConfig(max_depth=30.0)).ply
        True
    """

    needed: ClassVar[tuple[str, ...]] = ALL_NEEDED
    """The numbers of a camera that points are made by."""

    cuts: PointCloudConfig = field(default_factory=PointCloudConfig)
    ply: bool = True
    """Whether NAME_points.ply is written beside the pictures."""
    recording: Recording | None = None

    def require(self, predicts_uncertainty: bool) -> None:
        """InputError for a cut by an uncertainty that the network does not predict."""
        if self.cuts.max_uncertainty is not None and not predicts_uncertainty:
            raise InputError("points.max_uncertainty: it is for the uncertainty, and this network predicts none")

    def frame(
        self, left: Tensor, depth: np.ndarray, camera: Camera, log_scale: np.ndarray | None, name: str | Path
    ) -> PointFrame:
        """What is to be written of a 3×H×W image in [0, 1] and its H×W maps. InputError, with `name`, where no point is
        left."""
        picture = to_uint8(left)
        return PointFrame(picture, camera, depth, point_cloud(depth, picture, camera, log_scale, self.cuts, name))

    def write(self, path: Path, name: str, frame: PointFrame) -> list[Path]:
        """Writes the points of the image `name`, to `path` if they go to a PLY; returns the files written."""
        if self.ply:
            write_ply(path, frame)
        if self.recording is not None:
            self.recording.add(name, frame)
        return [path] if self.ply else []
