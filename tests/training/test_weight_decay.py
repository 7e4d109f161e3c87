"""Which parameters decay, and that a run from before the rule keeps its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from adu_depth.checkpoint import checkpoint_path, list_checkpoints
from adu_depth.errors import InputError
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.progress import Progress
from adu_depth.training.config import OptimizerConfig
from adu_depth.training.runs import train_teacher
from adu_depth.training.step import make_optimizer
from adu_depth.training.weight_decay import parameter_groups
from tests.training.tiny import LOOP, STUDENT, TEACHER, tiny_teacher

SWIN = "config:swin?embed_dim=8&depths=1,1,1,1&num_heads=1,1,1,1&window_size=2"
CONVNEXT = "config:convnextv2?depths=1,1,1,1&hidden_sizes=8,8,16,16"
EVERYTHING = OptimizerConfig(decay_norms_and_biases=True)


def still(module: nn.Module) -> set[str]:
    """The last part of the names of the parameters that do not decay; each parameter is in one group."""
    groups = parameter_groups(module, everything=False)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in module.parameters())
    assert [group.get("weight_decay") for group in groups] == [None, 0.0]
    kept = {id(p) for p in groups[1]["params"]}
    return {name for name, p in module.named_parameters() if id(p) in kept}


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_norms_biases_and_the_sharpness_stay(norm: Any) -> None:
    for network in (StereoTeacher(replace(TEACHER, norm=norm)), MonoStudent(replace(STUDENT, norm=norm))):
        flat = {name for name, p in network.named_parameters() if p.ndim < 2}
        assert still(network) == flat
        assert len(flat) > 10
        assert any(name.endswith("norm.weight") for name in flat)
        assert any(name.endswith("bias") for name in flat)
        assert not any("conv.weight" in name for name in flat)
    assert "log_sharpness" in still(StereoTeacher(TEACHER))


@pytest.mark.parametrize(
    ("encoder", "part"), [(SWIN, "relative_position_bias_table"), (CONVNEXT, "grn")], ids=["swin", "convnextv2"]
)
def test_what_only_looks_like_a_matrix_stays_too(encoder: str, part: str) -> None:
    network = MonoStudent(replace(STUDENT, encoder=encoder))
    found = still(network)
    tables = {
        name for name, _ in network.named_parameters() if name.rpartition(".")[0].endswith(part) or name.endswith(part)
    }
    assert tables
    assert tables <= found
    assert all(p.ndim < 2 or name in tables for name, p in network.named_parameters() if name in found)


@pytest.mark.parametrize("everything", [False, True])
def test_a_step_without_gradients_shrinks_what_decays_alone(everything: bool) -> None:
    network = MonoStudent(STUDENT)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, decay_norms_and_biases=everything)
    optimizer = make_optimizer(network, config, torch.device("cpu"))
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    stays = set() if everything else still(network)
    for name, p in network.named_parameters():
        expected = before[name] if name in stays else before[name] * (1 - 0.1 * 0.5)
        assert torch.equal(p, expected), name


@pytest.mark.parametrize("parted", [False, True])
def test_strides_do_not_change_a_step(parted: bool) -> None:
    """The fused AdamW of a CPU walks through memory: in channels-last weights, and past a part of a tensor."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(6, 8, 3).to(memory_format=torch.channels_last), torch.nn.Linear(4, 6))
    whole = torch.randn(6, 8)
    if parted:
        network[1].weight = torch.nn.Parameter(whole[:, :4])
    neighbours = whole[:, 4:].clone()
    plain = [p.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for p in network.parameters()]
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, decay_norms_and_biases=True)
    ours = make_optimizer(network, config, torch.device("cpu"))
    by_the_formula = torch.optim.AdamW(plain, lr=0.1, weight_decay=0.5, foreach=False, fused=False)
    assert bool(ours.defaults["fused"]) != parted
    weights = [torch.randn_like(p) for p in plain]
    for _ in range(3):
        for optimizer, parameters in ((ours, list(network.parameters())), (by_the_formula, plain)):
            optimizer.zero_grad()
            torch.stack([(w * p.sin()).sum() for w, p in zip(weights, parameters, strict=True)]).sum().backward()
            optimizer.step()
    for got, want in zip(network.parameters(), plain, strict=True):
        torch.testing.assert_close(got, want)
    assert torch.equal(whole[:, 4:], neighbours)


def forget(run: Path) -> None:
    """As if the run were from before the setting."""
    for file in [run / "config.json", *run.glob("checkpoints/*/config.json")]:
        config = json.loads(file.read_text())
        del config["optimizer"]["decay_norms_and_biases"]
        file.write_text(json.dumps(config))


def test_a_run_from_before_the_rule_goes_on_with_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    decays = {"optimizer": replace(EVERYTHING, weight_decay=0.5)}
    loop = replace(LOOP, keep_checkpoints=3)
    whole, old = tmp_path / "whole", tmp_path / "old"
    for run in (whole, old):
        train_teacher(tiny_teacher(run, **decays, loop=loop))
    forget(old)
    said.clear()
    today = {"optimizer": OptimizerConfig(weight_decay=0.5)}
    train_teacher(tiny_teacher(old, **today, loop=replace(loop, resume_from="2")))
    assert len([text for text in said if "older than optimizer.decay_norms_and_biases" in text]) == 1, said
    assert json.loads((old / "config.json").read_text())["optimizer"]["decay_norms_and_biases"] is True
    for file in ("model.safetensors", "training.safetensors"):
        one, other = (load_file(list_checkpoints(run)[-1] / file) for run in (whole, old))
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    with pytest.raises(InputError, match="decay_norms_and_biases: True → False"):
        train_teacher(tiny_teacher(whole, **today, loop=replace(loop, resume_from="2")))


def test_the_state_is_kept_by_the_number_of_the_parameter(tmp_path: Path) -> None:
    """Not by its place in the groups: a checkpoint has the same names and shapes under both rules."""
    short = replace(LOOP, steps=1)
    found = []
    for name, optimizer in (("all", EVERYTHING), ("some", OptimizerConfig())):
        train_teacher(tiny_teacher(tmp_path / name, optimizer=optimizer, loop=short))
        kept = load_file(checkpoint_path(tmp_path / name, 1) / "training.safetensors")
        found.append({name: tuple(t.shape) for name, t in kept.items()})
    assert found[0] == found[1]
    network = StereoTeacher(TEACHER)
    assert [found[0][f"optimizer.{i}.exp_avg"] for i in range(9)] == [tuple(p.shape) for p in network.parameters()][:9]
