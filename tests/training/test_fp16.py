"""fp16 with a scaled loss: steps that overflow are skipped, told from faults, and no resumed bit differs.

The trainer takes fp16 on GPUs alone; here its parts run on the CPU, whose fused AdamW is told of an overflow as CUDA's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adu_depth.checkpoint import checkpoint_path, list_checkpoints
from adu_depth.checkpoint.scaler_state import GROWTH, SCALE
from adu_depth.errors import InputError
from adu_depth.tensor_files import read_tensors
from adu_depth.training import loop, overflows
from adu_depth.training.good_checkpoints import NonFiniteLoss
from adu_depth.training.graph import WARM_UP
from adu_depth.training.overflows import Overflows
from adu_depth.training.runs import train_student
from adu_depth.training.step import PartByPart, TrainingParts
from tests.training.tape import Tape
from tests.training.test_graph import as_sent, place_rate
from tests.training.tiny import LOOP, tiny_scenes, tiny_student
from tests.training.two_processes import in_half

HALF = replace(LOOP, mixed_precision="fp16", steps=6, log_every=1, keep_checkpoints=9)
FIRST = 2.0**27
"""A scale that the gradients of the tiny student overflow with."""


@pytest.fixture
def scaled() -> Iterator[dict[str, float]]:
    """Trainings are given an accelerator for fp16 on the CPU; what it returns is the scale that they begin with."""
    first = {"scale": 2.0**16}
    with in_half(first):
        yield first


def kept(run: Path) -> dict[str, Tensor]:
    newest = list_checkpoints(run)[-1]
    return read_tensors(newest / "model.safetensors") | read_tensors(newest / "training.safetensors")


def train(run: Path, **changes: Any) -> list[dict[str, float]]:
    return train_student(tiny_student(run, loop=replace(HALF, **changes)), samples=tiny_scenes())


def test_networks_compute_in_half_and_the_scale_is_kept(scaled: dict[str, float], tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()
    before = TrainingParts.losses

    def losses(self: TrainingParts, *given: Any) -> Any:
        conv = next(m for m in self.task.modules() if isinstance(m, torch.nn.Conv2d))
        with_hook = conv.register_forward_hook(lambda module, given, result: seen.add(result.dtype))
        terms = before(self, *given)
        with_hook.remove()
        return terms

    scaled["scale"] = 2.0**14
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingParts, "losses", losses)
        rows = train(tmp_path / "run")
    assert seen == {torch.float16}
    scaled["scale"] = 2.0**10
    [first] = train(tmp_path / "smaller", steps=1)
    assert first["gradient_norm"] == pytest.approx(rows[0]["gradient_norm"], rel=1e-2), "of gradients without the scale"
    assert {row["loss_scale"] for row in rows} == {2.0**14}
    found = kept(tmp_path / "run")
    assert (float(found[SCALE]), int(found[GROWTH])) == (2.0**14, 6)


def test_steps_that_overflow_are_skipped_and_a_run_resumes_among_them(scaled: dict[str, float], tmp_path: Path) -> None:
    scaled["scale"] = FIRST
    rows = train(tmp_path / "whole", steps=20, checkpoint_every=5)
    skipped = [row["step"] for row in rows if not torch.isfinite(torch.tensor(row["gradient_norm"]))]
    assert skipped == list(range(1, len(skipped) + 1)), "in the beginning, until the scale fits"
    assert 5 < len(skipped) < 18
    found = kept(tmp_path / "whole")
    assert float(found[SCALE]) == FIRST / 2 ** len(skipped)
    assert {float(t) for name, t in found.items() if name.endswith(".step")} == {20 - len(skipped)}
    early = read_tensors(checkpoint_path(tmp_path / "whole", 5) / "training.safetensors")
    assert float(early[SCALE]) == FIRST / 2**5
    scaled["scale"] = 2.0**16
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    train(tmp_path / "resumed", steps=20, checkpoint_every=5, resume_from="5")
    again = kept(tmp_path / "resumed")
    assert again.keys() == found.keys()
    assert [name for name in found if not torch.equal(found[name], again[name])] == []


def test_a_graph_gives_the_same_bits_and_skips_the_same_steps(
    scaled: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale that the first steps, which are captured later, and some replayed ones overflow with."""
    tape = Tape()
    monkeypatch.setattr("adu_depth.training.step.upload_together", as_sent)
    monkeypatch.setattr(loop, "place_learning_rate", place_rate)
    monkeypatch.setattr(loop, "graphs_for", lambda device: tape)
    scaled["scale"] = FIRST
    found = []
    for name, graph in (("plain", False), ("graph", True)):
        rows = train(tmp_path / name, steps=14, graph=graph)
        found.append([(row["loss_scale"], row["total"]) for row in rows])
    assert found[0] == found[1]
    assert found[0][WARM_UP + 2][0] == FIRST / 2 ** (WARM_UP + 2), "overflows while it is replayed"
    assert tape.replays == 2 * (14 - WARM_UP)
    one, other = kept(tmp_path / "plain"), kept(tmp_path / "graph")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_capture_that_fails_halfway_leaves_the_scaler_in_order(
    scaled: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape()
    tape.fail = {1: torch.OutOfMemoryError("CUDA out of memory")}  # of the update: the gradients are unscaled by then
    monkeypatch.setattr("adu_depth.training.step.upload_together", as_sent)
    monkeypatch.setattr(loop, "place_learning_rate", place_rate)
    train(tmp_path / "plain", graph=False)
    monkeypatch.setattr(loop, "graphs_for", lambda device: tape)
    train(tmp_path / "graph")
    one, other = kept(tmp_path / "plain"), kept(tmp_path / "graph")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_gradients_that_overflow_for_ever_are_a_fault(scaled: dict[str, float], tmp_path: Path) -> None:
    before = PartByPart.gradients

    def infinite(self: PartByPart, *given: Any) -> Any:
        terms = before(self, *given)
        return terms | {"gradient_norm": torch.tensor(torch.inf)} if given[1].step >= 2 else terms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartByPart, "gradients", infinite)
        patch.setattr(overflows, "MOST_IN_A_ROW", 5)
        with pytest.raises(NonFiniteLoss, match=r"gradient_norm is inf at step 6, .*\(the 5th step in a row"):
            train(tmp_path / "run", steps=20, checkpoint_every=100, check_every=3)


