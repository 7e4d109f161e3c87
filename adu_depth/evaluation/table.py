"""Methods or protocols on one data set, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from adu_depth.evaluation.evaluator import EvaluationResult
from adu_depth.evaluation.metrics import DEPTH_METRICS, HU_METRICS, KITTI_DEPTH_METRICS, STEREO_METRICS
from adu_depth.evaluation.pair import PAIR_METRICS, PROXY_METRICS
from adu_depth.evaluation.protocols import METRIC_SETS, PROTOCOLS
from adu_depth.evaluation.uncertainty import SCALED_METRICS, UNCERTAINTY_METRICS

METRIC_ORDER = tuple(
    dict.fromkeys(
        (
            *STEREO_METRICS,
            *(f"{metric}_noc" for metric in STEREO_METRICS),
            *DEPTH_METRICS,
            *KITTI_DEPTH_METRICS,
            *HU_METRICS,
            *PAIR_METRICS,
            *PROXY_METRICS,
            *UNCERTAINTY_METRICS,
            *SCALED_METRICS,
        )
    )
)  # rmse is in two lists
MISSING = "–"

Results = Mapping[str, EvaluationResult]


def markdown_table(
    results: Results, metrics: Sequence[str] | None = None, first: str = "method", digits: int = 3
) -> str:
    """The means as a Markdown table, one row per result. metrics: which, default every one somebody has.

    first: what the results' names are, the head of their column.
    """
    header, rows = _cells(results, metrics, first, digits)
    lines = [header, ["-", *["-:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def comparison_table(results: Results, metrics: Sequence[str] | None = None, title: str = "") -> Table:
    """The same as a rich table, for the terminal."""
    header, rows = _cells(results, metrics, "method", 3)
    table = Table(title=title or None)
    for column in header:
        table.add_column(column, justify="left" if column == header[0] else "right")
    for row in rows:
        table.add_row(*row)
    return table


def means_table(results: Results, title: str) -> Table:
    """One method's means with the protocols as columns and a line for each metric: too many for a terminal's width."""
    header, rows = _cells(results, None, "metric", 4)
    table = Table(title=title)
    for column in ("metric", *(row[0] for row in rows)):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for line in list(zip(header, *rows, strict=True))[1:]:
        table.add_row(*line)
    return table


def blocks(results: Results) -> list[dict[str, EvaluationResult]]:
    """One method's results by protocol, those with the same metrics together; no empty block."""
    found: dict[str, dict[str, EvaluationResult]] = {metrics: {} for metrics in METRIC_SETS}
    for protocol, result in results.items():
        found[PROTOCOLS[protocol].metrics][protocol] = result
    return [block for block in found.values() if block]


def _cells(
    results: Results, metrics: Sequence[str] | None, first: str, digits: int
) -> tuple[list[str], list[list[str]]]:
    means = {name: result.means() for name, result in results.items()}
    chosen = metrics or [m for m in METRIC_ORDER if any(m in mean for mean in means.values())]
    rows = [
        [name, *(f"{mean[m]:.{digits}f}" if m in mean else MISSING for m in chosen)] for name, mean in means.items()
    ]
    return [first, *chosen], rows
