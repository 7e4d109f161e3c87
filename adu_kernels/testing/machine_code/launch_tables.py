"""The rows of an operation's launch table, found in its modules, and which of them a call takes.

A row is an instance, at the top of a module of the operation or in a tuple, list, dict or dataclass there, of a
dataclass of the operation that has `num_warps`, `warps` or `threads`. It counts as taken when that is read: nothing is
launched without, and no row is chosen by it.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

WARPS = ("num_warps", "warps", "threads")


def rows(operation: str) -> dict[str, object]:
    """Rows by name: "plan.BAND", "op.LAUNCH_SHAPES[2]", "launching.LAUNCH_SHAPES[2].forward"."""
    package = importlib.import_module(f"adu_kernels.{operation}")
    found: dict[str, object] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        for name, value in vars(importlib.import_module(f"{package.__name__}.{module}")).items():
            for label, candidate in _members(f"{module}.{name}", value):
                known = any(candidate is row for row in found.values())
                if _is_row(candidate, package.__name__) and not known:
                    found[label] = candidate
    return found


@contextmanager
def taken(table: Mapping[str, object]) -> Iterator[set[str]]:
    """The names of those rows of `table` that are taken while the context lasts."""
    names = {id(row): name for name, row in table.items()}
    seen: set[str] = set()

    def read(row: object, attribute: str) -> object:
        if attribute in WARPS and id(row) in names:
            seen.add(names[id(row)])
        return object.__getattribute__(row, attribute)

    kinds = {type(row) for row in table.values()}
    for kind in kinds:
        kind.__getattribute__ = read  # type: ignore[method-assign, assignment]
    try:
        yield seen
    finally:
        for kind in kinds:
            del kind.__getattribute__


def _members(label: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, tuple | list):
        for number, member in enumerate(value):
            yield from _members(f"{label}[{number}]", member)
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _members(f"{label}[{key!r}]", member)
    else:
        yield label, value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                yield from _members(f"{label}.{field.name}", getattr(value, field.name))


def _is_row(value: object, package: str) -> bool:
    if not dataclasses.is_dataclass(value) or not type(value).__module__.startswith(f"{package}."):
        return False
    fields = {field.name for field in dataclasses.fields(value)}
    return any(name in fields or hasattr(type(value), name) for name in WARPS)
