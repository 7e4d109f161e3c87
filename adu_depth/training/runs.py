"""A whole run from its configuration: data, network, loss, loop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from accelerate import Accelerator

from adu_depth.checkpoint import LoadedModel, config_dict, kept_backbone, kind_of, load_model
from adu_depth.data import SyntheticStereo
from adu_depth.data.dataset import Dataset
from adu_depth.distillation import DistillationConfig, LightLoss, StudentLoss, TeacherLoss
from adu_depth.distillation.student_loss import ONLY_TAUGHT, TAUGHT_TERMS
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.models import LightStudent, StereoTeacher, Student, build_student
from adu_depth.models.focal import because_of, needs_focal
from adu_depth.models.light import LightNetwork
from adu_depth.models.students import depth_range
from adu_depth.progress import Progress
from adu_depth.training.batches import TeacherOutputs, TrainingBatch, batches
from adu_depth.training.config import DataConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.initial_weights import begin_encoder, network_to_start_from, start_from
from adu_depth.training.loop import make_accelerator, train
from adu_depth.training.resuming import chosen_checkpoint, offering_another
from adu_depth.training.run_folder import from_first, only_writer
from adu_depth.training.sources import open_samples, seen_frames
from adu_depth.training.supervision import require_camera, require_supervision, roots_of
from adu_depth.training.tasks import OnlineTeacher, StudentTask, TeacherTask
from adu_depth.training.teacher_outputs import OutputsOnDisk, Precision, cache_identity, weights_digest
from adu_depth.training.validation import make_validation

Teacher: TypeAlias = StereoTeacher | Student
History = list[dict[str, float]]


def train_teacher(
    config: TeacherTrainingConfig, progress: Progress | None = None, samples: Dataset | None = None
) -> History:
    """Trains the stereo teacher; returns the run's history. samples: used instead of opening config.data."""
    accelerator = make_accelerator(config.loop, config.run)
    with only_writer(accelerator, config.run, "train-teacher"):
        return _train_teacher(config, accelerator, progress, samples)


def _train_teacher(
    config: TeacherTrainingConfig, accelerator: Accelerator, progress: Progress | None, samples: Dataset | None
) -> History:
    progress = progress or Progress(enabled=accelerator.is_main_process)
    source = open_samples(config.data, accelerator.device, progress) if samples is None else samples
    require_supervision(config, source, progress)
    validation = make_validation(config, "teacher", source, accelerator, progress)
    begun = network_to_start_from(config)
    network = StereoTeacher(*_model_and_backbone(config, begun))
    started = {} if begun is None else start_from(network, begun, progress.say)
    loss = TeacherLoss(config.loss, config.model.max_disparity, config.model.min_depth, config.model.max_depth)
    group = ProcessGroup(accelerator.process_index, accelerator.num_processes)

    def stream(start: int) -> Generator[TrainingBatch, None, None]:
        return batches(source, config.data, config.loop, start, group, accelerator.device)

    seen = seen_frames(source)
    return train(
        config.run,
        TeacherTask(network, loss, config.augmentation),
        stream,
        config=config_dict(config) | seen | started,
        defaults=config_dict(TeacherTrainingConfig()) | seen,
        optimizer_config=config.optimizer,
        loop=config.loop,
        accelerator=accelerator,
        progress=progress,
        validation=validation,
    )


def train_student(
    config: StudentTrainingConfig,
    progress: Progress | None = None,
    samples: Dataset | None = None,
    outputs: TeacherOutputs | None = None,
) -> History:
    """Trains the student, taught or alone; returns the run's history.

    samples: used instead of opening config.data. outputs: teacher outputs computed beforehand for these samples; with
    teacher_left_right they must be checked ones.
    The student's own weights are drawn before its teacher is made, so that one seed starts the taught and the lone
    student alike.
    """
    _require_teacher(config)
    accelerator = make_accelerator(config.loop, config.run)
    with only_writer(accelerator, config.run, "distill"):
        return _train_student(config, accelerator, progress, samples, outputs)


def _require_teacher(config: StudentTrainingConfig) -> None:
    """InputError for settings that only a teacher heeds, where there is none: it was forgotten, or they were. Of the
    objective's, where a run begins: one from before they were refused must have them again to go on."""
    if config.teacher is not None:
        return
    only_taught: dict[str, tuple[Any, Any]] = {
        "teacher_cache": (config.teacher_cache, None),
        "teacher_precision": (config.teacher_precision, "run"),
        "teacher_left_right": (config.teacher_left_right, False),
    }
    if chosen_checkpoint(config.run, config.loop) is None:
        for name in ONLY_TAUGHT:
            asked, default = getattr(config.distillation, name), getattr(DistillationConfig, name)
            if name in TAUGHT_TERMS and asked == 0:  # switched off, as a student alone has them anyway
                continue
            only_taught[f"distillation.{name}"] = (asked, default)
    given = {name: value for name, (value, default) in only_taught.items() if value != default}
    if given:
        told = ", ".join(f"{name} {value}" for name, value in given.items())
        raise InputError(
            f"{told}: there is no teacher: expected --teacher RUN beside it, or {', '.join(given)} left out for a "
            "student that learns alone"
        )


