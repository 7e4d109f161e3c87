"""One damaged file is read under the limits that every such file is held to."""

from __future__ import annotations

import faulthandler
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from adu_depth.errors import InputError

LONGEST = 5.0  # seconds of work for one file
HANGS = 30.0  # seconds that pass: others may be at work on the machine
MOST_MEMORY = 1e9  # bytes more than before


def largest_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def refusal(read: Callable[[Path], object], path: Path, label: str) -> str | None:
    """The message that the file is refused with, None where it is read. AssertionError for whatever else happens."""
    message = None
    faulthandler.dump_traceback_later(60, exit=True)  # a hang within a decoder cannot be raised out of
    started, worked = time.monotonic(), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except InputError as error:
        message = str(error)
    except BaseException as error:
        raise AssertionError(f"{label}: {error!r}") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert time.process_time() - worked < LONGEST, label
    assert time.monotonic() - started < HANGS, label
    return message
