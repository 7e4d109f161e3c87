"""What the larger quickstart is told, and the trainings that it makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from adu_depth.adaptation.config import AdaptConfig, built_in_source, short_loop, windows
from adu_depth.data.config import MOST, DataConfig, Side, Text
from adu_depth.data.proxies import MOST_DISPARITY
from adu_depth.data.synthetic.sceneries import Scenery
from adu_depth.quickstart import QuickstartConfig, teacher_training
from adu_depth.real_quickstart.students import LIGHT, PLAIN, SIZE, StudentPlan
from adu_depth.schema import Range, check_ranges
from adu_depth.training.config import LoopConfig, OptimizerConfig, StudentTrainingConfig, TeacherTrainingConfig


@dataclass(frozen=True)
class RealQuickstartConfig:
    """From a folder of pairs alone to a student that knows metres: a teacher on built-in scenes, adapted on the pairs,
    teaches a network that sees one image; report.html shows them on real frames.

    No depth need be measured. The same command goes on where it was stopped.
    """

    output: Path = Path("runs/quickstart-real")
    """Folder for all of it: teacher/, adapted/, teacher_outputs/, student/, report.json and report.html."""
    data: DataConfig = field(default_factory=windows)
    """The pairs, of any layout or a pack, and the windows of them that the adaptation is trained on."""
    teacher: Path | None = None
    """Begin with this trained stereo teacher, a run or a checkpoint; else one is trained on built-in scenes first."""
    encoder_weights: Text = ""
    """The student is then the light network, whose encoder begins with these ImageNet weights: a file with
    torchvision's names (safetensors, or a state dict of torch.save), or a repository of the hub that has such a
    model.safetensors. Else it is the quickstart's student, from random weights."""
    truth: Path | None = None
    """Pairs with ground truth, of any layout, that nothing is trained on: measured and shown at the end. Without them
    the report compares with the classical matcher, which is no truth."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    teacher_steps: Annotated[int, Range(1, MOST)] = 600
    """Of the teacher on built-in scenes."""
    teacher_pairs: Annotated[int, Range(1, MOST)] = 320
    """Built-in scenes that it is trained on."""
    teacher_size: tuple[Side, Side] = (96, 320)
    """Height and width of those in pixels, multiples of 32."""
    adapt_steps: Annotated[int, Range(1, MOST)] = 300
    """Of its adaptation."""
    max_disparity: Annotated[int, Range(16, MOST_DISPARITY)] = 192
    """Pixels that the adapted teacher and the matcher search, at the images' own size; a multiple of 16."""
    student_steps: Annotated[int, Range(0, MOST)] = 0
    """Of the student; 0: 300 (adu_depth/real_quickstart/students.py)."""
    student_size: tuple[Side, Side] = SIZE
    """Height and width that the student sees the pairs at, multiples of 32 but for a light one."""
    scenes: Annotated[float, Range(0, 0.999)] = 0.2
    """Share of built-in scenes among the samples of adaptation and student, in thousandths."""
    scene_pairs: Annotated[int, Range(1, MOST)] = 160
    """How many different ones."""
    scenery: Scenery = "varied"
    """Kind of the teacher's and of the adaptation's: varied, or usual (data.scenery). The student's are usual."""
    held_out: Annotated[float, Range(0, 1)] = 0.1
    """Share of the pairs that neither is trained on."""
    check: bool = True
    """Look the pairs over first, as `adu-depth doctor` does, and do not begin where it finds an error."""
    workers: Annotated[int, Range(0, 1024)] = 2
    """Processes that read and decode the pairs."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """"auto" is CUDA where there is one."""

    def __post_init__(self) -> None:
        check_ranges(self)
        # What the trainings would refuse of it: now, and not once the first of them is done.
        DataConfig(size=self.teacher_size).require_cells("teacher_size: ")
        if self.plan.model.network == "adu":
            DataConfig(size=self.student_size).require_cells("student_size: ")
        self.built_in()
        self.adaptation()
        self.student(Path("train.txt"), None)

    @property
    def plan(self) -> StudentPlan:
        return LIGHT if self.encoder_weights else PLAIN

    @property
    def scene_settings(self) -> QuickstartConfig:
        """The quickstart whose teacher this begins with."""
        return QuickstartConfig(
            teacher_steps=self.teacher_steps,
            pairs=self.teacher_pairs,
            size=self.teacher_size,
            scenery=self.scenery,
            max_disparity=48 if self.scenery == "varied" else 32,  # things within metres
            device=self.device,
        )

    def built_in(self) -> TeacherTrainingConfig:
        """The teacher on built-in scenes, as the quickstart trains it."""
        return teacher_training(self.scene_settings, self.seed, self.output / "teacher")

    def adaptation(self) -> AdaptConfig:
        """Without a look at the pairs, which they had before anything began."""
        loop = short_loop()
        return AdaptConfig(
            start=self.teacher or self.built_in().run,
            output=self.output / "adapted",
            data=self.data,
            max_disparity=self.max_disparity,
            scenes=self.scenes,
            scene_pairs=self.scene_pairs,
            scenery=self.scenery,
            held_out=self.held_out,
            check=False,
            loop=replace(loop, steps=self.adapt_steps, seed=self.seed, workers=self.workers, device=self.device),
        )

    def student(self, train: Path, focal: float | None) -> StudentTrainingConfig:
        """On the pairs that `train` names. focal: fx of the pairs at `student_size`, for a light network."""
        plan, mix = self.plan, self.data.mix
        if self.scenes:
            mix = (*mix, built_in_source(self.scenes, self.scene_pairs, "usual"))  # one camera: metres lean on it
        model = plan.model
        if self.encoder_weights:
            model = replace(model, encoder_weights=self.encoder_weights, reference_focal=focal)
        return StudentTrainingConfig(
            run=self.output / "student",
            teacher=self.adaptation().run,
            teacher_cache=self.output / "teacher_outputs",
            teacher_left_right=True,
            data=replace(
                self.data,
                split=str(train),
                size=self.student_size,
                fit="resize",
                crop_scale=(1.0, 1.0),
                short_side=0,
                mix=mix,
            ),
            model=model,
            distillation=plan.distillation,
            augmentation=plan.augmentation,
            optimizer=OptimizerConfig(learning_rate=plan.learning_rate),
            loop=LoopConfig(
                steps=self.student_steps or plan.steps,
                batch_size=plan.batch_size,
                ema=plan.ema,
                seed=self.seed,
                device=self.device,
                workers=self.workers,
                checkpoint_every=100,
                keep_checkpoints=1,
            ),
        )
