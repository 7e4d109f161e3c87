"""What `.approx` and `.full` may answer: the PTX ISA bounds their error and no more."""

from __future__ import annotations

from typing import Any

import numpy as np

UNITS = {"exponential": 2, "reciprocal": 1, "root": 1, "reciprocal_root": 1, "quotient": 2}
"""Largest error in units of the last place (PTX ISA 8 and 9: ex2 2, div.full and div.approx 2, rcp and sqrt 2⁻²³,
rsqrt 2⁻²²·⁹)."""
LOGARITHM = 2.0**-22
"""Of lg2: absolute where its operand lies in (0.5, 2), relative elsewhere."""


class Approximate:
    """Exact results; or, with `worst`, results as far off as allowed, up or down as a bit of theirs says. Powers of two
    come out exactly either way: every GPU gives ex2 of a whole number and x / x so.
    """

    def __init__(self, worst: bool) -> None:
        self._worst = worst

    def __getattr__(self, function: str) -> Any:
        if function not in UNITS:
            raise AttributeError(function)
        return lambda value: self._off(value, UNITS[function] * np.spacing(np.abs(value)))

    def logarithm(self, value: Any, operand: Any) -> Any:
        near_one = (operand > 0.5) & (operand < 2)
        return self._off(value, np.float32(LOGARITHM) * np.where(near_one, np.float32(1), np.abs(value)))

    def _off(self, value: Any, by: Any) -> Any:
        if not self._worst:
            return value
        up = (value.view("u4") & np.uint32(2)) != 0
        exact = (np.frexp(value)[0] == 0.5) | ~np.isfinite(value) | (value == 0)
        return np.where(exact, value, np.where(up, value + by, value - by).astype("f4"))
