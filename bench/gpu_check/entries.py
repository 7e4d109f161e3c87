"""What the entries of a packed file say: which one to keep, which tests are red, whether anything is wrong.

Only the standard library: this must be readable where torch is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.gpu_check.packed import Entry

Value = dict[str, Any]
OURS, EAGER = "ours", "eager reference"


def is_whole(entry: Entry) -> bool:
    return bool((entry.get("result") or {}).get("complete"))


def are_of_the_same(key: Value | None, other: Value | None) -> bool:
    """Whether two results were made from the same. Nothing is the same as what nobody knows."""
    return key is not None and key == other


def worth_keeping(entry: Entry | None, key: Value | None) -> Entry | None:
    """Of what there is of a stage that begins anew, what says most: of the same code and machine, whole, newest."""
    known = [one for one in (entry, (entry or {}).get("earlier")) if one and one.get("result")]
    best = max(known, key=lambda one: (are_of_the_same(one.get("key"), key), is_whole(one)), default=None)
    return best and {name: value for name, value in best.items() if name != "earlier"}


def of_one_making(entry: Entry) -> list[Value]:
    """An entry's result, and the earlier one that it is to replace if that was made from the same: newest first."""
    earlier = entry.get("earlier") or {}
    same = are_of_the_same(entry.get("key"), earlier.get("key"))
    return [result for result in (entry.get("result"), earlier.get("result") if same else None) if result]


@dataclass(frozen=True)
class Red:
    """The tests that failed, by name: what is not known to be right has no time to show."""

    tests: Mapping[str, Value]

    def __bool__(self) -> bool:
        return bool(self.tests)

    def count(self, operation: str) -> int:
        return sum(test["operation"] == operation for test in self.tests.values())

    def refusal(self) -> str:
        """Of what needs every operation."""
        names = {test["operation"] or "tests of no single operation" for test in self.tests.values()}
        return f"refused: tests are red here ({', '.join(sorted(names))})"


def red_tests(entry: Entry | None) -> Red:
    """Of the entry of `parity`. What an earlier run saw fail stays red until it is seen to pass."""
    found: dict[str, Value] = {}
    for result in reversed(of_one_making(entry or {})):
        now = result.get("failures") or {}
        seen = {*result.get("passed", ()), *result.get("skipped", ()), *now}
        found = {**{name: test for name, test in found.items() if name not in seen}, **now}
    return Red(found)


def is_wrong(result: Value | None, dry_run: bool) -> bool:
    """Whether a stage's document names a fault, however its process ended. A peer that fails is its own affair."""
    return any(_faults(result or {}, dry_run))


def _faults(result: Value, dry_run: bool) -> Iterator[bool]:
    yield bool(result.get("failures"))  # parity
    for benchmark in (result.get("results") or {}).values():
        for case in benchmark["cases"]:
            for row in case["rows"]:
                yield row["status"] == "refused" or (row["status"] == "failed" and row["name"] in (OURS, EAGER))
    steps = result.get("steps")  # profile; of a training how many there are
    yield isinstance(steps, dict) and any("failure" in step for step in steps.values())
    yield any("failure" in run for run in result.get("runs", ()))  # training, convergence
    yield any(row["status"] == "refused" for found in result.get("questions", ()) for row in found["candidates"])
    yield not dry_run and any(not verdict["within"] for verdict in result.get("verdicts", ()))