def test_a_term_that_overflows_is_a_fault_at_once() -> None:
    counted = Overflows()
    names = ("total", "silog", "gradient_norm")
    assert counted.excuses(names, (1.0, 1.0, torch.inf))
    assert counted.in_a_row == 1
    assert not counted.excuses(names, (torch.inf, torch.inf, torch.nan))
    assert counted.excuses(names, (1.0, 1.0, torch.nan))
    assert not counted.excuses(names, (1.0, 1.0, 1.0))
    assert (counted.in_a_row, counted.explanation()) == (0, "")


@pytest.mark.parametrize(("name", "value"), [(SCALE, -1.0), (SCALE, float("inf")), (GROWTH, -1)])
def test_a_damaged_scale_is_refused(name: str, value: float, scaled: dict[str, float], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    train(tmp_path / "run", steps=2)
    newest = list_checkpoints(tmp_path / "run")[-1]
    tensors = read_tensors(newest / "training.safetensors")
    tensors[name] = torch.full_like(tensors[name], value)
    save_file(tensors, newest / "training.safetensors")
    with pytest.raises(InputError, match=rf"cannot be gone on from: {name}: expected"):
        train(tmp_path / "run", steps=2, resume=True)


def test_a_cpu_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r'loop\.mixed_precision "fp16" needs a GPU: on a CPU use "bf16" or "no"'):
        loop.make_accelerator(HALF)
