"""Every case of a benchmark runs, agrees with its reference, and states the least work that the README does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from adu_kernels import backend
from bench.__main__ import main
from bench.cost_volume import CROP, HALF, SINGLE, TINY, least_work, volume_case
from bench.disparity_regression import CROP as HEAD
from bench.disparity_regression import regression_case
from bench.gpu_check.benchmarks import suite_of
from bench.harness.implementations import EAGER, OURS
from bench.harness.parity import Refused
from bench.harness.runner import Effort, run_case
from bench.harness.suite import Suite
from bench.operations import EVERY, INFERENCE, OPERATIONS, STEPS
from bench.training_steps import check_step

CPU = torch.device("cpu")


def eager(name: str, output: Path) -> Suite:
    """Without compilations, which take minutes where several tests run at once."""
    return suite_of(name, dry_run=True, output=output, compile=("none",))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_tiny_case_is_measured(name: str, tmp_path: Path):
    suite = suite_of(name, dry_run=True)
    for case in suite.cases("tiny", CPU):
        result = run_case(case, CPU, compile_modes=(), peers={}, peaks=None, effort=Effort(1, 0.01, 60))
        bad = [row for row in result["rows"] if row["status"] not in ("measured", "absent")]
        assert not bad, (case.name, bad)


@pytest.mark.parametrize("name", OPERATIONS)
def test_cases_have_names_of_their_own_and_one_headline(name: str, tmp_path: Path):
    suite = suite_of(name, dry_run=True)
    for size in ("gpu", "small", "tiny"):
        cases = suite.cases(size, CPU)
        assert len({case.name for case in cases}) == len(cases)
        assert sum(case.headline for case in cases) == (size == "gpu")
    assert suite.cases("gpu", CPU)[0].headline  # the most telling case is the first that is measured


@pytest.mark.parametrize("name", STEPS | INFERENCE)
def test_whole_steps_run(name: str, tmp_path: Path):
    result = eager(name, tmp_path / "out.json").run()
    for case in result["cases"]:
        for row in case["rows"]:
            assert row["status"] in ("measured", "absent"), row
    measured = result["cases"][0]["rows"][0]
    expected = {"forward", "total"} if name.endswith("inference") else {"forward", "backward", "update", "total"}
    assert expected <= set(measured["times"])
    assert measured["images_per_second"] > 0
    assert measured["peak_bytes"] > 0


def test_least_bytes_are_those_of_the_readme():
    """Per image of a crop in bf16: 42 MB forward and 52 MB backward; the head 3.7 MB forward (fp32)."""
    work = least_work("groupwise", CROP, HALF.itemsize)
    assert work.forward_bytes / CROP.batch == pytest.approx(42e6, rel=0.01)
    assert work.backward_bytes / CROP.batch == pytest.approx(52e6, rel=0.02)
    assert regression_case(HEAD, SINGLE).work.forward_bytes / HEAD.batch == pytest.approx(3.7e6, rel=0.01)


def test_a_combined_volume_is_the_sum_of_its_parts():
    parts = [least_work(name, TINY, 4) for name in ("groupwise", "concatenation")]
    both = least_work("combined", TINY, 4)
    for direction in ("forward", "backward", "total"):
        assert both.bytes(direction) == sum(part.bytes(direction) for part in parts)
        assert both.flops(direction) == sum(part.flops(direction) for part in parts)


def test_pairs_are_counted_cell_by_cell():
    cells = sum(w >= d for d in range(TINY.disparities) for w in range(TINY.width))
    assert TINY.pairs() == TINY.batch * TINY.height * cells


def test_compiled_rows_stand_beside_the_eager_one():
    """One real compilation: the row is there, right, and timed."""
    case = volume_case("concatenation", TINY, SINGLE)
    result = run_case(case, CPU, compile_modes=("default",), peers={}, peaks=None, effort=Effort(5, 0.01, 120))
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["compiled reference"]["status"] in ("measured", "failed"), rows
    if rows["compiled reference"]["status"] == "failed":  # no C++ compiler here: the row says so, the others stand
        assert rows["compiled reference"]["reason"]
    assert rows[EAGER]["status"] == "measured"


def test_check_step_refuses_past_the_references_own_rounding():
    exact = {"total": torch.tensor(2.0).double(), "gradient": torch.tensor(4.0).double()}
    same = {name: value * 1.01 for name, value in exact.items()}
    assert check_step(same, same, exact, 1e-3)["backward"] == pytest.approx(0.01)
    with pytest.raises(Refused, match="gradient: relative error"):
        check_step({**same, "gradient": exact["gradient"] * 1.03}, same, exact, 1e-3)
    with pytest.raises(Refused, match="total"):
        check_step({**same, "total": torch.tensor(torch.nan).double()}, same, exact, 1e-3)


def test_auto_can_mean_the_references_or_the_kernels(monkeypatch: pytest.MonkeyPatch):
    def chosen(name: str) -> Any:
        tensor = torch.zeros(1)
        return backend.dispatch("op", name, tensor, torch_twin=lambda: "torch", triton_twin=lambda: "triton")()

    assert chosen("auto") == "torch"
    with backend.use_backend("triton"):
        assert chosen("auto") == "triton"
        assert chosen("torch") == "torch"  # what is asked for by name stays
        with backend.use_backend("torch"):
            assert chosen("auto") == "torch"
            assert chosen("triton") == "triton"
        assert chosen("auto") == "triton"
    assert chosen("auto") == "torch"
    with pytest.raises(ValueError, match="backend"), backend.use_backend("cuda"):
        pass
    monkeypatch.setattr(backend, "HAS_TRITON", False)
    with pytest.raises(RuntimeError, match="not installed"), backend.use_backend("triton"):
        pass


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of `python -m bench …`."""
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_the_command_line_names_every_benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert command_line(monkeypatch, "--help") == 0
    help_text = capsys.readouterr().out
    assert [name for name in (*EVERY, "all", "report", "render") if name not in help_text] == []


def test_bad_input_ends_with_its_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert command_line(monkeypatch, "depth-objective", "--case", "nothing", "--compile", "none") == 2
    assert capsys.readouterr().err.startswith("error: no case is named so")


def test_ours_stands_first_where_it_runs_on_a_cpu():
    suite = suite_of("concat-free-conv", dry_run=True)
    (case,) = suite.cases("tiny", CPU)
    result = run_case(case, CPU, compile_modes=(), peers={}, peaks=None, effort=Effort(1, 0.01, 60))
    assert [row["name"] for row in result["rows"]] == [OURS, EAGER]
