"""report.html of the larger quickstart: the quickstart's page, with tables of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adu_depth.real_quickstart.config import RealQuickstartConfig
from adu_depth.report import ScenePanel
from adu_depth.report.document import page_template, write_page
from adu_depth.report.tables import comparison_rows
from adu_depth.training.history import read_history

HISTORY = "history.jsonl"
TITLE = "From a rig's pairs alone to depth in metres"
DEPTHS = ("abs_rel", "rmse", "a1", "d1", "epe")
TABLES = (
    ("truth", "against ground truth", (*DEPTHS, "aurg_abs_rel", "calibration_error")),
    ("held_out", "held-out pairs, no ground truth", ("photometric", "left_right", "outside", "proxy_epe", "proxy_d1")),
    ("matcher", "held-out pairs, difference to the matcher", DEPTHS),
)
"""The report's tables: name, what they are of, metrics."""


def write_real_page(
    path: Path,
    config: RealQuickstartConfig,
    report: Mapping[str, Any],
    panels: Sequence[ScenePanel],
    runs: Mapping[str, Path],
) -> None:
    """Writes the page, whole or not at all. runs: by name, the trainings whose curves it has, where they are there."""
    tables = {}
    for name, _, metrics in TABLES:
        columns = _shown(name, report.get(name))
        tables[name] = {"columns": list(columns), "rows": comparison_rows(columns, metrics)} if columns else None
    history = {
        name: read_history(run / HISTORY, sys.maxsize) for name, run in runs.items() if (run / HISTORY).is_file()
    }
    own = {
        "tables": tables,
        "worse": report["worse"],
        "frames": report["frames"],
        "folder": config.data.root,
        "truth": config.truth,
    }
    write_page(path, page_template("real.html", "adu_depth.real_quickstart"), own, report, panels, history, TITLE)


def _shown(name: str, columns: Mapping[str, Any] | None) -> dict[str, Any]:
    """Without the constant beside figures of a pair alone: it is left–right consistent whatever it is."""
    return {who: found for who, found in (columns or {}).items() if name == "truth" or "constant" not in who}
