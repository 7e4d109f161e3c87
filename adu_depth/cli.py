"""The command line: `adu-depth COMMAND --help` says what each command takes."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.text import Text
from safetensors import SafetensorError
from tyro.conf import arg, subcommand

from adu_depth import distributed, entry, launcher
from adu_depth.ablation.command import run_ablation
from adu_depth.ablation.config import AblationConfig
from adu_depth.adaptation import AdaptConfig
from adu_depth.adaptation import adapt as run_adaptation
from adu_depth.app.command import AppConfig, run_app
from adu_depth.data import built_in_scenes
from adu_depth.data.packed.command import PackConfig, run_pack
from adu_depth.data.synthetic.sceneries import Scenery
from adu_depth.doctor import command as doctor_command
from adu_depth.doctor.command import DoctorConfig, SplitsConfig
from adu_depth.errors import InputError, SharedInputError
from adu_depth.evaluation.command import EvaluateConfig, evaluate_checkpoint
from adu_depth.export.command import export as run_export
from adu_depth.export.config import ExportConfig
from adu_depth.inference.command import PredictConfig, predict_images
from adu_depth.inference.render import write_samples
from adu_depth.parsing import settings_registry
from adu_depth.proxies.command import ProxiesConfig, make_proxies
from adu_depth.quickstart import QuickstartConfig, run_quickstart
from adu_depth.real_quickstart import RealQuickstartConfig, run_real_quickstart
from adu_depth.report.command import ReportConfig, draw_report
from adu_depth.saved_network.command import SaveConfig, save_network
from adu_depth.schema import require_kinds
from adu_depth.stopping import Stopped
from adu_depth.submission.command import SubmitConfig
from adu_depth.submission.command import submit as write_or_check_submission
from adu_depth.terminal import SafeConsole, printable, printable_name
from adu_depth.training.cache_command import CacheTeacherConfig, cache_teacher
from adu_depth.training.config import StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.good_checkpoints import NonFiniteLoss
from adu_depth.training.loop import Interrupted
from adu_depth.training.presets import PresetsConfig, list_presets, take_preset
from adu_depth.training.runs import train_student, train_teacher

# File names are the user's: brackets and colons in them are no markup.
console = SafeConsole(soft_wrap=True, markup=False, emoji=False)
OUT_OF_MEMORY = (
    "out of memory; what was written until now stays. Smaller images (--data.size, --size) and batches "
    "(--loop.batch-size) need less"
)
errors = SafeConsole(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


@dataclass(frozen=True)
class RenderConfig:
    """Write built-in scenes as files: both views, depth, disparity, LiDAR depth, occlusion, previews, calibration."""

    output: Path = Path("runs/scenes")
    count: int = 8
    size: tuple[int, int] = (192, 640)
    """Height and width in pixels."""
    seed: int = 0
    scenery: Scenery = "usual"
    """usual, streets by day as a KITTI-like car sees them, or varied: other cameras and things near by."""

    def __post_init__(self) -> None:
        require_kinds(self)


def render(config: RenderConfig) -> int:
    height, width = config.size
    scenes = built_in_scenes(config.scenery, config.count, height, width, config.seed)
    write_samples(scenes, config.output, config.count, lambda preview: console.print(f"wrote {preview}"))
    return 0


def evaluate(config: EvaluateConfig) -> int:
    evaluate_checkpoint(config, console)
    return 0


def predict(config: PredictConfig) -> int:
    failures = predict_images(config, console)
    for file, reason in failures:
        complain("failed", f"{file}: {reason}")
    return 1 if failures else 0


def save(config: SaveConfig) -> int:
    save_network(config, console)
    return 0


def export(config: ExportConfig) -> int:
    run_export(config, console)
    return 0


def app(config: AppConfig) -> int:
    run_app(config, console)
    return 0


def quickstart(config: QuickstartConfig) -> int:
    run_quickstart(config, console)
    return 0


def real_quickstart(config: RealQuickstartConfig) -> int:
    run_real_quickstart(config, console)
    return 0


def ablation(config: AblationConfig) -> int:
    run_ablation(config, console)
    return 0


def report(config: ReportConfig) -> int:
    console.print(f"report: {draw_report(config)}")
    return 0


def teacher(config: TeacherTrainingConfig) -> int:
    train_teacher(config)
    if launcher.rank() == 0:
        console.print(f"teacher in {config.run}: adu-depth evaluate {config.run}")
    return 0


def distill(config: StudentTrainingConfig) -> int:
    train_student(config)
    if launcher.rank() == 0:
        console.print(f"student in {config.run}: adu-depth evaluate {config.run}")
    return 0


def fill_cache(config: CacheTeacherConfig) -> int:
    outputs = cache_teacher(config)
    if launcher.rank() == 0:
        console.print(f"outputs of {outputs.count} frames in {config.teacher_cache}", highlight=False)
    return 0


def pack(config: PackConfig) -> int:
    run_pack(config, lambda text: console.print(text, highlight=False))
    return 0


def presets(config: PresetsConfig) -> int:
    list_presets(console)
    return 0


def doctor(config: DoctorConfig) -> int:
    return doctor_command.doctor(config, console)


def splits(config: SplitsConfig) -> int:
    return doctor_command.splits(config, console)


def proxies(config: ProxiesConfig) -> int:
    make_proxies(config, console)
    return 0


def adapt(config: AdaptConfig) -> int:
    run_adaptation(config, console)
    return 0


def submit(config: SubmitConfig) -> int:
    faults = write_or_check_submission(config, console)
    for fault in faults:
        complain("fault:", fault)
    return 1 if faults else 0


NARROWEST = 24  # columns that help is written for at the least
ALIKE = "stopped by the same error as another process, which says it"
COMMANDS: dict[type, Any] = {
    QuickstartConfig: quickstart,
    RealQuickstartConfig: real_quickstart,
    ReportConfig: report,
    AblationConfig: ablation,
    RenderConfig: render,
    DoctorConfig: doctor,
    SplitsConfig: splits,
    ProxiesConfig: proxies,
    AdaptConfig: adapt,
    TeacherTrainingConfig: teacher,
    StudentTrainingConfig: distill,
    CacheTeacherConfig: fill_cache,
    EvaluateConfig: evaluate,
    PredictConfig: predict,
    SaveConfig: save,
    ExportConfig: export,
    AppConfig: app,
    SubmitConfig: submit,
    PackConfig: pack,
    PresetsConfig: presets,
}
Command = (
    Annotated[QuickstartConfig, subcommand("quickstart")]
    | Annotated[RealQuickstartConfig, subcommand("quickstart-real")]
    | Annotated[ReportConfig, subcommand("report")]
    | Annotated[AblationConfig, subcommand("ablation")]
    | Annotated[RenderConfig, subcommand("render")]
    | Annotated[DoctorConfig, subcommand("doctor")]
    | Annotated[SplitsConfig, subcommand("splits")]
    | Annotated[ProxiesConfig, subcommand("proxies")]
    | Annotated[AdaptConfig, subcommand("adapt")]
    | Annotated[TeacherTrainingConfig, subcommand("train-teacher")]
    | Annotated[StudentTrainingConfig, subcommand("distill")]
    | Annotated[CacheTeacherConfig, subcommand("cache-teacher")]
    | Annotated[EvaluateConfig, subcommand("evaluate")]
    | Annotated[PredictConfig, subcommand("predict")]
    | Annotated[SaveConfig, subcommand("save")]
    | Annotated[ExportConfig, subcommand("export")]
    | Annotated[AppConfig, subcommand("app")]
    | Annotated[SubmitConfig, subcommand("submit")]
    | Annotated[PackConfig, subcommand("pack")]
    | Annotated[PresetsConfig, subcommand("presets")]
)


@dataclass(frozen=True)
class Arguments:
    """The whole command line. tyro names this field where it refuses a value; for a bare union it makes up a name."""

    settings: Annotated[Command, arg(name="")]


def complain(what: str, text: str) -> None:
    # Further lines stand indented: a line break in a file's name must not look like a message of its own.
    errors.print(Text.assemble((what, "red"), " " + printable(text).replace("\n", "\n  ")))


def parse(arguments: list[str]) -> Any:
    """The settings of the command that is asked for; those of a preset are its defaults. Raises InputError."""
    arguments, preset = take_preset(arguments)
    default = {} if preset is None else {"default": Arguments(preset.config)}
    with _shown_not_obeyed(arguments), _wide_enough():
        options = {"prog": "adu-depth", "description": __doc__, "registry": settings_registry(), **default}
        config = tyro.cli(Arguments, args=arguments, **options).settings
    return config if preset is None else preset.completed(config)  # type: ignore[type-var]


@contextmanager
def _wide_enough() -> Iterator[None]:
    """In a terminal of less than eight columns tyro's help never ends."""
    before = os.environ.get("COLUMNS")
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before


