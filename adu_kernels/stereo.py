"""Options that the operations on a rectified pair of feature maps share, and what they mean."""

from __future__ import annotations

REDUCTIONS = ("mean", "sum", "sqrt")
VIEWS = ("left", "right")


def reduction_factor(reduction: str, per_group: int) -> float:
    """What a sum of products over a group is multiplied by."""
    return {"mean": 1.0 / per_group, "sum": 1.0, "sqrt": per_group**-0.5}[reduction]


def view_sign(view: str) -> int:
    """The other map is read at column − sign·d."""
    return 1 if view == "left" else -1
