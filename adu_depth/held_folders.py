"""The folders that this process has locked, and whether they are still where it writes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adu_depth.errors import InputError


@dataclass(frozen=True)
class Held:
    """A locked folder: by its path, what was there when it was locked, and the open lock file."""

    folder: Path
    lock: Path
    identity: os.stat_result
    handle: int

    def has_its_lock(self) -> bool:
        """Whether the lock file at its place is the one that is held; a removed one may have been made anew."""
        try:
            return os.path.samestat(os.fstat(self.handle), os.stat(self.lock))
        except OSError:
            return False


_held: dict[int, Held] = {}


def hold(folder: Path, lock: Path, handle: int) -> Held:
    found = Held(folder.absolute(), lock.absolute(), os.stat(folder), handle)
    _held[handle] = found
    return found


def forget(held: Held) -> bool:
    """Whether it was held by this process, not by the parent of which it is a fork."""
    return _held.pop(held.handle, None) is not None


def require_ours(path: Path) -> None:
    """InputError where the locked folder that `path` is in was moved or removed meanwhile, or is another process's now:
    what is written there would go into somebody else's results."""
    path = path.absolute()
    for held in _held.values():
        if held.folder != path and held.folder not in path.parents:
            continue
        try:
            same = os.path.samestat(held.identity, os.stat(held.folder))
        except OSError:
            same = False
        if not same:
            raise InputError(f"{held.folder}: the folder was {_whither(held)} while this process wrote into it")
        if not held.has_its_lock() and held.lock.exists():
            raise InputError(f"{held.folder}: {held.lock.name} was removed, and another process writes there by now")


def _whither(held: Held) -> str:
    with suppress(OSError):  # only Linux tells
        now = Path(os.readlink(f"/proc/self/fd/{held.handle}")).parent
        if os.path.samestat(held.identity, os.stat(now)):
            return f"moved to {now}"
    return "moved or removed"


def _close_in_child() -> None:
    """A forked child (a loader's worker) would hold its parent's locks on when that is killed."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
