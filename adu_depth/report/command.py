"""The work of `adu-depth report`: the page of a finished quickstart or training, drawn again from its folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from adu_depth.arguments import Positional
from adu_depth.data import built_in_scenes
from adu_depth.errors import InputError
from adu_depth.evaluation.command import HELD_OUT_SCENES
from adu_depth.files import folder_name
from adu_depth.folder_lock import locked
from adu_depth.quickstart import MODELS, SCENES_SHOWN, SETTINGS, QuickstartConfig, scene_panel
from adu_depth.real_quickstart.command import SETTINGS as REAL
from adu_depth.real_quickstart.command import draw_page
from adu_depth.report.document import write_report
from adu_depth.schema import Range, check, read_json, require_kinds
from adu_depth.training.history import read_history

PAGE = "report.html"
HISTORY = "history.jsonl"
EXPECTED = "expected the folder of a quickstart or of a training"


@dataclass(frozen=True)
class ReportConfig:
    """Draw report.html again: a finished quickstart's, of either scale, from its numbers, curves and checkpoints, a
    training's curves, also while it runs."""

    run: Positional[Path]
    """Folder of a quickstart or of a training."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where a quickstart's models predict the scenes that are shown; "auto" is CUDA where there is one."""

    def __post_init__(self) -> None:
        require_kinds(self)


class _Parts(TypedDict, total=False):
    """What a page is made of besides the metrics, which are looked at one by one."""

    seeds: Annotated[int, Range(1, 1_000_000)]
    seconds: dict[str, Any]
    environment: dict[str, Any]
    settings: dict[str, Any]


def draw_report(config: ReportConfig) -> Path:
    """Writes report.html into the folder, over an earlier one; returns its path. Nothing else there is changed."""
    if not config.run.is_dir():
        raise InputError(f"{config.run}: {EXPECTED}, found no folder")
    if (config.run / REAL).is_file():
        with locked(config.run, "report"):
            draw_page(config.run, config.device)
    elif (config.run / SETTINGS).is_file():
        with locked(config.run, "report"):  # a quickstart that begins anew would take the checkpoints away
            _quickstart(config.run, config.device)
    else:
        _training(config.run)
    return config.run / PAGE


def _quickstart(run: Path, device: str) -> None:
    if not (run / "report.json").is_file():
        raise InputError(f"{run}: this quickstart has not come to its end, there is no report.json; call it again")
    found = read_json(run / "report.json")
    check(_Parts, found, run / "report.json")
    settings = replace(read_json(run / SETTINGS, QuickstartConfig), output=run, device=device)
    height, width = settings.size
    scenes = built_in_scenes(settings.scenery, settings.held_out, height, width, HELD_OUT_SCENES)
    panels = [scene_panel(settings, scenes[index]) for index in range(min(SCENES_SHOWN, len(scenes)))]
    history = {model: read_history(run / "seed-0" / model / HISTORY, sys.maxsize) for model in MODELS}
    write_report(run / PAGE, found, panels, history)


def _training(run: Path) -> None:
    if not (run / HISTORY).is_file():
        raise InputError(f"{run}: {EXPECTED}, found no {SETTINGS} and no {HISTORY}")
    history = {folder_name(run): read_history(run / HISTORY, sys.maxsize)}
    report = {"settings": read_json(run / "config.json")}
    write_report(run / PAGE, report, history=history, title=f"Training {folder_name(run)}")
