"""The work of `adu-depth doctor` and `adu-depth splits`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from adu_depth.arguments import Positional
from adu_depth.data import open_dataset
from adu_depth.data.layouts import find_layout, is_plain_pictures
from adu_depth.data.splits import use_split, write_splits
from adu_depth.doctor.examine import examine
from adu_depth.doctor.findings import ERROR, WARNING, counted
from adu_depth.errors import InputError
from adu_depth.files import read_name_lines, write_json
from adu_depth.progress import Progress
from adu_depth.schema import require_kinds


@dataclass(frozen=True)
class DoctorConfig:
    """Look a data set over before training: files, calibration, order of the views, units, ground truth.

    Says for each problem which files it is in and what to do. Exit code 0: usable, with warnings or without; 1: errors;
    2: not a data set, or no frame of it can be read.
    """

    root: Positional[Path]
    """The data set's folder."""
    layout: str = "auto"
    """The folder's layout; "auto" recognises it. A folder of images alone is described: counts, sizes, grey or not."""
    split: str = ""
    """Look at the frames of this file only."""
    ground_truth: str = ""
    """Folder of the ground truth where it is not in `root` (KITTI raw)."""
    samples: int = 24
    """How many frames to decode and match, evenly spread; files are looked for, and at their ends, for all."""
    all: bool = False
    """Decode every frame, not only those that are matched."""
    json: Path | None = None
    """Also write all findings to this file, with every file named."""

    def __post_init__(self) -> None:
        require_kinds(self)


@dataclass(frozen=True)
class SplitsConfig:
    """Write train.txt and val.txt for a data set, for --data.split. No sequence is in both."""

    root: Positional[Path]
    """The data set's folder."""
    output: Path
    """Folder for the two files."""
    layout: str = "auto"
    """The folder's layout; "auto" recognises it."""
    ground_truth: str = ""
    """Folder of the ground truth where it is not in `root` (KITTI raw)."""
    validation: float = 0.1
    """Share of the frames to validate on."""
    seed: int = 0
    labelled_only: bool = False
    """Leave out frames without ground truth."""

    def __post_init__(self) -> None:
        require_kinds(self)


def doctor(config: DoctorConfig, console: Console) -> int:
    """Prints what was found; returns the exit code."""
    plain = config.layout == "auto" and is_plain_pictures(config.root)
    layout = "pictures" if plain else find_layout(config.root, config.layout).name
    dataset = open_dataset(config.root, layout, ground_truth=config.ground_truth or None, together=True)
    if config.split:
        use_split(dataset, config.split, keep_missing=True)
    report = examine(dataset, layout, config.samples, config.all, Progress(console))
    console.print(report.table(), soft_wrap=False)
    if config.json is not None:
        write_json(config.json, report.as_dict())
    errors, warnings = report.count(ERROR), report.count(WARNING)
    told = f"{counted(errors, 'error')}, {counted(warnings, 'warning')}"
    console.print(f"{told}; {report.looked_at} of {counted(report.frames, 'frame')} compared")
    return report.exit_code


def splits(config: SplitsConfig, console: Console) -> int:
    """Writes the two lists of the frames that are whole, and says what they hold."""
    truth = config.ground_truth or None
    dataset = open_dataset(config.root, config.layout, ground_truth=truth, skip_missing=True, together=True)
    for note in dataset.notes:
        console.print(note)
    if config.labelled_only:
        dataset.select([name for name in dataset.names if dataset.labelled(name)])
        if not dataset.names:
            raise InputError(f"{config.root}: no frame has ground truth")
    named = len({dataset.sequence(name) for name in dataset.names}) > 1
    for part, path in write_splits(dataset, config.output, config.validation, config.seed).items():
        names = [name for name in read_name_lines(path) if name]
        found = len({dataset.sequence(name) for name in names})
        sequences = f" of {counted(found, 'sequence')}" if named else ""
        console.print(f"{part}: {len(names)} frames{sequences} in {path}")
    if not named:
        console.print("no sequences are named here: the validation part is one stretch of neighbouring frames")
    return 0
