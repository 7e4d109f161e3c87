"""What is read: regular files only, at once, and nothing that is larger than the limit."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adu_depth.errors import InputError
from adu_depth.files import LIMIT_VARIABLE, read_bytes, read_text, require_regular


def make_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def make_socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    return path


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def make_link(path: Path) -> Path:
    os.mkfifo(path.with_name("behind"))
    path.symlink_to("behind")
    return path


def make_loop(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


IRREGULAR: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pipe": (make_pipe, "a named pipe"),
    "socket": (make_socket, "a socket"),
    "folder": (make_folder, "a folder"),
    "device": (lambda path: Path("/dev/zero"), "a device"),
    "link": (make_link, "a named pipe"),
    "loop": (make_loop, "cannot be read: Too many levels"),
    "absent": (lambda path: path, "cannot be read: No such file"),
    "name too long": (lambda path: path.with_name("x" * 300), "cannot be read: File name too long"),
    "null in the name": (lambda path: Path(f"{path}\0"), "cannot be read: embedded null byte"),
}


@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("read", [read_bytes, read_text, require_regular])
def test_only_regular_files_are_read(kind: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    make, told = IRREGULAR[kind]
    path = make(tmp_path / "file")
    started = time.monotonic()
    with pytest.raises(InputError, match=told) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert time.monotonic() - started < 1


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=f"sparse: .*limit of 640 MB for one file .{LIMIT_VARIABLE}"):
        read_bytes(sparse)
    sparse.write_bytes(b"x" * 150_000)
    assert len(read_text(sparse)) == 150_000
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    assert len(read_bytes(sparse)) == 150_000
    with pytest.raises(InputError, match=r"sparse: .*limit of 1 MB"):
        read_text(sparse)
    for wrong in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv(LIMIT_VARIABLE, wrong)
        with pytest.raises(InputError, match=f"{LIMIT_VARIABLE}: expected a positive number of megabytes, got"):
            read_bytes(sparse)


def test_a_huge_limit_asks_for_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many bytes as a read is asked for are allocated: a limit of more than the machine has was a MemoryError."""
    (tmp_path / "file").write_bytes(b"x" * 5000)
    monkeypatch.setenv(LIMIT_VARIABLE, "1e8")
    assert read_bytes(tmp_path / "file") == b"x" * 5000
    if os.path.exists("/proc/self/maps"):  # says that it is empty
        assert len(read_bytes("/proc/self/maps")) > 4096


def test_text_is_utf8_or_named(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfcaf\xe9\n")
    with pytest.raises(InputError, match="text: expected UTF-8 text"):
        read_text(path)
    assert read_text(path, errors="surrogateescape").encode("utf-8", "surrogateescape") == b"caf\xe9\n"
