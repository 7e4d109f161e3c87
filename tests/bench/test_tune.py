"""The tune stage: other rows are taken and put back, what is wrong or fails is told, a run goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adu_kernels.attention_adaptation import table as attention
from adu_kernels.cost_volume import table
from adu_kernels.disparity_regression import launch
from bench.gpu_check import tune
from bench.gpu_check.tuning import ahead, launches
from bench.gpu_check.tuning.questions import Candidate, Question, one_row, questions
from bench.gpu_check.tuning.rows import Change, applied
from bench.harness.parity import bound
from bench.harness.timing import Timing
from tests.bench import compilations
from tests.bench.planted import breaks, case_of, product

ROOT = Path(__file__).resolve().parents[2]


def test_a_row_is_replaced_and_put_back():
    before = (table.BAND, attention.LAUNCH_SHAPES, launch.GATHER_LANES)
    changes = (
        Change("cost_volume.table.BAND", {"block": 16}),
        Change("attention_adaptation.table.LAUNCH_SHAPES[1].backward_keys", {"queries": 8, "stages": 1}),
        Change("disparity_regression.launch.GATHER_LANES", 32),
    )
    with applied(changes):
        assert replace(before[0], block=16) == table.BAND
        rows = before[1]
        changed = replace(rows[1], backward_keys=replace(rows[1].backward_keys, queries=8, stages=1))
        assert (rows[0], changed, *rows[2:]) == attention.LAUNCH_SHAPES
        assert launch.GATHER_LANES == 32
    assert before == (table.BAND, attention.LAUNCH_SHAPES, launch.GATHER_LANES)


@pytest.mark.parametrize(
    ("row", "to"),
    [
        ("cost_volume.table.NO_SUCH", {"block": 16}),
        ("cost_volume.table.BAND", {"no_such": 16}),
        ("cost_volume.table.BAND", 16),
        ("attention_adaptation.table.LAUNCH_SHAPES[99].forward", {"keys": 16}),
        ("attention_adaptation.table.LAUNCH_SHAPES[0].sideways", {"keys": 16}),
    ],
)
def test_a_row_that_is_not_there_is_named_and_nothing_stays_changed(row: str, to: Any):
    before = table.SLIDE_OTHER
    with (
        pytest.raises(LookupError, match=row.replace("[", r"\[")),
        applied((Change("cost_volume.table.SLIDE_OTHER", {"items": 1}), Change(row, to))),
    ):
        pass
    assert table.SLIDE_OTHER is before


@pytest.mark.parametrize("question", questions(dry_run=False), ids=lambda question: question.name)
def test_every_candidate_launches_something_else_than_the_present_table(question: Question):
    """At the size it is timed at: nothing is started."""
    item = launches.unwritten_item(question.case)
    call = bound(question.case.kernel, question.case, backend="triton")

    def launched() -> list[tuple[Any, ...]]:
        with launches.anywhere(), launches.noted(really=False) as found:
            launches.both_ways(question.case, call, item)
        return found

    present = launched()
    assert present
    for candidate in question.candidates:
        with applied(candidate.changes):
            assert launched() != present, candidate.name
    assert launched() == present


def test_questions_and_candidates_are_named_once():
    for dry_run in (False, True):
        asked = questions(dry_run)
        assert len({question.name for question in asked}) == len(asked)
        for question in asked:
            names = [candidate.name for candidate in question.candidates]
            assert len(set(names)) == len(names), question.name
            assert not dry_run or len(names) == 2


def timing(forward: float, spread: float = 0.0, failure: str = "") -> Timing:
    made = Timing(method="events", failure=failure)
    for off in (-spread, 0.0, spread):
        made.add({"forward": forward + off, "backward": 10.0})
    return made


def test_the_best_is_by_phase_and_says_whether_it_is_clear_of_the_present():
    present = timing(10.0, 1.0)
    rows = [
        {"name": "clear", **tune.compared(timing(8.0, 0.1), present)},
        {"name": "within the spread", **tune.compared(timing(9.5, 1.0), present)},
        {"name": "failed", **tune.compared(timing(1.0, failure="OutOfResources: planted"), present)},
    ]
    assert rows[0]["ratio"]["forward"] == pytest.approx(0.8)
    assert (rows[2]["status"], rows[2]["reason"]) == ("failed", "OutOfResources: planted")
    best = tune.best(rows)
    assert best["forward"] == {"candidate": "clear", "ratio": pytest.approx(0.8), "clear": True}
    assert "backward" not in best  # as fast as the present table is not faster
    assert tune.best(rows[1:])["forward"]["clear"] is False


SOME = one_row("cost_volume.table.BAND", {"block": 16})


@dataclass(frozen=True)
class PlantedRow:
    factor: float
    num_warps: int = 4


def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, factors: tuple[float, ...]) -> Any:
    """A run over one planted operation whose row is table.BAND's name; 0 fails, what is not 1 is wrong."""
    monkeypatch.setattr(table, "BAND", PlantedRow(1.0))

    def kernel(a: torch.Tensor, b: torch.Tensor, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
        from adu_kernels._triton import runtime

        row = table.BAND
        if not row.factor:
            raise RuntimeError("out of resource: planted")
        runtime.run(None, row.num_warps, a)
        first, second = product(a, b)
        return first * row.factor, second

    monkeypatch.setattr("adu_kernels._triton.runtime.run", lambda *given, **options: None)
    monkeypatch.setattr(ahead, "compile_all", lambda *given, **options: {("planted", "BAND num_warps=16"): "no room"})
    rows = [{"factor": factor, "num_warps": 8} for factor in factors]
    candidates = one_row("cost_volume.table.BAND", *rows, {"num_warps": 16}, {"factor": 1.0})
    asked = [Question("planted", case_of(kernel, one_form=False), candidates)]
    return tune.run(tmp_path / "tune.json", True, seconds, asked)


def test_what_fails_or_is_wrong_is_told_and_the_others_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    result = planted(tmp_path, monkeypatch, 60.0, (1.0, 1.01, 0.0))
    [found] = result["questions"]
    assert [row["status"] for row in found["candidates"]] == ["measured", "refused", "failed", "failed", "not taken"]
    assert "output 0" in found["candidates"][1]["reason"]
    assert "out of resource: planted" in found["candidates"][2]["reason"]
    assert found["candidates"][3]["reason"] == "no room"
    assert {"median", "q10", "q90"} <= set(found["candidates"][0]["times"]["backward"])
    assert result["complete"]
    assert json.loads((tmp_path / "tune.json").read_text())["questions"] == result["questions"]


def test_a_compilation_that_ends_its_process_costs_itself_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ahead, "MOST_PROCESSES", 2)
    monkeypatch.setattr(ahead, "_compile", compilations.deadly)
    names = ("one", "deadly", "wrong", "two", "three", "four")
    asked = [
        Question(question, case_of(product), tuple(Candidate(name, ()) for name in names)) for question in ("q", "r")
    ]
    found = ahead.compile_all(asked, launches.H100, 60.0, True)
    told = {"deadly": ahead.DIED, "wrong": "ValueError: planted"}
    assert found == {(q, name): told.get(name, []) for q in ("q", "r") for name in (ahead.PRESENT, *names)}
    late = ahead.compile_all(asked, launches.H100, 0.0, True)
    assert late == {}, "what is not done in time is compiled when it is timed"


