"""Medians and quantiles of repeated times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest ranks; share in [0, 1]. ValueError: no values, another share."""
    if not values:
        raise ValueError("values: expected at least one, got none")
    return float(np.quantile(values, share))


def summary(values: Sequence[float]) -> dict[str, float]:
    """What a result keeps of repeated times: median, 10 % and 90 % quantiles, how many."""
    return {
        "median": quantile(values, 0.5),
        "q10": quantile(values, 0.1),
        "q90": quantile(values, 0.9),
        "repeats": len(values),
    }