@contextmanager
def _shown_not_obeyed(arguments: list[str]) -> Iterator[None]:
    """tyro quotes arguments as they are; a file's name among them (`predict RUN *`) may hold what a terminal obeys.

    What every process of a run would say is said by one.
    """
    if launcher.world_size() == 1 and all(printable_name(argument) == argument for argument in arguments):
        yield
        return
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    finally:
        text = printable(said.getvalue())
        sys.stderr.write(text if not text or distributed.first_to_say(text) else f"{launcher.signed(ALIKE)}\n")


def out_of_memory(error: BaseException) -> bool:
    """Whether a computation wanted more memory than the machine or the GPU has; torch says so in several ways."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and exits: 0 done, 1 a part failed, 2 bad input, 3 a NaN loss, 128 + n stopped by signal n."""
    sys.exit(entry.run(lambda started: command(sys.argv[1:] if arguments is None else arguments)))


def command(arguments: list[str]) -> int:
    """Runs a command and returns its exit code, see `main`."""
    try:
        config = parse(arguments)
        code = COMMANDS[type(config)](config)
        distributed.leave_together()
        return code  # type: ignore[no-any-return]
    except SharedInputError as error:
        say_once(str(error))
        return 2
    except (InputError, OSError, SafetensorError) as error:  # the latter two: a full disk, no permission
        if distributed.first_to_say(str(error)):
            complain(launcher.signed("error:"), str(error))
        else:
            errors.print(launcher.signed(ALIKE))
        return 2
    except NonFiniteLoss as error:
        say_once(str(error))
        return 3
    except Stopped:
        raise
    except KeyboardInterrupt:
        errors.print("interrupted")
        return 128 + signal.SIGINT
    except Interrupted as error:
        if launcher.rank() == 0:
            errors.print(str(error))
        distributed.leave_together()
        return 128 + error.signum
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            complain(launcher.signed("error:"), f"{OUT_OF_MEMORY} ({str(error).strip().partition(chr(10))[0][:300]})")
            return 1
        if not distributed.lost_another(error):
            raise
        errors.print(launcher.signed(_how_lost(error)))
        return 1


def _how_lost(error: BaseException) -> str:
    if not distributed.waited_in_vain(error):
        return "another process has ended, and with it the run; its message or the launcher's says why"
    silent = [f"process {number}" for number in distributed.silent_processes()]
    text = (
        f"waited in vain for {' and '.join(silent) or 'another process'}: not ended, but stopped, or held up by a disk "
        "or a network. The run ends; loop.process_timeout says how long a training waits"
    )
    return text if distributed.first_to_say(text) else ALIKE


def say_once(text: str) -> None:
    """A reason that every process of a run has."""
    if launcher.rank() == 0:
        complain("error:", text)
    else:
        errors.print(launcher.signed("stopped with the others; process 0 says why"))
    distributed.leave_together()
