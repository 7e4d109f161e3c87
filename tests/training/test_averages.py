"""Averages of the weights: what they are, what a checkpoint keeps of them, and that training does not notice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from adu_depth.checkpoint import load_model
from adu_depth.errors import InputError
from adu_depth.models.averages import Averages
from adu_depth.progress import Progress
from adu_depth.training.config import LoopConfig, OptimizerConfig
from adu_depth.training.runs import train_teacher
from tests.training.test_resume import Stopping, assert_same_bits, newest
from tests.training.tiny import LOOP, TEACHER, tiny_teacher

EMA = replace(LOOP, ema=0.9)
BATCH_NORM = {"model": replace(TEACHER, norm="batch")}


def test_averages_follow_the_weights_by_the_formula_and_the_decay_warms_up() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    network[0].bias.requires_grad_(False)
    averages = Averages(network, decay=0.4)
    expected = network[0].weight.detach().clone()
    for step in range(1, 7):
        with torch.no_grad():
            network[0].weight.add_(step)
            network[0].bias.add_(1)
            network[1].running_mean.add_(0.5)
        averages.update()
        decay = min(0.4, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
    found = averages.network()
    assert not found.training
    torch.testing.assert_close(found[0].weight, expected, rtol=1e-6, atol=0)
    assert not torch.equal(found[0].weight, network[0].weight)
    assert torch.equal(found[0].bias, network[0].bias), "frozen: as it is"
    assert torch.equal(found[1].running_mean, network[1].running_mean), "running statistics: as they are"


def tensors(run: Path, file: str) -> dict[str, torch.Tensor]:
    return load_file(newest(run) / file)


def test_a_checkpoint_has_averages_for_inference_and_the_weights_beside_them(tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "plain", **BATCH_NORM))
    train_teacher(tiny_teacher(tmp_path / "averaged", loop=EMA, **BATCH_NORM))
    plain, averaged = (tensors(tmp_path / run, "model.safetensors") for run in ("plain", "averaged"))
    trained = {
        name.removeprefix("trained."): tensor
        for name, tensor in tensors(tmp_path / "averaged", "training.safetensors").items()
        if name.startswith("trained.")
    }
    assert trained.keys() == dict(load_model(tmp_path / "plain").model.named_parameters()).keys()
    for name, tensor in plain.items():
        of_training = trained.get(name, averaged[name])
        assert torch.equal(tensor, of_training), f"{name}: training does not notice its averages"
    differing = [name for name in trained if not torch.equal(trained[name], averaged[name])]
    assert len(differing) > len(trained) / 2
    loaded = load_model(tmp_path / "averaged").model.state_dict()
    assert all(torch.equal(loaded[name], averaged[name]) for name in averaged)


def test_averages_are_of_the_weights_that_a_step_has_made(tmp_path: Path) -> None:
    """After the first step they have moved 9/11 of the way from the first weights to the new ones."""
    still = OptimizerConfig(learning_rate=0.0)
    train_teacher(tiny_teacher(tmp_path / "still", loop=replace(LOOP, steps=1), optimizer=still))
    train_teacher(tiny_teacher(tmp_path / "run", loop=replace(EMA, steps=1)))
    before, averaged = (tensors(tmp_path / run, "model.safetensors") for run in ("still", "run"))
    training = tensors(tmp_path / "run", "training.safetensors")
    names = [name.removeprefix("trained.") for name in training if name.startswith("trained.")]
    assert any(not torch.equal(before[name], averaged[name]) for name in names)
    for name in names:
        expected = before[name] + (training[f"trained.{name}"] - before[name]) * 9 / 11
        torch.testing.assert_close(averaged[name], expected, rtol=1e-5, atol=1e-7)


def test_a_resumed_run_has_the_same_averages(tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "whole", loop=EMA))
    with pytest.raises(KeyboardInterrupt):
        train_teacher(tiny_teacher(tmp_path / "broken", loop=EMA), samples=Stopping(reads=7))
    train_teacher(tiny_teacher(tmp_path / "broken", loop=replace(EMA, resume=True)))
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    assert tensors(tmp_path / "broken", "training.safetensors")["averages.updates"] == LOOP.steps


def test_averages_can_begin_later_which_is_told_and_end_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    kept = replace(LOOP, keep_checkpoints=9)
    train_teacher(tiny_teacher(tmp_path / "run", loop=kept))
    plain = tensors(tmp_path / "run", "model.safetensors")
    train_teacher(tiny_teacher(tmp_path / "run", loop=replace(kept, resume_from="2", ema=0.9)))
    told = [text for text in said if "no averages" in text]
    assert len(told) == 1
    assert "step-00000002" in told[0]
    assert tensors(tmp_path / "run", "training.safetensors")["averages.updates"] == LOOP.steps - 2
    assert any(not torch.equal(plain[name], t) for name, t in tensors(tmp_path / "run", "model.safetensors").items())
    assert [text for text in said if "now has none" in text] == []
    train_teacher(tiny_teacher(tmp_path / "run", loop=replace(kept, resume_from="4")))
    assert len([text for text in said if "averages of its weights (loop.ema 0.9) and now has none" in text]) == 1
    again = tensors(tmp_path / "run", "model.safetensors")
    assert [name for name in plain if not torch.equal(plain[name], again[name])] == []


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("averaged") / "run"
    train_teacher(tiny_teacher(run, loop=replace(EMA, steps=2)))
    return run


Damage = Callable[[dict[str, torch.Tensor], str], object]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda found, first: found.pop(first), r"does not fit the model"),
        (lambda found, first: found["averages.updates"].fill_(99), r"averages\.updates: expected from 0 to 2, got 99"),
        (lambda found, first: found[first].fill_(torch.nan), "weights are NaN or infinite in 1 of"),
    ],
    ids=["one missing", "too many updates", "NaN"],
)
def test_damaged_averages_are_refused(averaged: Path, tmp_path: Path, damage: Damage, message: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(averaged, run)
    path = newest(run)
    found = load_file(path / "training.safetensors")
    damage(found, next(name for name in found if name.startswith("trained.")))
    save_file(found, path / "training.safetensors")
    (path / "state.json").write_text(json.dumps({"step": 2}))  # no sums, as before there were any
    with pytest.raises(InputError, match=message):
        train_teacher(tiny_teacher(run, loop=replace(EMA, steps=2, resume=True)))


@pytest.mark.parametrize("ema", [1.0, -0.1, 2.0])
def test_a_decay_that_is_none_is_refused(ema: float) -> None:
    with pytest.raises(InputError, match=r"loop\.ema must be 0 \(off\) or more, and below 1"):
        LoopConfig(ema=ema)
