"""Finds loads and stores of which nothing says whether they happen.

LLVM leaves a register unset where it takes its value for undefined. Where that is a load's predicate, a GPU may read
far past the tensor.
"""

from __future__ import annotations

import re

_SET = re.compile(r"^\s*(?:@!?%p\d+\s+)?[a-z][\w.:]*\s+(?:%\w+\|)?(%p\d+)\b", re.MULTILINE)
_ASKED = re.compile(r"@!?(%p\d+)\s+(?:ld|st|cp|atom|red)\b")


def undecided(ptx: str) -> int:
    """How many loads, stores, copies and atomics hang on a predicate that no instruction sets."""
    known = set(_SET.findall(ptx))
    return sum(predicate not in known for predicate in _ASKED.findall(ptx))
