"""The networks that the page offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adu_depth.app.networks import MOST_HELD, Networks, runs_below
from adu_depth.errors import InputError
from adu_depth.training.runs import train_student
from tests.training.tiny import LOOP, tiny_student


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "kind" / "student"
    train_student(tiny_student(folder, loop=replace(LOOP, steps=2)))
    return folder


def test_a_network_is_read_once_and_again_when_its_run_has_gone_on(run: Path) -> None:
    networks = Networks([run], "cpu")
    first = networks.get(str(run))
    assert networks.get(str(run)) is first
    train_student(tiny_student(run, loop=replace(LOOP, steps=4, resume=True)))
    later = networks.get(str(run))
    assert later is not first
    assert later.checkpoint is not None
    assert later.checkpoint.name == "step-00000004"


def test_no_more_networks_are_held_than_are_compared(run: Path, tmp_path: Path) -> None:
    checkpoints = sorted((run / "checkpoints").iterdir())[:1] * (MOST_HELD + 1)
    paths = []
    for number, checkpoint in enumerate(checkpoints):
        paths.append(tmp_path / str(number))
        paths[-1].symlink_to(checkpoint)
    networks = Networks(paths, "cpu")
    predictors = [networks.get(name) for name in networks.names]
    assert networks.get(networks.names[-1]) is predictors[-1]
    assert networks.get(networks.names[0]) is not predictors[0], "it was let go"


def test_what_is_no_network_is_refused_before_there_is_a_page(run: Path, tmp_path: Path) -> None:
    for paths, message in (
        ([], "expected one network at least"),
        ([tmp_path / "nothing"], "does not exist"),
        ([tmp_path / "student.onnx"], "does not exist"),
        ([tmp_path], "holds no checkpoint"),
        ([run, run], "expected each network once"),
    ):
        with pytest.raises(InputError, match=message):
            Networks(paths, "cpu")
    with pytest.raises(InputError, match="network: expected one of"):
        Networks([run], "cpu").get("another")


def test_runs_are_found_in_folders_of_folders(run: Path) -> None:
    top = run.parent.parent
    assert runs_below(top) == [run]
    (top / "kind" / "begun" / "checkpoints").mkdir(parents=True)  # without a checkpoint yet
    assert runs_below(top) == [run]
    assert runs_below(top / "nowhere") == []
