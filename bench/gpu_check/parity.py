"""The tests on the GPU, of kernels and of graphs, as many at once as there are cores; outcomes are kept as they come.

A later call runs what failed again, and what was not reached, and keeps whole tracebacks.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu_check.arguments import stage_arguments
from bench.gpu_check.packed import read_json, replace_text
from bench.harness.environment import MEASURED, ROOT, measured_environment, source_digest
from bench.harness.result import same_making
from bench.operations import OPERATIONS

TESTS = ("tests/kernels", "tests/training/test_graph_gpu.py")
SOURCES = (*MEASURED, "tests/kernels", "tests/training")
DRY_TESTS = ("tests/kernels/test_public_face.py", "tests/kernels/test_feature_distillation.py")
MARKED, DRY_MARKED = "gpu and not slow", "not slow"
SPOILT = ("illegal memory access", "device-side assert", "misaligned address", "unspecified launch failure")
"""After one of these no call of CUDA in the process succeeds: what fails there later says nothing of itself."""
TOLD, TOLD_AGAIN = 3000, 20_000  # characters of a failure
WRITE_EVERY = 1.0  # seconds
WRITTEN_AT_ONCE = 50  # failures: where all fail, each would write all the others again
ALIASES = {
    "cost-volume": ("cost_volume", "groupwise", "combined_volume", "correlation_volume", "concatenation_volume"),
    "depth-objective": ("depth_objective", "silog", "laplace", "focal"),
}


def operation_of(test: str) -> str | None:
    """The benchmark's name of the operation that a test is of, or "training-steps"; None for what holds for all."""
    text = test.replace("-", "_")
    file = text.split("::", 1)[0]
    if file.startswith("tests/training/"):
        return "training-steps"
    for place in (file, text):  # test_correlation_disparity.py may name volumes in its cases
        for name in OPERATIONS:
            if any(word in place for word in (name.replace("-", "_"), *ALIASES.get(name, ()))):
                return name
    return None


class Recorder:
    """A pytest plugin that keeps outcomes in a document: the first failures are written at once, the rest within a
    second, even if no test ends any more."""

    def __init__(self, document: dict[str, Any], output: Path, told: int) -> None:
        self.document, self.output, self.told = document, output, told
        self.passed = set(document["passed"])
        self.skipped: dict[str, str] = document["skipped"]
        self.failures: dict[str, dict[str, Any]] = document["failures"]
        self.earlier = set(self.failures)
        """Red before this run: so they stay until they are seen to pass."""
        self.spoilt: set[str] = set()
        self.lock = threading.RLock()
        self.written = 0.0
        self.timer: threading.Timer | None = None

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._collected(ids)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self._collected([item.nodeid for item in session.items])

    def _collected(self, ids: list[str]) -> None:
        known = set(self.document["collected"])
        with self.lock:
            self.document["collected"] += [name for name in ids if name not in known]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            with self.lock:
                self._failed(report.nodeid, report)
            self.write_within(0.0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        with self.lock:
            self._reported(report)
        at_once = report.failed and len(self.failures) <= WRITTEN_AT_ONCE
        self.write_within(0.0 if at_once else WRITE_EVERY)

    def _reported(self, report: pytest.TestReport) -> None:
        name = report.nodeid
        if report.when == "call" and report.passed and name in self.earlier:
            self.earlier.discard(name)
            self.failures.pop(name, None)
        if report.failed:
            self._failed(name, report)
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped[name] = str(reason)[:200]
        elif report.when == "call" and name not in self.failures:
            self.passed.add(name)
            self.document["slowest"] = sorted(
                [*self.document["slowest"], [round(report.duration, 1), name]], reverse=True
            )[:10]

    def _failed(self, name: str, report: pytest.TestReport | pytest.CollectReport) -> None:
        self.passed.discard(name)
        self.earlier.discard(name)
        text = report.longreprtext
        worker = getattr(getattr(report, "node", None), "gateway", None)
        process = getattr(worker, "id", "main")
        lines = [line for line in text.splitlines() if line.startswith("E ")]
        self.failures[name] = {
            "message": (lines[0][1:].strip() if lines else text.strip().splitlines()[-1] if text.strip() else "")[:400],
            "operation": operation_of(name),
            "when": getattr(report, "when", "collection"),
            "after_spoilt": process in self.spoilt,
            "text": text[-self.told :],
        }
        print(f"FAILED {name}: {self.failures[name]['message'][:200]}", flush=True)
        if any(words in text for words in SPOILT):
            self.spoilt.add(process)

    def write_within(self, seconds: float) -> None:
        """At once where the last time is that long ago, else when it is."""
        with self.lock:
            wait = self.written + seconds - time.monotonic()
            if wait <= 0:
                self.write()
            elif self.timer is None:
                self.timer = threading.Timer(wait, self.write)
                self.timer.daemon = True
                self.timer.start()

    def write(self) -> None:
        """Now. From any thread."""
        with self.lock:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self.document["passed"] = sorted(self.passed)
            self.document["counts"] = {
                "passed": len(self.passed),
                "failed": len(self.failures),
                "skipped": len(self.skipped),
                "collected": len(self.document["collected"]),
            }
            replace_text(self.output, json.dumps(self.document) + "\n")
            self.written = time.monotonic()


def new_document(device: torch.device) -> dict[str, Any]:
    return {
        "environment": measured_environment(device),
        "tests": source_digest(SOURCES),
        "complete": False,
        "counts": {},
        "collected": [],
        "passed": [],
        "skipped": {},
        "failures": {},
        "slowest": [],
    }


def kept(earlier: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """The document to go on with: the earlier one where code, tests, machine and versions are the same."""
    if earlier is None or earlier.get("tests") != now["tests"]:
        return now
    same = same_making(earlier["environment"], now["environment"])
    return {**earlier, "environment": now["environment"], "complete": False} if same else now


def unreached(document: dict[str, Any]) -> list[str]:
    """Tests that were collected and have no outcome."""
    seen = document["failures"].keys() | set(document["passed"]) | document["skipped"].keys()
    return [name for name in document["collected"] if name not in seen]


def pytest_arguments(tests: Iterable[str], dry_run: bool, again: bool) -> list[str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = 2 if dry_run else max(1, min(16, cores))
    return [
        *(tests or (DRY_TESTS if dry_run else TESTS)),
        *("-q", "--no-header", "-r", "N", "--tb", "long" if again else "short", "-p", "no:cacheprovider"),
        "--continue-on-collection-errors",
        *("-m", DRY_MARKED if dry_run else MARKED, "-n", str(processes), "--dist", "load"),
    ]


def main() -> None:
    chosen = stage_arguments(__doc__)
    os.environ["TRITON_INTERPRET"] = "1" if chosen.dry_run else "0"
    fresh = new_document(torch.device("cpu" if chosen.dry_run else "cuda"))
    document = kept(read_json(chosen.output), fresh)
    tests = [*document["failures"], *unreached(document)]
    if not tests:  # nothing is known, or all is well: from the beginning
        document = fresh
    recorder = Recorder(document, chosen.output, TOLD_AGAIN if chosen.again else TOLD)
    os.chdir(ROOT)
    code = pytest.main(pytest_arguments(tests, chosen.dry_run, chosen.again), plugins=[recorder])
    recorder.write()
    # 0: all passed, 1: some failed, 5: none is selected; with 2, 3 and 4 pytest itself could not
    document["complete"] = code in (0, 1) and not unreached(document)
    document["pytest_code"] = int(code)
    recorder.write()
    print(document["counts"], flush=True)
    sys.exit(1 if document["failures"] or code not in (0, 1) else 0)


if __name__ == "__main__":
    main()
