"""Do a single image and its depth lie over each other? Where depth leaps, colour should change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adu_depth.doctor.findings import OK, WARNING, Report
from adu_depth.doctor.measure import FrameFacts

USUAL = 1.75
"""On real rooms (7-Scenes carried into its colour camera, HoloLens) the median of a set is 2.5 to 2.9 where maps are
aligned, 1.3 to 1.7 where they are 8 of 320 pixels off."""


def check_alignment(frames: Sequence[FrameFacts], report: Report) -> None:
    """Of single images: a pair's depth is held against its other view."""
    measured = {f.name: f.edge_ratio for f in frames if np.isfinite(f.edge_ratio)}
    if not measured:
        return
    median = float(np.median(list(measured.values())))
    told = f"grey changes {median:.2g} times as much where depth leaps as elsewhere ({len(measured)} frames)"
    if median >= USUAL:
        report.add("alignment", OK, told)
        return
    report.add(
        "alignment",
        WARNING,
        f"{told}; {USUAL:g} and more is usual",
        [name for name, ratio in measured.items() if ratio < USUAL],
        "depth may lie beside its image: of two cameras it must be carried into the colour camera, not only resized",
    )
