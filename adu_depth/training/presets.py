"""Named settings: whole configurations for the public data sets; the command line can still change each setting.

What is published and what is ours in them, and what has been run, is in REPRODUCTION.md beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.packed.shards import MANIFEST
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.errors import InputError
from adu_depth.models import StudentConfig, TeacherConfig
from adu_depth.training.config import (
    DataConfig,
    LoopConfig,
    OptimizerConfig,
    StudentTrainingConfig,
    TeacherTrainingConfig,
)

FLAG = "--preset"
RESNET_50 = "microsoft/resnet-50"
SWIN_LARGE = "microsoft/swin-large-patch4-window7-224-in22k"  # the weights NeWCRFs and URCDC-Depth start from
CONVNEXT_ATTO = "facebook/convnextv2-atto-1k-224"  # MobileNet's size: transformers has no MobileNet backbone
Config = TypeVar("Config", TeacherTrainingConfig, StudentTrainingConfig)
EIGEN_PAIRS = 23_158
DRIVING_STEREO_PAIRS = 174_437
NYU_FRAMES = 50_688
"""Of the list that arXiv 1803.08673 trains on, from memory."""


@dataclass(frozen=True)
class Preset:
    """A configuration by name; its type says which command it belongs to.

    needs: settings that it cannot know, each with what to give. None of them has a default in `config`.
    """

    name: str
    config: TeacherTrainingConfig | StudentTrainingConfig
    needs: dict[str, str]

    @property
    def command(self) -> str:
        return "train-teacher" if isinstance(self.config, TeacherTrainingConfig) else "distill"

    def completed(self, config: Config) -> Config:
        """The settings of the command line, without the preset's own teacher_cache where they give up its teacher.
        InputError naming what the preset needs and the command line did not give."""
        packed = (Path(config.data.root) / MANIFEST).is_file()  # its split was chosen when it was packed
        missing = {
            f"--data.{name}": what
            for name, what in self.needs.items()
            if not getattr(config.data, name) and not (packed and name == "split")
        }
        if missing:
            wanted = "; ".join(f"{flag} ({what})" for flag, what in missing.items())
            raise InputError(f"preset {self.name} needs {wanted}")
        own = getattr(self.config, "teacher_cache", None)
        if isinstance(config, StudentTrainingConfig) and config.teacher is None and config.teacher_cache == own:
            return replace(config, teacher_cache=None)
        return config


@dataclass(frozen=True)
class PresetsConfig:
    """List the named settings of train-teacher and distill (`--preset NAME`)."""


def _steps(epochs: int, pairs: int, batch_size: int) -> int:
    return epochs * pairs // batch_size


@dataclass(frozen=True)
class _Benchmark:
    """What the presets of one data set share."""

    name: str
    data: DataConfig
    needs: dict[str, str]
    pairs: int


_ROOT = {"root": "folder of the recordings, or of a pack of them"}
BENCHMARKS = (
    _Benchmark(
        "kitti-eigen",
        DataConfig(root="", kb_crop=True, fit="crop", skip_missing=True),
        {**_ROOT, "split": "BTS's eigen_train_files_with_gt.txt"},
        EIGEN_PAIRS,
    ),
    _Benchmark(
        "kitti-official",
        DataConfig(root="", kb_crop=True, fit="crop", skip_missing=True),
        {**_ROOT, "split": "train.txt of `adu-depth splits ROOT --ground-truth …/train --labelled-only`"},
        EIGEN_PAIRS,  # as long as the Eigen trainings: the number of its frames depends on the split that was written
    ),
    _Benchmark("drivingstereo", DataConfig(root="", fit="crop"), _ROOT, DRIVING_STEREO_PAIRS),
)

NYU = _Benchmark(
    "nyu",
    DataConfig(root="", size=(228, 304), fit="centre", short_side=240),
    {
        "root": "NYU-v2 or another indoor set, as layout rgbd, nyu_v2 or scannet has it",
        "split": "the frames to train on, not those that are evaluated: nyu2_train.csv, BTS's list",
    },
    NYU_FRAMES,
)


def _loop(benchmark: _Benchmark, epochs: int, batch_size: int) -> LoopConfig:
    return LoopConfig(
        steps=_steps(epochs, benchmark.pairs, batch_size),
        batch_size=batch_size,
        mixed_precision="bf16",
        workers=8,
        prefetch=4,
        checkpoint_every=2000,
        log_every=100,
        check_every=50,
    )


def _teacher(benchmark: _Benchmark) -> Preset:
    config = TeacherTrainingConfig(
        run=Path("runs") / benchmark.name / "teacher",
        data=replace(benchmark.data, size=(352, 704)),
        model=TeacherConfig(
            encoder=RESNET_50,
            pretrained=True,
            max_disparity=192,
            num_groups=40,
            correlation_channels=320,
            concat_channels=12,
            aggregation_channels=32,
            hourglasses=3,
            feature_channels=(128, 192, 256),
            head_channels=64,
        ),
        augmentation=PairAugmentationConfig(erase=0.5, vertical_jitter=0.5),
        optimizer=OptimizerConfig(learning_rate=2e-4),
        loop=_loop(benchmark, epochs=20 if benchmark.pairs == EIGEN_PAIRS else 4, batch_size=8),
    )
    return Preset(f"{benchmark.name}-teacher", config, benchmark.needs)


def _students(benchmark: _Benchmark) -> list[Preset]:
    small_set = benchmark.pairs == EIGEN_PAIRS
    wide = (352, 1120) if small_set else (352, 704)  # DrivingStereo's half-size images are some 880 pixels wide
    light_channels, light_head = (64, 96, 128), 32
    kinds = (
        # name, encoder, features at 1/8 1/16 1/32, channels at 1/4, window, pairs a step, learning rate
        ("swin-large", SWIN_LARGE, (256, 384, 512), 128, wide, 8, 2e-5),
        ("resnet50", RESNET_50, (128, 192, 256), 64, (352, 704), 16, 1e-4),
        ("mobile", CONVNEXT_ATTO, light_channels, light_head, (352, 704), 16, 1e-4),
    )
    presets = []
    for name, encoder, channels, head, size, batch_size, learning_rate in kinds:
        config = StudentTrainingConfig(
            teacher=Path("runs") / benchmark.name / "teacher",
            teacher_cache=Path("runs") / benchmark.name / "teacher-outputs" if small_set else None,
            run=Path("runs") / benchmark.name / name,
            data=replace(benchmark.data, size=size),
            model=StudentConfig(encoder=encoder, pretrained=True, feature_channels=channels, head_channels=head),
            optimizer=OptimizerConfig(learning_rate=learning_rate, decay="poly"),
            loop=_loop(benchmark, epochs=50 if small_set else 10, batch_size=batch_size),
        )
        presets.append(Preset(f"{benchmark.name}-{name}", config, benchmark.needs))
    return presets


def _light() -> list[Preset]:
    """The pair of arXiv 2105.06143: the teacher, and the student that it teaches."""
    presets = []
    for name, network, weights in (
        ("light-teacher", "light-teacher", "timm/resnet34.tv_in1k"),
        ("light-student", "light", "mobilenet_v2-b0353104.pth"),  # torchvision's own name for its file
    ):
        config = StudentTrainingConfig(
            teacher=Path("runs") / NYU.name / "light-teacher" if network == "light" else None,
            run=Path("runs") / NYU.name / name,
            data=NYU.data,
            model=StudentConfig(network=network, encoder_weights=weights, min_depth=0.1, max_depth=10.0),  # type: ignore[arg-type]
            optimizer=OptimizerConfig(learning_rate=1e-4, weight_decay=1e-4, warmup=0.0, decay="step", clip_norm=0.0),
            augmentation=AugmentationConfig(rotate=5.0, colour=1.0, contrast=0.4, saturation=0.4),  # 1803.08673's code
            loop=replace(_loop(NYU, epochs=20, batch_size=8), mixed_precision="no"),
        )
        presets.append(Preset(f"{NYU.name}-{name}", config, NYU.needs))
    return presets


PRESETS = {p.name: p for benchmark in BENCHMARKS for p in (_teacher(benchmark), *_students(benchmark))}
PRESETS |= {p.name: p for p in _light()}


def take_preset(arguments: list[str]) -> tuple[list[str], Preset | None]:
    """A command line without its `--preset NAME`, and that preset; other commands' lines are left as they are.

    Raises InputError for a name that is none, or one of the other command.
    """
    if not arguments or arguments[0] not in {preset.command for preset in PRESETS.values()}:
        return arguments, None
    command, names, rest = arguments[0], [], []
    given = iter(arguments)
    for argument in given:
        if argument == FLAG:
            names.append(next(given, ""))
        elif argument.startswith(f"{FLAG}="):
            names.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    if not names:
        return arguments, None
    known = [preset.name for preset in PRESETS.values() if preset.command == command]
    if len(names) > 1 or names[0] not in known:
        raise InputError(
            f"{FLAG}: expected one of {', '.join(known)} for {command}; got {' '.join(names) or 'nothing'}"
        )
    return rest, PRESETS[names[0]]


def list_presets(console: Console) -> None:
    """Prints the presets by command, with what each trains and needs."""

    def say(text: str) -> None:
        console.print(text, highlight=False)

    for command in dict.fromkeys(preset.command for preset in PRESETS.values()):
        say(f"adu-depth {command} {FLAG} …")
        for preset in PRESETS.values():
            if preset.command == command:
                config = preset.config
                window, length = "×".join(map(str, config.data.size)), f"{config.loop.steps} × {config.loop.batch_size}"
                light = isinstance(config, StudentTrainingConfig) and config.light
                network = config.model.network if light else config.model.encoder  # type: ignore[union-attr]
                say(f"  {preset.name:26} {window:9} {length:>12} samples  {network}")
    for benchmark in (*BENCHMARKS, NYU):
        needs = "".join(f"\n  --data.{name}: {what}" for name, what in benchmark.needs.items())
        say(f"{benchmark.name} needs{needs}")
    say(
        f"{NYU.name}-light-student begins with torchvision's mobilenet_v2-b0353104.pth in the working directory, or "
        "with --model.encoder-weights FILE."
    )
    say(
        "A student is taught by the run of its data set's teacher preset, or another named by --teacher; the light "
        "teacher learns alone; --teacher None trains it alone. Any setting can be given beside the preset."
    )
