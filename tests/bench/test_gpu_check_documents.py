"""What the stages of the GPU check write, and what the summary makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

from bench.gpu_check import convergence, parity, profile, training, unpack
from bench.gpu_check.doctor import findings
from bench.gpu_check.sheet import Sheet
from bench.gpu_check.summary import summary_text
from bench.gpu_check.unpack import benchmark_results
from bench.harness.environment import source_digest


def test_a_package_that_does_not_load_is_named_with_who_needs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    found = {f.name: f for f in findings(dry_run=True)}
    assert not found["tyro"].ok
    assert not found["tyro"].needed
    assert "every stage of this check runs without" in found["tyro"].detail
    assert not found["safetensors"].ok
    assert found["safetensors"].needed
    assert found["numpy"].ok
    no_gpu = {f.name: f for f in findings(dry_run=False)}["GPU"]
    assert not no_gpu.ok
    assert no_gpu.needed


def failed_report(name: str, text: str, worker: str = "gw0") -> Any:
    node = type("Node", (), {"gateway": type("Gateway", (), {"id": worker})})
    fields = {"nodeid": name, "failed": True, "skipped": False, "passed": False, "when": "call", "duration": 0.1}
    return type("Report", (), {**fields, "longreprtext": text, "node": node})


def passed_report(name: str) -> Any:
    fields = {"nodeid": name, "failed": False, "skipped": False, "passed": True, "when": "call", "duration": 0.1}
    return type("Report", (), fields)


VOLUME, LOSS = "tests/kernels/test_cost_volume_triton.py::x", "tests/kernels/test_depth_objective.py::y"


def test_outcomes_are_kept_as_they_come(tmp_path: Path):
    document = parity.new_document(torch.device("cpu"))
    recorder = parity.Recorder(document, tmp_path / "parity.json", 100)
    recorder.pytest_xdist_node_collection_finished(None, ["a", "b", "c"])
    recorder.pytest_runtest_logreport(passed_report("a"))
    recorder.pytest_runtest_logreport(failed_report(VOLUME, "line\nE   off by 2\nE   more"))
    recorder.write()
    kept = json.loads((tmp_path / "parity.json").read_text())
    assert kept["counts"] == {"passed": 1, "failed": 1, "skipped": 0, "collected": 3}
    assert kept["failures"][VOLUME]["message"] == "off by 2"
    assert kept["failures"][VOLUME]["operation"] == "cost-volume"
    assert parity.unreached(kept) == ["b", "c"]
    later = parity.Recorder(kept, tmp_path / "parity.json", 100)
    later.pytest_runtest_logreport(passed_report(VOLUME))
    assert later.failures == {}, "a test that passes when it is run again is red no longer"


def test_the_last_outcomes_before_a_hang_are_kept(tmp_path: Path):
    """A failure at once; what passed meanwhile a moment later, though no test ends any more."""
    output = tmp_path / "parity.json"
    recorder = parity.Recorder(parity.new_document(torch.device("cpu")), output, 100)
    for name in ("a", "b"):
        recorder.pytest_runtest_logreport(passed_report(name))
    recorder.pytest_runtest_logreport(failed_report(VOLUME, "E   off by 2"))
    assert list(json.loads(output.read_text())["failures"]) == [VOLUME]
    recorder.pytest_runtest_logreport(passed_report("c"))
    until = time.monotonic() + 20
    while json.loads(output.read_text())["passed"] != ["a", "b", "c"]:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_what_fails_after_a_spoilt_context_is_marked():
    document = parity.new_document(torch.device("cpu"))
    recorder = parity.Recorder(document, Path(os.devnull).parent / "shm" / f"adu-{os.getpid()}.json", 100)
    recorder.write = lambda: None  # type: ignore[method-assign]
    recorder.pytest_runtest_logreport(failed_report(VOLUME, "CUDA error: an illegal memory access was encountered"))
    recorder.pytest_runtest_logreport(failed_report(LOSS, "CUDA error: an illegal memory access was encountered"))
    assert {name: told["after_spoilt"] for name, told in document["failures"].items()} == {VOLUME: False, LOSS: True}
    recorder.pytest_runtest_logreport(failed_report(LOSS, "E  off", worker="gw1"))
    assert not document["failures"][LOSS]["after_spoilt"]


@pytest.mark.parametrize(
    ("test", "operation"),
    [
        ("tests/kernels/test_correlation_disparity.py::test_x[groupwise]", "correlation-disparity"),
        ("tests/kernels/test_public_face.py::test_x[combined_volume]", "cost-volume"),
        ("tests/kernels/test_depth_objective_triton.py::TestSilog::test_y", "depth-objective"),
        ("tests/kernels/test_kit.py::test_z", None),
        ("tests/training/test_graph_gpu.py::test_the_same_bits[teacher]", "training-steps"),
    ],
)
def test_a_test_is_of_the_operation_it_names(test: str, operation: str | None):
    assert parity.operation_of(test) == operation


HERE = {"sources": "one", "device": "a GPU", "torch": "2", "triton": "3", "interpreter": False}


def test_a_later_call_keeps_outcomes_of_the_same_code_tests_and_machine():
    now = {"tests": "t", "environment": HERE, "passed": [], "complete": False}
    earlier = {**now, "passed": ["a"], "complete": True}
    assert parity.kept(None, now) is now
    assert parity.kept(earlier, now) == {**earlier, "complete": False}
    assert parity.kept({**earlier, "tests": "u"}, now) is now
    assert parity.kept({**earlier, "environment": {**HERE, "device": "another"}}, now) is now


def result_of(*cases: str, complete: bool = False) -> dict[str, Any]:
    rows = [{"name": "ours", "status": "absent", "reason": "planted"}]
    made = [{"name": name, "dtype": "", "shape": {}, "work": {}, "rows": rows} for name in cases]
    facts = {"schema": 1, "benchmark": "b", "size": "tiny", "notice": "", "environment": HERE, "complete": complete}
    return {**facts, "roofs": None, "cases": made}


def test_a_sheet_goes_on_with_what_was_made_from_the_same(tmp_path: Path):
    earlier = {"results": {"b": result_of("one")}, "running": {"benchmark": "b", "case": "two", "why": "took longer"}}
    sheet = Sheet(tmp_path / "a.json", HERE, earlier)
    assert sheet.has("b", "one")
    assert sheet.results["b"]["cases"][1]["rows"][0]["reason"] == "took longer", "what took the process along is told"
    other = Sheet(tmp_path / "b.json", {**HERE, "sources": "two"}, earlier)
    assert other.results == {}


def test_a_sheet_is_whole_when_every_benchmark_is(tmp_path: Path):
    sheet = Sheet(tmp_path / "a.json", HERE, {"results": {"b": result_of("one")}})
    sheet.finish(["b"], ["b", "c"])
    assert not json.loads((tmp_path / "a.json").read_text())["complete"]
    sheet.open("c", lambda: result_of("x"))
    sheet.finish(["c"], ["b", "c"])
    assert json.loads((tmp_path / "a.json").read_text())["complete"]
    sheet.take_up_again(["b"])
    assert list(sheet.results) == ["c"]


def test_a_cut_short_training_keeps_the_runs_it_finished():
    now = {"environment": HERE}
    assert training.trained_before(None, now) == []
    earlier = {**now, "runs": [{"backend": "kernels"}, {"backend": "references", "failure": "planted"}]}
    assert training.trained_before(earlier, now) == [{"backend": "kernels"}]
    assert training.trained_before(earlier, {"environment": {**HERE, "sources": "two"}}) == []


def test_runs_of_a_training_lie_in_the_checks_own_folder(tmp_path: Path):
    """Two checks, a dry run and a real one, older code: none finds or deletes another's."""
    one, two = tmp_path / "one" / "training.json", tmp_path / "two" / "training.json"
    places = {training.runs_folder(one, False), training.runs_folder(one, True), training.runs_folder(two, False)}
    assert len(places) == 3
    assert all(place.is_relative_to(tmp_path) for place in places)
    assert training.runs_folder(one, False).name == source_digest()


