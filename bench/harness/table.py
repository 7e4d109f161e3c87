"""Results as Markdown: one table per case, refusals and losses in their rows like everything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.harness.implementations import EAGER
from bench.harness.result import CaseResult, Result, Row

PHASES = ("teacher", "forward", "backward", "update", "total")


def result_table(result: Result) -> str:
    """The whole result: where it ran, what must be known first, one table per case."""
    lines = [f"## {result['benchmark']}, size {result['size']}", "", environment_line(result)]
    if result["notice"]:
        lines += ["", f"**{result['notice']}**"]
    if result["roofs"]:
        lines += ["", peaks_line(result["roofs"])]
    if not result["complete"] and result["cases"]:
        lines += ["", "**Cut short: cases are missing.**"]
    return "\n".join(lines) + "\n" + "".join("\n" + case_table(case) for case in result["cases"])


def environment_line(result: Result) -> str:
    found = result["environment"]
    names = ("device", "torch", "triton", "python", "cuda", "driver", "threads", "load", "commit", "sources")
    return ", ".join(f"{name} {found[name]}" for name in names if found.get(name) not in (None, ""))


def peaks_line(peaks: dict[str, float]) -> str:
    rates = [f"{name} product {peaks[name] / 1e12:.0f} TFLOP/s" for name in peaks if name != "copy"]
    return f"Peaks of this run: copy {peaks['copy'] / 1e12:.2f} TB/s (read + written), {', '.join(rates)}."


def case_table(case: CaseResult) -> str:
    """One case: a row per implementation."""
    columns = _columns(case)
    lines = [f"### {case['name']}", ""]
    if case.get("note"):
        lines += [case["note"], ""]
    lines += ["| | " + " | ".join(columns) + " |", "|-" * (len(columns) + 1) + "|"]
    eager = next((row for row in case["rows"] if row["name"] == EAGER and row["status"] == "measured"), None)
    for row in case["rows"]:
        if row["status"] == "measured":
            cells = [_cell(column, row, eager) for column in columns]
        else:
            cells = [f"{row['status']}: {row['reason']}".replace("|", "\\|").replace("\n", " ")]
            cells += [""] * (len(columns) - 1)
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _columns(case: CaseResult) -> list[str]:
    measured = [row for row in case["rows"] if row["status"] == "measured"]
    found = [phase for phase in PHASES if any(phase in row["times"] for row in measured)]
    if any("images_per_second" in row for row in measured):
        found.append("images/s")
    found.append("vs eager")
    if any(row.get("share_of_roof") for row in measured):
        found += [f"roof, {phase}" for phase in ("forward", "backward", "total") if phase in found]
    for column, key in (("peak", "peak_bytes"), ("kept", "kept_bytes")):
        if any(row.get(key) is not None for row in measured):
            found.append(column)
    if any(row.get("error") for row in measured):
        found.append("error, forward / backward")
    found.append("method")
    return found


def _cell(column: str, row: Row, eager: Row | None) -> str:
    if column in PHASES:
        return _spread(row["times"].get(column))
    if column == "images/s":
        return f"{row['images_per_second']:.1f}" if "images_per_second" in row else "–"
    if column == "vs eager":
        return "–" if eager is None else f"×{speed_up(row, eager):.2f}"
    if column.startswith("roof, "):
        share = (row.get("share_of_roof") or {}).get(column.removeprefix("roof, "))
        return "–" if share is None else f"{share:.0%}"
    if column in ("peak", "kept"):
        return megabytes(row.get(f"{column}_bytes"))
    if column == "method":
        return str(row["method"])
    error = row.get("error")
    return "–" if not error else " / ".join(f"{error[key]:.1e}" for key in ("forward", "backward"))


def speed_up(row: Row, eager: Row, phase: str = "total") -> float:
    """How many times faster than the eager reference: below 1 is a loss."""
    return float(eager["times"][phase]["median"]) / max(float(row["times"][phase]["median"]), 1e-9)


def _spread(times: dict[str, Any] | None) -> str:
    """Median (10 % – 90 % quantile) in the unit that suits the median."""
    if times is None:
        return "–"
    unit, scale = next(
        (u, s) for u, s in (("µs", 1.0), ("ms", 1e3), ("s", 1e6)) if times["median"] < 1000 * s or u == "s"
    )
    middle, low, high = (_three_digits(times[key] / scale) for key in ("median", "q10", "q90"))
    return f"{middle} ({low}–{high}) {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(count: int | None) -> str:
    if count is None:
        return "–"
    value = count / 1e6
    return f"{value:.0f} MB" if value >= 10 else f"{value:.2f} MB"


def join_tables(results: Iterable[Result]) -> str:
    return "\n".join(result_table(result) for result in results)
