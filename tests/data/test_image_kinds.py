"""Where EXIF's orientation may stand, and which TIFFs are read; the rest is refused by name."""

from __future__ import annotations

import struct
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from adu_depth.data.image_files import orientation_of, read_image
from adu_depth.errors import InputError
from tests.data.test_image_formats import ALPHA, PIXELS, RGB, RNG, levels


def far_back(data: bytes) -> bytes:
    """A JPEG whose EXIF block stands behind 60 kB of another program's."""
    at = data.index(b"\xff\xe1")
    return data[:at] + b"\xff\xed" + struct.pack(">H", 60002) + b"\1" * 60000 + data[at:]


XMP = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
EXIF = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, 6, 0, 0)


def exif_text(packed: bool) -> PngInfo:
    """EXIF in a PNG as ImageMagick writes it."""
    found = PngInfo()
    lines = "\n".join(textwrap.wrap(EXIF.hex(), 72))
    found.add_text("Raw profile type exif", f"\nexif\n{len(EXIF):8d}\n{lines}\n", zip=packed)
    return found


def xmp_text(packed: bool) -> PngInfo:
    found = PngInfo()
    found.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=packed)
    return found


def png_chunk(data: bytes, body: bytes) -> bytes:
    chunk = b"eXIf" + body
    return data[:-12] + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[-12:]


PLACES: dict[str, tuple[dict[str, object], Callable[[bytes], bytes]]] = {
    "exif far back.jpg": ({"exif": EXIF}, far_back),
    "xmp.jpg": ({"xmp": XMP}, bytes),
    "xmp.webp": ({"xmp": XMP, "lossless": True}, bytes),
    "xmp.tif": ({"tiffinfo": {700: XMP}}, bytes),
    "xmp.png": ({"pnginfo": xmp_text(False)}, bytes),
    "xmp packed.png": ({"pnginfo": xmp_text(True)}, bytes),
    "text.png": ({"pnginfo": exif_text(False)}, bytes),
    "text packed.png": ({"pnginfo": exif_text(True)}, bytes),
    "behind the pixels.png": ({}, lambda data: png_chunk(data, EXIF[6:])),
    "prefixed.png": ({}, lambda data: png_chunk(data, EXIF)),
}


@pytest.mark.filterwarnings("ignore::adu_depth.data.image_decoding.DecoderWarning")
@pytest.mark.parametrize("name", PLACES)
def test_the_orientation_is_found_wherever_pillow_finds_it(name: str, tmp_path: Path) -> None:
    options, change = PLACES[name]
    path = tmp_path / name
    RGB.save(path, **options)
    path.write_bytes(change(path.read_bytes()))
    turned = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    assert turned.shape == (40, 24, 3)
    assert orientation_of(path) == 6
    assert np.array_equal(levels(path, upright=True).round(), turned)


def test_exif_s_orientation_is_taken_before_xmp_s(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 1
    RGB.save(tmp_path / "a.jpg", exif=exif, xmp=XMP)
    assert orientation_of(tmp_path / "a.jpg") == 1
    assert levels(tmp_path / "a.jpg", upright=True).shape == (24, 40, 3)


def tiff(pixels: np.ndarray, colours: int, bits: int, channels: int = 1, **tags: int) -> bytes:
    """One strip. Of tags: apart (1: PlanarConfiguration 2), alpha (ExtraSamples), form (SampleFormat)."""
    entries = {256: 40, 257: 24, 259: 1, 262: colours, 277: channels, 278: 24, 284: 1 + tags.get("apart", 0)}
    entries |= {number: tags[name] for name, number in (("alpha", 338), ("form", 339)) if name in tags}
    data = pixels.tobytes()
    place = 8 + 2 + 12 * (len(entries) + 3) + 4
    lists = {258: [bits] * channels}
    starts = [place + 2 * channels + len(data) // channels * n for n in range(channels if tags.get("apart") else 1)]
    behind = struct.pack(f"<{channels}H", *lists[258])
    if len(starts) > 1:
        starts = [start + 8 * len(starts) for start in starts]
        sizes = [len(data) // channels] * channels
        placed = {273: place + len(behind), 279: place + len(behind) + 4 * channels}
        behind += struct.pack(f"<{channels}I{channels}I", *starts, *sizes)
    else:
        placed = {273: starts[0], 279: len(data)}
    many = len(starts)
    rows = [(tag, 3, 1, value) for tag, value in entries.items()]
    rows.append((258, 3, channels, bits if channels == 1 else bits | bits << 16 if channels == 2 else place))
    rows += [(tag, 4, many, value) for tag, value in placed.items()]
    packed = b"".join(struct.pack("<HHII", *row) for row in sorted(rows))
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + packed + b"\0" * 4 + behind + data


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_white_is_0_is_no_negative(bits: int, tmp_path: Path) -> None:
    stored = RNG.integers(0, 1 << bits, (24, 40)).astype(f"u{bits // 8}")
    for colours, expected in ((1, stored), (0, np.iinfo(stored.dtype).max - stored)):
        (tmp_path / "a.tif").write_bytes(tiff(stored, colours, bits))
        assert np.allclose(levels(tmp_path / "a.tif")[..., 0], expected / ((1 << bits) - 1) * 255, atol=1e-3)


COLOURS8, COLOURS16 = np.moveaxis(PIXELS, 2, 0).copy(), RNG.integers(0, 65536, (3, 24, 40)).astype("<u2")
NOT_READ: dict[str, tuple[bytes, str]] = {
    "planes of 16 bits": (tiff(COLOURS16, 2, 16, 3, apart=1), r"3 channels of 16 bits that are kept apart \(Planar"),
    "a palette of 16 bits": (tiff(COLOURS16[0], 3, 16), "1 channels of 16 bits and colours of kind 3"),
    "Lab": (tiff(PIXELS, 8, 8, 3), r"colours of kind 8 \(CIELab\)"),
    "mosaic": (tiff(COLOURS16[0], 32803, 16), r"colours of kind 32803 \(a camera's raw mosaic\)"),
    "4 bits": (tiff(ALPHA[:, :20].copy(), 1, 4), "1 channels of 4 bits and colours of kind 1"),
    "5 channels": (tiff(np.dstack([PIXELS, PIXELS[..., :2]]), 2, 8, 5), "5 channels of 8 bits"),
    "signed": (tiff(COLOURS16[0], 1, 16, form=2), "signed numbers"),
    "floats": (tiff(COLOURS16[0], 1, 16, form=3), "floating-point numbers"),
    "grey times alpha": (tiff(PIXELS[..., :2].copy(), 1, 8, 2, alpha=1), "grey that was multiplied by alpha"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_of_tiff_is_not_read_is_said(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, told = NOT_READ[kind]
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.tif: TIFF images .*{told}.* are not read: save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


def test_planes_of_8_bits_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(COLOURS8, 2, 8, 3, apart=1))
    assert np.array_equal(levels(tmp_path / "a.tif").round(), PIXELS)