def test_runs_go_when_nothing_will_go_on_from_them(tmp_path: Path):
    output = tmp_path / "training.json"
    stale, now = training.runs_folder(output, False).with_name("0" * 16), training.runs_folder(output, False)
    for place in (stale, now):
        (place / "kernels-0").mkdir(parents=True)
    training.forget_runs(output, keep=now)
    assert (stale.exists(), now.exists()) == (False, True)
    training.forget_runs(output)
    assert list(tmp_path.iterdir()) == []


def run_of(*totals: float) -> dict[str, Any]:
    return {"kind": "teacher", "history": [{"step": k, "total": t} for k, t in enumerate(totals)]}


@pytest.mark.parametrize(
    ("kernels", "other_seed", "within"),
    [
        (1.0, 1.0, True),
        (1.015, 1.0, True),  # below the floor
        (1.1, 1.2, True),  # less than the seeds differ
        (1.1, 1.05, False),
        (0.8, 1.1, False),  # better is as suspicious as worse
    ],
)
def test_learning_alike_is_measured_by_the_spread_of_seeds(kernels: float, other_seed: float, within: bool):
    verdict = convergence.judged(run_of(5, 3, 2, 2, kernels), run_of(5, 3, 2, 2, 1.0), run_of(5, 3, 2, 2, other_seed))
    assert verdict["within"] is within
    assert verdict["early_relative_differences"] == [0, 0, 0]


