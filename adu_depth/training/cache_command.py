"""`adu-depth cache-teacher`: a teacher's outputs for every frame of a data set, before any student is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from adu_depth.checkpoint import kind_of
from adu_depth.data import SyntheticStereo
from adu_depth.errors import InputError
from adu_depth.models.focal import needs_focal
from adu_depth.progress import Progress
from adu_depth.schema import Range, check_ranges
from adu_depth.training.config import DataConfig, LoopConfig
from adu_depth.training.loop import make_accelerator
from adu_depth.training.runs import cached_outputs, load_teacher, require_checkable
from adu_depth.training.sources import open_samples
from adu_depth.training.supervision import require_camera, require_pairs, roots_of
from adu_depth.training.teacher_outputs import OutputsOnDisk

SHARES = 7 * 86_400
"""Seconds that a process waits for the others' shares."""


@dataclass(frozen=True)
class CacheTeacherConfig:
    """Compute what a teacher says of every frame of a data set, for `distill --teacher-cache` with the same --data.

    It says beforehand what the cache will take, and refuses where the disk has less. Stopped or killed, the same
    command goes on: it compares what is there with its checksums, and computes what is missing or damaged. torchrun and
    `accelerate launch` share the work.
    """

    teacher: Path
    """The teacher's run or checkpoint folder."""
    teacher_cache: Path
    """Folder for its outputs."""
    data: DataConfig = field(default_factory=DataConfig)
    features: bool = True
    """Keep the teacher's features beside its depth: two thirds of the bytes. Without them the cache teaches what reads
    depth alone: light networks, and students with distillation.features 0 and no distillation.structure; light students
    as teachers have no others. A student reads only what it needs of a cache that has both."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """What the teacher computes in. Its outputs are kept in 6 and 10 bits in any case; a cache that is begun keeps to
    its own."""
    left_right: bool = False
    """Leave out the depths that the left–right check does not confirm, for `distill --teacher-left-right`: a second
    pass for each frame, and a cache of its own."""
    batch_size: Annotated[int, Range(1, 1024)] = 4
    """Frames of one size that go through the teacher together."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """"auto" is CUDA where there is one."""

    def __post_init__(self) -> None:
        check_ranges(self)
        self.data.require_own_scale(f"teacher_cache {self.teacher_cache} keeps outputs")


def cache_teacher(config: CacheTeacherConfig, progress: Progress | None = None) -> OutputsOnDisk:
    """Fills the cache. InputError where the teacher or the data set cannot be read, the folder is another's, or the
    disk too small."""
    # Nothing is exchanged until all have done their shares, one perhaps on a slower device.
    accelerator = make_accelerator(LoopConfig(device=config.device, process_timeout=SHARES))
    progress = progress or Progress(enabled=accelerator.is_main_process)
    source = open_samples(config.data, accelerator.device, progress)
    if isinstance(source, SyntheticStereo):
        raise InputError("cache-teacher needs a finite data set: set --data.root, or --data.pairs for built-in scenes")
    if config.left_right:
        require_checkable("left_right", config.teacher)
    if kind_of(config.teacher) == "teacher":
        require_pairs(source, config.data.root)
    teacher = load_teacher(config.teacher, config.data, accelerator.device, progress)
    require_camera(needs_focal(teacher, f"reference_focal of {config.teacher}"), source, roots_of(config.data))
    return cached_outputs(
        config.teacher_cache,
        teacher,
        config.data,
        source,
        accelerator,
        progress,
        features=config.features,
        precision=config.precision,
        batch_size=config.batch_size,
        compare=True,
        left_right=config.left_right,
    )
