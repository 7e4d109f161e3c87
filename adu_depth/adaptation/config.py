"""What an adaptation is told: a dataclass that the command line fills, and adapt.json keeps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from adu_depth.arguments import Positional
from adu_depth.data.config import BUILT_IN, MOST, DataConfig, SourceConfig, Text
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.data.proxies import MOST_DISPARITY
from adu_depth.data.synthetic.sceneries import Scenery
from adu_depth.distillation import TeacherLossConfig
from adu_depth.errors import InputError
from adu_depth.evaluation.pair import CHOOSABLE
from adu_depth.models import TeacherConfig
from adu_depth.schema import Range, check_ranges
from adu_depth.training.config import LoopConfig, OptimizerConfig, TeacherTrainingConfig
from adu_depth.training.validation_config import ValidationConfig

SCENE_SEED = 1
"""Of the scenes that are mixed in: validation and evaluation have others."""


def built_in_source(share: float, pairs: int, scenery: Scenery) -> SourceConfig:
    """Scenes that are mixed in."""
    return SourceConfig(BUILT_IN, share, pairs=pairs, scene_seed=SCENE_SEED, scenery=scenery)


def windows() -> DataConfig:
    """What an adaptation is trained on where nothing else is said: windows of frames of half to whole size."""
    return DataConfig(root="", fit="crop", size=(192, 448), crop_scale=(0.5, 1.0))


def short_loop() -> LoopConfig:
    """Its length where nothing else is said."""
    return LoopConfig(steps=300, batch_size=2, checkpoint_every=150, keep_checkpoints=1)


@dataclass(frozen=True)
class AdaptConfig:
    """A trained stereo teacher goes on on pairs without ground truth, and is told from the one it was.

    The pairs are looked over first, a classical matcher says where it is sure (`adu-depth proxies`), some pairs are
    held out, and on these the best checkpoint is chosen. The same command goes on where it was stopped.
    """

    start: Positional[Path]
    """The trained teacher: a run, or a checkpoint folder. Of any data, size and range of disparities."""
    output: Path = Path("runs/adapted")
    """Folder for all of it: teacher/ is the run, beside proxies/, splits/ and adapt.json."""
    data: DataConfig = field(default_factory=windows)
    max_disparity: Annotated[int, Range(16, MOST_DISPARITY)] = 192
    """Pixels that the teacher and the matcher search, at the images' own size; a multiple of 16."""
    proxies: bool = True
    """Learn where a classical matcher is sure, too; else what it says is compared alone."""
    scenes: Annotated[float, Range(0, 0.999)] = 0.2
    """Share of the samples that are built-in scenes, in thousandths, so that the pairs are not learned by heart."""
    scene_pairs: Annotated[int, Range(1, MOST)] = 160
    """How many different ones."""
    scenery: Scenery = "varied"
    """Their kind: varied, or usual (data.scenery)."""
    held_out: Annotated[float, Range(0, 1)] = 0.1
    """Share of the pairs that are held out: whole sequences, or of few ones the end of the longest."""
    validate_every: Annotated[int, Range(1, MOST)] = 150
    """Steps from one look at the held-out pairs to the next; the last step has one in any case."""
    metric: Text = "proxy_d1"
    """Says there which checkpoint is the best: proxy_d1, proxy_epe, photometric or left_right."""
    check: bool = True
    """Look the pairs over first, as `adu-depth doctor` does, and do not begin where it finds an error."""
    loss: TeacherLossConfig = field(default_factory=lambda: TeacherLossConfig(left_right=True))
    augmentation: PairAugmentationConfig = field(default_factory=PairAugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=1e-3))
    loop: LoopConfig = field(default_factory=short_loop)

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.data.root or self.data.root == BUILT_IN:
            raise InputError(f"data.root: expected the folder of your pairs, got {self.data.root or 'nothing'}")
        if self.data.proxies:
            raise InputError(f"data.proxies: they are made here, in {self.output / 'proxies'}; leave it out")
        if self.max_disparity % 16:
            raise InputError(f"max_disparity: expected a multiple of 16, got {self.max_disparity}")
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out: expected a share above 0 and below 1, got {self.held_out:g}")
        if 0 < self.scenes < 0.001:
            raise InputError(f"scenes: expected 0 or a share of at least 0.001, got {self.scenes:g}")
        if self.metric not in CHOOSABLE:
            raise InputError(f"metric: expected one of {', '.join(CHOOSABLE)}, got {self.metric!r}")
        self.data.require_cells()
        # What else the training would refuse: now, and not once all pairs are matched.
        self.training(TeacherConfig(), Path("train.txt"), Path("val.txt"))

    @property
    def run(self) -> Path:
        """The adapted teacher's."""
        return self.output / "teacher"

    def training(self, start: TeacherConfig, train: Path, held_out: Path) -> TeacherTrainingConfig:
        """Of the run, once it is known what it starts from, and which pairs are held out."""
        source = self.data
        mix = source.mix
        if self.scenes:
            mix = (*mix, built_in_source(self.scenes, self.scene_pairs, self.scenery))
        maps = str(self.output / "proxies")
        where: dict[str, Any] = {
            name: getattr(source, name) for name in ("root", "layout", "ground_truth", "kb_crop", "skip_missing")
        }
        return TeacherTrainingConfig(
            run=self.run,
            init=self.start,
            data=replace(source, split=str(train), proxies=maps if self.proxies else "", mix=mix),
            model=replace(start, max_disparity=self.max_disparity),
            loss=self.loss,
            augmentation=self.augmentation,
            optimizer=self.optimizer,
            loop=self.loop,
            validation=ValidationConfig(
                every=self.validate_every,
                **where,
                split=str(held_out),
                proxies=maps,
                protocol="pair",
                metric=self.metric,
                batch_size=1,
            ),
        )
