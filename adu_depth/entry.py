"""Where the program begins and ends: signals and streams are seen to before the seconds that the imports take."""

from __future__ import annotations

import sys
from collections.abc import Callable

from adu_depth import launcher
from adu_depth.stopping import Stopped, end_on_signals
from adu_depth.streams import safe_streams


def main() -> None:
    """The command `adu-depth`."""
    sys.exit(run(_command, last=True))


def run(work: Callable[[Callable[[], None]], int], last: bool = False) -> int:
    """Does a command's work and returns its exit code, 128 + n where signal n stopped it.

    work: is given a function to call when its imports are done. last: the program ends after it.
    """
    with safe_streams() as output:
        try:
            with end_on_signals(last) as signals:
                code = work(signals.started)
        except Stopped as stopped:
            code = 128 + stopped.signum
            if launcher.rank() == 0:
                sys.stderr.write(f"{stopped}\n")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                sys.stderr.write(f"{error.code}\n")
        sys.stdout.flush()
        lost = output.lost()
        if lost is not None and code == 0:
            sys.stderr.write(f"error: the standard output is lost: {lost.strerror}; the work itself is done\n")
            code = 1
    return code


def _command(started: Callable[[], None]) -> int:
    from adu_depth.cli import command  # takes seconds

    started()
    return command(sys.argv[1:])
