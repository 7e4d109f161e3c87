"""Which process writes something, and whether it still runs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache

import psutil

SLACK = 2.0  # seconds that the start of one and the same process may seem to move: names hold whole seconds


@dataclass(frozen=True)
class Writer:
    """A process: `started` is in seconds since the machine's start, which setting the clock does not move; `space`
    tells containers of one host name apart (Linux)."""

    host: str
    space: str
    pid: int
    started: float

    @property
    def is_here(self) -> bool:
        """Whether it belongs to this host (and container), so that it could be seen."""
        here = this_writer()
        return (self.host, self.space) == (here.host, here.space)

    def runs(self) -> bool | None:
        """Whether this very process still runs, not another under its number; None where that cannot be seen."""
        if not self.is_here:
            return None
        try:
            found = psutil.Process(self.pid)
            return found.status() != psutil.STATUS_ZOMBIE and abs(_started(found) - self.started) < SLACK
        except psutil.NoSuchProcess:
            return _hides(self.pid)
        except ValueError:  # no number of a process
            return False
        except psutil.Error:  # it is there, and hides from us
            return True


def this_writer() -> Writer:
    """This process; a forked child is another."""
    return _writer(os.getpid())


@lru_cache(maxsize=1)
def _writer(pid: int) -> Writer:
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        space = ""
    return Writer(socket.gethostname(), space, pid, _started(psutil.Process(pid)))


def _started(process: psutil.Process) -> float:
    """Both numbers move with the clock, their difference does not."""
    return process.create_time() - psutil.boot_time()


def _hides(pid: int) -> bool:
    """Whether another user's process is there that /proc does not show (hidepid)."""
    if os.name == "nt":  # where 0 is a signal
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False
