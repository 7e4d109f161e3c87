"""The kinds of built-in scenes that can be asked for by name."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from adu_depth.data.synthetic.config import RigConfig, SceneryConfig
from adu_depth.data.synthetic.dataset import SyntheticStereo
from adu_depth.errors import InputError

Scenery = Literal["usual", "varied"]

VARIED: dict[str, Any] = {
    "rig": RigConfig(
        focal=(0.45, 0.9),
        baseline=(0.2, 0.7),
        principal_x=(0.44, 0.56),
        principal_y=(0.4, 0.56),
        height=(1.0, 2.4),
        pitch=(-3.0, 4.0),
        heading=(-10.0, 10.0),
    ),
    "scenery": SceneryConfig(near=0.5),
}
"""Other cameras, and things near them: what a teacher of these scenes gains from on real pairs (README.md)."""


def require_scenery(scenery: str, built_in: bool, name: str, source: str) -> None:
    """InputError for a kind that is asked for where no built-in scenes are.

    name: the setting's, for messages; source: the setting that says which data set it is.
    """
    if scenery != "usual":
        refuse_beside_folder(scenery, built_in, name, source)


def refuse_beside_folder(value: object, built_in: bool, name: str, source: str) -> None:
    """InputError for a setting of the built-in scenes that is given a `value` where there are none, see
    `require_scenery`: it would be ignored."""
    if not built_in:
        raise InputError(f"{name} {value} is for the built-in scenes, and {source} is a data set's folder")


def built_in_scenes(
    scenery: str, length: int | None, height: int, width: int, seed: int = 0, device: torch.device | str = "cpu"
) -> SyntheticStereo:
    """Built-in scenes of a kind: "usual", a KITTI-like car by day, or "varied" (`VARIED`). See SyntheticStereo.

    Raises:
        InputError: another kind, and what SyntheticStereo refuses.

    Example:
        >>> built_in_scenes("varied", 8, 64, 128, seed=1)[0].left.shape
        torch.Size([3, 64, 128])
    """
    if scenery not in get_args(Scenery):
        raise InputError(f"scenery: expected one of {', '.join(get_args(Scenery))}, got {scenery!r}")
    options = VARIED if scenery == "varied" else {}
    return SyntheticStereo(length, height, width, seed=seed, device=device, **options)
