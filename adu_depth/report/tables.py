"""What the report's template says in words and tables: the verdict, the metrics side by side, seconds, settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from adu_depth.report.scenes import MODEL_LABELS

_Metrics = Mapping[str, Any]
STUDENTS = ("student_alone", "student_distilled")


@dataclass(frozen=True)
class _Metric:
    name: str
    meaning: str
    digits: int = 4
    higher_is_better: bool = False
    ratio: bool = True  # whether a change in percent of it means anything: not where it may be negative


METRICS = (
    _Metric("abs_rel", "mean |error| ÷ depth"),
    _Metric("sq_rel", "mean error² ÷ depth, m", 3),
    _Metric("rmse", "root mean square error, m", 3),
    _Metric("rmse_log", "the same of ln depth"),
    _Metric("log10", "mean |error| of log₁₀ depth"),
    _Metric("silog", "spread of ln error × 100, scale forgiven", 2),
    _Metric("a1", "share within a factor 1.25", 4, True),
    _Metric("a2", "share within 1.25²", 4, True),
    _Metric("a3", "share within 1.25³", 4, True),
    _Metric("epe", "mean disparity error, pixels", 3),
    _Metric("d1", "share off by > 3 px and > 5 %, in %", 2),
    _Metric("epe_noc", "the same of pixels that both cameras see", 3),
    _Metric("d1_noc", "the same of pixels that both cameras see", 2),
    _Metric("ause_abs_rel", "uncertainty ranks errors: distance to perfect"),
    _Metric("aurg_abs_rel", "the same: gain over random", 4, True),
    _Metric("photometric", "how unlike the left view the warped right one is", 3),
    _Metric("left_right", "share that the mirrored pair does not confirm, in %", 1),
    _Metric("outside", "share that points out of the right view, in %", 1),
    _Metric("proxy_epe", "mean distance to the matcher, pixels", 3),
    _Metric("proxy_d1", "share > 3 px and > 5 % from the matcher, in %", 2),
    _Metric("nll", "negative log-likelihood", 3, ratio=False),
    _Metric("calibration_error", "promised against real coverage"),
)


def models_of(report: Mapping[str, Any]) -> list[str]:
    """The models the report has metrics of, the known ones first in their usual order."""
    return [m for m in MODEL_LABELS if isinstance(report.get(m), Mapping)]


def verdict(report: Mapping[str, Any]) -> dict[str, str] | None:
    """What distillation did to the student's abs_rel, and how far that can be trusted."""
    alone, distilled = (_value(report.get(m), "abs_rel") for m in STUDENTS)
    if alone is None or distilled is None or alone == 0:
        return None
    return {
        "did": "lowered" if distilled < alone else "raised" if distilled > alone else "did not change",
        "alone": f"{100 * alone:.1f}",
        "distilled": f"{100 * distilled:.1f}",
        "change": _signed(100.0 * (distilled - alone) / alone, 1),
        "trust": _trust(report, alone, distilled),
    }


def _trust(report: Mapping[str, Any], alone: float, distilled: float) -> str:
    seeds = int(report.get("seeds") or 1)
    spreads = [_value(report.get(m), "abs_rel_sd") for m in STUDENTS]
    if seeds < 2 or None in spreads:
        return "One seed: a small difference may be chance. Several seeds (--seeds 3) show the spread."
    spread = math.hypot(*(s for s in spreads if s is not None))
    if spread == 0:
        return f"Means over {seeds} seeds."
    ratio = abs(distilled - alone) / spread
    return f"Means over {seeds} seeds; the difference is {ratio:.1f} times the standard deviation between seeds."


def metric_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per metric with a cell per model: the better student is best, and `change` says what distillation did."""
    models = models_of(report)
    known = {m.name for m in METRICS}
    names = {n for model in models for n in report[model] if not n.endswith("_sd")}
    metrics = (*METRICS, *(_Metric(name, "") for name in sorted(names - known)))
    return [
        _metric_row(metric, report, models)
        for metric in metrics
        if any(_value(report[model], metric.name) is not None for model in models)
    ]


def comparison_rows(columns: Mapping[str, _Metrics], names: Sequence[str]) -> list[dict[str, Any]]:
    """As `metric_rows`, of any columns and of the metrics `names` that one of them has; the best of each is bold."""
    rows = []
    for metric in (m for m in METRICS if m.name in names):
        values = {name: value for name, found in columns.items() if (value := _value(found, metric.name)) is not None}
        if values:
            best = (max if metric.higher_is_better else min)(values.values())
            row = _metric_row(metric, columns, list(columns))
            for name, cell in zip(columns, row["cells"], strict=True):
                cell["best"] = values.get(name) == best
            rows.append(row)
    return rows


def _metric_row(metric: _Metric, report: Mapping[str, Any], models: list[str]) -> dict[str, Any]:
    alone, distilled = (_value(report.get(m), metric.name) for m in STUDENTS)
    best, css, change = None, "", "–" if set(STUDENTS) <= set(models) else None
    if alone is not None and distilled is not None:
        if alone != distilled:
            won = (distilled > alone) == metric.higher_is_better
            best, css = (STUDENTS[1], "better") if won else (STUDENTS[0], "worse")
        if not metric.ratio:
            change = _signed(distilled - alone, metric.digits)
        elif alone != 0:
            change = f"{_signed(100.0 * (distilled - alone) / alone, 1)} %"
    return {
        "name": metric.name,
        "arrow": ("↑" if metric.higher_is_better else "↓") if metric.meaning else "",
        "meaning": metric.meaning,
        "cells": [_cell(report[model], metric) | {"best": model == best} for model in models],
        "change": change,
        "css": "none" if change == "–" else css,
    }


def _cell(metrics: _Metrics, metric: _Metric) -> dict[str, Any]:
    value, spread = _value(metrics, metric.name), _value(metrics, f"{metric.name}_sd")
    return {
        "value": "–" if value is None else _decimal(value, metric.digits),
        "spread": None if value is None or spread is None else _decimal(spread, metric.digits),
    }


def bars_of_seconds(seconds: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds per stage as bars; a "total" is written below them, not drawn among them."""
    values = {str(k): _value(seconds, k) for k in seconds if k != "total"}
    stages = {name: value for name, value in values.items() if value is not None}
    longest = max(stages.values(), default=0.0)
    bars = [
        {"name": n.replace("_", " "), "percent": f"{max(0.5, 100 * v / longest):.1f}", "time": _duration(v)}
        for n, v in stages.items()
        if longest > 0
    ]
    return {"stages": bars, "together": _duration(_value(seconds, "total") or sum(stages.values()))}


def flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as names and values, names joined by dots."""
    found: list[tuple[str, Any]] = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            found.append((f"{prefix}{key}", ", ".join(map(str, value))))
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _value(metrics: Any, name: str) -> float | None:
    value = metrics.get(name) if isinstance(metrics, Mapping) else None
    return float(value) if _finite(value) else None


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _decimal(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
