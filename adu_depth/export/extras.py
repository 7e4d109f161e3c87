"""Libraries that an exported file needs and that not everybody has: the message where one is absent."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from adu_depth.errors import InputError


def needed(module: str, extra: str, purpose: object) -> Any:
    """The module. InputError, naming what needs it and how it is installed, where it is not."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{purpose}: expected {module} to be installed, got {error}: pip install 'adu-depth[{extra}]'"
        ) from None


def first_line(error: BaseException) -> str:
    """What another library says, short enough for a message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
