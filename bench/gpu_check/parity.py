"""The kernel tests on the card: each test file in a process of its own, several at once, counts kept as they end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from adu_depth.files import write_json
from adu_depth.training.checkpoint import read_json
from bench.gpu_check.arguments import stage_arguments
from bench.harness.environment import MEASURED, ROOT, measured_environment, source_digest
from bench.harness.result import same_making

AT_ONCE = 8
FILE_MINUTES = 6
REHEARSED = ("test_public_face.py", "test_feature_distillation.py")
SOURCES = (*MEASURED, "tests/kernels")


def test_files(rehearse: bool) -> list[Path]:
    """The tests of the Triton kernels first."""
    files = sorted((ROOT / "tests" / "kernels").glob("test_*.py"), key=lambda f: ("triton" not in f.name, f.name))
    return [f for f in files if not rehearse or f.name in REHEARSED]


def run_file(file: Path) -> dict[str, Any]:
    """What one test file's run came to."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", f"--junitxml={report}"]
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "pytest", str(file), *options],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60 * FILE_MINUTES,
            )
            code, output = ended.returncode, ended.stdout + ended.stderr
        except subprocess.TimeoutExpired as late:
            code, output = -1, f"stopped after {FILE_MINUTES} minutes; {_text(late.stdout)}"
        counts = read_report(report) if report.exists() else {}
    found = {"file": file.name, "code": code, "seconds": round(time.perf_counter() - start, 1), **counts}
    if code not in (0, 5):  # 5: every test of the file is deselected
        found["output"] = output[-4000:]
    return found


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def read_report(path: Path) -> dict[str, Any]:
    """Counts and the failures of a JUnit file."""
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    failures = []
    for case in cases:
        for kind in ("failure", "error"):
            for told in case.findall(kind):
                message = (told.get("message") or "").strip()
                failures.append({"test": case.get("name", "?"), "message": message[:500]})
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(failures) - skipped,
        "failed": len(failures),
        "skipped": skipped,
        "failures": failures,
    }


def passed_before(output: Path, now: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a run that was cut short: the files that passed, where code, tests, machine and versions are the same."""
    earlier = read_json(output) if output.exists() else {}
    if earlier.get("tests") != now["tests"] or not same_making(earlier["environment"], now["environment"]):
        return []
    return [found for found in earlier["files"] if found["code"] in (0, 5)]


def main() -> None:
    chosen = stage_arguments(__doc__)
    device = torch.device("cpu" if chosen.rehearse else "cuda")
    result: dict[str, Any] = {
        "environment": measured_environment(device),
        "tests": source_digest(SOURCES),
        "complete": False,
        "files": [],
    }
    if not chosen.rehearse:
        os.environ["TRITON_INTERPRET"] = "0"
    result["files"] = passed_before(chosen.output, result)
    done = {found["file"] for found in result["files"]}
    files = [file for file in test_files(chosen.rehearse) if file.name not in done]
    with ThreadPoolExecutor(max_workers=max(1, min(AT_ONCE, (os.cpu_count() or 1) // 2))) as pool:
        for ended in as_completed([pool.submit(run_file, file) for file in files]):
            found = ended.result()
            counts = ", ".join(f"{found.get(key, 0)} {key}" for key in ("passed", "failed", "skipped"))
            print(f"{found['file']}: {counts}, {found['seconds']} s, exit code {found['code']}", flush=True)
            result["files"].append(found)
            write_json(chosen.output, result)
    result["complete"] = True
    write_json(chosen.output, result)
    sys.exit(0 if all(found["code"] in (0, 5) for found in result["files"]) else 1)


if __name__ == "__main__":
    main()
