"""The work of `adu-depth adapt`: look the pairs over, match them, hold some out, train, compare."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from rich.console import Console
from rich.table import Table

from adu_depth.adaptation.config import AdaptConfig
from adu_depth.checkpoint import config_dict, list_checkpoints, load_model
from adu_depth.data import open_dataset
from adu_depth.data.config import DataConfig
from adu_depth.data.dataset import FileDataset
from adu_depth.data.identity import frames_digest
from adu_depth.data.layouts import find_layout, folder_options
from adu_depth.data.sample import StereoSample
from adu_depth.data.splits import divide_nearly, write_parts
from adu_depth.data.transforms import require_fit
from adu_depth.doctor.examine import examine
from adu_depth.doctor.findings import ERROR, counted
from adu_depth.environment import describe_environment
from adu_depth.errors import InputError
from adu_depth.evaluation.command import EvaluateConfig, evaluate_checkpoint, open_with_full_truth
from adu_depth.evaluation.pair import CHOOSABLE, PROXY_METRICS
from adu_depth.files import read_name_lines, require_text_name, write_json
from adu_depth.folder_lock import locked, require_own
from adu_depth.launcher import world_size
from adu_depth.models import StereoTeacher
from adu_depth.progress import Progress
from adu_depth.proxies.command import ProxiesConfig, make_proxies
from adu_depth.schema import read_json
from adu_depth.training.loop import Interrupted, make_accelerator
from adu_depth.training.resuming import without_run_settings
from adu_depth.training.run_folder import settings_before
from adu_depth.training.runs import train_teacher
from adu_depth.training.teacher_outputs import weights_digest

SETTINGS = "adapt.json"
"""Marks a folder as an adaptation's, and holds what came out."""
BEFORE = "before.json"
"""The figures of the teacher that it begins with, so that they are measured once."""
PROTOCOL = "pair"
ANOTHER = "expected what it began with, or another output"
ANOTHER_METRIC = "expected metric photometric or left_right, or another held_out"
Figures = dict[str, dict[str, float]]


class Measured(TypedDict):
    """before.json. of: all that the figures hang on."""

    of: dict[str, Any]
    figures: dict[str, float]


class NothingMatched(InputError):
    """The checkpoint is to be chosen by proxies, and no held-out pair has any. found: that, without an advice."""

    def __init__(self, metric: str, found: str) -> None:
        super().__init__(f"metric {metric}: {found}; {ANOTHER_METRIC}")
        self.metric, self.found = metric, found

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # `args` is the message
        return type(self), (self.metric, self.found)


def adapt(config: AdaptConfig, console: Console) -> dict[str, Any]:
    """Adapts the teacher, says how it stands beside the one it was, and returns what adapt.json holds.

    Raises InputError where the start is no stereo teacher, the pairs cannot be learned from, or the folder holds
    anything else.
    """
    if world_size() > 1:
        raise InputError(
            f"adapt works in one process, got {world_size()}: make the proxies by `adu-depth proxies`, and give "
            "`train-teacher --init RUN --data.proxies DIR` to torchrun or accelerate launch"
        )
    require_text_name(config.output)
    with locked(config.output, "adapt"):
        return _Adapting(config, console).run()


def open_pairs(data: DataConfig, progress: Progress) -> tuple[FileDataset, str]:
    """The pairs of an adaptation's `data`, and their layout. InputError where they cannot be opened, or its windows do
    not fit in them."""
    layout = find_layout(Path(data.root), data.layout).name
    dataset = open_dataset(data.root, **(folder_options(data) | {"layout": layout}))
    for note in dataset.notes:
        progress.say(note)
    if data.fit == "crop":  # the training asks too, but after all frames were matched
        require_fit(dataset, data.size, data.crop_scale[1])
    return dataset, layout


def look_over(dataset: FileDataset, layout: str, console: Console, progress: Progress) -> None:
    """The doctor's findings; InputError where there are errors among them."""
    report = examine(dataset, layout, progress=progress)
    errors = report.count(ERROR)
    if errors:
        console.print(report.table(), soft_wrap=False)
        raise InputError(
            f"{dataset.root}: {counted(errors, 'error')} above; a teacher would learn them. Mend them, or begin all "
            "the same by --no-check"
        )


