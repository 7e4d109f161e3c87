"""The report's words and tables: the verdict, the metrics side by side, seconds, settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, TypeGuard

from adu_depth.report.scenes import MODEL_LABELS, model_label

_Metrics = Mapping[str, Any]


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
    _Metric("nll", "negative log-likelihood", 3, ratio=False),
    _Metric("calibration_error", "promised against real coverage"),
)


def models_of(report: Mapping[str, Any]) -> list[str]:
    """The models the report has metrics of, the known ones first in their usual order."""
    return [m for m in MODEL_LABELS if isinstance(report.get(m), Mapping)]


def verdict_html(report: Mapping[str, Any]) -> str:
    """What distillation did to the student's abs_rel, and how far that can be trusted."""
    alone, distilled = (_value(report.get(m), "abs_rel") for m in ("student_alone", "student_distilled"))
    if alone is None or distilled is None or alone == 0:
        return ""
    change = 100.0 * (distilled - alone) / alone
    did = "lowered" if distilled < alone else "raised" if distilled > alone else "did not change"
    text = (
        f"Distillation <strong>{did}</strong> the student's mean relative depth error from "
        f"<strong>{100 * alone:.1f}&nbsp;%</strong> to <strong>{100 * distilled:.1f}&nbsp;%</strong> "
        f"({_signed(change, 1)}&nbsp;%)."
    )
    return f'<p class="verdict">{text}</p><p class="note">{escape(_trust(report, alone, distilled))}</p>'


def _trust(report: Mapping[str, Any], alone: float, distilled: float) -> str:
    seeds = int(report.get("seeds") or 1)
    spreads = [_value(report.get(m), "abs_rel_sd") for m in ("student_alone", "student_distilled")]
    if seeds < 2 or None in spreads:
        return "One seed: a small difference may be chance. Several seeds (--seeds 3) show the spread."
    spread = math.hypot(*(s for s in spreads if s is not None))
    if spread == 0:
        return f"Means over {seeds} seeds."
    ratio = abs(distilled - alone) / spread
    return f"Means over {seeds} seeds; the difference is {ratio:.1f} times the standard deviation between seeds."


def metrics_html(report: Mapping[str, Any]) -> str:
    """Metrics in rows, models in columns; the better student in bold, and what distillation changed."""
    models = models_of(report)
    both = "student_alone" in models and "student_distilled" in models
    known = {m.name for m in METRICS}
    names = {n for model in models for n in report[model] if not n.endswith("_sd")}
    extra = [_Metric(n, "") for n in sorted(names - known) if any(_value(report[m], n) is not None for m in models)]
    rows = [
        _metric_row(metric, report, models, both)
        for metric in (*METRICS, *extra)
        if any(_value(report[model], metric.name) is not None for model in models)
    ]
    heads = "".join(f'<th scope="col">{escape(model_label(m))}</th>' for m in models)
    change = '<th scope="col">Change</th>' if both else ""
    return (
        '<div class="scroll"><table class="metrics"><thead><tr><th scope="col">Metric</th>'
        f"{heads}{change}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _metric_row(metric: _Metric, report: Mapping[str, Any], models: list[str], both: bool) -> str:
    alone, distilled = (_value(report.get(m), metric.name) for m in ("student_alone", "student_distilled"))
    best = None
    if alone is not None and distilled is not None and alone != distilled:
        distilled_wins = (distilled > alone) == metric.higher_is_better
        best = "student_distilled" if distilled_wins else "student_alone"
    arrow = "↑" if metric.higher_is_better else "↓"
    title = f"{escape(metric.name)} <span class='arrow'>{arrow if metric.meaning else ''}</span>"
    cells = [f'<th scope="row">{title}<small>{escape(metric.meaning)}</small></th>']
    for model in models:
        cells.append(f"<td>{_cell(report[model], metric, bold=model == best)}</td>")
    if both:
        cells.append(_change_cell(metric, alone, distilled, best))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(metrics: _Metrics, metric: _Metric, bold: bool) -> str:
    value, spread = _value(metrics, metric.name), _value(metrics, f"{metric.name}_sd")
    if value is None:
        return '<span class="none">–</span>'
    text = _decimal(value, metric.digits)
    text = f"<b>{text}</b>" if bold else text
    return text if spread is None else f'{text}<span class="sd"> ± {_decimal(spread, metric.digits)}</span>'


def _change_cell(metric: _Metric, alone: float | None, distilled: float | None, best: str | None) -> str:
    if alone is None or distilled is None or (metric.ratio and alone == 0):
        return '<td><span class="none">–</span></td>'
    css = {"student_distilled": "better", "student_alone": "worse", None: ""}[best]
    change = distilled - alone
    text = f"{_signed(100.0 * change / alone, 1)} %" if metric.ratio else _signed(change, metric.digits)
    return f'<td class="{css}">{text}</td>'


def seconds_html(seconds: Mapping[str, Any]) -> str:
    """Seconds per stage as bars; a "total" is written below them, not drawn among them."""
    values = {str(k): _value(seconds, k) for k in seconds if k != "total"}
    stages = {name: value for name, value in values.items() if value is not None}
    longest = max(stages.values(), default=0.0)
    if longest <= 0:
        return ""
    rows = "".join(
        f'<div class="stage"><span>{escape(name.replace("_", " "))}</span>'
        f'<i style="width:{max(0.5, 100 * value / longest):.1f}%"></i><span class="num">{_duration(value)}</span></div>'
        for name, value in stages.items()
    )
    total = _value(seconds, "total") or sum(stages.values())
    return f'<div class="stages">{rows}</div><p class="note">Together {_duration(total)}.</p>'


def facts_html(facts: Mapping[str, Any]) -> str:
    """Nested settings as a two-column table, names joined by dots."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>' for name, value in _flat(facts)
    )
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
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
