"""A checkpoint that is damaged is named, and so is the way on from the newest that is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adu_depth.checkpoint import checkpoint_path, list_checkpoints, load_model
from adu_depth.cli import main, parse
from adu_depth.errors import InputError
from adu_depth.training.runs import train_teacher
from tests.training.tiny import LOOP, tiny_teacher


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train_teacher(tiny_teacher(run, loop=replace(LOOP, keep_checkpoints=3)))
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Stopped after four of its six steps."""
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(checkpoint_path(tmp_path / "run", 6))
    return tmp_path / "run"


def resume(run: Path, **changes: object) -> None:
    train_teacher(tiny_teacher(run, loop=replace(LOOP, keep_checkpoints=3, **changes)))  # type: ignore[arg-type]


def assert_same_bits(one: Path, other: Path) -> None:
    for file in ("model.safetensors", "training.safetensors"):
        first, second = load_file(one / file), load_file(other / file)
        assert all(torch.equal(first[name], second[name]) for name in first | second)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    """As after a power failure: its size is right, what was not yet on the disk is zeros."""
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    """One bit of the last number: still finite, still of the right shape."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "model cut short": ("model.safetensors", cut),
    "model empty": ("model.safetensors", empty),
    "model of zeros": ("model.safetensors", zero),
    "model changed": ("model.safetensors", flip),
    "model gone": ("model.safetensors", Path.unlink),
    "optimiser cut short": ("training.safetensors", cut),
    "optimiser changed": ("training.safetensors", flip),
    "step empty": ("state.json", empty),
    "step of zeros": ("state.json", zero),
    "config cut short": ("config.json", cut),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_with_the_way_on(damage: str, run: Path) -> None:
    name, spoil = DAMAGES[damage]
    spoil(checkpoint_path(run, 4) / name)
    with pytest.raises(InputError) as refused:
        resume(run, resume=True)
    assert name in str(refused.value)
    whole = checkpoint_path(run, 2)
    assert str(refused.value).endswith(f"the newest whole checkpoint is {whole}: --loop.resume-from 2 goes on from it")


@pytest.mark.parametrize("damage", ["model changed", "step empty"])
def test_going_on_from_the_one_before_ends_with_the_same_bits(damage: str, run: Path, trained: Path) -> None:
    name, spoil = DAMAGES[damage]
    spoil(checkpoint_path(run, 4) / name)
    resume(run, resume_from="2")
    assert_same_bits(checkpoint_path(run, 6), checkpoint_path(trained, 6))
    assert (run / "checkpoints" / "step-00000004.aside").is_dir()
    assert_same_bits(checkpoint_path(run, 4), checkpoint_path(trained, 4))
    rows = [json.loads(line)["step"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert rows == [2, 4, 6]


def test_where_none_is_whole_it_says_so(run: Path) -> None:
    for step in (2, 4):
        flip(checkpoint_path(run, step) / "training.safetensors")
    with pytest.raises(InputError, match=r"no other checkpoint of .* is whole: begin anew in another folder"):
        resume(run, resume=True)
    assert [path.name for path in list_checkpoints(run)] == ["step-00000002", "step-00000004"]


def test_a_checkpoint_may_be_named_by_its_folder_also_where_it_was_copied_to(
    run: Path, trained: Path, tmp_path: Path
) -> None:
    resume(run, resume_from=str(checkpoint_path(run, 2)))
    assert_same_bits(checkpoint_path(run, 6), checkpoint_path(trained, 6))
    kept = tmp_path / "backup"
    shutil.copytree(checkpoint_path(trained, 4), kept)
    resume(tmp_path / "new", resume_from=str(kept))
    assert_same_bits(checkpoint_path(tmp_path / "new", 6), checkpoint_path(trained, 6))
    with pytest.raises(InputError, match=r"with other settings; these differ: loop\.seed: 0 → 1"):
        resume(tmp_path / "newer", resume_from=str(kept), seed=1)


@pytest.mark.parametrize("named", ["3", "-1", "9" * 30, "nowhere", "", "."])
def test_what_is_no_checkpoint_is_refused_and_those_there_are_are_named(named: str, run: Path) -> None:
    with pytest.raises(InputError, match=r"has those of step 2, 4$" if named else "already holds a training"):
        resume(run, resume_from=named)
    assert [path.name for path in list_checkpoints(run)] == ["step-00000002", "step-00000004"]


def test_the_option_is_on_the_command_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["train-teacher", "--loop.resume-from", "4"]).loop.resume_from == "4"
    with pytest.raises(SystemExit) as stopped:
        main(["train-teacher", "--run", str(run), "--loop.resume-from", "3", "--loop.device", "cpu"])
    assert stopped.value.code == 2
    assert "has those of step 2, 4" in capsys.readouterr().err


def test_weights_that_changed_on_the_disk_are_not_used(run: Path) -> None:
    assert load_model(run).kind == "teacher"
    flip(checkpoint_path(run, 4) / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors is damaged: its content is not what was written"):
        load_model(run)
    state = checkpoint_path(run, 4) / "state.json"
    state.write_text('{"step": 4}')  # as it was before there were sums
    assert load_model(run).kind == "teacher"
    state.unlink()
    assert load_model(checkpoint_path(run, 4)).kind == "teacher"
