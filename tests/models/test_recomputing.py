"""An aggregation that is recomputed has the same bits, and keeps less."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adu_depth.models import StereoTeacher
from adu_depth.models.aggregation import Aggregation
from adu_depth.training.runs import train_teacher
from tests.training.test_graph import assert_same
from tests.training.tiny import LOOP, TEACHER, tiny_teacher


def kept_bytes(aggregation: Aggregation, volume: Tensor, prior: Tensor) -> int:
    """What autograd keeps of a forward, each memory once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        aggregation(volume, prior)
    return sum(kept.values())


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_values_gradients_and_running_statistics_are_the_same_to_the_bit(norm: Any) -> None:
    torch.manual_seed(0)
    plain = Aggregation(4, 4, hourglasses=2, norm=norm).train()
    again = copy.deepcopy(plain)
    again.recompute = True
    volume, prior = torch.randn(2, 4, 4, 8, 12), torch.randn(2, 4, 8, 12)
    found = []
    for aggregation in (plain, again):
        given = volume.clone().requires_grad_()
        for _ in range(2):
            logits, last = aggregation(given, prior)
            (torch.stack(logits).square().sum() + last.sum()).backward()
        found.append([*logits, last, given.grad, *(p.grad for p in aggregation.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    states = plain.state_dict(), again.state_dict()
    assert states[0].keys() == states[1].keys()
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []
    assert (norm == "batch") == any("num_batches_tracked" in name for name in states[0])


def test_it_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, prior = torch.randn(1, 4, 4, 8, 12, requires_grad=True), torch.randn(1, 4, 8, 12)
    aggregation = Aggregation(4, 4, hourglasses=2).train()
    before = kept_bytes(aggregation, volume, prior)
    aggregation.recompute = True
    assert kept_bytes(aggregation, volume, prior) < 0.7 * before
    runs: list[int] = []
    aggregation.hourglasses[0].register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        aggregation(volume, prior)
    aggregation.eval()(volume, prior)[1].sum().backward()
    assert len(runs) == 2, "nothing is run again where nothing would be kept, or outside training"


def test_a_run_may_change_its_mind(tmp_path: Path) -> None:
    """It is how a step is executed: a run goes on with it or without."""
    loop, model = replace(LOOP, keep_checkpoints=9, steps=4), replace(TEACHER, recompute_aggregation=True)
    train_teacher(tiny_teacher(tmp_path / "kept", loop=loop))
    train_teacher(tiny_teacher(tmp_path / "again", loop=loop, model=model))
    assert_same(tmp_path / "kept", tmp_path / "again")
    train_teacher(tiny_teacher(tmp_path / "again", loop=replace(loop, resume_from="2")))
    assert_same(tmp_path / "kept", tmp_path / "again")


def test_the_setting_reaches_the_network() -> None:
    assert StereoTeacher(replace(TEACHER, recompute_aggregation=True)).aggregation.recompute
    assert not StereoTeacher(TEACHER).aggregation.recompute
