"""What every kernel executes per byte is within the committed counts, and what was promised of them holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adu_depth.errors import InputError
from bench.kernel_counts import budgets
from bench.kernel_counts.cases import CASES
from bench.kernel_counts.command import KernelCounts
from bench.kernel_counts.measure import measure

BUDGETS = budgets.read()
UPDATE = "if the change is wanted: python -m bench kernel-counts --update, and commit the difference"
IDS = [case.title.replace(" ", "_") for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_within_the_committed_counts(case: Any) -> None:
    report = measure([case])
    expected = {name: of for name, of in BUDGETS["kernels"].items() if name.startswith(f"{case.title} | ")}
    assert set(report["kernels"]) == set(expected), UPDATE
    if report["triton"] != BUDGETS["triton"]:
        pytest.skip(f"budgets are those of Triton {BUDGETS['triton']}, this is {report['triton']}")
    found = {name: budgets.worse(of, expected[name]) for name, of in report["kernels"].items()}
    assert not any(found.values()), f"{found}; {UPDATE}"


def test_every_budget_has_its_case() -> None:
    assert {name.split(" | ")[0] for name in BUDGETS["kernels"]} == {case.title for case in CASES}


@pytest.mark.parametrize(("kernel", "most"), [("volume_forward", 1.1), ("volume_backward", 1.5)])
def test_the_groupwise_volume_is_near_memory_in_the_layout_of_training(kernel: str, most: float) -> None:
    """By the model of an A100's units: the slowest over the floor's bytes from DRAM."""
    assert BUDGETS["kernels"][f"cost_volume groupwise bf16 channels-last | {kernel}"]["over_dram"] <= most


def test_bands_load_what_they_use() -> None:
    bands = {name: of["load_efficiency"] for name, of in BUDGETS["kernels"].items() if "| band_" in name}
    assert len(bands) >= 10
    assert min(bands.values()) >= 0.8, bands


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
