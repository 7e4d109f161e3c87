"""What a training run is told: plain dataclasses that the command line fills and config.json keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from adu_depth.arguments import Argument
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.config import MOST, DataConfig
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.distillation import DistillationConfig, TeacherLossConfig
from adu_depth.distillation.student_loss import check_objective, reads_teacher_depth
from adu_depth.errors import InputError
from adu_depth.models import StudentConfig, TeacherConfig
from adu_depth.schema import Length, Range, check_ranges, require_kinds
from adu_depth.training.schedule import Decay
from adu_depth.training.validation_config import ValidationConfig, require_other_scenes

Count = Annotated[int, Range(1, MOST)]
Factor = Annotated[float, Range(0, 1e15)]
RunFolder = Annotated[Path, Argument(aliases=("--run-folder",))]
"""torchrun takes --run for an abbreviation of its --run-path, unless a -- stands before the command."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, warm-up, decay, clipping."""

    learning_rate: Factor = 5e-4
    weight_decay: Factor = 0.01
    """Of the weights of convolutions and linear layers."""
    decay_norms_and_biases: bool = False
    """Let it take hold of all other parameters too: biases, norms, scales, positions. Runs from before this setting
    did, and go on so."""
    warmup: float = 0.05
    """Share of the steps spent warming up."""
    decay: Decay = "cosine"
    """After the warm-up: by a polynomial or half a cosine to 0, not at all, or to a tenth after each quarter (step)."""
    power: Annotated[float, Range(0, 100, above=True)] = 0.9
    """Exponent of the polynomial decay."""
    clip_norm: Factor = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""

    def __post_init__(self) -> None:
        require_kinds(self, "optimizer.")
        for name in ("learning_rate", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"optimizer.{name} must be a number of 0 or more, got {getattr(self, name)}")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"optimizer.warmup is a share of the steps, 0 to 1, got {self.warmup}")
        if not self.power > 0:
            raise InputError(f"optimizer.power must be above 0, got {self.power}")
        check_ranges(self, "optimizer.")


