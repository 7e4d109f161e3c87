"""A check's results.json as one JSON file per benchmark, with report.md and plots: `… unpack results.json FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adu_depth.files import make_folder, write_json
from bench.gpu_check import packed
from bench.gpu_check.entries import red_tests
from bench.harness.result import Result, check_result, save_result
from bench.operations import OPERATIONS
from bench.report import write_report

TIMED = ("profile", "training", "convergence", "tune")
"""Stages of no benchmark whose document has times that stand on every operation."""


def benchmark_results(value: dict[str, Any]) -> Iterator[tuple[str, Result]]:
    """Every benchmark's result in a packed file, by a file name; times that summary.md would not show are left out."""
    red = red_tests(value["stages"].get("parity"))
    for stage, entry in value["stages"].items():
        for name, result in ((entry.get("result") or {}).get("results") or {}).items():
            check_result(result, f"{stage}: {name}")
            count = red.count(name) if name in OPERATIONS else len(red.tests)
            yield f"{stage}-{name}", held_back(result, count) if count else result


def held_back(result: Result, red: int) -> Result:
    """The result with "refused" in the place of everything measured, for `red` of its tests failed on this machine."""
    reason = f"{red} of the tests are red on this machine"
    cases = [
        {**case, "rows": [
            {"name": row["name"], "status": "refused", "reason": reason} if row["status"] == "measured" else row
            for row in case["rows"]
        ]}
        for case in result["cases"]
    ]  # fmt: skip
    return {**result, "cases": cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    value = packed.read(chosen.results)
    if value is None:
        parser.error(f"{chosen.results}: expected a results.json of the GPU check")
    make_folder(chosen.folder)
    found = dict(benchmark_results(value))
    for name, result in found.items():
        save_result(chosen.folder / f"{name}.json", result)
    red = red_tests(value["stages"].get("parity"))
    for stage, entry in value["stages"].items():
        if red and stage in TIMED:
            print(f"{stage}: {red.refusal()}")
        elif entry.get("result") and "results" not in entry["result"]:
            write_json(chosen.folder / f"{stage}.json", entry["result"])
    if found:
        print(f"wrote {write_report(chosen.folder, list(found.values()))}")


if __name__ == "__main__":
    main()
