"""Runs a command and ends with whoever started it: `python keeper.py COMMAND …`, its standard input a pipe held open.

When the pipe closes (the one who held it has closed it, or is dead, be it by SIGKILL), the command and everything that
it started is killed, whatever group or session it went to; the same when the command itself ends. Only the standard
library, and Linux's own calls.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

DIE_WITH_PARENT, ADOPT_ORPHANS = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
PATIENCE = 5.0  # seconds: a process inside a driver call may take a moment to die


def descendants(root: int) -> list[int]:
    """Every process below `root`, the living ones alone."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def end_descendants() -> None:
    """Kills until none is left: one that starts another while it is looked for is caught the next time round."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        alive = descendants(os.getpid())
        if not alive:
            return
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def end_when_let_go() -> None:
    while os.read(0, 4096):
        pass
    end_descendants()
    os._exit(128 + signal.SIGKILL)


def tell_kernel(option: int, value: int) -> None:
    """prctl, where there is one: without it the groups that are known are ended all the same."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def main() -> None:
    tell_kernel(ADOPT_ORPHANS, 1)
    child = subprocess.Popen(
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=partial(tell_kernel, DIE_WITH_PARENT, signal.SIGKILL),
    )
    threading.Thread(target=end_when_let_go, daemon=True).start()
    code = child.wait()
    end_descendants()
    os._exit(code if code >= 0 else 128 - code)  # not sys.exit: the thread waits in a read


if __name__ == "__main__":
    main()
