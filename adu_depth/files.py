"""Reading and writing files.

Written: whole or not at all, under a temporary name that is then renamed. Read: regular files only, and only what fits
a stated limit, for a file may be anybody's. Whatever reads a user's file opens it through here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from adu_depth.errors import InputError
from adu_depth.held_folders import require_ours
from adu_depth.leftovers import remove, sweep, temporary_name

LIMIT_VARIABLE = "ADU_DEPTH_MAX_MB"
LIMIT_MB = 640  # a picture takes 12 bytes a pixel: 53 million of them
TEXT_SHARE = 10  # text grows when it is taken apart: of text a tenth of the limit is read
MOST_LINES = 2_000_000
_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device (a camera, a terminal); save a camera's pictures as files first"),
    (stat.S_ISBLK, "a device (a disk)"),
)
_BLOCK = 1 << 20
_swept: set[Path] = set()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write a file or a folder to; renames it to `path` if nothing was raised.

    A file already at `path` is replaced by a file, a folder by a folder. What was written is on the disk before it gets
    its name, and the name before this returns: a machine that loses power has the old or the new, whole. What killed
    processes left in the folder under temporary names is removed. Raises InputError where the system refuses: no such
    folder can be made, no permission, a full disk, a folder where a file should go.
    """
    path = Path(path)
    temporary = path.with_name(temporary_name(path.name))
    require_ours(path)
    with writing(path):
        _prepare(path.parent)
        try:
            yield temporary
            make_durable(temporary)
            if temporary.is_dir() and path.is_dir():
                _exchange_folder(temporary, path)
            else:
                os.replace(temporary, path)
            _sync(path.parent)
        finally:
            remove(temporary)


@contextmanager
def replacing_with(path: str | Path, *companions: Path) -> Iterator[Path]:
    """As `replacing`, for a file that others of the same folder may belong to: gives a temporary path to write it to,
    in a folder where they are written under their own names.

    At no moment is `path` there beside a companion of another time: a machine that loses power between two renames has
    no `path`. Where the system refuses one of the renames, all files of before are there again. Raises InputError as
    `replacing`; before anything is written where a folder is in a file's place.
    """
    path = Path(path)
    folder = path.with_name(temporary_name(path.name))
    require_ours(path)
    with writing(path):
        for name in (path, *companions):
            if name.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(name))
        _prepare(path.parent)
        try:
            folder.mkdir()
            yield folder / path.name
            make_durable(folder)
            before = [name for name in (path, *companions) if companions and name.exists()]
            moves = [(name, folder / temporary_name(name.name)) for name in before]
            moves += [(folder / name.name, name) for name in (*companions, path)]
            _move_all(moves)
            _sync(path.parent)
        finally:
            remove(folder)


def remove_folder(path: Path) -> None:
    """Removes a folder in one moment for who looks for it by its name: a kill half-way leaves no half of it there."""
    with writing(path):
        aside = path.with_name(temporary_name(path.name))
        os.replace(path, aside)
        remove(aside)


def make_durable(path: Path) -> None:
    """Waits until a file, or a folder with all that is in it, is on the disk."""
    if path.is_dir():
        for entry in os.scandir(path):
            make_durable(Path(entry.path))
    _sync(path)


def _sync(path: Path) -> None:
    folder = path.is_dir()
    if folder and os.name == "nt":  # has no such thing
        return
    opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # not every file system can
            raise
    finally:
        os.close(opened)


def _prepare(folder: Path) -> None:
    """The folder, without what killed processes left there under temporary names."""
    _make_folders(folder)
    if folder.absolute() not in _swept:
        _swept.add(folder.absolute())
        sweep(folder)


def _make_folders(folder: Path) -> None:
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for new in made:
        _sync(new.parent)


def _exchange_folder(new: Path, path: Path) -> None:
    aside = path.with_name(temporary_name(f"{path.name}.before"))
    os.replace(path, aside)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(aside, path)
        raise
    remove(aside)


def _move_all(moves: list[tuple[Path, Path]]) -> None:
    """Each file to its new name, in this order; all of them back, the last first, where one cannot be moved."""
    for count, (source, target) in enumerate(moves):
        try:
            os.replace(source, target)
        except OSError:
            for moved, place in reversed(moves[:count]):
                os.replace(place, moved)
            raise


def require_text_name(folder: str | Path) -> None:
    """InputError if the folder's path is no UTF-8 text: safetensors and TensorBoard cannot open files below it."""
    if _SURROGATE.search(os.fspath(os.path.abspath(folder))):
        raise InputError(f"{folder}: weights cannot be kept below a name that is no UTF-8 text: choose another folder")


def folder_name(folder: Path) -> str:
    """What a folder is called, in titles and messages; "." has a name, too."""
    return os.path.basename(os.path.abspath(folder))