def test_a_run_out_of_time_is_not_complete_and_the_next_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert planted(tmp_path, monkeypatch, 0.0, (1.0,))["not_reached"] == ["planted"]
    assert planted(tmp_path, monkeypatch, 60.0, (1.0,))["complete"]
    monkeypatch.setattr(tune, "_answer", None)  # would fail if it were asked again
    assert planted(tmp_path, monkeypatch, 60.0, (1.0,))["complete"]


def test_a_present_row_that_fails_stops_its_question_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ahead, "compile_all", lambda *given, **options: {})
    wrong = Question("fails", case_of(lambda a, b, backend: breaks(a, b), one_form=False), SOME)
    right = Question("runs", case_of(lambda a, b, backend: product(a, b), one_form=False), SOME)
    found = tune.run(tmp_path / "tune.json", True, 60.0, [wrong, right])["questions"]
    assert (found[0]["present"]["status"], found[0]["candidates"]) == ("failed", [])
    assert [row["status"] for row in found[1]["candidates"]] == ["not taken"]


def dry_run(tmp_path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The stage itself, in a process whose kernels are interpreted, on those questions."""
    code = (
        "import sys; from pathlib import Path; from bench.gpu_check.tune import run\n"
        "from bench.gpu_check.tuning.questions import questions\n"
        "if __name__ == '__main__':\n"
        "    asked = [q for q in questions(True) if not sys.argv[2:] or q.name in sys.argv[2:]]\n"
        "    run(Path(sys.argv[1]), True, 900.0, asked)"
    )
    script = tmp_path / "dry.py"
    script.write_text(code)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(tmp_path / "tune.json"), *names]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "tune.json").read_text())
    assert result["complete"]
    for found in result["questions"]:
        told = [(row["name"], row["status"], row.get("reason")) for row in found["candidates"]]
        assert {status for _, status, _ in told} == {"measured"}, (found["name"], told)
    return result


def test_a_dry_run_compiles_ahead_and_times_in_the_interpreter(tmp_path: Path):
    names = (tune.COMPILED_IN_A_DRY_RUN, "groupwise fp32", "disparity regression fp32", "attention fp32 d 32")
    result = dry_run(tmp_path, names)
    assert result["compiled"] == {"seconds": result["compiled"]["seconds"], "candidates": 3, "failed": 0}
    found = {found["name"]: found for found in result["questions"]}
    assert set(found) == set(names)
    [kernel] = found[tune.COMPILED_IN_A_DRY_RUN]["candidates"][0]["kernels"]
    assert kernel["kernel"] == "nested"
    assert kernel["registers"] > 0


@pytest.mark.slow
def test_a_whole_dry_run(tmp_path: Path):
    assert len(dry_run(tmp_path, ())["questions"]) == len(questions(dry_run=True))
