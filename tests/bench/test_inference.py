"""What `python -m bench inference` measures: rows that agree with PyTorch, and a reason for each that has no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adu_depth.errors import InputError
from bench import inference
from bench.inference import InferenceBenchmark, table
from tests.export.making import HAS, needs_onnx

TINY = {"network": ("light student",), "sizes": ((33, 64),), "warm_up": 0, "repeats": 3}


def silent(_: str) -> None:
    pass


def rows(result: dict[str, object]) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in result["cases"][0]["rows"]}  # type: ignore[index]


def test_rows_are_timed_beside_each_other_and_written(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    benchmark = InferenceBenchmark(runtime=("eager", "onnx", "openvino"), output=tmp_path / "a.json", **TINY)  # type: ignore[arg-type]
    result = benchmark.run(silent)
    assert torch.get_num_threads() == before
    found = rows(result)
    assert found["eager"]["largest_difference"] == 0
    for name, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
        assert found[name]["status"] == ("measured" if HAS[suffix] else "absent"), found[name]
    for row in found.values():
        if row["status"] == "measured":
            times = row["times"]
            assert 0 < times["q10"] <= times["median"] <= times["q90"]  # type: ignore[index]
            assert times["repeats"] == 3  # type: ignore[index]
        else:
            assert "pip install" in str(row["reason"])
    assert result["complete"]
    assert result["environment"]["device"].startswith("CPU ")
    assert "| light student | 33×64 |" in table(result)
    assert json.loads((tmp_path / "a.json").read_text())["cases"] == result["cases"]


@pytest.mark.parametrize("name", ["student", "light student"])
def test_networks_of_random_weights_have_depths_that_can_differ(name: inference.Network) -> None:
    """A light one's were all the nearest depth: whatever a runtime made of it agreed."""
    for size in ((64, 96), (228, 304)):
        depth = inference.built(name, size)(inference._picture(size)).depth
        assert depth.min() > 1.0
        assert depth.std() > 0.2


@needs_onnx
def test_a_runtime_that_computes_something_else_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = inference._depth

    def wrong(run: Callable[[dict[str, Tensor]], dict[str, Tensor]], inputs: dict[str, Tensor]) -> Tensor:
        return honest(run, inputs) * 1.01

    monkeypatch.setattr(inference, "_depth", wrong)
    result = InferenceBenchmark(runtime=("eager", "onnx"), **TINY).run(silent)  # type: ignore[arg-type]
    row = rows(result)["onnx"]
    assert row["status"] == "refused"
    assert "times" not in row
    assert "differs from PyTorch's by 1.0e-02" in table(result)


def test_without_a_compiler_the_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    result = InferenceBenchmark(runtime=("eager", "compiled"), **TINY).run(silent)  # type: ignore[arg-type]
    row = rows(result)["compiled"]
    assert row["status"] == "absent"
    assert "compiler" in str(row["reason"])
    assert "| absent |" in table(result)


@pytest.mark.parametrize("change", [{"repeats": 0}, {"threads": 0}, {"warm_up": -1}, {"sizes": ((16, 64),)}])
def test_numbers_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="at least"):
        InferenceBenchmark(**{**TINY, **change}).run(silent)  # type: ignore[arg-type]