def make_folder(path: str | Path) -> None:
    """Makes the folder that results will go to, before the work for them begins. Raises InputError if that fails."""
    with writing(Path(path)):
        _make_folders(Path(path))


def json_number(value: Any) -> Any:
    """json's `default`: scalars of numpy, and arrays and tensors without dimensions, as numbers; TypeError for more."""
    if getattr(value, "ndim", None) != 0:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return value.item()


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically, scalars of numpy as numbers. NaN is not JSON and raises ValueError.

    Bytes of file names that are no text (surrogates in Python) are written as JSON's escapes, and read back the same.
    """
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False, default=json_number)
    if _SURROGATE.search(text):
        text = json.dumps(value, indent=2, allow_nan=False, default=json_number)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        elsewhere = error.filename not in (None, str(path))
        at = f"{error.filename}: " if elsewhere else ""
        raise InputError(f"cannot write {path}: {at}{error.strerror or error}") from error
    except SafetensorError as error:  # safetensors writes by itself, and tells a full disk in its own words
        raise InputError(f"cannot write {path}: {error}") from error


def require_regular(path: str | Path) -> None:
    """For files that a library opens by itself: InputError, at once, if the file is not there or no regular one."""
    try:
        _refuse_irregular(path, os.stat(path))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(path, error) from error


@contextmanager
def open_regular(path: str | Path) -> Iterator[BinaryIO]:
    """The file, opened for reading bytes; never waits for a pipe, never touches a device.

    Raises InputError naming the file if it is not there, is a folder, a pipe, a socket or a device, or cannot be read.
    """
    require_regular(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            _refuse_irregular(path, os.fstat(file.fileno()))  # it may have been exchanged in between
            yield file
    except OSError as error:
        raise _unreadable(path, error) from error


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal. InputError if it cannot be read."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def read_bytes(path: str | Path, share: int = 1, limit: int | None = None) -> bytes:
    """All of a regular file. InputError as for `open_regular`, or if it is larger than the limit divided by `share`.

    limit: bytes, in place of the one for any file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        refuse_larger(path, share * size, limit=limit)
        data = file.read(size + 1)  # not the limit: as much as is asked for is allocated
        while len(data) > size and (more := file.read(_BLOCK)):  # files of /proc say that they are empty
            data, size = data + more, size + len(more)
            refuse_larger(path, share * len(data), limit=limit)
    return data


def read_text(path: str | Path, errors: str = "strict", share: int = TEXT_SHARE) -> str:
    """All of a UTF-8 text file, without a byte-order mark. InputError as for `read_bytes`, or if it is no such text.

    errors: "surrogateescape" where the text holds file names, which are bytes.
    """
    try:
        return read_bytes(path, share).decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text: {error}") from error


def read_name_lines(path: str | Path) -> list[str]:
    """The lines of a text file that holds names of files, which are bytes: in whatever encoding, they come back as
    `os.listdir` gives them. Ends of lines are LF or CR LF. InputError as for `read_bytes`."""
    text = os.fsdecode(read_bytes(path, TEXT_SHARE).removeprefix(b"\xef\xbb\xbf"))
    if (lines := text.count("\n")) > MOST_LINES:
        raise InputError(f"{path}: {lines:,} lines, expected at most {MOST_LINES:,}")
    return [line.removesuffix("\r") for line in text.split("\n")]


def size_limit() -> int:
    """How many bytes one file may take in memory once it is read. InputError if the variable is no such number."""
    given = os.environ.get(LIMIT_VARIABLE, "")
    try:
        megabytes = float(given) if given else float(LIMIT_MB)
        if not 0 < megabytes < 1e9:
            raise ValueError
    except ValueError:
        raise InputError(f"{LIMIT_VARIABLE}: expected a positive number of megabytes, got {given!r}") from None
    return int(megabytes * 1e6)


def refuse_larger(path: str | Path, needed: int, what: str = "", limit: int | None = None) -> None:
    """InputError if `needed` bytes are more than one file may take; asked before they are allocated.

    what: what is so large, in words ("32000×32000 pixels"). limit: bytes, of files that have one of their own.
    """
    most = size_limit() if limit is None else limit
    if needed > most:
        told = f"{what}: " if what else ""
        advice = f" ({LIMIT_VARIABLE} sets another)" if limit is None else ""
        raise InputError(
            f"{path}: {told}reading it would take {needed / 1e6:,.0f} MB, more than the limit of "
            f"{most / 1e6:,.0f} MB for one file{advice}"
        )


def _refuse_irregular(path: str | Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
        raise InputError(f"{path}: expected a regular file, got {kind}")


def _unreadable(path: str | Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
