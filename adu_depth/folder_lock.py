"""One process at a time writes into a folder.

FOLDER/.adu-depth.lock says who: host, process, its start. The lock itself is the system's, so that it ends with its
holder however that ends, and holds between hosts where the file system's locks do. Where there are none (said on
stderr), what the file says must do.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import psutil

from adu_depth.errors import InputError, SharedInputError
from adu_depth.files import make_folder, writing
from adu_depth.held_folders import forget, hold
from adu_depth.leftovers import sweep
from adu_depth.terminal import printable
from adu_depth.writer import Writer, this_writer

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".adu-depth.lock"
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "overlay", "tmpfs", "apfs", "hfs", "ntfs"}
"""File systems of one machine: who gets their lock is alone, whatever a file says of another host."""
_LONGEST_RECORD = 4096  # bytes

Say = Callable[[str], None]


@dataclass(frozen=True)
class Holder:
    """What a lock's file says: who holds it, since when (ISO), and for what ("train-teacher")."""

    writer: Writer
    since: str
    what: str

    def __str__(self) -> str:
        return f"{self.what}, process {self.writer.pid} on {self.writer.host}, since {self.since}"


def say_on_stderr(text: str) -> None:
    print(printable(text), file=sys.stderr)


@contextmanager
def locked(
    folder: str | Path,
    what: str,
    *,
    first: bool = True,
    share: Callable[[str | None], str | None] = lambda refusal: refusal,
    say: Say = say_on_stderr,
) -> Iterator[bool]:
    """Makes `folder`, and keeps other processes from writing into it while the context lasts.

    what: for whom, as others are told. Of several processes of one run the `first` takes the lock for all; `share`
    gives every process what the first one hands in. What killed processes left in the folder is removed; gives whether
    the same may be done below it, for nobody else can be writing (see `sweep`).
    Raises InputError naming the holder where there is another one, a SharedInputError in every process.
    """
    folder, lock, refusal = Path(folder), None, None
    if first:
        try:
            lock = _Lock(folder, what, say)
        except InputError as error:
            refusal = str(error)
    try:
        refusal = share(refusal)
        if refusal is not None:
            raise SharedInputError(refusal if first else f"{folder}: the first process was not let in; it says why")
        yield lock is not None and lock.alone
    finally:
        if lock is not None:
            lock.release()


def require_free_below(folder: Path) -> None:
    """InputError where a process writes into a folder below `folder`, which is about to be removed."""
    for path in folder.rglob(f"*/{LOCK_FILE}"):
        _Lock(path.parent, "", lambda text: None).release()


def require_own(folder: Path, mark: str) -> None:
    """InputError where `folder` holds anything and not the file `mark`, by which a command knows its own output."""
    strangers = sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK_FILE)
    if strangers and not (folder / mark).is_file():
        raise InputError(f"output {folder} holds {strangers[0]!r} and no {mark}: name an empty folder")


class _Lock:
    """alone: the system itself keeps the others out."""

    def __init__(self, folder: Path, what: str, say: Say) -> None:
        self.folder, self.path = folder, folder / LOCK_FILE
        self.made = not folder.exists()
        if not self.made and not folder.is_dir():
            raise InputError(f"cannot write {folder}: it is a file, name a folder")
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self.holder = Holder(this_writer(), now, what)
        self.patience = time.monotonic() + 2.0
        with writing(self.path):
            while not self._taken(say):
                pass
        sweep(folder, self.alone)

    def _taken(self, say: Say) -> bool:
        """False where it is to be tried again: a holder that ends takes a folder away that it made for nothing."""
        make_folder(self.folder)
        try:
            return self._take(say)
        except FileNotFoundError:
            return False

    def _take(self, say: Say) -> bool:
        """False where it is to be tried again. InputError where it is held.

        A holder may have removed the file in the moment of opening. And one that was killed while it started a worker
        has left a process that lets go as soon as it runs.
        """
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        taken = False
        try:
            state = _lock(self.handle)
            found = _read(self.handle)
            if state == "held":
                if found is not None and found.writer.runs() is False and time.monotonic() < self.patience:
                    time.sleep(0.01)
                    return False
                raise _refusal(self.folder, found)
            self.alone = state == "taken"
            if self.alone and not _is_same(self.handle, self.path):
                return False
            if not self.alone:
                self._trust_the_record(found, say)
            elif found is not None and not found.writer.is_here:
                self._trust_a_local_disk(found, say)
            _write(self.handle, self.holder)
            if not self.alone:
                time.sleep(0.2)  # whoever started in the same moment has written by now
                found = _read(self.handle)
                if found is not None and found != self.holder:
                    raise _refusal(self.folder, found)
            self.held = hold(self.folder, self.path, self.handle)
            taken = True
        finally:
            if not taken:
                os.close(self.handle)
        return True

    def _trust_the_record(self, holder: Holder | None, say: Say) -> None:
        if holder is not None and holder.writer.runs() is not False:
            raise _refusal(self.folder, holder, by_record=not holder.writer.is_here)
        say(f"{self.folder}: its file system has no locks; a process of another host may go unnoticed")

    def _trust_a_local_disk(self, holder: Holder, say: Say) -> None:
        """Another host (or container) left its record, and no process holds the lock."""
        if file_system(self.folder) not in LOCAL:
            raise _refusal(self.folder, holder, by_record=True)
        say(f"{self.folder}: {holder}, has ended without a word; going on")

    def release(self) -> None:
        if not forget(self.held):  # a forked child that ends is not its parent
            return
        if self.held.has_its_lock():  # not another process's, where the folder was moved
            with suppress(OSError):
                self.path.unlink()  # while it is still held: whoever opens this file now sees that it is gone
        os.close(self.handle)
        if self.made:
            with suppress(OSError):  # not empty: results are in it
                self.folder.rmdir()


def _refusal(folder: Path, holder: Holder | None, by_record: bool = False) -> InputError:
    who = "another process" if holder is None else f"another process ({holder})"
    advice = "wait for it or stop it, or name another folder"
    if by_record:
        advice += f"; if it runs no more, remove {folder / LOCK_FILE}"
    return InputError(f"{folder}: {who} is writing into it: {advice}")


def _lock(handle: int) -> Literal["taken", "held", "none"]:
    if fcntl is None:
        return "none"
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return "held" if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else "none"
    return "taken"


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _write(handle: int, holder: Holder) -> None:
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps({**asdict(holder.writer), "since": holder.since, "what": holder.what}).encode())


def _read(handle: int) -> Holder | None:
    """None for what is empty or no such record: a lock just being taken, a disk that was full."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        found = json.loads(os.read(handle, _LONGEST_RECORD))
        writer = Writer(str(found["host"]), str(found["space"]), int(found["pid"]), float(found["started"]))
        return Holder(writer, str(found["since"]), str(found["what"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on ("ext4", "nfs4"), "" where that cannot be told."""
    real = folder.resolve()
    mounted = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounted[above] for above in (real, *real.parents) if above in mounted), "")