class _Adapting:
    """What the steps share. start: how the teacher that it begins with is built."""

    def __init__(self, config: AdaptConfig, console: Console) -> None:
        self.config, self.console, self.progress = config, console, Progress(console)
        self.folder = config.output
        self._require_ours()
        self.device = make_accelerator(config.loop).device
        loaded = load_model(config.start)
        start = loaded.model
        if not isinstance(start, StereoTeacher):
            raise InputError(f"{config.start}: expected a stereo teacher, got a network for single images")
        self.start, self.start_weights = start.config, weights_digest(start)
        self.start_as = {
            "weights": self.start_weights,
            "model": config_dict(start.config),
            "seen": [loaded.fit, list(loaded.size), loaded.short_side],
        }
        if checkpoints := list_checkpoints(config.run):
            self._require_the_same(checkpoints[-1])

    def run(self) -> dict[str, Any]:
        config = self.config
        dataset, layout = open_pairs(config.data, self.progress)
        begun = bool(list_checkpoints(config.run))
        parts = divide_nearly(dataset, dataset.names, config.held_out, 0)  # whatever the seed: seeds can be compared
        if begun:
            self._require_the_same_pairs(*parts)
        self._require_proxies(dataset, parts[1])
        if config.check:
            look_over(dataset, layout, self.console, self.progress)
        if not begun:  # else an earlier outcome stays until there is another
            write_json(self.folder / SETTINGS, {"settings": config_dict(config)})
        proxies = self._match()
        splits = write_parts(dataset, self.folder / "splits", *parts)
        before = self._before(splits["val"], proxies)
        training = config.training(self.start, splits["train"], splits["val"])
        if begun:
            # Its teacher has the weights that it began with, by whatever path; the run itself still says by which.
            training = replace(training, init=None, loop=replace(training.loop, resume=True))
        try:
            with without_run_settings(training.loop.resume_from):
                train_teacher(training, self.progress)
        except Interrupted as stopped:
            raise Interrupted(stopped.signum, "the same command goes on with this adaptation") from stopped
        after = self._figures(self._measuring(config.run, splits["val"], proxies))
        return self._compare(before, after)

    def _require_ours(self) -> None:
        """InputError where the folder holds anything that no adaptation wrote."""
        require_own(self.folder, SETTINGS)
        if (self.folder / SETTINGS).is_file():
            read_json(self.folder / SETTINGS, dict[str, Any])

    def _require_the_same(self, newest: Path) -> None:
        """InputError where the run that is there began with other weights, or chooses its checkpoint by another
        metric, which a training that goes on does not ask: its figures would be told as of these settings."""
        run, start, before = self.config.run, self.config.start, settings_before(self.config.run, newest)
        chosen_by = before.get("validation", {}).get("metric")
        if chosen_by != self.config.metric:
            raise InputError(f"metric {self.config.metric}: {run} chooses its checkpoint by {chosen_by}; {ANOTHER}")
        if before.get("init_weights") != self.start_weights:
            raise InputError(f"{start}: other weights than {run} began with; {ANOTHER}")

    def _require_the_same_pairs(self, training: list[str], held_out: list[str]) -> None:
        """InputError where the run that is there learned from others: the files of the splits must go on saying which
        those were."""
        folder, share = self.folder / "splits", self.config.held_out
        for file, names in ((folder / "train.txt", training), (folder / "val.txt", held_out)):
            if file.is_file() and [name for name in read_name_lines(file) if name] != names:
                raise InputError(
                    f"{folder}: other pairs than {self.config.data.root} has, or another share of them than held_out "
                    f"{share:g}, taught {self.config.run}; {ANOTHER}"
                )

    def _require_proxies(self, dataset: FileDataset, held_out: list[str]) -> None:
        """InputError where the checkpoint is to be chosen by proxies and no held-out pair will have any."""
        if self.config.metric in PROXY_METRICS and all(map(dataset.teaches, held_out)):
            raise InputError(
                f"metric {self.config.metric}: all {len(held_out)} held-out pairs of {self.config.data.root} have "
                f"ground truth, such as {held_out[0]}, and proxies are made for those without; {ANOTHER_METRIC}"
            )

    def _match(self) -> Path:
        config, data = self.config, self.config.data
        settings = ProxiesConfig(
            root=Path(data.root),
            output=self.folder / "proxies",
            layout=data.layout,
            split=Path(data.split) if data.split else None,
            ground_truth=Path(data.ground_truth) if data.ground_truth else None,
            skip_missing=data.skip_missing,
            max_disparity=config.max_disparity,
        )
        make_proxies(settings, self.console)
        return settings.output

    def _before(self, split: Path, proxies: Path) -> dict[str, float]:
        """The figures of the teacher that it begins with: those that were measured before it was stopped, where they
        are of the same teacher and pairs."""
        settings, file = self._measuring(self.config.start, split, proxies), self.folder / BEFORE
        pairs = open_with_full_truth(settings.data, **folder_options(settings))
        pairs.use_proxies(proxies)
        if self.config.metric in PROXY_METRICS and not any(_has_proxies(pairs[i]) for i in range(len(pairs))):
            raise NothingMatched(
                self.config.metric,
                f"in none of the {len(pairs)} held-out pairs of {self.config.data.root} is the matcher sure of a pixel "
                f"({split} names them)",
            )
        of = {**self.start_as, "frames": frames_digest(pairs), "kb_crop": settings.kb_crop}
        if file.is_file() and (kept := read_json(file, Measured))["of"] == of:
            return kept["figures"]
        figures = self._figures(settings)["teacher"]
        write_json(file, Measured(of=of, figures=figures))
        return figures

    def _measuring(self, checkpoint: Path, split: Path, proxies: Path) -> EvaluateConfig:
        """How a teacher is measured on the held-out pairs."""
        data = self.config.data
        return EvaluateConfig(
            checkpoint=checkpoint,
            data=data.root,
            layout=data.layout,
            split=split,
            ground_truth=Path(data.ground_truth) if data.ground_truth else None,
            skip_missing=data.skip_missing,
            kb_crop=data.kb_crop,
            proxies=proxies,
            protocol=PROTOCOL,
            device=self.device.type,  # type: ignore[arg-type]  # LoopConfig knows these alone
        )

    def _figures(self, settings: EvaluateConfig) -> Figures:
        """What can be known without ground truth: of the network, and of those beside it."""
        found = evaluate_checkpoint(settings, Console(quiet=True))
        return {name: results[PROTOCOL].means() for name, results in found.items()}

    def _compare(self, before: dict[str, float], after: Figures) -> dict[str, Any]:
        metric, adapted = self.config.metric, after["teacher"]
        others = {name: figures for name, figures in after.items() if name != "teacher"}
        columns = {"before": before, "adapted": adapted, **others}
        worse = [name for name in CHOOSABLE if name in before and not adapted.get(name, math.nan) <= before[name]]
        report = {
            "settings": config_dict(self.config),
            "held_out": columns,
            "worse": worse,
            "environment": describe_environment(self.device),
        }
        write_json(self.folder / SETTINGS, report)
        table = Table("held-out pairs, no ground truth", *columns)
        for name in CHOOSABLE:
            if name in before:
                table.add_row(name, *(_cell(figures.get(name)) for figures in columns.values()))
        self.console.print(table)
        if worse:
            chosen = f" ({metric} is what its checkpoint was chosen by: keep the one it was)" if metric in worse else ""
            self.progress.say(
                f"WARNING: it got worse in {', '.join(worse)}{chosen}; look at the pictures in "
                f"{self.config.run / 'validation'}, and at `adu-depth doctor {self.config.data.root}`"
            )
        self.progress.say(
            f"teacher in {self.config.run}: adu-depth distill --teacher {self.config.run} "
            f"--data.root {self.config.data.root} …"
        )
        return report


def _has_proxies(sample: StereoSample) -> bool:
    return sample.proxied and bool(sample.valid.any())


def _cell(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"
