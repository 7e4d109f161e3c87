"""Several methods on one data set, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from adu_depth.data.dataset import Dataset
from adu_depth.evaluation.evaluator import EvaluationResult, Predict, evaluate
from adu_depth.evaluation.metrics import DEPTH_METRICS, STEREO_METRICS
from adu_depth.evaluation.uncertainty import UNCERTAINTY_METRICS

METRIC_ORDER = (*STEREO_METRICS, *DEPTH_METRICS, *UNCERTAINTY_METRICS)
MISSING = "–"

Results = Mapping[str, EvaluationResult]


def compare(methods: Mapping[str, Predict], dataset: Dataset, **options: Any) -> dict[str, EvaluationResult]:
    """`evaluate` for each method by name, on the same images and pixels; options are `evaluate`'s."""
    return {name: evaluate(predict, dataset, **options) for name, predict in methods.items()}


def markdown_table(results: Results, metrics: Sequence[str] | None = None) -> str:
    """The methods' means as a Markdown table, one row per method. metrics: which, default every one somebody has."""
    header, rows = _cells(results, metrics)
    lines = [header, ["-", *["-:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def comparison_table(results: Results, metrics: Sequence[str] | None = None, title: str = "") -> Table:
    """The same as a rich table, for the terminal."""
    header, rows = _cells(results, metrics)
    table = Table(title=title or None)
    for column in header:
        table.add_column(column, justify="left" if column == header[0] else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _cells(results: Results, metrics: Sequence[str] | None) -> tuple[list[str], list[list[str]]]:
    means = {name: result.means() for name, result in results.items()}
    chosen = metrics or [m for m in METRIC_ORDER if any(m in mean for mean in means.values())]
    rows = [[name, *(f"{mean[m]:.3f}" if m in mean else MISSING for m in chosen)] for name, mean in means.items()]
    return ["method", *chosen], rows
