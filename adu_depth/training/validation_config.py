"""What a training is told of its validation: a dataclass that the command line fills and config.json keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adu_depth.data.config import BUILT_IN, MOST, DataConfig, Text
from adu_depth.data.synthetic.sceneries import Scenery, require_scenery
from adu_depth.errors import InputError
from adu_depth.evaluation.metrics import DEPTH_METRICS, HU_METRICS, KITTI_DEPTH_METRICS, STEREO_METRICS
from adu_depth.evaluation.pair import CHOOSABLE
from adu_depth.evaluation.protocols import protocol_named
from adu_depth.schema import Range, check_ranges

METRICS = tuple(dict.fromkeys((*DEPTH_METRICS, *STEREO_METRICS, *KITTI_DEPTH_METRICS, *HU_METRICS, *CHOOSABLE)))
SCENES = 32
"""Built-in scenes where no number is given."""


@dataclass(frozen=True)
class ValidationConfig:
    """Measure the network on held-out samples while it trains; keep the best checkpoint, stop when nothing improves."""

    every: Annotated[int, Range(0, MOST)] = 0
    """Steps from one validation to the next; the last step has one in any case. 0: none (but see every_epochs)."""
    every_epochs: Annotated[float, Range(0, 1e6)] = 0.0
    """The same in passes over a finite data set; in place of `every`."""
    root: Text = "synthetic"
    """The held-out data set's folder, or "synthetic" for built-in scenes."""
    layout: Text = "auto"
    """The folder's layout; "auto" recognises it."""
    split: Text = ""
    """A file that names the held-out samples, one a line. Empty: all of the folder."""
    ground_truth: Text = ""
    """Folder of the ground truth where it is not in `root` (KITTI raw)."""
    kb_crop: bool = False
    """Cut every frame to KITTI's 352×1216 benchmark window first."""
    skip_missing: bool = False
    """Pass over, and count, frames whose files are not all there, instead of refusing them."""
    proxies: Text = ""
    """Folder of `adu-depth proxies`: pairs without ground truth are then measured against a classical matcher, where it
    is sure. That says whether a training goes well, and no more."""
    samples: Annotated[int, Range(0, MOST)] = 0
    """Look at so many samples at most, evenly spread over the data set; 0: at all (of built-in scenes at 32)."""
    scene_seed: Annotated[int, Range(0, 2**63 - 1)] = 3
    """Built-in scenes: their seed, which may not be the training's (`evaluate` has 2)."""
    scenery: Scenery = "usual"
    """Built-in scenes: usual or varied, whatever the training's are (data.scenery)."""
    protocol: Text = "auto"
    """Which pixels are looked at, and by which metrics: a protocol of `evaluate`; "auto": the data set's usual one, or
    "pair" where the metric is one of its, or a teacher's pairs have no ground truth."""
    min_depth: float = 1e-3
    """Metres; nearer truths do not count, nearer predictions are moved there."""
    max_depth: float = 80.0
    """Metres; farther truths do not count, farther predictions are moved there."""
    batch_size: Annotated[int, Range(1, 65_536)] = 8
    """Samples that are predicted together, where neighbours have one size."""
    metric: Text = "abs_rel"
    """Says which checkpoint is the best: an error (the lower, the better), or a1, a2, a3, delta1 … (the higher). Of
    teachers without ground truth: photometric, left_right, and with proxies proxy_epe, proxy_d1."""
    patience: Annotated[int, Range(0, MOST)] = 0
    """End the run after so many validations without a better one; 0: never."""
    pictures: Annotated[int, Range(0, 64)] = 4
    """Samples, the same each time, whose predictions are drawn: to RUN/validation, TensorBoard and trackers."""

    @property
    def on(self) -> bool:
        return bool(self.every or self.every_epochs)

    def __post_init__(self) -> None:
        check_ranges(self, "validation.")
        if self.every and self.every_epochs:
            raise InputError(
                f"validation.every_epochs: give this or validation.every, not both, got {self.every_epochs:g} "
                f"and {self.every}"
            )
        asked = {
            "patience": self.patience > 0,
            "root": self.root != "synthetic",
            "split": self.split != "",
            "proxies": self.proxies != "",
        }
        for name in (name for name, given in asked.items() if given and not self.on):
            raise InputError(f"validation.{name}: nothing is validated, set validation.every (or every_epochs) too")
        if self.proxies and self.root == "synthetic":
            told = "they are for a data set's folder, and validation.root is the built-in scenes"
            raise InputError(f"validation.proxies {self.proxies}: {told}")
        of = f"validation.root {self.root}"
        require_scenery(self.scenery, self.root == BUILT_IN, "validation.scenery", of)
        if not 0 < self.min_depth < self.max_depth:
            raise InputError(
                "validation.min_depth: expected 0 < min_depth < max_depth, "
                f"got {self.min_depth:g} and {self.max_depth:g}"
            )
        if self.metric not in METRICS:
            raise InputError(f"validation.metric: expected one of {', '.join(METRICS)}, got {self.metric!r}")
        if self.protocol != "auto":
            protocol_named(self.protocol)


def require_other_scenes(validation: ValidationConfig, data: DataConfig) -> None:
    """InputError where the built-in scenes to validate on are those of the training, or of a set that is mixed in."""
    if not validation.on or validation.root != "synthetic":
        return
    seeds = [source.scene_seed for source in data.mix if source.root == "synthetic"]
    seeds += [data.scene_seed] if data.root == "synthetic" else []
    if validation.scene_seed in seeds:
        raise InputError(
            f"validation.scene_seed: {validation.scene_seed} is that of the training's scenes (data.scene_seed, "
            "data.mix); take another"
        )
