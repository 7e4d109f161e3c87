"""Temporary names that say whose they are, so that what a killed process left behind can be removed, and only that."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import psutil

from adu_depth.writer import SLACK, Writer, this_writer

LONGEST_NAME = 255  # bytes, on nearly every file system
_OURS = re.compile(r"\..+\.(?P<place>[0-9a-f]{8})-(?P<started>\d+)\.(?P<pid>\d+)\.tmp", re.DOTALL)
_BEFORE = re.compile(r"\..+\.(?P<pid>\d+)\.tmp", re.DOTALL)  # names that said the number of the process alone
_SAFETENSORS = re.compile(r"\.tmp[A-Za-z0-9]{6}")  # that library writes to a temporary name of its own


def temporary_name(name: str) -> str:
    """A hidden name for what will be called `name`; it holds the host, the start and the number of this process."""
    me = this_writer()
    ending = f".{_place(me)}-{me.started:.0f}.{me.pid}.tmp"
    while len(os.fsencode(f".{name}{ending}")) > LONGEST_NAME:
        name = name[:-1]
    return f".{name}{ending}"


def sweep(folder: Path, alone: bool = False) -> None:
    """Removes what killed processes left in `folder` under temporary names. What a running process writes stays.

    alone: nobody but this process writes here (it holds the folder's lock), so that what processes of other hosts,
    earlier versions and safetensors left is known to be theirs no more.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if _is_left(entry, alone):
            with suppress(OSError):  # another's to remove, then
                remove(Path(entry.path))


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it; nothing if there is none. Links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_left(entry: os.DirEntry[str], alone: bool) -> bool:
    me = this_writer()
    if found := _OURS.fullmatch(entry.name):
        if found["place"] != _place(me):
            return alone
        return Writer(me.host, me.space, int(found["pid"]), float(found["started"])).runs() is False
    if not alone:
        return False
    if found := _BEFORE.fullmatch(entry.name):
        return not _could_be_of(int(found["pid"]), entry)
    return bool(_SAFETENSORS.fullmatch(entry.name))


def _could_be_of(pid: int, entry: os.DirEntry[str]) -> bool:
    """Whether a process of this number runs that was there when the file was last written."""
    try:
        return psutil.Process(pid).create_time() <= entry.stat(follow_symlinks=False).st_mtime + SLACK
    except (psutil.NoSuchProcess, OSError):
        return False
    except psutil.Error:
        return True


def _place(writer: Writer) -> str:
    return hashlib.sha256(f"{writer.host}\0{writer.space}".encode()).hexdigest()[:8]