def require_checkable(setting: str, teacher: Path) -> None:
    """InputError where the teacher whose depths are to be checked, as `setting` says, is none of both views."""
    if kind_of(teacher) != "teacher":
        raise InputError(
            f"{setting}: teacher {teacher} is a network for single images, which has no right view's disparity to "
            "compare: expected a stereo teacher, or the setting left out"
        )


def _require_checked(config: StudentTrainingConfig, outputs: TeacherOutputs) -> None:
    """InputError where outputs that were given are not what the configuration says of them."""
    checked = bool(getattr(outputs, "left_right", False))
    if checked != config.teacher_left_right:
        made = "with" if checked else "without"
        raise InputError(
            f"teacher_left_right {config.teacher_left_right}: the teacher outputs given were made {made} the check"
        )


def _train_student(
    config: StudentTrainingConfig,
    accelerator: Accelerator,
    progress: Progress | None,
    samples: Dataset | None,
    outputs: TeacherOutputs | None,
) -> History:
    progress = progress or Progress(enabled=accelerator.is_main_process)
    if config.teacher is not None and config.teacher_left_right:
        require_checkable("teacher_left_right", config.teacher)
    if outputs is not None:
        _require_checked(config, outputs)
    source = open_samples(config.data, accelerator.device, progress) if samples is None else samples
    require_supervision(config, source, progress)
    if (focal := config.model.reference_focal) is not None:
        require_camera(because_of(focal, "model.reference_focal"), source, roots_of(config.data))
    elif config.data.rescales or config.augmentation.zoom > 1:
        changing = "data.crop_scale" if config.data.rescales else "augmentation.zoom"
        progress.say(
            f"{changing} without model.reference_focal: how large a thing looks does not say how far it is, the "
            "student's metres suffer; with --model.reference-focal F the changed focal length goes into its depth"
        )
    validation = make_validation(config, "student", source, accelerator, progress)
    begun = network_to_start_from(config)
    network = build_student(*_model_and_backbone(config, begun))
    started = {} if begun is None else start_from(network, begun, progress.say)
    if config.model.encoder_weights and begun is None and chosen_checkpoint(config.run, config.loop) is None:
        started = begin_encoder(network, config.model.encoder_weights)
    teacher = (
        None if config.teacher is None else load_teacher(config.teacher, config.data, accelerator.device, progress)
    )
    taught = needs_focal(teacher, f"reference_focal of {config.teacher}")
    require_camera(taught, source, roots_of(config.data))
    loss = student_objective(config, network, teacher)
    group = ProcessGroup(accelerator.process_index, accelerator.num_processes)
    teach: Callable[[TrainingBatch], TrainingBatch] = lambda batch: batch  # noqa: E731
    if teacher is not None and outputs is None and config.teacher_cache is not None:
        _require_kept_range(config, teacher)
        if isinstance(source, SyntheticStereo):
            raise InputError("teacher_cache needs a finite data set: set data.pairs, or leave teacher_cache out")
        outputs = cached_outputs(
            config.teacher_cache, teacher, config.data, source, accelerator, progress,
            features=loss.reads_features, precision="bf16" if teacher_dtype(config) == torch.bfloat16 else "fp32",
            left_right=config.teacher_left_right,
        )  # fmt: skip
    elif teacher is not None and outputs is None:
        online = OnlineTeacher(teacher, accelerator.device, teacher_dtype(config), config.teacher_left_right)
        teach = first_looked_at(online)

    needs = needs_focal(network, "model.reference_focal") or taught

    def stream(start: int) -> Generator[TrainingBatch, None, None]:
        return batches(source, config.data, config.loop, start, group, accelerator.device, outputs, needs)

    seen = seen_frames(source)
    return train(
        config.run,
        StudentTask(network, loss, config.augmentation, config.teacher_left_right),
        stream,
        config=config_dict(config) | seen | started | taught_by(teacher, outputs),
        defaults=config_dict(StudentTrainingConfig()) | seen,
        optimizer_config=config.optimizer,
        loop=config.loop,
        accelerator=accelerator,
        progress=progress,
        teach=teach,
        validation=validation,
    )


def student_objective(
    config: StudentTrainingConfig, network: Student, teacher: Teacher | None
) -> StudentLoss | LightLoss:
    """What a network for single images is trained by, taught or alone."""
    low, high = config.model.min_depth, config.model.max_depth
    if config.light:
        return LightLoss(config.distillation, low, high)
    taught = None if teacher is None else teacher.feature_channels
    return StudentLoss(config.distillation, network.feature_channels, taught, low, high)


