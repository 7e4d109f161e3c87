"""Runs that start from a trained network, and finished runs that are extended."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.checkpoint import list_checkpoints, load_model
from adu_depth.cli import parse
from adu_depth.errors import InputError
from adu_depth.progress import Progress
from adu_depth.tensor_files import read_tensors
from adu_depth.training.config import OptimizerConfig, StudentTrainingConfig
from adu_depth.training.runs import train_student, train_teacher
from tests.training.tiny import DATA, LOOP, STUDENT, TEACHER, tiny_student, tiny_teacher

SHORT = replace(LOOP, steps=2, keep_checkpoints=9)
STILL = OptimizerConfig(learning_rate=0.0)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: found.append(text))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "teacher"
    train_teacher(tiny_teacher(run, loop=SHORT))
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_model(run).model.state_dict()


def test_all_of_a_network_fits_other_data_size_and_disparities(trained: Path, tmp_path: Path, said: list[str]) -> None:
    run = tmp_path / "run"
    other = {"model": replace(TEACHER, max_disparity=32), "data": replace(DATA, size=(64, 96), scene_seed=7)}
    train_teacher(tiny_teacher(run, init=trained, **other, optimizer=STILL, loop=replace(SHORT, steps=1, seed=3)))
    source, started = weights(trained), weights(run)
    assert [name for name in source if not torch.equal(source[name], started[name])] == []
    (line,) = [text for text in said if text.startswith("init: ")]
    assert line == f"init: {len(source)} of {len(source)} tensors are those of {list_checkpoints(trained)[-1]}"
    config = json.loads((run / "config.json").read_text())
    assert config["init"] == str(trained)
    assert len(config["init_weights"]) == 64


def test_what_does_not_fit_is_counted_and_named(trained: Path, tmp_path: Path, said: list[str]) -> None:
    changed = replace(TEACHER, hourglasses=2, refinement_channels=0, feature_channels=(8, 8, 12))
    run = tmp_path / "run"
    train_teacher(tiny_teacher(run, init=trained, model=changed, optimizer=STILL, loop=replace(SHORT, steps=1)))
    source, started = weights(trained), weights(run)
    told = [text for text in said if text.startswith("init: ")]
    assert len(told) == 4
    for line, kind, names in (
        (told[1], "of another shape", [n for n in started if n in source and source[n].shape != started[n].shape]),
        (told[2], "new", [n for n in started if n not in source]),
        (told[3], "there and not here", [n for n in source if n not in started]),
    ):
        assert names
        assert line.startswith(f"init: {len(names)} {kind}")
        assert names[0] in line
    taken = [n for n in started if n in source and source[n].shape == started[n].shape]
    assert told[0].startswith(f"init: {len(taken)} of {len(started)} ")
    assert [name for name in taken if not torch.equal(source[name], started[name])] == []


def test_a_student_may_start_from_a_teachers_encoder(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_student(tiny_student(run, init=trained, optimizer=STILL, loop=replace(SHORT, steps=1)))
    source, started = weights(trained), weights(run)
    assert [n for n in started if n.startswith("encoder.") and not torch.equal(source[n], started[n])] == []


def test_an_encoder_that_does_not_fit_is_refused_before_anything_is_written(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    encoder = "config:resnet?depths=1,1,1,1&hidden_sizes=8,8,16,16&embedding_size=8&layer_type=basic"
    for model in (replace(STUDENT, encoder=encoder), replace(STUDENT, norm="batch")):
        with pytest.raises(InputError, match=r"--init .*: its encoder does not fit: \d+ tensors .*encoder \(small\)"):
            train_student(tiny_student(run, init=trained, model=model, loop=SHORT))
    with pytest.raises(InputError, match=r"--init: checkpoint .* does not exist"):
        train_student(tiny_student(run, init=tmp_path / "nowhere", loop=SHORT))
    assert not (run / "config.json").exists()


def test_a_run_goes_on_without_what_it_started_from(trained: Path, tmp_path: Path, said: list[str]) -> None:
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(trained, source)
    loop = replace(SHORT, steps=4)
    train_teacher(tiny_teacher(run, init=source, loop=loop))
    whole = read_tensors(list_checkpoints(run)[-1] / "training.safetensors")
    shutil.rmtree(source)
    said.clear()
    for init in (source, None):
        train_teacher(tiny_teacher(run, init=init, loop=replace(loop, resume_from="2")))
        again = read_tensors(list_checkpoints(run)[-1] / "training.safetensors")
        assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
        assert json.loads((run / "config.json").read_text())["init"] == str(source)
    assert not [text for text in said if "init" in text]
    with pytest.raises(InputError, match=r"differ: init: .*source → .*other$"):
        train_teacher(tiny_teacher(run, init=tmp_path / "other", loop=replace(loop, resume=True)))


def test_the_command_line_takes_it() -> None:
    config = parse(["distill", "--init", "runs/a", "--loop.device", "cpu"])
    assert isinstance(config, StudentTrainingConfig)
    assert config.init == Path("runs/a")


def test_a_finished_run_is_extended_and_resumes_to_the_same_bits(
    trained: Path, tmp_path: Path, said: list[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    longer = replace(SHORT, steps=6, resume=True)
    rows = train_teacher(tiny_teacher(run, loop=longer))
    assert [row["step"] for row in rows] == [2, 4, 6]
    (line,) = [text for text in said if "extended" in text]
    assert "extended from 2 to 6 steps, by the schedule of a run of 6" in line
    assert "learning rate goes from 0.00025 to 0.000375" in line  # a half, then three quarters of the peak
    assert rows[1]["learning_rate"] < 0.000375
    assert json.loads((run / "config.json").read_text())["extended"] == [2]
    whole = read_tensors(list_checkpoints(run)[-1] / "training.safetensors")
    train_teacher(tiny_teacher(run, loop=replace(longer, resume_from="4")))
    again = read_tensors(list_checkpoints(run)[-1] / "training.safetensors")
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
    assert json.loads((run / "config.json").read_text())["extended"] == [2]
    train_teacher(tiny_teacher(run, loop=replace(longer, steps=7)))
    assert json.loads((run / "config.json").read_text())["extended"] == [2, 6]


def test_a_run_is_extended_from_its_end_alone(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_teacher(tiny_teacher(run, loop=replace(SHORT, steps=3, checkpoint_every=1)))
    before = (run / "config.json").read_text()
    with pytest.raises(InputError, match=r"cannot extend .* to loop\.steps 9: it is one of 3 steps, and .* has done 2"):
        train_teacher(tiny_teacher(run, loop=replace(SHORT, steps=9, resume_from="2")))
    with pytest.raises(InputError, match=r"loop\.steps: 3 → 2"):
        train_teacher(tiny_teacher(run, loop=replace(SHORT, resume_from="2")))
    with pytest.raises(InputError, match=r"differ: loop\.seed: 0 → 5$"):
        train_teacher(tiny_teacher(run, loop=replace(SHORT, steps=9, seed=5, resume=True)))
    assert (run / "config.json").read_text() == before


def test_a_step_from_before_an_extension_is_gone_on_from_in_another_folder(tmp_path: Path) -> None:
    run, kept = tmp_path / "run", replace(SHORT, steps=3, checkpoint_every=1, keep_checkpoints=9)
    train_teacher(tiny_teacher(run, loop=kept))
    whole = read_tensors(list_checkpoints(run)[-1] / "model.safetensors")
    train_teacher(tiny_teacher(run, loop=replace(kept, steps=4, resume=True)))
    config, steps = (run / "config.json").read_text(), list_checkpoints(run)
    with pytest.raises(
        InputError, match=r"it is of a run of 3 steps, which was extended since; .* with loop\.steps 3$"
    ):
        train_teacher(tiny_teacher(run, loop=replace(kept, steps=4, resume_from="1")))
    assert (config, steps) == ((run / "config.json").read_text(), list_checkpoints(run))
    train_teacher(tiny_teacher(tmp_path / "other", loop=replace(kept, resume_from=str(steps[0]))))
    again = read_tensors(list_checkpoints(tmp_path / "other")[-1] / "model.safetensors")
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
