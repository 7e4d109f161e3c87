"""Libraries that an exported file needs and that not everybody has: where one is absent, what they say, how much they
are given."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

from adu_depth.errors import InputError
from adu_depth.stopping import stop_if_asked

MOST_BYTES = 2**31 - 1
"""What one ONNX file can hold, weights and all, and as much is read of any exported file."""


def needed(module: str, extra: str, purpose: object) -> Any:
    """The module. InputError, naming what needs it and how it is installed, where it is not."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{purpose}: expected {module} to be installed, got {error}: pip install 'adu-depth[{extra}]'"
        ) from None


def first_line(error: BaseException) -> str:
    """What another library says, short enough for a message.

    Raises Stopped where a signal has asked to stop: the library's error is then what it made of that, as compiled code
    does that calls Python, and no fault of the network or the file.
    """
    return _line(error, 0)


def last_line(error: BaseException) -> str:
    """The same of a library (OpenVINO) that tells first which lines of its code are concerned."""
    return _line(error, -1)


def _line(error: BaseException, which: int) -> str:
    stop_if_asked()
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[which][:300]}" if lines else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Converters tell their steps on stdout, and of libraries that we do not use by warnings and in the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
