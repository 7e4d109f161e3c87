"""index.html: the table, and each drawn metric as mean ± standard deviation per row, in one file."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adu_depth.ablation.table import body, heads, notes
from adu_depth.charts import COLOURS, INK, SOFT, drawing, within_page
from adu_depth.files import replacing
from adu_depth.report.document import page_template
from adu_depth.report.tables import flat

TEACHER, STUDENT, TRIVIAL = COLOURS[1], COLOURS[0], SOFT


def write_page(path: Path, table: Mapping[str, Any]) -> None:
    """Writes the page of what table.json holds, whole or not at all."""
    trained = [row for row in table["rows"] if row["seeds"]]
    titles = {column["key"]: column for column in table["columns"]}
    done = sum(len(row["seeds"]) for row in table["rows"])
    environments = [environment for row in trained for environment in row["environments"]]
    page = page_template("ablation.html", "adu_depth.ablation").render(
        title=table["title"],
        subtitle=f"{done} of {len(table['rows']) * table['seeds']} trainings done · {_where(environments)}",
        heads=heads(table),
        body=body(table),
        notes=notes(table),
        charts=[(titles[key]["title"], chart(table, trained, key)) for key in table["plotted"] if trained],
        settings=flat(table["settings"]),
        environment=flat(environments[-1]) if environments else [],
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _where(environments: list[dict[str, Any]]) -> str:
    return " and ".join(sorted({str(environment.get("device", "")) for environment in environments}))


def chart(table: Mapping[str, Any], trained: list[dict[str, Any]], key: str) -> str:
    """A line per row: each seed a faint dot, their mean a dot with its standard deviation; trivial answers upright."""
    column = next(column for column in table["columns"] if column["key"] == key)
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure((5.6, 0.9 + 0.3 * len(trained)), layout="constrained")
        axes = figure.subplots()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        for trivial in table["trivial"]:
            axes.axvline(trivial["means"][key], color=TRIVIAL, linestyle=(0, (3, 2)), linewidth=1)
        for place, row in enumerate(trained):
            values = row["values"][key]
            colour = STUDENT if row["taught_by"] else TEACHER if "teacher" in row["name"] else INK
            spread = row["sds"].get(key, 0.0)
            axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.35, markersize=3.5)
            axes.errorbar(
                statistics.fmean(values), place, xerr=spread, fmt="o", color=colour, capsize=3, markersize=5.5
            )
        axes.set_yticks(range(len(trained)), [row["name"] for row in trained])
        axes.set(ylim=(len(trained) - 0.5, -0.5))
        axes.set_xlabel(f"{column['title']}, {'higher' if column['higher_is_better'] else 'lower'} is better")
        axes.grid(visible=False, axis="y")
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.tick_params(length=0)
        return within_page(figure)
