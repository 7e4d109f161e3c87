"""Weights that are finite and give NaN all the same: nobody gets a map, a table or a lesson made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from adu_depth.checkpoint import list_checkpoints
from adu_depth.cli import main
from adu_depth.data import SyntheticStereo
from adu_depth.errors import InputError
from adu_depth.inference.render import write_samples
from adu_depth.training.runs import train_student, train_teacher
from tests.training.test_received_checkpoints import forget_sums
from tests.training.tiny import LOOP, tiny_student, tiny_teacher


def overflow(run: Path, part: str) -> None:
    """Every weight finite, and so large that what they give is not."""
    path = list_checkpoints(run)[-1] / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for name in weights:
        if name.startswith(part) and weights[name].ndim == 4:
            weights[name].fill_(3e38)
    save_file(weights, path)
    forget_sums(path.parent)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    train_student(tiny_student(tmp_path / "student", loop=replace(LOOP, steps=1)))
    overflow(tmp_path / "student", "decoder")
    return tmp_path / "student"


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write_samples(SyntheticStereo(1, 32, 64, seed=0), tmp_path / "scenes", 1, lambda _: None)
    return tmp_path / "scenes"


def test_predict_writes_no_map(student: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((scenes / "left").iterdir())
    for source, code in ((image, 2), (scenes / "left", 1)):
        with pytest.raises(SystemExit) as ended:
            main(["predict", str(student), str(source), "--output", str(tmp_path / "out")])
        assert ended.value.code == code
        told = capsys.readouterr().err
        assert f"{image}: the predicted depth is NaN at 2,048 of 2,048 values" in " ".join(told.split())
        assert not list(tmp_path.glob("out/*_depth*"))


def test_evaluate_gives_no_numbers(
    student: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(student), "--data", str(scenes), "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "prediction: NaN at" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("cached", [False, True])
def test_a_teacher_that_gives_nan_teaches_nobody(cached: bool, tmp_path: Path) -> None:
    """Without features in the loss its NaN depths would be passed over like missing ones."""
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=replace(LOOP, steps=1)))
    overflow(tmp_path / "teacher", "matching")
    config = tiny_student(tmp_path / "student", teacher=tmp_path / "teacher")
    config = replace(config, distillation=replace(config.distillation, features=0.0))
    with pytest.raises(InputError, match=r"the teacher on synthetic-0-.*the predicted .* is (NaN|infinite) at"):
        train_student(replace(config, teacher_cache=tmp_path / "cache" if cached else None))
    assert not list((tmp_path / "cache").glob("*.safetensors"))
