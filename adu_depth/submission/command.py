"""The work of `adu-depth submit`: write a submission, or say what is wrong with one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from adu_depth.arguments import Positional
from adu_depth.errors import InputError
from adu_depth.inference import Predictor
from adu_depth.inference.predictor import Flip
from adu_depth.progress import Progress
from adu_depth.schema import require_kinds
from adu_depth.submission.benchmark import file_names
from adu_depth.submission.validate import validate_zip
from adu_depth.submission.write import find_test_images, write_submission


@dataclass(frozen=True)
class SubmitConfig:
    """Write a student's submission to KITTI's depth prediction benchmark, or check one (--validate ZIP)."""

    checkpoint: Positional[Path | None] = None
    """A student's run folder (its best checkpoint where it was validated, else its newest) or checkpoint folder."""
    data: Path | None = None
    """The benchmark's test_depth_prediction_anonymous, or the folder it lies in."""
    output: Path = Path("runs/submission")
    """Folder for depth/NNNNNNNNNN.png and submission.zip."""
    validate: Path | None = None
    """Only check this zip: names, count, kind, size, zeros, range."""
    partial: bool = False
    """Take fewer than the 500 images: for trying it out, the benchmark wants all."""
    size: str = "trained"
    """What the network is run at: "trained", the size it was trained at; "full", each image's own; a factor of that
    (0.5); or one height and width (192x640). Depth is written at each image's own size."""
    flip: Flip = "none"
    """Test-time augmentation: the mean with the mirrored image, plain or with Monodepth's ramp."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """"auto" is CUDA where there is one."""

    def __post_init__(self) -> None:
        require_kinds(self)


def submit(config: SubmitConfig, console: Console) -> list[str]:
    """Does what is asked for; returns the faults of the zip, of which one just written has none."""
    if config.validate is not None:
        if config.checkpoint is not None or config.data is not None:
            raise InputError("submit: --validate checks a zip that is there; leave out the checkpoint and --data")
        return _validated(config.validate, None, console)
    if config.checkpoint is None or config.data is None:
        raise InputError("submit: expected a student's checkpoint and --data, or --validate ZIP")
    images = find_test_images(config.data, config.partial)
    predictor = Predictor.from_checkpoint(config.checkpoint, config.device, config.size, config.flip)
    with Progress(console).task("predicting", len(images)) as task:
        archive = write_submission(predictor, images, config.output, lambda: task.advance())
    names = [image.image.name for image in images]
    if len(names) < len(file_names()):
        console.print(f"{len(names)} of {len(file_names())} images: the benchmark will not take this zip")
    return _validated(archive, names, console)


def _validated(path: Path, expected: list[str] | None, console: Console) -> list[str]:
    faults = validate_zip(path, expected)
    if not faults:
        console.print(f"{path}: {len(expected or file_names())} depth maps, nothing wrong")
    return faults
