"""What is asserted of every training step, and which steps are run when."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from adu_depth.training.config import TeacherTrainingConfig
from adu_kernels.testing.fake_cuda import rules
from bench.step_model import budgets
from bench.step_model.cases import cases
from bench.step_model.cost import launches_of
from bench.step_model.steps import StepCase, StepTrace
from bench.step_model.summary import counts

STORAGE = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def check_step(trace: StepTrace, precision: str, implementation: str) -> None:
    """Fails with the operations that break a rule, each with its line or module."""
    assert not trace.without_gradient, f"no gradient: {', '.join(trace.without_gradient)}"
    for rule in (rules.waits_for_device, rules.pageable_copies, rules.fp64_on_device, rules.adds_in_any_order):
        broken = rule(trace.rows)
        assert not broken, f"{rule.__name__}:\n" + "\n".join(map(str, broken))
    broken = rules.touches_host([row for row in trace.rows if row.phase != "batch"])
    assert not broken, "touches_host, in what a CUDA graph holds:\n" + "\n".join(map(str, broken))
    if implementation == "kernels":
        broken = rules.off_the_fast_path(trace.rows, STORAGE[precision]) + rules.volumes_copied(trace.rows)
        assert not broken, "\n".join(map(str, broken))
    else:
        assert not [row for row in trace.rows if row.name.startswith("adu_kernels::")]


def check_budget(name: str, traced: Callable[[str], StepTrace]) -> None:
    """Fails with what the step of a case has more or less than its committed counts; skipped where other versions of
    torch or transformers counted those."""
    kept = budgets.read()
    if kept["counted_with"] != budgets.versions():
        pytest.skip(f"the budgets were counted with {kept['counted_with']}, here is {budgets.versions()}")
    changed = budgets.changes(kept["steps"][name], counts(traced(name)))
    assert not changed, "\n".join([*changed, f"if that is meant: {budgets.UPDATE}"])


NORM_IN_PIECES = {
    "native_group_norm", "native_group_norm_backward", "relu", "relu_", "threshold", "threshold_", "threshold_backward",
}  # fmt: skip


def check_norms(trace: StepTrace, network: torch.nn.Module) -> None:
    """Fails where a norm of the network is anything but one operation forward and one backward, ReLU and sum included,
    or where a convolution needs another layout than what it is given."""
    count = sum(isinstance(module, torch.nn.GroupNorm) for module in network.modules())
    rows = [row for row in trace.rows if row.phase != "teacher"]
    for name in ("group_norm", "group_norm_backward"):
        assert sum(row.name == f"adu_kernels::{name}" for row in rows) == count, name
    pieces = [row for row in trace.rows if row.name in NORM_IN_PIECES]
    assert not pieces, "\n".join(map(str, pieces))
    norms = [row for row in trace.rows if row.name.startswith("adu_kernels::group_norm")]
    normalised = {t.storage for row in norms for t in row.outputs}
    turned = [row for row in trace.rows if any(t.storage in normalised for t in rules.layout_conversions(row))]
    cast = [row for row in trace.rows if row.name == "_to_copy" and row.inputs[0].storage in normalised]
    assert not turned + cast, "\n".join(map(str, turned + cast))


def check_rounding(trace: StepTrace, network: torch.nn.Module, left: int = 0) -> None:
    """Fails where the weights and biases of a network's convolutions and linear layers, but for so many, are not
    rounded by one operation, and their gradients back by another, each of as few launches as there can be."""
    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    count = sum(len(list(module.parameters())) for module in network.modules() if isinstance(module, kinds)) - left
    rows = [row for row in trace.rows if row.name == rules.MANY_COPIES and row.phase in ("forward", "backward")]
    assert [(row.phase, row.facts["tensors"]) for row in rows] == [("forward", count), ("backward", count)]
    for row in rows:
        launches = launches_of(row)
        assert [launch.kind for launch in launches] == ["cast"], row
        assert launches[0].count <= 1 + count // 64 + sum(t.count for t in row.inputs[:count]) // (320 * 65536), row
    weights = {t.storage for t in rows[0].inputs[count:]}
    alone = [row for row in trace.rows if row.name == "_to_copy" and row.inputs[0].storage in weights]
    assert not alone, "\n".join(map(str, alone))


def what_runs(case: StepCase) -> tuple[Any, ...]:
    """All that a step depends on: presets of two data sets often differ in their frames alone."""
    training = case.training
    objective = training.loss if isinstance(training, TeacherTrainingConfig) else training.distillation
    optimizer = (training.optimizer.clip_norm, training.optimizer.weight_decay)
    data = (training.data.size, training.data.dense, case.batch)
    return training.model, case.teacher, case.cached, objective, training.augmentation, optimizer, data


def distinct(kind: type) -> list[str]:
    """Names of the cases whose training is of that kind, one of those that run the same."""
    first: dict[tuple[Any, ...], str] = {}
    for name, case in cases().items():
        if isinstance(case.training, kind):
            first.setdefault(what_runs(case), name)
    return list(first.values())


def runs(names: Iterable[str], quick: Iterable[str]) -> list[Any]:
    """Every case in both precisions, with kernels and with references. Of what is not quick all but the kernels in bf16
    is marked slow."""
    found = []
    for name in names:
        for precision in ("bf16", "fp32"):
            for implementation in ("kernels", "references"):
                normal = name in quick or (precision, implementation) == ("bf16", "kernels")
                marks = [] if normal else [pytest.mark.slow]
                found.append(pytest.param(name, precision, implementation, marks=marks))
    return found
