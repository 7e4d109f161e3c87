"""A wrong implementation gets a row that says why, an exit code, and no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adu_depth.errors import InputError
from bench.harness.implementations import EAGER, OURS, load_peer
from bench.harness.result import Row
from bench.harness.runner import Effort, ours_is_sound, run_case
from tests.bench import planted
from tests.bench.planted import PlantedSuite, case_of

CPU = torch.device("cpu")


def rows_of(case: Any, **peers: Callable[..., Any]) -> dict[str, Row]:
    result = run_case(case, CPU, compile_modes=(), peers=peers, peaks=None, effort=Effort(5, 0.01, 60))
    return {row["name"]: row for row in result["rows"]}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (planted.one_percent_off, "output 0: error"),
        (planted.wrong_gradient, "gradient 1: error"),
        (planted.unwritten, "output 0: not finite in the same places"),
        (planted.one_output, "expected 2 outputs"),
        (planted.no_gradient, "no output has a gradient"),
    ],
)
def test_a_planted_fault_is_refused_and_not_timed(fault: Callable[..., Any], reason: str):
    rows = rows_of(case_of(fault))
    assert rows[OURS]["status"] == "refused"
    assert rows[OURS]["reason"].startswith(f"parity failed: {reason}")
    assert "times" not in rows[OURS]
    assert rows[EAGER]["status"] == "measured"
    assert not ours_is_sound([{"rows": list(rows.values())}])


def rectified(kernel: Callable[..., Any], **changes: Any) -> Any:
    kinked = {"reference": planted.rectified, "draw": planted.at_a_kink, "pre_activation": torch.add}
    return run_case(
        case_of(kernel, **{**kinked, **changes}), CPU, compile_modes=(), peers={}, peaks=None,
        effort=Effort(5, 0.01, 60),
    )  # fmt: skip


def test_which_side_of_a_kink_rounding_finds_is_no_fault():
    """Among many values some are within rounding of the place where a derivative jumps."""
    within_rounding = planted.rectified_above(1e-7)
    found = rectified(within_rounding)
    assert found["rows"][0]["status"] == "measured", found["rows"][0]
    assert found["note"] == "Left out of the check of gradients: 2 elements at a kink."
    without = rectified(within_rounding, pre_activation=None)
    assert without["rows"][0]["reason"].startswith("parity failed: gradient 0: error"), "the case has no such value"


@pytest.mark.parametrize("fault", [planted.rectified_above(2e-4), torch.add, planted.rectified_above(10.0)])
def test_a_wrong_derivative_beside_a_kink_is_refused(fault: Callable[..., Any]):
    row = rectified(lambda a, b: planted.rectified(a, b).detach() + (fault(a, b) - fault(a, b).detach()))["rows"][0]
    assert row["status"] == "refused"
    assert "gradient 0: error" in row["reason"]


def test_values_that_all_lie_at_a_kink_are_no_check():
    with pytest.raises(AssertionError, match="4096 of 4096 values lie at a kink"):
        rectified(planted.rectified, draw=lambda device: [torch.zeros(64, 64, device=device)] * 2)


def test_a_right_one_is_timed_with_its_error():
    row = rows_of(case_of())[OURS]
    assert set(row["times"]) == {"forward", "backward", "total"}
    assert row["times"]["total"]["repeats"] >= 5
    assert row["error"]["forward"] < 1e-6
    assert row["error"]["backward"] < 1e-6
    assert row["peak_bytes"] > 0


def test_a_wrong_peer_is_refused_and_the_rest_measured():
    rows = rows_of(case_of(), wrong=planted.wrong_gradient, right=planted.product, broken=planted.breaks)
    assert rows["wrong"]["status"] == "refused"
    assert rows["right"]["status"] == "measured"
    told = rows["broken"].pop("traceback")
    assert rows["broken"] == {"name": "broken", "status": "failed", "reason": "RuntimeError: planted"}
    assert "in breaks" in told, told  # where it broke, not only that it did
    assert not ours_is_sound([{"rows": list(rows.values())}])
    assert ours_is_sound([{"rows": [rows["right"], rows["broken"]]}])  # a peer's failure is its own


def test_ours_failing_is_not_sound():
    assert not ours_is_sound([{"rows": [rows_of(case_of(planted.breaks))[OURS]]}])


def test_a_kernel_that_does_not_exist_yet_is_absent(monkeypatch: pytest.MonkeyPatch):
    def without_kernel(a: Any, b: Any, backend: str) -> Any:
        raise NotImplementedError("no Triton kernel yet")

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    row = rows_of(case_of(without_kernel, one_form=False))[OURS]
    assert row == {"name": OURS, "status": "absent", "reason": "no Triton kernel yet"}


def test_on_a_cpu_there_is_no_row_of_ours_and_a_loud_notice():
    suite = PlantedSuite(planted=(case_of(one_form=False),), compile=("none",), seconds=0.01)
    result = suite.run()
    assert [row["name"] for row in result["cases"][0]["rows"]] == [EAGER]
    assert result["notice"].startswith("CPU ONLY")
    assert result["roofs"] is None


def test_a_refusal_ends_with_exit_code_1_and_shows_no_speed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        PlantedSuite(planted=(case_of(planted.one_percent_off),), compile=("none",), seconds=0.01).main()
    assert stopped.value.code == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {OURS} |"))
    assert "refused: parity failed" in line
    assert "µs" not in line


def test_a_peer_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a_peer.py").write_text("def twice(a, b):\n    return a * b, a.sum(1) + b.sum(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = PlantedSuite(peer=("a_peer:twice",), compile=("none",), seconds=0.01).run()
    assert {row["name"]: row["status"] for row in result["cases"][0]["rows"]}["a_peer:twice"] == "measured"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "expected module:function"),
        ("no_such_module:f", "cannot import no_such_module"),
        ("math:no_such", "math has no function no_such"),
    ],
)
def test_a_peer_that_is_not_there_is_named(text: str, message: str):
    with pytest.raises(InputError, match=message):
        load_peer(text)


def test_a_compilation_past_its_limit_fails_alone():
    def slow(a: torch.Tensor, b: torch.Tensor) -> Any:
        for _ in range(200):
            torch.randn(200, 200) @ torch.randn(200, 200)
        return planted.product(a, b)

    result = run_case(
        case_of(), CPU, compile_modes=(), peers={"slow": slow}, peaks=None, effort=Effort(5, 0.01, compile_seconds=0.02)
    )
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["slow"]["status"] == "failed"
    assert "TimeoutError: compiling and checking took longer" in rows["slow"]["reason"]
    assert rows[EAGER]["status"] == "measured"
