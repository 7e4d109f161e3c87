"""Puts the report together: one HTML file with its pictures, charts and style inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from adu_depth.files import replacing
from adu_depth.report.charts import line_chart, series_of
from adu_depth.report.scenes import ScenePanel, model_label, scenes_html
from adu_depth.report.style import STYLE
from adu_depth.report.tables import facts_html, metrics_html, models_of, seconds_html, verdict_html

History = Sequence[Mapping[str, float]]

_TERM_TITLES = {
    "total": "Total loss",
    "silog": "Scale-invariant log loss",
    "uncertainty": "Uncertainty loss",
    "feature": "Feature distillation",
    "response": "Response distillation",
    "disparity": "Disparity loss",
}
_NOT_LOSSES = {"step", "learning_rate", "images_per_second", "gradient_norm"}

_MEANING = """
<p><b>What is compared.</b> The teacher sees both images of a stereo pair, so it measures depth by matching; the student
sees the left image alone and must infer it. Both students start from the same weights and see the same images, the same
sparse ground truth, and the same number of steps. The one difference is the teacher: the distilled student is also
shown the teacher's features and its depth at every pixel, weighted by uncertainty. At prediction time the two students
are the same network and cost the same.</p>
<p><b>How to read it.</b> All numbers are on held-out scenes against dense ground truth, and depth counts in
metres, with no scale fitted to the truth. An abs_rel of 0.10 means that depth is off by a tenth on average; a1 is the
share of pixels within 25&nbsp;% of the truth. ↓ marks metrics where less is better, ↑ where more is; the better of the
two students is bold, and the last column says what distillation changed. The uncertainty pictures show the error a
model expects of itself: where it is honest, they look like the error pictures above them.</p>
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    path: str | Path,
    report: Mapping[str, Any],
    panels: Sequence[ScenePanel] = (),
    history: Mapping[str, History] | None = None,
    title: str = "A stereo teacher teaches a monocular student",
) -> None:
    """Writes report.html to `path`, whole or not at all: no request leaves it, it needs no JavaScript.

    report: what report.json holds. Of "teacher", "student_alone" and "student_distilled" those present are shown, each
    a mapping of metrics with "<metric>_sd" beside them over several seeds; and "seeds", "seconds", "environment",
    "settings" where given.
    panels: held-out scenes. history: each run's rows {"step": …, term: …} by run, as training returns them; a run named
    like a model gets the model's label. Parts without content are left out.
    """
    sections = [
        _section("Result", verdict_html(report) + metrics_html(report)) if models_of(report) else "",
        _section("What the numbers mean", f'<div class="prose">{_MEANING}</div>'),
        _section("Held-out scenes", scenes_html(panels)) if panels else "",
        _section("Training", _charts(history or {})),
        _section("Where the time went", seconds_html(report.get("seconds") or {})),
        _section(
            "How it was run",
            _folded("Environment", report.get("environment") or {}) + _folded("Settings", report.get("settings") or {}),
        ),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><main><header><h1>{escape(title)}</h1>{_subtitle(report)}</header>{''.join(sections)}</main></body></html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _subtitle(report: Mapping[str, Any]) -> str:
    environment = report.get("environment") or {}
    shown = [str(environment[key]) for key in ("date", "device", "commit") if environment.get(key)]
    seeds = int(report.get("seeds") or 1)
    shown.append("one seed" if seeds == 1 else f"{seeds} seeds")
    return f'<p class="subtitle">{escape(" · ".join(shown))}</p>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _folded(summary: str, facts: Mapping[str, Any]) -> str:
    return f"<details><summary>{escape(summary)}</summary>{facts_html(facts)}</details>" if facts else ""


def _charts(history: Mapping[str, History]) -> str:
    """One chart for each loss term, with every run that has it; a run keeps its colour from chart to chart."""
    colours = {model_label(run): number for number, run in enumerate(history)}
    terms = {term for rows in history.values() for row in rows for term in row} - _NOT_LOSSES
    order = [*(t for t in _TERM_TITLES if t in terms), *sorted(terms - _TERM_TITLES.keys())]
    charts = []
    for term in order:
        lines = {model_label(run): series_of(rows, term) for run, rows in history.items()}
        present = {name: line for name, line in lines.items() if line is not None}
        if present:
            charts.append(line_chart(present, _TERM_TITLES.get(term, term.replace("_", " ")), colours))
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""
