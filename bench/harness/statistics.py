"""Medians and quantiles of repeated times."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest ranks; share in [0, 1]."""
    if not values:
        raise ValueError("values: expected at least one, got none")
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number in [0, 1], got {share}")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def summary(values: Sequence[float]) -> dict[str, float]:
    """What a result keeps of repeated times: median, 10 % and 90 % quantiles, how many."""
    return {
        "median": quantile(values, 0.5),
        "q10": quantile(values, 0.1),
        "q90": quantile(values, 0.9),
        "repeats": len(values),
    }
