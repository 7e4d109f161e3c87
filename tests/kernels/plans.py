"""What launches remember of how tensors lie, forgotten for a test that wants it worked out."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from adu_kernels._triton import runtime


def forget(operation: str) -> None:
    """operation: a folder of adu_kernels. All of its modules are loaded then."""
    package = importlib.import_module(f"adu_kernels.{operation}")
    for module in pkgutil.iter_modules(package.__path__):
        for value in vars(importlib.import_module(f"{package.__name__}.{module.name}")).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


@contextmanager
def offsets_of_64_bits(module: ModuleType, question: str = "needs_int64") -> Iterator[None]:
    """Within it every launch is planned as if tensors reached beyond 2³¹ elements, and at least one is.

    module: where the question is asked whether they do. Remembered plans would answer without asking.
    """
    operation, run = module.__name__.split(".")[1], runtime.run
    seen: set[bool | None] = set()

    def noted(*arguments: Any, config: Any = None, **options: Any) -> None:
        seen.add(getattr(config, "INT64", None))
        run(*arguments, config=config, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, question, lambda *_: True)
        patch.setattr(runtime, "run", noted)
        forget(operation)
        try:
            yield
        finally:
            forget(operation)
    assert seen - {None} == {True}, seen