def row(name: str, total: float, **more: Any) -> dict[str, Any]:
    times = {phase: {"median": total} for phase in ("forward", "total")}
    return {"name": name, "status": "measured", "times": times, **more}


def profiled_step() -> dict[str, Any]:
    return {"step_seconds": 0.056, "launches": 9, "waits": {}, "waiting_lines": {}, "kernels": []}


def training_run() -> dict[str, Any]:
    speeds = {"images_per_second": {"median": 30.1}, "peak_bytes": None, "held_out": {"abs_rel": 0.1}}
    return {"kind": "teacher", "backend": "kernels", "steps": 2, "history": [{"total": 2.0}, {"total": 1.0}], **speeds}


def packed_value(failures: dict[str, Any]) -> dict[str, Any]:
    def sheet(name: str, case: str, *rows: dict[str, Any]) -> dict[str, Any]:
        return {"results": {name: {"cases": [{"name": case, "rows": list(rows)}]}}, "complete": True}

    better = {"candidate": "block=16", "ratio": 0.8, "clear": True}
    documents = {
        "parity": {"counts": {"passed": 5}, "failures": failures},
        "operations": sheet("cost-volume", "volume", row("ours", 10.0), row("eager reference", 50.0)),
        "compiled": sheet("cost-volume", "volume", row("ours", 11.0), row("compiled reference", 33.0)),
        "training-steps": sheet("teacher-step", "teacher step", row("ours", 1000.0, images_per_second=8.0)),
        "profile": {"steps": {"teacher_step, bf16": profiled_step()}},
        "training": {"runs": [training_run()]},
        "tune": {"questions": [{"name": "q", "candidates": [], "best": {"forward": better}}]},
    }
    about = {"state": "done", "seconds": 1, "code": 0}
    return {"stages": {name: {"name": name, **about, "result": result} for name, result in documents.items()}}


def test_the_summary_sets_ours_beside_the_others():
    text = summary_text(packed_value({}), [], dry_run=False)
    assert "| volume | 11.0 | 50.0 | 50 (×4.55) | compiled 33 (×3.00) |" in text
    assert "| teacher step | ours | 1000 | 8.0 |" in text


def test_no_time_is_shown_of_an_operation_whose_tests_are_red():
    failure = {"operation": "cost-volume", "after_spoilt": False, "message": "off by 2"}
    text = summary_text(packed_value({"tests/x::y": failure}), [], dry_run=False)
    assert "| volume | refused: 1 of its tests are red here |" in text
    assert "| teacher step | refused: tests are red here (cost-volume) |" in text
    assert "11.0" not in text
    assert "`tests/x::y`: off by 2" in text
    other = summary_text(packed_value({"tests/x::y": {**failure, "operation": "depth-objective"}}), [], dry_run=False)
    assert "| volume | 11.0 |" in other


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ({"operation": "depth-objective", "after_spoilt": False}, "depth-objective"),
        ({"operation": None, "after_spoilt": False}, "tests of no single operation"),
        ({"operation": "cost-volume", "after_spoilt": True}, "cost-volume"),
    ],
)
def test_nothing_that_needs_every_operation_is_timed_while_any_test_is_red(failure: dict[str, Any], told: str):
    """Steps, waits, trainings, launch shapes: be it a test of no single operation, or one after a CUDA error."""
    text = summary_text(packed_value({"tests/x::y": {**failure, "message": "off"}}), [], dry_run=False)
    for shown in ("| teacher step | ours | 1000", "56.0 ms", "30.1 images/s", "takes 0.80 of"):
        assert shown in summary_text(packed_value({}), [], dry_run=False)
        assert shown not in text
    refused = f"refused: tests are red here ({told})"
    assert f"| teacher step | {refused} |" in text
    assert f"- teacher_step, bf16: {refused}" in text
    assert f"- teacher, kernels: {refused}" in text
    assert f"## Launch shapes that were faster\n\n- {refused}" in text


