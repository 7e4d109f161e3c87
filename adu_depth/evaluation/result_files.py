"""What an evaluation leaves in its folder: means, one line per image, tables to paste, pictures of the uncertainty."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adu_depth.evaluation.curve_pictures import calibration_picture, sparsification_picture
from adu_depth.evaluation.evaluator import EvaluationResult
from adu_depth.evaluation.protocols import PROTOCOLS
from adu_depth.evaluation.table import blocks, markdown_table
from adu_depth.files import replacing, write_json

MethodResults = Mapping[str, Mapping[str, EvaluationResult]]
"""Method → protocol → result."""


def write_results(folder: Path, results: MethodResults, settings: Mapping[str, Any]) -> None:
    """Writes into `folder`:

        metrics.json        settings, and means by method and protocol
        metrics.md          the same as tables
        METHOD.csv, .json   every image's metrics under every protocol
        METHOD_sparsification.svg, METHOD_calibration.svg   where uncertainty was measured, under its first protocol

    Each file is there whole or not at all. InputError, once the numbers are there, where matplotlib is not installed.
    """
    without = ("rows", "curves")
    means = {
        method: {
            protocol: {k: v for k, v in result.as_dict().items() if k not in without}
            for protocol, result in found.items()
        }
        for method, found in results.items()
    }
    for method, found in results.items():
        stem = method.replace(" ", "_")
        write_csv(folder / f"{stem}.csv", found)
        write_json(folder / f"{stem}.json", {protocol: result.as_dict() for protocol, result in found.items()})
    _write_text(folder / "metrics.md", markdown_report(results, settings))
    write_json(folder / "metrics.json", {**settings, "methods": means})
    for method, found in results.items():  # after all numbers: pictures need matplotlib
        stem = method.replace(" ", "_")
        drawn = next((result for result in found.values() if result.curves), None)
        if drawn is not None:
            _write_text(folder / f"{stem}_sparsification.svg", sparsification_picture(drawn, method))
            _write_text(folder / f"{stem}_calibration.svg", calibration_picture(drawn, method))


def write_csv(path: str | Path, results: Mapping[str, EvaluationResult]) -> None:
    """One line per image and protocol: name, protocol, then its metrics; empty where it has not that metric."""
    metrics = list(dict.fromkeys(metric for result in results.values() for metric in result.metrics()))
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # names are bytes
    ):
        writer = csv.DictWriter(file, ["name", "protocol", *metrics])
        writer.writeheader()
        for protocol, result in results.items():
            writer.writerows({"name": name, "protocol": protocol, **row} for name, row in result.rows.items())


def markdown_report(results: MethodResults, settings: Mapping[str, Any]) -> str:
    """The means as Markdown: a section per method, a row per protocol, and what each protocol looks at."""
    lines = [f"# {settings['checkpoint']} on {settings['data']}", ""]
    if settings.get("proxies"):
        lines += [f"Against the proxies of a classical matcher, {settings['proxies']}: no ground truth.", ""]
    if settings.get("prepared"):
        lines += [settings["prepared"], ""]
    for method, found in results.items():
        lines += [f"## {method}", ""]
        for block in blocks(found):
            lines += [markdown_table(block, first="protocol", digits=4)]
    for protocol, result in next(iter(results.values())).items():
        near, far = result.min_depth, result.max_depth
        span = f"depths {near:g} to {far:g} m" if PROTOCOLS[protocol].capped else "no cap of depth"
        lines += [f"- {protocol}: {PROTOCOLS[protocol].about}; {span}; {len(result.rows)} images"]
    return "\n".join(lines) + "\n"


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
