"""The work of `adu-depth quickstart-real`: teacher, adaptation, student, one after the other, and the page of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from rich.console import Console
from rich.table import Table

from adu_depth.adaptation.command import NothingMatched, adapt, look_over
from adu_depth.adaptation.config import AdaptConfig
from adu_depth.checkpoint import config_dict, list_checkpoints
from adu_depth.environment import describe_environment
from adu_depth.errors import InputError
from adu_depth.files import read_name_lines, require_text_name, write_json
from adu_depth.folder_lock import locked, require_own
from adu_depth.launcher import world_size
from adu_depth.progress import Progress
from adu_depth.quickstart import Stopwatch, training_scenes
from adu_depth.real_quickstart.checks import focal_at, require_usable
from adu_depth.real_quickstart.config import RealQuickstartConfig
from adu_depth.real_quickstart.figures import ADAPTED, BEFORE, STUDENT, against_proxies, against_truth, panels
from adu_depth.real_quickstart.page import TABLES, write_real_page
from adu_depth.schema import check, read_json
from adu_depth.training.loop import Interrupted, make_accelerator
from adu_depth.training.resuming import without_run_settings
from adu_depth.training.run_folder import differing_settings, with_defaults, with_mixed_defaults
from adu_depth.training.runs import train_student, train_teacher

SETTINGS = "quickstart-real.json"
"""Marks a folder as one of these, and says of which settings."""
SECONDS = "seconds.json"
REPORT, PAGE = "report.json", "report.html"
FREE = {
    *("output", "device", "workers", "check", "truth", "student_steps", "teacher"),
    *(f"data.{place}" for place in ("root", "layout", "split", "ground_truth")),
}
"""Settings that may differ when it goes on: they say where and how, or what is measured. Where it matters, the parts
look for themselves whether teacher and pairs are the same, and whether a student goes on to more steps."""
OLDER = {"scenery": "usual", "data": {"scenery": "usual"}}
"""What a folder was begun with that names none of these."""


def run_real_quickstart(config: RealQuickstartConfig, console: Console) -> dict[str, Any]:
    """Does what is not done yet, and returns what report.json holds.

    Raises InputError, before anything long begins, where pairs, truth, teacher or weights cannot be used, or the folder
    holds anything else; Interrupted where a signal stopped it: the same command goes on.
    """
    if world_size() > 1:
        raise InputError(
            f"quickstart-real works in one process, got {world_size()}: start it without torchrun or accelerate launch"
        )
    require_text_name(config.output)
    with locked(config.output, "quickstart-real"):
        try:
            return _RealQuickstart(config, console).run()
        except Interrupted as stopped:
            raise Interrupted(stopped.signum, "the same command goes on from there") from stopped


def draw_page(output: Path, device: str) -> Path:
    """Draws the page of a finished one again, from its numbers, curves and checkpoints; returns its path."""
    if not (output / REPORT).is_file():
        raise InputError(f"{output}: this quickstart-real has not come to its end, there is no {REPORT}; call it again")
    report = check(_Report, read_json(output / REPORT), output / REPORT)
    settings = check(RealQuickstartConfig, read_json(output / SETTINGS), output / SETTINGS)
    _write(replace(settings, output=output, device=device), report)
    return output / PAGE


_Figures = dict[str, dict[str, float]]


class _Tables(TypedDict):
    held_out: _Figures
    matcher: _Figures
    worse: list[str]
    frames: dict[str, int]
    seconds: dict[str, float]
    environment: dict[str, Any]
    settings: dict[str, Any]


class _Report(_Tables, total=False):
    """What of report.json a page is made of."""

    truth: _Figures


class _RealQuickstart:
    """What the parts share."""

    def __init__(self, config: RealQuickstartConfig, console: Console) -> None:
        self.config, self.console, self.progress = config, console, Progress(console)
        self.folder, self.stopwatch = config.output, Stopwatch()
        require_own(self.folder, SETTINGS)
        if (self.folder / SETTINGS).is_file():
            self._require_the_same(read_json(self.folder / SETTINGS))
        if (self.folder / SECONDS).is_file():
            self.stopwatch.seconds.update(read_json(self.folder / SECONDS, dict[str, float]))
        self.device = make_accelerator(config.built_in().loop).device
        self.pairs, layout = require_usable(config, self.progress)
        if config.check:
            look_over(self.pairs, layout, console, self.progress)
        write_json(self.folder / SETTINGS, config_dict(config))

    def run(self) -> dict[str, Any]:
        if self.config.teacher is None:
            self._train_teacher()
        adaptation = self.config.adaptation()
        with self._part("adaptation", "2 of 4: the teacher goes on on the pairs"):
            adapted = self._adapt(adaptation)
        splits = {part: adaptation.output / "splits" / f"{part}.txt" for part in ("train", "val")}
        with self._part("student", "3 of 4: the adapted teacher teaches a network that sees one image"):
            self._train_student(splits["train"])
        with self._part("evaluation", "4 of 4: measured"):
            tables = {"held_out": adapted["held_out"], "matcher": against_proxies(self.config)}
            if self.config.truth is not None:
                tables["truth"] = against_truth(self.config)
        report = {
            **tables,
            "worse": adapted["worse"],
            "frames": {
                **{part: sum(map(bool, read_name_lines(file))) for part, file in splits.items()},
                "with_truth": sum(map(self.pairs.teaches, self.pairs.names)),
                "mixed_in": len(self.config.data.mix),
            },
            "seconds": {part: round(seconds, 1) for part, seconds in self.stopwatch.seconds.items()},
            "environment": describe_environment(self.device),
            "settings": config_dict(self.config),
        }
        write_json(self.folder / REPORT, report)
        self._print(report)  # before the page, which needs matplotlib
        _write(self.config, report)
        self.progress.say(f"student in {self.folder / 'student'}: adu-depth predict {self.folder / 'student'} IMAGE")
        self.progress.say(f"report: {self.folder / PAGE}")
        return report

    def _require_the_same(self, before: dict[str, Any]) -> None:
        """InputError for settings that would make it another: its parts would refuse them, the later ones late."""
        # With or without weights it is another student; where they lie, and that they are the same, is the student's.
        moved = {"encoder_weights"} if before.get("encoder_weights") and self.config.encoder_weights else set()
        filled = with_defaults(with_mixed_defaults(before), OLDER)
        differing = differing_settings(filled, config_dict(self.config), free=FREE | moved)
        if differing:
            raise InputError(
                f"output {self.folder} was begun with other settings; these differ: {'; '.join(differing)}; expected "
                "the same, or another output"
            )

    @contextmanager
    def _part(self, name: str, said: str) -> Iterator[None]:
        """Says that a part begins, and adds its seconds to those of earlier calls."""
        self.progress.say(f"--- {said}")
        try:
            with self.stopwatch(name):
                yield
        finally:
            write_json(self.folder / SECONDS, self.stopwatch.seconds)

    def _train_teacher(self) -> None:
        training = self.config.built_in()
        begun = bool(list_checkpoints(training.run))
        with self._part("teacher", "1 of 4: a teacher on built-in scenes"), without_run_settings():
            scenes = training_scenes(self.config.scene_settings)
            train_teacher(replace(training, loop=replace(training.loop, resume=begun)), self.progress, scenes)

    def _adapt(self, adaptation: AdaptConfig) -> dict[str, Any]:
        try:
            return adapt(adaptation, self.console)
        except NothingMatched as nothing:  # what it advises is a setting that this command has not
            known = "" if self.config.teacher else f", and --teacher {adaptation.start}, which is trained already"
            raise InputError(
                f"held_out {self.config.held_out:g}: {nothing.found}, and the best teacher is chosen where it is: "
                f"expected another share, which takes another output{known}; or other pairs"
            ) from nothing

    def _train_student(self, split: Path) -> None:
        light = bool(self.config.encoder_weights)
        focal = focal_at(self.pairs, self.config.student_size[1]) if light else None
        training = self.config.student(split, focal)
        begun = bool(list_checkpoints(training.run))
        with without_run_settings():
            train_student(replace(training, loop=replace(training.loop, resume=begun)), self.progress)

    def _print(self, report: dict[str, Any]) -> None:
        for name, says, metrics in TABLES:
            if name in report and name != "held_out":  # which the adaptation has printed
                columns = report[name]
                table = Table("", *columns, title=says)
                for metric in metrics:
                    values = [found.get(metric) for found in columns.values()]
                    if any(value is not None for value in values):
                        table.add_row(metric, *("–" if value is None else f"{value:.4g}" for value in values))
                self.console.print(table)


def _write(config: RealQuickstartConfig, report: dict[str, Any]) -> None:
    adaptation = config.adaptation()
    runs = {BEFORE: adaptation.start, ADAPTED: adaptation.run, STUDENT: config.output / "student"}
    write_real_page(config.output / PAGE, config, report, panels(config), runs)
