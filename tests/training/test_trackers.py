"""Who hears of a run's rows beside history.jsonl: trackers by accelerate, our own and those installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from accelerate import tracking
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from adu_depth.errors import InputError
from adu_depth.training import trackers
from adu_depth.training.config import TeacherTrainingConfig
from adu_depth.training.loop import make_accelerator
from adu_depth.training.run_log import RunLog
from adu_depth.training.runs import train_teacher
from adu_depth.training.trackers import PACKAGES, Trackers, trackers_by_accelerate
from tests.training.tiny import LOOP, tiny_teacher

register = getattr(tracking, "register_tracker_class", None)  # accelerate 1.10 has none yet
own = pytest.mark.skipif(register is None, reason="this accelerate registers no trackers of a user's own")


class Told(tracking.GeneralTracker):
    """Keeps what it is told; fails where it is asked to."""

    name = "told"
    requires_logging_directory = True
    made: list[Told] = []  # noqa: RUF012
    fails = ""

    def __init__(self, project: str, folder: str, **options: Any) -> None:
        super().__init__()
        self.project, self.folder, self.heard, self.ended = project, folder, [], 0
        self.made.append(self)

    @property
    def tracker(self) -> Told:
        return self

    def _may_fail(self, where: str) -> None:
        if type(self).fails == where:
            raise ConnectionError("the server is gone\nand so on")

    def start(self) -> None:
        self._may_fail("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        self._may_fail("log")
        self.heard.append((step, values))

    def log_images(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        self.heard.append((step, values))

    def finish(self) -> None:
        self.ended += 1
        self._may_fail("finish")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Told]]:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "told", Told)
    Told.made, Told.fails = [], ""
    yield Told
    Told.fails = ""


def training(run: Path, *names: str) -> TeacherTrainingConfig:
    return tiny_teacher(run, loop=replace(LOOP, steps=4, log_every=2, trackers=names))


@own
def test_a_tracker_hears_the_config_and_each_row_and_its_end(told: type[Told], tmp_path: Path) -> None:
    run = tmp_path / "run"
    rows = train_teacher(training(run, "told"))
    (tracker,) = told.made
    assert (tracker.project, tracker.folder, tracker.ended) == ("adu-depth", str(run / "trackers"), 1)
    assert tracker.config["loop.steps"] == 4
    assert tracker.config["data.size"] == "32, 64"
    assert tracker.heard == [(row["step"], {k: v for k, v in row.items() if k != "step"}) for row in rows]
    assert len(rows) == 2
    assert not (run / "tensorboard").exists(), "which was not named"


def test_of_several_processes_one_has_trackers(tmp_path: Path) -> None:
    def started(*given: Any) -> None:
        raise AssertionError("started")

    second: Any = SimpleNamespace(log_with=["told"], is_main_process=False, init_trackers=started, trackers=[])
    assert Trackers(second, tmp_path, {}, print).trackers == []
    second.is_main_process = True
    with pytest.raises(InputError, match="told cannot be started: AssertionError: started"):
        Trackers(second, tmp_path, {}, print)


@own
def test_one_that_does_not_start_ends_the_run_before_its_first_step(told: type[Told], tmp_path: Path) -> None:
    told.fails = "start"
    with pytest.raises(InputError, match="trackers: told cannot be started: ConnectionError: the server is gone; most"):
        train_teacher(training(tmp_path / "run", "tensorboard", "told"))
    assert told.made[0].ended == 1
    assert not (tmp_path / "run" / "history.jsonl").exists()


@own
@pytest.mark.parametrize("fails", ["log", "finish"])
def test_one_that_fails_later_is_left_out_which_is_said_once(
    fails: str, told: type[Told], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told.fails = fails
    rows = train_teacher(training(tmp_path / "run", "told", "tensorboard"))
    said = capsys.readouterr().out
    assert said.count("tracker told failed, and hears no more of this run: ConnectionError: the server is gone\n") == 1
    assert rows == [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("data_wait")] == [2, 4]


@own
def test_pictures_reach_tensorboard_and_the_trackers_that_take_them(told: type[Told], tmp_path: Path) -> None:
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    run = tmp_path / "run"
    accelerator = make_accelerator(replace(LOOP, trackers=("told",)), run)
    log = RunLog(run, 0, True, Trackers(accelerator, run, {}, print))
    log.write_pictures(7, {"scene": picture})
    log.close()
    ((step, values),) = told.made[0].heard
    assert step == 7
    assert np.array_equal(values["scene"], picture[None])
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    (event,) = events.Images("scene")
    decoded = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (event.step, event.width) == (7, 3)
    assert np.array_equal(decoded, picture)


def test_a_package_that_is_missing_and_an_unknown_name_are_told_before_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"comet_ml needs the package comet_ml, .* pip install comet-ml"):
        train_teacher(training(tmp_path / "run", "tensorboard", "comet_ml"))
    with pytest.raises(InputError, match=r"loop\.trackers: 'wandbb' is not known, expected some of aim, .*wandb"):
        train_teacher(training(tmp_path / "run", "wandbb"))
    assert not (tmp_path / "run").exists()
    assert set(PACKAGES) <= set(tracking.LOGGER_TYPE_TO_CLASS), "names that accelerate has"


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_those_that_are_installed_keep_a_run_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    assert len(train_teacher(training(run, name))) == 2
    assert "failed" not in capsys.readouterr().out
    kept = {"wandb": run / "wandb", "mlflow": tmp_path / "mlruns", "trackio": tmp_path / "trackio"}[name]
    assert any(path.is_file() and path.stat().st_size for path in kept.rglob("*"))
    assert trackers_by_accelerate([name, name, "tensorboard"]) == [name]
