"""Another row in a launch table, for as long as a measurement takes: the one hook that writes there.

A row is named as the machine-code gate names it, its operation in front: "cost_volume.table.BAND",
"attention_adaptation.table.LAUNCH_SHAPES[0].forward". The operations read their tables at every call, by the name
in the module; a copy in another module would not be reached, which shows as a candidate that launches what the present
row launches.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """Some fields of a row; of a plain number in place of a row, the number."""

    row: str
    to: Mapping[str, Any] | int


@contextmanager
def applied(changes: Sequence[Change]) -> Iterator[None]:
    """The tables with these changes, for as long as the context lasts. LookupError: there is no such row or field."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for change in changes:
            module, name, steps = _found(change.row)
            value = vars(module)[name]
            changed = _replaced(change.row, value, steps, change.to)
            before.append((module, name, value))
            setattr(module, name, changed)
        yield
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)


def _found(row: str) -> tuple[Any, str, list[str]]:
    """Module, name in it, and the way from there: fields, and numbers in brackets."""
    operation, file, rest = row.split(".", 2)
    module = importlib.import_module(f"adu_kernels.{operation}.{file}")
    name, *steps = re.findall(r"\w+|\[\d+\]", rest)
    if name not in vars(module):
        raise LookupError(f"{row}: {module.__name__} has no {name}")
    return module, name, steps


def _replaced(row: str, value: Any, steps: list[str], to: Mapping[str, Any] | int) -> Any:
    """`value` with what lies at the end of the way replaced; what leads there is made anew."""
    if not steps:
        return _changed(row, value, to)
    step, rest = steps[0], steps[1:]
    try:
        if step.startswith("["):
            number = int(step[1:-1])
            return (*value[:number], _replaced(row, value[number], rest, to), *value[number + 1 :])
        return dataclasses.replace(value, **{step: _replaced(row, getattr(value, step), rest, to)})
    except (AttributeError, IndexError) as error:
        raise LookupError(f"{row}: {error}") from error


def _changed(row: str, value: Any, to: Mapping[str, Any] | int) -> Any:
    if isinstance(to, int):
        if not isinstance(value, int):
            raise LookupError(f"{row}: expected a number to be there, got {value!r}")
        return to
    try:
        return dataclasses.replace(value, **to)
    except TypeError as error:
        raise LookupError(f"{row}: {error}") from error
