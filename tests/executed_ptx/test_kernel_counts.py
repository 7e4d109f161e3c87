"""What every kernel executes per byte is within the committed counts, and what was promised of them holds."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from adu_depth.errors import InputError
from bench.kernel_counts import budgets
from bench.kernel_counts.cases import CASES, CountCase
from bench.kernel_counts.command import KernelCounts
from bench.kernel_counts.measure import measure

BUDGETS = budgets.read()
UPDATE = "if the change is wanted: python -m bench kernel-counts --update, and commit the difference"
IDS = [case.title.replace(" ", "_") for case in CASES]


GROUPWISE = "cost_volume groupwise bf16 channels-last | "
NEAR_MEMORY = {GROUPWISE + "volume_forward": 1.1, GROUPWISE + "volume_backward": 1.5}
"""In the layout of training: time of the slowest unit of an A100, by the model, over that of the floor's bytes."""
BANDS, LEAST_EFFICIENCY = "| band_", 0.8
"""Kernels that load what they use: bytes asked for over bytes of the sectors touched."""


def check_counts(case: CountCase, report: dict[str, Any]) -> None:
    """Fails where the case's kernels are others than those budgeted, break a promise, or count more than the budget."""
    expected = {name: of for name, of in BUDGETS["kernels"].items() if name.startswith(f"{case.title} | ")}
    counted = report["kernels"]
    assert set(counted) == set(expected), UPDATE
    for name, of in counted.items():
        assert of["over_dram"] <= NEAR_MEMORY.get(name, math.inf), f"{name}: promised, whatever the budget says"
        assert BANDS not in name or of["load_efficiency"] >= LEAST_EFFICIENCY, f"{name}: promised"
    if report["triton"] != BUDGETS["triton"]:
        pytest.skip(f"budgets are those of Triton {BUDGETS['triton']}, this is {report['triton']}")
    found = {name: budgets.worse(of, expected[name]) for name, of in counted.items()}
    assert not any(found.values()), f"{found}; {UPDATE}"


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_within_the_committed_counts_and_the_promised_ones(case: CountCase) -> None:
    check_counts(case, measure([case]))


def test_every_budget_has_its_case() -> None:
    assert {name.split(" | ")[0] for name in BUDGETS["kernels"]} == {case.title for case in CASES}


def test_promises_are_made_of_kernels_that_are_counted() -> None:
    assert set(NEAR_MEMORY) <= set(BUDGETS["kernels"])
    assert sum(BANDS in name for name in BUDGETS["kernels"]) >= 10


@pytest.mark.parametrize(
    ("title", "kernel", "figure", "value"),
    [
        ("cost_volume groupwise bf16 channels-last", "volume_forward", "over_dram", 1.11),
        ("cost_volume groupwise bf16 channels-last", "volume_backward", "over_dram", 1.51),
        ("cost_volume plain bf16 channels-last", "band_forward", "load_efficiency", 0.79),
    ],
)
@pytest.mark.parametrize("version", [BUDGETS["triton"], "another"])
def test_a_broken_promise_is_told_whatever_the_budget_says(
    title: str, kernel: str, figure: str, value: float, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the budget's tolerance, or counted by a Triton that the budgets are not compared with."""
    (case,) = (case for case in CASES if case.title == title)
    name = f"{title} | {kernel}"
    kept = copy.deepcopy(BUDGETS)
    kept["kernels"][name][figure] = value
    monkeypatch.setitem(globals(), "BUDGETS", kept)
    counted = {name: of for name, of in kept["kernels"].items() if name.startswith(f"{title} | ")}
    with pytest.raises(AssertionError, match=re.escape(f"{name}: promised")):
        check_counts(case, {"triton": version, "kernels": counted})


@pytest.mark.parametrize(
    ("figure", "factor", "seen"),
    [
        ("instructions_per_word", 1.06, True), ("instructions_per_word", 1.04, False), ("load_efficiency", 0.9, True),
        ("bank_factor", 1.1, True), ("over_dram", 0.5, False), ("store_efficiency", 0.9, True),
        ("sectors_over_floor", 1.2, True),
    ],
)  # fmt: skip
def test_what_gets_worse_is_seen(figure: str, factor: float, seen: bool) -> None:
    budget = BUDGETS["kernels"]["cost_volume plain bf16 channels-last | band_forward"]
    assert bool(budgets.worse({**budget, figure: budget[figure] * factor}, budget)) == seen


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    KernelCounts(operation="feature_distillation", case="guide", output=tmp_path / "sub" / "counts.json").main()
    written = json.loads((tmp_path / "sub" / "counts.json").read_text())
    name = "feature_distillation guide fp32 | nested"
    assert list(written["kernels"]) == [name]
    printed = capsys.readouterr().out
    assert str(written["kernels"][name]["instructions_per_word"]) in printed
    assert "no time was measured" in printed


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(InputError, match="expected an operation of attention_adaptation"):
        KernelCounts(operation="attention").run()
    with pytest.raises(InputError, match="--update: expected all cases"):
        KernelCounts(operation="cost_volume", update=True).run()
