"""Experiment trackers (wandb, mlflow, trackio, …) that hear of a run, through accelerate's `log_with`.

Whether they can be used is asked before the training: a package that is not installed, or a tracker that does not
start, ends it there. One that fails later is left out from then on, which is said once: history.jsonl has every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from adu_depth.errors import InputError
from adu_depth.files import folder_name, make_folder
from adu_depth.report.tables import flat

OURS = "tensorboard"  # written by `run_log.EventFile`
PROJECT = "adu-depth"
PACKAGES = {name: name for name in ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio", "wandb")}
INSTALLED_AS = {"comet_ml": "comet-ml"}
RUN_NAMES = {"wandb": "name", "trackio": "name", "mlflow": "run_name", "swanlab": "experiment_name"}
"""What a tracker calls the name of a run, as distinct from that of its project."""

Say = Callable[[str], None]


def trackers_by_accelerate(names: Sequence[str]) -> list[str]:
    """Those of loop.trackers that accelerate leads. InputError for an unknown name, or a package that is not there."""
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS and name != OURS:
            known = ", ".join(sorted({OURS, *LOGGER_TYPE_TO_CLASS}))
            raise InputError(f"loop.trackers: {name!r} is not known, expected some of {known}")
        package = PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            pip = INSTALLED_AS.get(name, name)
            raise InputError(
                f"loop.trackers: {name} needs the package {package}, which is not installed: pip install {pip}"
            )
    return [name for name in dict.fromkeys(names) if name != OURS]


class Trackers:
    """The trackers of one run, started; in the process that writes. The accelerator must be made with their names.

    Raises InputError where one does not start: not logged in, no network, no room.
    """

    def __init__(self, accelerator: Accelerator, run: Path, config: Mapping[str, Any], say: Say) -> None:
        self.say = say
        self.trackers: list[GeneralTracker] = []
        names = [str(name) for name in accelerator.log_with]
        if not names or not accelerator.is_main_process:
            return
        options: dict[str, dict[str, Any]] = {
            name: {key: folder_name(run)} for name, key in RUN_NAMES.items() if name in names
        }
        if "wandb" in names:
            make_folder(run / "wandb")
            options["wandb"]["dir"] = str(run)
        try:
            accelerator.init_trackers(PROJECT, dict(flat(config)), options)
        except Exception as error:
            for tracker in accelerator.trackers:
                with suppress(Exception):
                    tracker.finish()
            raise InputError(
                f"loop.trackers: {', '.join(names)} cannot be started: {_reason(error)}; most can be used without a "
                "network (WANDB_MODE=offline), or leave it out"
            ) from error
        self.trackers = list(accelerator.trackers)

    def write(self, row: Mapping[str, float]) -> None:
        """A row of the history, at its step."""
        values = {name: value for name, value in row.items() if name != "step"}
        self._each(lambda tracker: tracker.log(values, step=int(row["step"])))

    def write_pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Pictures, H×W×3 uint8, by name; for the trackers that take any."""
        batches = {name: picture[None] for name, picture in pictures.items()}
        self._each(lambda tracker: tracker.log_images(batches, step=step) if hasattr(tracker, "log_images") else None)

    def close(self) -> None:
        self._each(lambda tracker: tracker.finish())
        self.trackers = []

    def _each(self, tell: Callable[[GeneralTracker], object]) -> None:
        for tracker in list(self.trackers):
            try:
                tell(tracker)
            except Exception as error:  # whatever it is, the training is worth more
                self.trackers.remove(tracker)
                self.say(f"tracker {tracker.name} failed, and hears no more of this run: {_reason(error)}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
