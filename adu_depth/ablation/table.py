"""table.json and table.md: a row for each training by name, mean ± standard deviation over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from adu_depth.ablation.cost import REPEATS
from adu_depth.ablation.preset import Preset
from adu_depth.ablation.results import Result
from adu_depth.ablation.rows import Row
from adu_depth.checkpoint import config_dict

Results = Mapping[tuple[str, int], Result]
NONE = "–"


def summary(
    preset: Preset,
    rows: Sequence[Row],
    results: Results,
    left_out: Mapping[str, str],
    trivial: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """What table.json holds. sds: sample standard deviations, where a row has two seeds or more."""
    says = {row.name: row.says for row in preset.rows}
    return {
        "preset": preset.settings.preset,
        "title": preset.title,
        "about": preset.about,
        "seeds": preset.settings.seeds,
        "columns": [asdict(column) for column in preset.columns],
        "plotted": list(preset.plotted),
        "rows": [_row(row, [r for (name, _), r in sorted(results.items()) if name == row.name]) for row in rows],
        "left_out": [{"name": name, "says": says[name], "lacks": lacks} for name, lacks in left_out.items()],
        "trivial": [{"says": says, "means": dict(means)} for says, means in trivial.items()],
        "published": [asdict(published) for published in preset.published],
        "published_about": preset.published_about,
        "settings": config_dict(preset.settings),
    }


def _row(row: Row, found: Sequence[Result]) -> dict[str, Any]:
    keys = dict.fromkeys(key for result in found for key in result.metrics)
    values = {key: [result.metrics[key] for result in found if key in result.metrics] for key in keys}
    costs = [result.cost for result in found]
    return {
        "name": row.name,
        "says": row.says,
        "taught_by": row.taught_by,
        "changes": dict(row.changes),
        "seeds": [result.seed for result in found],
        "parameters": costs[0].parameters if costs else None,
        "macs": costs[0].macs if costs else None,
        "cpu_ms": statistics.median(cost.cpu_ms for cost in costs) if costs else None,
        "threads": sorted({cost.threads for cost in costs}),
        "measured_at": list(costs[0].size) if costs else None,
        "means": {key: statistics.fmean(of) for key, of in values.items()},
        "sds": {key: statistics.stdev(of) for key, of in values.items() if len(of) > 1},
        "values": values,
        "seconds": [result.seconds for result in found],
        "environments": [result.environment for result in found],
    }


def heads(table: Mapping[str, Any]) -> list[str]:
    """The columns' titles, with the way that is better."""
    titles = [f"{c['title']} {'↑' if c['higher_is_better'] else '↓'}" for c in table["columns"]]
    return ["row", "seeds", "parameters", "GMAC", "CPU ms", *titles, "s a training"]


def cells(table: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """A trained row's, but for its name."""
    if not row["seeds"]:
        return [f"0 of {table['seeds']}", *[NONE] * (len(heads(table)) - 2)]
    return [
        str(len(row["seeds"])) if len(row["seeds"]) == table["seeds"] else f"{len(row['seeds'])} of {table['seeds']}",
        f"{row['parameters']:,}",
        f"{row['macs'] / 1e9:.2f}",
        f"{row['cpu_ms']:.0f}",
        *(_number(row["means"].get(c["key"]), row["sds"].get(c["key"])) for c in table["columns"]),
        f"{statistics.fmean(row['seconds']):.0f}",
    ]


def trivial_cells(table: Mapping[str, Any], means: Mapping[str, float]) -> list[str]:
    return [*[NONE] * 4, *(_number(means.get(column["key"])) for column in table["columns"]), NONE]


def published_cells(table: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Under the columns of the pictures that are tested on."""
    known = {"test/rmse": row["rmse"], "test/rel": row["rel"], "test/delta1": row["delta1"]}
    numbers = [_number(known.get(column["key"])) for column in table["columns"]]
    return [NONE, f"{row['parameters']:g} M", NONE, NONE, *numbers, NONE]


def notes(table: Mapping[str, Any]) -> list[str]:
    """What has to be said below the table."""
    told = [table["about"]]
    trained = [row for row in table["rows"] if row["seeds"]]
    if trained:
        size = "×".join(map(str, trained[0]["measured_at"]))
        threads = sorted({number for row in trained for number in row["threads"]})
        which = " and ".join(map(str, threads))
        told.append(
            f"Mean ± sample standard deviation over seeds. GMAC (convolutions and products) and CPU ms (median of "
            f"{REPEATS} calls, one sample, fp32, {which} thread{'' if threads == [1] else 's'}) are the network's on "
            f"{size}, whatever it was trained at. Seconds of a training are wall-clock, on a machine that may have had "
            "other work; those of a part that was killed are not in them, and the first taught row of a seed asks the "
            "teacher for what all others then have."
        )
    told += [f"{row['says']} ({row['name']}) is left out: {row['lacks']}." for row in table["left_out"]]
    return told


def markdown(table: Mapping[str, Any]) -> str:
    """The one table, and what has to be said of it."""
    titles = heads(table)
    lines = [f"# {table['title']}", "", f"| {' | '.join(titles)} |", "|-" * len(titles) + "|"]
    for says, found in body(table):
        lines.append(f"| {' | '.join([says, *found])} |")
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes(table))])


def body(table: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Every line of the table: its name and its cells."""
    return [
        *((f"{row['says']} ({row['name']})", cells(table, row)) for row in table["rows"]),
        *((f"trivial: {row['says']}", trivial_cells(table, row["means"])) for row in table["trivial"]),
        *((f"{table['published_about']}: {row['says']}", published_cells(table, row)) for row in table["published"]),
    ]


def _number(mean: float | None, sd: float | None = None) -> str:
    if mean is None:
        return NONE
    digits = 3 if abs(mean) < 10 else 2
    return f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")
