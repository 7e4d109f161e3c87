"""Stand-ins for a compilation in a process of its own; nothing heavy is imported here."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def deadly(question: str, name: str, target: Any, dry_run: bool) -> list[Any] | str:
    """One candidate takes its process along, another does not compile."""
    if name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)  # so that every process has one
    return "ValueError: planted" if name == "wrong" else []
