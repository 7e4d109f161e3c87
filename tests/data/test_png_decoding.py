"""PNG by kornia-rs: the pixels that OpenCV gives, plain files alone, and OpenCV's word on whatever it refuses."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from adu_depth.data import image_decoding, png_decoding
from adu_depth.data.image_decoding import decode_stored
from adu_depth.data.png_decoding import decode_plain
from adu_depth.errors import InputError

installed = pytest.mark.skipif(find_spec("kornia_rs") is None, reason="kornia-rs is not installed")
KINDS = {"RGB": ((37, 53, 3), np.uint8), "grey": ((37, 53), np.uint8), "16-bit grey": ((37, 53), np.uint16)}


def picture(kind: str) -> np.ndarray:
    shape, dtype = KINDS[kind]
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Behind the header, which takes 25 bytes."""
    return data[:33] + chunk(kind, body) + data[33:]


class Asked:
    """In the place of the library."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, int], str]] = []
        self.answer: np.ndarray | None = None

    def decoders(self) -> dict[int, Any]:
        def decode(bits: int) -> Any:
            def decoded(data: bytes, size: tuple[int, int], mode: str) -> np.ndarray:
                self.calls.append((bits, size, mode))
                if self.answer is None:
                    raise Exception("CRC error")
                return self.answer

            return decoded

        return {8: decode(8), 16: decode(16)}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    library = Asked()
    monkeypatch.setattr(png_decoding, "_decoders", library.decoders)
    return library


@installed
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filters", [cv2.IMWRITE_PNG_STRATEGY_FILTERED, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY])
def test_the_pixels_are_those_of_opencv(kind: str, filters: int) -> None:
    pixels = picture(kind)
    data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_STRATEGY, filters])[1].tobytes()
    found = decode_plain(data)
    assert found is not None
    assert (found.dtype, found.shape) == (pixels.dtype, pixels.shape)
    assert np.array_equal(found, pixels)
    assert png_decoding.decoder().startswith("kornia-rs ")


@installed
def test_the_real_pairs_too(real_stereo: Path) -> None:
    for path in sorted(real_stereo.rglob("*.png")):
        found = decode_plain(path.read_bytes())
        assert found is None or np.array_equal(found, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)), path


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_refuses_is_opencvs_to_decode(kind: str, asked: Asked) -> None:
    pixels = picture(kind)
    assert np.array_equal(decode_stored(png(pixels), "a.png")[0], pixels)
    bits, mode = 16 if pixels.dtype == np.uint16 else 8, "rgb" if pixels.ndim == 3 else "mono"
    assert asked.calls == [(bits, (37, 53), mode)]


def test_what_is_damaged_is_refused_as_ever(asked: Asked) -> None:
    data = bytearray(png(picture("RGB")))
    data[len(data) // 2] ^= 255
    with pytest.raises(InputError, match="the PNG image is damaged"):
        decode_stored(bytes(data), "a.png")


def test_only_plain_files_are_asked_for(asked: Asked) -> None:
    asked.answer = picture("grey")
    plain = png(picture("grey"))
    others = {
        "colours of a palette": with_chunk(plain, b"PLTE", bytes(6)),
        "transparent grey": with_chunk(plain, b"tRNS", bytes(2)),
        "a profile": with_chunk(plain, b"iCCP", b"x\0\0" + zlib.compress(b"")),
        "text of another sum": with_chunk(plain, b"tEXt", b"a\0b").replace(b"a\0b", b"a\0c"),
        "alpha": png(np.zeros((5, 7, 4), np.uint8)),
        "16-bit colour": png(np.zeros((5, 7, 3), np.uint16)),
        "interlaced": plain[:28] + b"\1" + struct.pack(">I", zlib.crc32(plain[12:28] + b"\1")) + plain[33:],
    }
    for what, data in others.items():
        assert decode_plain(data) is None, what
    assert asked.calls == []
    found = decode_plain(with_chunk(plain, b"tEXt", b"Software\0x"))
    assert found is not None
    assert np.array_equal(found, asked.answer)


def test_without_the_library_opencv_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_decoding, "_decoders", dict)
    assert decode_plain(png(picture("RGB"))) is None
    assert image_decoding.decode_stored(png(picture("RGB")), "a.png")[0].shape == (37, 53, 3)
