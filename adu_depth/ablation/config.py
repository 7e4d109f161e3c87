"""What an ablation is told: a dataclass that the command line fills and ablation.json keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from adu_depth.data.config import MOST, Side, Text
from adu_depth.errors import InputError
from adu_depth.models.ranges import MOST_PIXELS
from adu_depth.schema import Range, check_ranges

PresetName = Literal["light-indoor", "adu"]
Optional = Annotated[int, Range(0, MOST)]
Rate = Annotated[float, Range(0, 1e3)]


@dataclass(frozen=True)
class IndoorConfig:
    """light-indoor: the pictures. A folder of lists image,depth without a header: train.csv (X), test.csv, and where
    there are such val.csv, unlabelled.csv (U) and labelled.csv (U′, a second set with depth)."""

    root: Text = ""
    """The folder. depth.toml beside the lists says the scale of its depth maps, else depth-scale does."""
    depth_scale: Annotated[float, Range(0, 1e6, above=True)] = 1000.0
    """Stored values per metre where there is no depth.toml."""
    test_place: Text = "unlabelled/holo"
    """Folder of the pictures of unlabelled.csv that show the place that is tested on: rows with U are trained without
    and with them, and say which. "": none is known."""


@dataclass(frozen=True)
class LightRowsConfig:
    """light-indoor: the networks."""

    encoder_weights: Text = ""
    """The student's encoder begins with ImageNet's MobileNetV2 from here, see `distill --model.encoder-weights`; else
    with random weights, which is said."""
    teacher_network: Literal["light-teacher", "light"] = "light-teacher"
    """The teacher: the published ResNet-34, or the student's own network, trained longer."""
    teacher_weights: Text = ""
    """The same for the teacher; of the student's own network encoder-weights are taken where this is empty."""
    reference_focal: Annotated[float, Range(0, MOST_PIXELS, above=True)] | None = None
    """Pixels, at the size that is trained at: depth is scaled by each camera's focal length over it, of the teacher too
    (`distill --model.reference-focal`). Every picture then needs a camera.toml; the published networks read none."""
    truth_share: Annotated[float, Range(0, 1)] = 0.1
    """λ in λ·L(student, truth) + (1 − λ)·L(student, teacher)."""
    unlabelled_share: Annotated[float, Range(0.001, 0.999)] = 0.5
    """Share of the samples that are from U (or U′) where X is there too."""


@dataclass(frozen=True)
class ScenesConfig:
    """adu: the built-in scenes."""

    pairs: Annotated[int, Range(1, MOST)] = 320
    """To train on."""
    held_out: Annotated[int, Range(1, MOST)] = 48
    """To evaluate on."""
    max_disparity: Annotated[int, Range(1, 4096)] = 32
    """Disparities the teacher searches, pixels."""


@dataclass(frozen=True)
class AblationConfig:
    """Train the rows of a comparison, each with several seeds; write table.json, table.md and index.html as it goes.

    light-indoor: the eight rows of arXiv 2105.06143 on a small set of indoor pictures. adu: our student on the built-in
    scenes, each part left out once, each further term added once. The same command goes on where it was stopped: what
    is trained stays.
    """

    preset: PresetName
    """Which comparison."""
    output: Path | None = None
    """Folder for the table and every training; runs/ablation-PRESET where none is named."""
    rows: tuple[str, ...] = ()
    """Train these rows, and the teachers that they need; without names all."""
    list: bool = False
    """Say which rows there are, and why one cannot be trained; train nothing."""
    seeds: Annotated[int, Range(1, 1000)] = 3
    """How often each row is trained. Every seed has a teacher of its own, which all of its rows share."""
    steps: Optional = 0
    """Steps of each student; 0: 200 (light-indoor), 600 (adu)."""
    teacher_steps: Optional = 0
    """Steps of each teacher; 0: 240 (light-indoor; 480 where it is the student's own network), 600 (adu)."""
    batch_size: Annotated[int, Range(2, 65_536)] = 8
    """Samples a step; of a stereo teacher half."""
    size: tuple[Side, Side] | None = None
    """Height and width that networks are trained at; else 114×152, half the published size (light-indoor; 228 304 is
    the published), or 96×320 (adu)."""
    learning_rate: Rate = 0.0
    """Of taught students; 0: 1e-3 (light-indoor), 4e-3 (adu)."""
    alone_learning_rate: Rate = 0.0
    """Of students that learn alone, which may want another; 0: the same."""
    teacher_learning_rate: Rate = 0.0
    """0: 1e-3 (light-indoor), 2e-3 (adu)."""
    data: IndoorConfig = field(default_factory=IndoorConfig)
    light: LightRowsConfig = field(default_factory=LightRowsConfig)
    scenes: ScenesConfig = field(default_factory=ScenesConfig)
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """"auto" is CUDA where there is one."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for part, prefix in ((self.data, "data."), (self.light, "light."), (self.scenes, "scenes.")):
            check_ranges(part, prefix)
        for name in ("learning_rate", "alone_learning_rate", "teacher_learning_rate"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name}: expected a number, got {getattr(self, name)}")
        if self.preset == "adu" and (self.data, self.light) != (IndoorConfig(), LightRowsConfig()):
            raise InputError("data, light: their settings are for preset light-indoor, got preset adu; leave them out")
        if self.preset == "light-indoor" and self.scenes != ScenesConfig():
            raise InputError("scenes: its settings are for preset adu, got preset light-indoor; leave them out")
        if self.preset == "light-indoor" and not self.data.root:
            raise InputError("data.root: expected the folder of train.csv and test.csv, got nothing")

    @property
    def folder(self) -> Path:
        return self.output or Path("runs") / f"ablation-{self.preset}"
