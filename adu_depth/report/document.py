"""Puts the report together: one HTML file with its pictures, charts and style inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

from adu_depth.charts import line_chart, series_of
from adu_depth.files import replacing
from adu_depth.report.scenes import ScenePanel, model_label, scene_rows
from adu_depth.report.tables import bars_of_seconds, flat, metric_rows, models_of, verdict
from adu_depth.training.history import MEASURED, VALIDATION

History = Sequence[Mapping[str, float]]

_TERM_TITLES = {
    "total": "Total loss",
    "silog": "Scale-invariant log loss",
    "uncertainty": "Uncertainty loss",
    "feature": "Feature distillation",
    "features": "Feature distillation",
    "response": "Response distillation",
    "disparity": "Disparity loss",
}
_NOT_LOSSES = {"step", "learning_rate", "gradient_norm", "loss_scale", *MEASURED}


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
    InputError where there is history and no matplotlib to draw it.
    """
    own = {
        "verdict": verdict(report),
        "models": [model_label(model) for model in models_of(report)],
        "metrics": metric_rows(report),
    }
    write_page(path, page_template("report.html"), own, report, panels, history or {}, title)


def write_page(
    path: str | Path,
    template: Template,
    own: Mapping[str, Any],
    report: Mapping[str, Any],
    panels: Sequence[ScenePanel],
    history: Mapping[str, History],
    title: str,
) -> None:
    """`write_report` by a template that builds on report.html. own: what its own blocks show, by name."""
    page = template.render(
        **own,
        title=title,
        subtitle=_subtitle(report),
        scenes=[(panel.name, scene_rows(panel)) for panel in panels],
        charts=_charts(history),
        seconds=bars_of_seconds(report.get("seconds") or {}),
        facts={name: flat(report.get(name.lower()) or {}) for name in ("Environment", "Settings")},
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


@cache
def page_template(name: str, package: str = "adu_depth.report") -> Template:
    """A template of a package, which may build on the report's: page.html, parts.html, style.css.

    It escapes all that it is given: names of data sets and settings may hold anything.
    """
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("adu_depth.report")])
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **options)
    return environment.get_template(name)


def _subtitle(report: Mapping[str, Any]) -> str:
    environment = report.get("environment") or {}
    shown = [str(environment[key]) for key in ("date", "device", "commit") if environment.get(key)]
    seeds = int(report.get("seeds") or 1)
    return " · ".join([*shown, "one seed" if seeds == 1 else f"{seeds} seeds"])


def _charts(history: Mapping[str, History]) -> list[tuple[str, str]]:
    """Title and SVG for each loss term, with every run that has it; a run keeps its colour from chart to chart."""
    colours = {model_label(run): number for number, run in enumerate(history)}
    terms = {term for rows in history.values() for row in rows for term in row} - _NOT_LOSSES
    charts = []
    for term in [*(t for t in _TERM_TITLES if t in terms), *sorted(terms - _TERM_TITLES.keys())]:
        lines = {model_label(run): series_of(rows, term) for run, rows in history.items()}
        present = {name: line for name, line in lines.items() if line is not None}
        if present:
            title, up = _TERM_TITLES.get(term, term.replace("_", " ")), "weighted loss, no unit"
            if term.startswith(VALIDATION):
                title, up = f"Validation: {term.removeprefix(VALIDATION)}", "mean over the held-out samples"
            charts.append((title, line_chart(present, up, colours)))
    return charts
