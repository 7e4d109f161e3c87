"""Every kind of data file, with what is no file in its place, a terabyte, and headers that promise too much."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from adu_depth.data.image_decoding import _divided_by_alpha
from adu_depth.data.image_files import orientation_of, read_pfm, write_pfm
from adu_depth.data.image_header import read_header
from adu_depth.data.packed.shards import Shard, checksum
from adu_depth.data.rig import read_map_values
from adu_depth.errors import InputError
from adu_depth.files import LIMIT_VARIABLE
from tests.data.mutations import FORMATS, path_of


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def itself(path: Path) -> None:
    path.symlink_to(path.name)


def terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def empty(path: Path) -> None:
    path.touch()


IN_ITS_PLACE: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (pipe, "expected a regular file, got a named pipe"),
    "device": (device, "expected a regular file, got a device"),
    "folder": (folder, "expected a regular file, got a folder"),
    "itself": (itself, "cannot be read|no such file"),
    "terabyte": (terabyte, "limit of 640 MB for one file|nothing but zeros|not a zip"),
    "empty": (empty, "."),
}


@pytest.mark.parametrize("thing", IN_ITS_PLACE)
@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_no_such_file_is_refused_at_once(kind: str, thing: str, tmp_path: Path) -> None:
    make, told = IN_ITS_PLACE[thing]
    path = path_of(FORMATS[kind], tmp_path)
    make(path)
    if (kind, thing) in (("submission zip", "terabyte"), ("submission zip", "empty")):
        FORMATS[kind].read(path)  # has faults, which are its result
        return
    started = time.monotonic()
    with pytest.raises(InputError, match=told) as raised:
        FORMATS[kind].read(path)
    assert path.name in str(raised.value)
    assert time.monotonic() - started < 2


def npy_of(shape: str, kind: str = "<f4") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a PFM of a terabyte": ("pfm", lambda: b"Pf\n999999 999999\n-1\n" + b"\0" * 64),
    "a PFM of no rows": ("pfm", lambda: b"Pf\n0 999999999\n-1\n"),
    "a PFM with a number of a thousand digits": ("pfm", lambda: b"Pf\n" + b"9" * 1000 + b" 1\n-1\n"),
    "an array of a terabyte": ("npy", lambda: npy_of("(1000000, 1000000)")),
    "an array of negative size": ("npy", lambda: npy_of("(-1, -16)")),
    "an array of objects": ("npy", lambda: npy_of("(4, 4)", "|O")),
    "an array of rows without width": ("npy", lambda: npy_of("(99999999999, 0)")),
    "an array in a pickle": ("npy", lambda: b"cos\nsystem\n(S'touch owned'\ntR."),
    "camera.toml of newlines": ("camera.toml", lambda: b"\n" * 60_000_000),
    "camera.toml of one line": ("camera.toml", lambda: b"fx = " + b"1" * 60_000_000),
    "a split of newlines": ("split", lambda: b"\n" * 60_000_000),
    "a split of one line": ("split", lambda: b"a" * 60_000_000),
    "a calibration of ones": ("kitti calibration", lambda: b"P_rect_02: " + b"1 " * 30_000_000),
    "intrinsics of ones": ("intrinsics", lambda: b"1 " * 30_000_000),
    "a table of commas": ("frame table", lambda: b"frame,width,height,fx,cx,cy,baseline_m\n" + b"," * 30_000_000),
    "a scan of one byte too many": ("velodyne", lambda: b"\0" * 17),
    "a scan of 400 MB": ("velodyne", lambda: b"\0" * 400_000_000),
    "deep JSON": ("temperature", lambda: b"[" * 1_000_000),
    "a number of a million digits": ("temperature", lambda: b'{"temperature": ' + b"9" * 1_000_000 + b"}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_within_a_gigabyte(name: str, tmp_path: Path) -> None:
    kind, make = HOSTILE[name]
    path = path_of(FORMATS[kind], tmp_path)
    path.write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(InputError) as raised:
        FORMATS[kind].read(path)
    assert path.name in str(raised.value)
    assert len(str(raised.value)) < 6000
    assert time.monotonic() - started < 5
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 700e6


def test_a_picture_at_the_limit_is_read_within_its_memory(tmp_path: Path) -> None:
    import cv2

    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4000, 4000, 3), np.uint8))
    code = (
        "import resource, sys; from adu_depth.data.image_files import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; read_image(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], capture_output=True, check=True)
    assert int(done.stdout) * 1024 < 18 * 4000 * 4000


def test_a_pack_reads_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "shard-00000.safetensors")
    for read in (checksum, lambda path: Shard(path.parent, {"file": path.name, "names": []})):
        with pytest.raises(InputError, match=r"shard-00000\.safetensors: expected a regular file, got a named pipe"):
            read(tmp_path / "shard-00000.safetensors")


def most_allocated(read: Callable[[], object]) -> float:
    """Bytes that Python and numpy had at most while it was read, or refused."""
    tracemalloc.start()
    try:
        with suppress(InputError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("filling", [b"\n", b"#\n", b"# \n\n", b"#"])
def test_spaces_and_comments_without_end_are_no_header(filling: bytes, tmp_path: Path) -> None:
    """Each that the expression passed over took a hundred bytes: 11 GB for a file of 100 MB."""
    data = b"P5" + filling * (3_000_000 // len(filling)) + b"x"
    started = time.monotonic()
    assert most_allocated(lambda: read_header(data, "a.ppm")) < 20e6
    (tmp_path / "a.pfm").write_bytes(b"Pf" + filling * (30_000_000 // len(filling)))
    with pytest.raises(InputError, match=r"a\.pfm: not a PFM file"):
        read_pfm(tmp_path / "a.pfm")
    assert time.monotonic() - started < 2


def test_a_map_may_have_as_many_pixels_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a map are held three times while it is read."""
    monkeypatch.setenv(LIMIT_VARIABLE, "12")
    maps = np.zeros((1000, 1000), np.float32)
    write_pfm(tmp_path / "a.pfm", maps[:990])
    np.save(tmp_path / "a.npy", maps[:990])
    for name in ("a.pfm", "a.npy"):
        assert read_map_values(tmp_path / name).shape == (990, 1000)
    write_pfm(tmp_path / "a.pfm", maps)
    np.save(tmp_path / "a.npy", maps)
    for name in ("a.pfm", "a.npy"):
        with pytest.raises(InputError, match=rf"{name}: reading it would take 12 MB, more than the limit of 12 MB"):
            read_map_values(tmp_path / name)


def test_colours_are_divided_by_alpha_in_the_room_that_they_have() -> None:
    """In float64 all at once they took eighty bytes a pixel."""
    pixels = np.full((1000, 1000, 4), 7, np.uint8)
    assert most_allocated(lambda: _divided_by_alpha(pixels)) < 1e6
    assert (pixels[..., :3] == 255).all()


@pytest.mark.parametrize("values", [np.float32, np.float64])
def test_a_tiff_of_more_than_16_bits_is_refused_before_it_is_decoded(values: type, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.tiff"), np.zeros((8, 8, 3), values), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    with pytest.raises(InputError, match=r"a\.tiff: expected 8 or 16 bits per channel, got (32|64)"):
        read_header((tmp_path / "a.tiff").read_bytes(), tmp_path / "a.tiff")
    assert orientation_of(tmp_path / "a.tiff") == 1