def cached_outputs(
    folder: Path,
    teacher: Teacher,
    data: DataConfig,
    source: Dataset,
    accelerator: Accelerator,
    progress: Progress,
    *,
    features: bool = True,
    precision: Precision = "fp32",
    batch_size: int = 1,
    compare: bool = False,
    left_right: bool = False,
) -> OutputsOnDisk:
    """The teacher's outputs for every sample; what is missing is computed, by every process its share. A cache in which
    nothing is missing may be read by many at once. features: read beside the depth; a cache that is begun without keeps
    none. compare: missing is also what has changed since it was written. left_right: see `OnlineTeacher`."""
    if features and isinstance(teacher, LightStudent):
        raise InputError(
            "teacher_cache: a light student's features may be negative, which the cache does not keep: leave it out "
            "(the teacher then runs online), or keep depth alone (cache-teacher: --no-features; distill: "
            "--model.network light, or --distillation.features 0 without --distillation.structure)"
        )
    identity = cache_identity(teacher, data, len(source), seen_frames(source, truth=False), left_right)
    outputs = OutputsOnDisk(folder, identity, len(source), teacher.feature_channels, features)
    first, comparing = accelerator.is_main_process, progress if compare else None
    missing = from_first(accelerator, outputs.missing(comparing) if first else [])
    if not missing:
        return outputs
    outputs.require_room(source, missing, progress)
    with only_writer(accelerator, folder, "teacher outputs"):
        # Before the folder was ours, another command may have come to its end in it.
        missing = from_first(accelerator, outputs.missing(comparing, among=missing) if first else [])
        if first:
            outputs.claim(precision)
        accelerator.wait_for_everyone()
        share = missing[accelerator.process_index :: accelerator.num_processes]
        outputs.fill(teacher, source, accelerator.device, share, progress, batch_size)
        accelerator.wait_for_everyone()
    return outputs


def _model_and_backbone(
    config: TeacherTrainingConfig | StudentTrainingConfig,
    begun: LoadedModel | None,
) -> tuple[Any, dict[str, Any] | None]:
    """What the network is built from. A run that goes on takes its encoder's form and weights from its checkpoint, one
    that starts from another network from there, if it is the same encoder."""
    if begun is not None:
        same = begun.config["model"].get("encoder", "small") == config.model.encoder
        return replace(config.model, pretrained=False), begun.config.get("backbone") if same else None
    kept = chosen_checkpoint(config.run, config.loop)
    with offering_another(config.run, kept):
        backbone = None if kept is None else kept_backbone(kept, config.model.encoder)
    return (config.model if backbone is None else replace(config.model, pretrained=False)), backbone


def taught_by(teacher: Teacher | None, outputs: TeacherOutputs | None) -> dict[str, str]:
    """What a resumed run must have again: the same teacher, and its outputs from the same place."""
    if teacher is None:
        return {}
    kept = f"cached, {outputs.made.precision}" if isinstance(outputs, OutputsOnDisk) else "cached"
    return {"teacher_weights": weights_digest(teacher), "teacher_outputs": "online" if outputs is None else kept}


def teacher_dtype(config: StudentTrainingConfig) -> torch.dtype | None:
    """The teacher's autocast type, None for fp32."""
    run = config.teacher_precision == "run"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(
        config.loop.mixed_precision if run else config.teacher_precision
    )


def first_looked_at(teach: Callable[[TrainingBatch], TrainingBatch]) -> Callable[[TrainingBatch], TrainingBatch]:
    """`teach`, whose first outputs must be finite: the loss passes over a teacher's NaN, as over a missing depth."""
    looked_at = False

    def look(batch: TrainingBatch) -> TrainingBatch:
        nonlocal looked_at
        taught = teach(batch)
        if not looked_at and taught.teacher is not None:
            taught.teacher.decoded().require_finite(f"the teacher on {', '.join(taught.sample.name)}")
            looked_at = True
        return taught

    return look


def load_teacher(run: Path, data: DataConfig, device: torch.device, progress: Progress) -> Teacher:
    """A stereo teacher, or a network for single images that was trained before, on images of `data`."""
    loaded = load_model(run, device)
    before, now = _prepared(loaded), _prepared(data)
    if loaded.kind != "teacher" and before != now:
        progress.say(
            f"teacher {run} was trained on {before}, and labels {now}: what a network for single images says in metres "
            "depends on their scale"
        )
    assert isinstance(loaded.model, Teacher)
    return loaded.model.requires_grad_(False)


def _require_kept_range(config: StudentTrainingConfig, teacher: Teacher) -> None:
    """InputError where a student learns depths that a cache of its teacher does not keep: those outside of the range
    that a network without bounds was trained for are kept as outside, no more."""
    low, high = depth_range(teacher)
    if isinstance(teacher, LightNetwork) and not (low <= config.model.min_depth and config.model.max_depth <= high):
        raise InputError(
            f"teacher_cache: of a light teacher it keeps the depths that it was trained for, {low:g} to {high:g} m; "
            f"the student learns {config.model.min_depth:g} to {config.model.max_depth:g} m: expected model.min_depth "
            "and model.max_depth within, or no teacher_cache"
        )


def _prepared(images: LoadedModel | DataConfig) -> str:
    if images.fit == "crop":
        low, high = images.crop_scale
        return "windows of images " + ("as they are" if low == high == 1 else f"at {low:g} to {high:g} of their size")
    if images.fit == "resize":
        return f"images at {'×'.join(map(str, images.size))}"
    return f"images at short side {images.short_side}"