@dataclass(frozen=True)
class LoopConfig:
    """Length of a run, its seed, and how it is executed."""

    steps: Count = 20_000
    """Updates of the weights. A finished run goes on to more with loop.resume: by the schedule of a run so long, whose
    learning rate is higher there than where the run ended."""
    batch_size: Annotated[int, Range(1, 65_536)] = 8
    """Pairs per step and process; with loop.accumulate, per micro-batch."""
    accumulate: Annotated[int, Range(1, 65_536)] = 1
    """Micro-batches per step, one after the other: the weights change by the mean of their gradients. Memory is that of
    one. The samples are those of a batch so many times as large, and so is the loss but for rounding, where each image
    counts alike: a loss over the pixels that are known weighs by their number in each micro-batch, and batch norms see
    each by itself."""
    seed: int = 0
    device: str = "auto"
    """"auto" (CUDA where there is one), "cuda" or "cpu"."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Convolutions and products in half the bytes. fp16 is for GPUs without bf16: its loss is scaled, steps whose
    gradients overflow are skipped and lower the scale."""
    graph: bool = True
    """On one GPU, replay each step from a CUDA graph: the host then starts it at once, not kernel by kernel. The same
    bits. A step that cannot be captured is run as it is, which is said."""
    graph_several: bool = False
    """With loop.graph, also where there are several processes: gradients are exchanged between two graphs. Never run
    on several GPUs yet."""
    ema: Annotated[float, Range(0, 1)] = 0.0
    """Exponential moving average of the weights, for inference and validation: how much of it stays in a step (0.999;
    less in the first steps, see models/averages.py). 0: off, the weights as they are trained."""
    compile: bool = False
    """Compile encoder and decoder by torch.compile in a run's first step, minutes on a CPU, which needs a C++ compiler.
    The same up to rounding."""
    workers: Annotated[int, Range(0, 1024)] = 2
    """Processes that read and decode the data set."""
    prefetch: Annotated[int, Range(1, 1024)] = 2
    """Batches that each of them keeps ready."""
    checkpoint_every: Count = 500
    keep_checkpoints: Count = 2
    """Checkpoints that stay; until the step after the newest one has shown its loss, one more."""
    log_every: Count = 20
    """Steps between rows of history.jsonl: loss terms, images/s, share of the time waiting for data, peak memory, time
    left."""
    trackers: tuple[Annotated[str, Length(64)], ...] = ("tensorboard",)
    """Who hears of these rows beside history.jsonl: tensorboard (written to the run folder); wandb, trackio, mlflow,
    aim, … through accelerate, each if its package is installed; nobody where none is named."""
    check_every: Count = 10
    """Steps between looks at the loss for NaN; each waits for the device. Several processes also agree then to stop."""
    process_timeout: Annotated[int, Range(1, 10_000_000)] = 600
    """Seconds that several processes wait for one that stands still (stopped, a disk or network that hangs) before the
    run ends. More than any of them may be behind the others: while the first writes a checkpoint, all compile, or each
    fills its share of a teacher cache."""
    resume: bool = False
    """Go on from the newest checkpoint in the run folder."""
    resume_from: str = ""
    """Go on from this checkpoint, a step or a folder, where the newest is damaged; later ones are set aside."""

    @property
    def pairs_per_step(self) -> int:
        """Of one process."""
        return self.batch_size * self.accumulate

    def __post_init__(self) -> None:
        require_kinds(self, "loop.")
        often = ("checkpoint_every", "keep_checkpoints", "log_every", "check_every")
        for name in ("steps", "batch_size", "prefetch", *often):
            if getattr(self, name) < 1:
                raise InputError(f"loop.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"loop.seed must be from 0 to {2**31 - 1}, got {self.seed}")
        if not 0 <= self.ema < 1:
            raise InputError(f"loop.ema must be 0 (off) or more, and below 1, got {self.ema}")
        if self.workers < 0:
            raise InputError(f"loop.workers must be 0 or more, got {self.workers}")
        if self.device not in ("auto", "cuda", "cpu"):
            raise InputError(f'loop.device must be "auto", "cuda" or "cpu", got {self.device!r}')
        check_ranges(self, "loop.")


@dataclass(frozen=True)
class TeacherTrainingConfig:
    """Train the stereo teacher; one for single images is trained by `distill`, without a teacher of its own.

    `--preset NAME` starts from named settings (see `adu-depth presets`).
    """

    run: RunFolder = Path("runs/teacher")
    """Folder for configuration, curves and checkpoints. torchrun needs a -- before the command, or
    the name --run-folder."""
    init: Path | None = None
    """Start from the weights of this run or checkpoint, of any data, size and range of disparities: what fits by name
    and shape, the whole encoder at least. Not needed any more when the run goes on."""
    data: DataConfig = field(default_factory=DataConfig)
    model: TeacherConfig = field(default_factory=TeacherConfig)
    loss: TeacherLossConfig = field(default_factory=TeacherLossConfig)
    augmentation: PairAugmentationConfig = field(default_factory=PairAugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        require_kinds(self)
        self.data.require_cells()
        require_other_scenes(self.validation, self.data)


@dataclass(frozen=True)
class StudentTrainingConfig:
    """Train a network for single images: the student, taught by a teacher or alone; or a teacher for single images.

    `--preset NAME` starts from named settings (see `adu-depth presets`).
    """

    teacher: Path | None = None
    """The teacher's run (its best checkpoint where it was validated, else its newest) or checkpoint folder: of a stereo
    teacher, which needs pairs, or of any network trained by this command. None trains the student alone, on the ground
    truth only."""
    teacher_cache: Path | None = None
    """Folder that keeps the teacher's outputs, so that each sample is computed once; none runs it online. Needs a
    teacher."""
    teacher_precision: Literal["run", "fp32", "bf16"] = "run"
    """What the frozen teacher computes in; "run": as loop.mixed_precision says."""
    teacher_left_right: bool = False
    """Leave out the stereo teacher's depth where its disparity of the right view does not confirm the left one's
    (occluded, mistaken): it is run a second time, on the pair in a mirror."""
    run: RunFolder = Path("runs/student")
    """Folder for configuration, curves and checkpoints. torchrun needs a -- before the command, or
    the name --run-folder."""
    init: Path | None = None
    """Start from the weights of this run or checkpoint, of any data, size and range of disparities: what fits by name
    and shape, the whole encoder at least. Not needed any more when the run goes on."""
    data: DataConfig = field(default_factory=DataConfig)
    model: StudentConfig = field(default_factory=StudentConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    @property
    def light(self) -> bool:
        """Whether the network is one of the light-weight pair."""
        return self.model.network != "adu"

    def __post_init__(self) -> None:
        require_kinds(self)
        if not self.light:
            self.data.require_cells()
        if self.teacher_cache is not None:
            self.data.require_own_scale(f"teacher_cache {self.teacher_cache} keeps outputs")
        check_objective(self.distillation, self.light)
        if self.light and not self.model.log_scale and self.distillation.uncertainty != DistillationConfig.uncertainty:
            raise InputError(
                f"distillation.uncertainty {self.distillation.uncertainty:g}: this light network predicts none: "
                "expected model.log_scale beside it, or no distillation.uncertainty"
            )
        if self.teacher_left_right and not (self.light or reads_teacher_depth(self.distillation)):
            raise InputError(
                "teacher_left_right leaves out depths of the teacher: with distillation.response, selective and "
                "learned_scale 0, and features 0 or without a guide, nothing reads them"
            )
        if self.init is not None and self.model.encoder_weights:
            raise InputError(
                f"model.encoder_weights: the encoder begins with the weights of --init {self.init}, got "
                f"{self.model.encoder_weights!r} too; leave one out"
            )
        require_other_scenes(self.validation, self.data)
