"""Standard streams that cannot end a command: closed ones, full disks, readers that went away, narrow encodings.

The work goes on without them, since what it is done for is in files. Output that was lost turns the exit code 0 into 1;
a reader that has read enough (`| head -1`) has lost nothing. What an encoding lacks is replaced.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class _Safe(io.TextIOWrapper):
    """Drops what cannot be written, and keeps why."""

    lost: OSError | None = None

    def write(self, text: str) -> int:
        try:
            super().write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.lost = None if error.errno == errno.EPIPE else error
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            super().flush()


class Output:
    """What became of the streams."""

    def __init__(self) -> None:
        self.streams: dict[str, _Safe] = {}

    def lost(self) -> OSError | None:
        """Why a part of the standard output is lost, or None."""
        return self.streams["stdout"].lost if "stdout" in self.streams else None


@contextmanager
def safe_streams() -> Iterator[Output]:
    """While this lasts, sys.stdout and sys.stderr raise nothing. Streams that someone else has put there stay."""
    _open_closed_ones()
    before, output = (sys.stdin, sys.stdout, sys.stderr), Output()
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or (stream is getattr(sys, f"__{name}__") and _is_at(stream, fd)):
            output.streams[name] = _safe(fd, stream)
            setattr(sys, name, output.streams[name])
    try:
        yield output
    finally:
        for safe in output.streams.values():
            safe.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def _safe(fd: int, instead_of: Any) -> _Safe:
    if instead_of is not None:
        instead_of.flush()
    if hasattr(os, "set_blocking"):  # a full pipe that whoever reads it made non-blocking is waited for
        os.set_blocking(fd, True)
    return _Safe(
        io.BufferedWriter(io.FileIO(fd, "w", closefd=False)),
        encoding=getattr(instead_of, "encoding", None) or "utf-8",
        errors="backslashreplace" if fd == 2 else "replace",
        line_buffering=fd == 2 or os.isatty(fd),
    )


def _is_at(stream: Any, fd: int) -> bool:
    try:
        return bool(stream.fileno() == fd)
    except (OSError, ValueError, AttributeError):
        return False


def _open_closed_ones() -> None:
    """A closed stream's number would go to the next file that is opened, and what is printed then into that file."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            os.set_inheritable(fd, True)
