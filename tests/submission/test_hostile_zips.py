"""Zips that are not what they say, or not what they seem."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from adu_depth.errors import InputError
from adu_depth.submission.validate import validate_zip

NAME = "0000000000.png"


def lying_bomb(size: int) -> bytes:
    """A zip of a few hundred bytes and more: one entry that says 1,000 bytes and unpacks to `size`."""
    packer = zlib.compressobj(9, wbits=-15)
    body = b"".join([packer.compress(b"\0" * (1 << 20)) for _ in range(size >> 20)] + [packer.flush()])
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 0, 0, len(body), 1000, len(NAME), 0) + NAME.encode()
    central = struct.pack(
        "<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 0, 0, len(body), 1000, len(NAME), 0, 0, 0, 0, 0, 0
    )
    central += NAME.encode()
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(central), len(local) + len(body), 0)
    return local + body + central + end


def big_picture() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(b"\0" * (1 + 2 * 6000) * 6000)
    header = struct.pack(">IIBBBBB", 6000, 6000, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_zip_that_lies_of_its_size_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "bomb.zip").write_bytes(lying_bomb(1 << 30))
    code = (
        "import sys; from adu_depth.submission.validate import validate_zip\n"
        "print(validate_zip(sys.argv[1], [sys.argv[2]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.zip"), NAME],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)),
    )
    assert f"{NAME}: " in done.stdout


def test_a_huge_picture_is_not_decoded(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(NAME, big_picture())
    assert validate_zip(tmp_path / "a.zip", [NAME]) == [f"{NAME}: expected 352×1216 (height×width), got 6000×6000"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_thousands_of_times_is_looked_at_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, b"\0" * 3_000_000)
        archive.filelist += archive.filelist * 5000
    started = time.monotonic()
    faults = validate_zip(tmp_path / "a.zip", [NAME])
    assert time.monotonic() - started < 5
    assert sum(fault.startswith(NAME) for fault in faults) == 1
    assert any("more than once" in fault for fault in faults)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_zip_has_faults_and_no_other_exception(seed: int, tmp_path: Path) -> None:
    import random

    rng = random.Random(seed)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", rng.choice([0, 8, 12, 14])) as archive:
        archive.writestr(NAME, b"\x89PNG\r\n\x1a\n" + rng.randbytes(200))
        archive.writestr("caf\u00e9.png", b"")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    (tmp_path / "a.zip").write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
    assert validate_zip(tmp_path / "a.zip", [NAME])


def test_a_list_of_files_that_takes_more_room_than_the_maps_is_not_read(tmp_path: Path) -> None:
    """zipfile reads it whole before it says anything: 80 MB of it took 13 seconds and ten times the memory."""
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, *[0] * 7, 7, *[0] * 6)
    listed = b"".join(entry + b"%07d" % number for number in range(30_000))
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 30_000, 30_000, len(listed), 0, 0)
    (tmp_path / "a.zip").write_bytes(listed + end)
    with pytest.raises(InputError, match=r"a\.zip: its list of files has 1,590,000 bytes, expected at most 1,000,000"):
        validate_zip(tmp_path / "a.zip", [NAME])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_packed_so_that_memory_is_asked_for_is_not_unpacked(method: int, tmp_path: Path) -> None:
    """LZMA allocates what its header says, up to 4 GB."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr(NAME, b"\0" * 1000)
    assert validate_zip(tmp_path / "a.zip", [NAME]) == [
        f"{NAME}: packed by method {method}, expected stored or deflated"
    ]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(InputError, match=r"pipe\.zip: expected a regular file, got a named pipe"):
        validate_zip(tmp_path / "pipe.zip")
    with pytest.raises(InputError, match="got a folder"):
        validate_zip(tmp_path)
