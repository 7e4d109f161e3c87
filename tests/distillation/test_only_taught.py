"""Settings that only a teacher heeds: which they are, and that a student without one is not begun with them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.distillation.student_loss import LIGHT_READS, ONLY_TAUGHT
from adu_depth.errors import InputError
from adu_depth.models.prediction import DepthPrediction
from adu_depth.training import runs
from adu_depth.training.runs import train_student
from tests.training.tiny import LOOP, tiny_scenes, tiny_student

OTHER: dict[str, Any] = {
    "silog": 2.0,
    "uncertainty": 2.0,
    "response": 5.0,
    "features": 2.0,
    "guide": "none",
    "guide_strength": 0.25,
    "guide_ramp": 0.0,
    "gate": False,
    "beta": 5.0,
    "gamma": 2.0,
    "detach_focal": True,
    "uncertainty_joint": True,
    "beta_nll": 0.5,
    "normalize": "image",
    "attention": False,
    "key_bias": False,
    "selective": 1.0,
    "learned_scale": 1.0,
    "structure": 1.0,
    "truth_share": 0.5,
}
"""Another value than the default."""


def alone(config: DistillationConfig) -> list[torch.Tensor]:
    """What a student without a teacher learns by: the total and its gradients."""
    torch.manual_seed(0)
    truth = 1 + 4 * torch.rand(2, 1, 4, 8)
    truth[0, ..., 3:] = 0
    depth, scale = (1 + torch.rand(2, 1, 4, 8)).requires_grad_(), torch.randn(2, 1, 4, 8).requires_grad_()
    loss = StudentLoss(config, (3, 3, 3), None, 0.5, 80.0)
    assert not list(loss.parameters())
    total = loss(DepthPrediction(depth, scale, ()), None, truth, 0.05)["total"]
    return [total.detach(), *torch.autograd.grad(total, (depth, scale))]


def test_no_setting_is_forgotten() -> None:
    """A new one must say here whether a student without a teacher reads it."""
    assert OTHER.keys() | {"backend"} == {field.name for field in fields(DistillationConfig)}
    assert set(ONLY_TAUGHT) < OTHER.keys()


@pytest.mark.parametrize("name", OTHER)
def test_what_is_said_to_be_read_without_a_teacher_is(name: str) -> None:
    before, after = alone(DistillationConfig()), alone(DistillationConfig(**{name: OTHER[name]}))
    same = all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert same == (name in ONLY_TAUGHT)


@pytest.mark.parametrize("name", sorted(set(ONLY_TAUGHT) - set(LIGHT_READS)))
def test_a_student_without_a_teacher_is_not_begun_with_them(name: str, tmp_path: Path) -> None:
    config = tiny_student(tmp_path / "run", distillation=DistillationConfig(**{name: OTHER[name]}))
    told = rf"distillation\.{name} {OTHER[name]}: there is no teacher: expected --teacher RUN beside it, or "
    with pytest.raises(InputError, match=told + rf"distillation\.{name} left out"):
        train_student(config, samples=tiny_scenes())
    assert not (tmp_path / "run").exists()


def test_terms_that_are_switched_off_are_what_a_student_alone_does(tmp_path: Path) -> None:
    off = DistillationConfig(response=0.0, features=0.0, learned_scale=0.0, structure=0.0, selective=0.0)
    short = replace(LOOP, steps=2)
    told, left_out = (
        train_student(tiny_student(tmp_path / name, distillation=config, loop=short), samples=tiny_scenes())
        for name, config in (("off", off), ("default", DistillationConfig()))
    )
    assert [row["total"] for row in told] == [row["total"] for row in left_out]
    config = tiny_student(tmp_path / "run", distillation=replace(off, guide_ramp=0.0))
    with pytest.raises(InputError, match=r"^distillation\.guide_ramp 0\.0: there is no teacher"):
        train_student(config, samples=tiny_scenes())


def test_all_of_them_are_named_at_once(tmp_path: Path) -> None:
    config = tiny_student(tmp_path / "run", distillation=DistillationConfig(response=5.0, gate=False))
    told = r"distillation\.response 5\.0, distillation\.gate False: .*, or distillation\.response, distillation\.gate l"
    with pytest.raises(InputError, match=told):
        train_student(config, samples=tiny_scenes())


def test_a_run_from_before_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are kept beside it, and must be given again."""
    setting = DistillationConfig(features=2.0)
    config = tiny_student(tmp_path / "run", distillation=setting, loop=replace(LOOP, steps=2))
    with monkeypatch.context() as before:
        before.setattr(runs, "ONLY_TAUGHT", ())
        train_student(config, samples=tiny_scenes())
    longer = replace(config, loop=replace(LOOP, steps=4, resume=True))
    assert train_student(longer, samples=tiny_scenes())[-1]["step"] == 4
    with pytest.raises(InputError, match=r"distillation\.features: 2\.0 → 1\.0"):
        train_student(replace(longer, distillation=DistillationConfig()), samples=tiny_scenes())
    with pytest.raises(InputError, match=r"distillation\.features 2\.0: there is no teacher"):
        train_student(replace(longer, run=tmp_path / "new"), samples=tiny_scenes())