def test_profile_and_trainings_are_not_unpacked_while_a_test_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, target = tmp_path / "results.json", tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["unpack", str(source), str(target)])
    value = packed_value({"tests/x::y": {"operation": None, "after_spoilt": False, "message": "off"}})
    value = {
        "schema": 1,
        "calls": [],
        "stages": {name: value["stages"][name] for name in ("parity", "profile", "training", "tune")},
    }
    source.write_text(json.dumps(value))
    unpack.main()
    assert [path.name for path in target.iterdir()] == ["parity.json"]
    value["stages"]["parity"]["result"]["failures"] = {}
    source.write_text(json.dumps(value))
    unpack.main()
    assert {path.name for path in target.iterdir()} == {"parity.json", "profile.json", "training.json", "tune.json"}


HANGS = """
import signal, sys, time
from pathlib import Path
from bench.gpu_check.packed import read_json
from bench.gpu_check.sheet import Sheet, Watch
from tests.bench.test_gpu_check_documents import HERE, result_of

output = Path(sys.argv[1])
sheet = Sheet(output, HERE, read_json(output))
sheet.open("b", lambda: result_of("one"))
if not sheet.has("b", "two"):
    sheet.begin("b", "two")
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 3)  # as a limit on a compilation does
    with Watch(sheet, 0.5):
        time.sleep(60)
time.sleep(4)
sheet.finish(["b"], ["b"])
"""


def test_a_case_that_hangs_costs_itself_alone(tmp_path: Path):
    """The process begins anew after its limit, and no alarm of the case reaches it."""
    script, output = tmp_path / "hangs.py", tmp_path / "out.json"
    script.write_text(HANGS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    ended = subprocess.run([sys.executable, str(script), str(output)], env=environment, timeout=120)
    assert ended.returncode == 0
    found = json.loads(output.read_text())
    assert found["complete"]
    assert [case["name"] for case in found["results"]["b"]["cases"]] == ["one", "two"]
    assert found["results"]["b"]["cases"][1]["rows"][0]["reason"] == "took longer than 0 s"


def test_what_is_unpacked_has_no_time_of_an_operation_whose_tests_are_red():
    row = {"name": "ours", "status": "measured", "times": {"total": {"median": 1.0}}}

    def measured(name: str) -> dict[str, Any]:
        case = {"name": name, "dtype": "", "shape": {}, "work": {}, "rows": [dict(row)]}
        return {**result_of(), "benchmark": name, "cases": [case]}

    names = ("cost-volume", "depth-objective", "teacher-step")
    failure = {"operation": "cost-volume", "after_spoilt": False, "message": "off"}
    stages = {
        "parity": {"result": {"failures": {VOLUME: failure}}},
        "operations": {"result": {"results": {name: measured(name) for name in names}}},
    }
    found = {name: result["cases"][0]["rows"][0] for name, result in benchmark_results({"stages": stages})}
    assert found["operations-depth-objective"] == row
    for name in ("cost-volume", "teacher-step"):
        refused = {"name": "ours", "status": "refused", "reason": "1 of the tests are red on this machine"}
        assert found[f"operations-{name}"] == refused
    del stages["parity"]
    assert all(r["cases"][0]["rows"] == [row] for _, r in benchmark_results({"stages": stages}))


def averaged(name: str, device: DeviceType, microseconds: float, annotation: bool = False) -> Any:
    event = FunctionEventAvg()
    event.key, event.count, event.device_type, event.is_user_annotation = name, 1, device, annotation
    event.self_device_time_total = microseconds
    return event


def test_a_span_on_the_gpu_is_no_kernel():
    """torch tells of `Optimizer.step#AdamW.step` as of its kernels: with it a step looks busier than it is."""
    events = [
        averaged("adam", DeviceType.CUDA, 300.0),
        averaged("Optimizer.step#AdamW.step", DeviceType.CUDA, 400.0, annotation=True),
        averaged("cudaLaunchKernel", DeviceType.CPU, 0.0),
    ]
    found = profile.told(events, 1e-3)
    assert found["gpu_microseconds"] == 300.0
    assert found["idle_share"] == pytest.approx(0.7)
    assert [kernel["name"] for kernel in found["kernels"]] == ["adam"]
    assert found["launches"] == 1
