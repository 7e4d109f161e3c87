"""What a run is told of its data: a dataclass that the command line fills, and that every checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from adu_depth.errors import InputError
from adu_depth.schema import Length, Range, check_ranges

MOST = 10**8 - 1  # steps, scenes: eight digits, as checkpoints are named
MOST_AREA = 2**22
"""Pixels that a network is trained at, and works at afterwards: 2048×2048, several times what a GPU can train on."""
Side = Annotated[int, Range(32, 16_384)]
Text = Annotated[str, Length(4096)]


@dataclass(frozen=True)
class DataConfig:
    """Which pairs to train on, and how they are brought to one size."""

    root: Text = "synthetic"
    """A data set's folder, or "synthetic" for the built-in scenes."""
    layout: Text = "auto"
    """The folder's layout; "auto" recognises it."""
    split: Text = ""
    """A file that names the samples to use, one a line; KITTI's takes BTS's and Monodepth2's lists. Empty: all."""
    ground_truth: Text = ""
    """Folder of the ground truth where it is not in `root` (KITTI raw)."""
    kb_crop: bool = False
    """Cut every frame to KITTI's 352×1216 benchmark window first."""
    skip_missing: bool = False
    """Pass over, and count, frames whose files are not all there, instead of refusing them."""
    size: tuple[Side, Side] = (96, 320)
    """Height and width the network is trained at, multiples of 32."""
    fit: Literal["resize", "crop"] = "resize"
    """Bring images to `size` by resizing them, or by random crops at native resolution."""
    pairs: Annotated[int, Range(0, MOST)] = 0
    """Built-in scenes: how many different ones; 0 means endless, rendered on the training device."""
    scene_seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Built-in scenes: seed of the scenes, apart from the training's seed."""
    dense: bool = False
    """Supervise with the dense ground truth instead of the sparse (LiDAR) one."""

    def __post_init__(self) -> None:
        if len(self.size) != 2 or any(s <= 0 or s % 32 for s in self.size):
            raise InputError(f"data.size must be two positive multiples of 32 (height, width), got {self.size}")
        if self.pairs < 0:
            raise InputError(f"data.pairs must be 0 (endless) or more, got {self.pairs}")
        check_ranges(self, "data.")
        if self.size[0] * self.size[1] > MOST_AREA:
            raise InputError(f"data.size: expected at most {MOST_AREA:,} pixels, got {self.size[0]}×{self.size[1]}")
