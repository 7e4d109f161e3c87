"""Every format that is read: where it ends, how it is turned, what becomes of alpha, and what its decoder says."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from adu_depth.data.image_decoding import DecoderWarning, every_decoder_warning
from adu_depth.data.image_files import orientation_of, read_image
from adu_depth.errors import InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (24, 40), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)
SMOOTH = cv2.resize(RNG.integers(0, 255, (30, 50, 3), dtype=np.uint8), (400, 240))
TURNABLE = {"jpg": {}, "png": {}, "webp": {"lossless": True}, "tif": {}, "lzw.tif": {"compression": "tiff_lzw"}}


def with_alpha(image: Image.Image, alpha: np.ndarray = ALPHA) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return image


def levels(path: Path, upright: bool = False) -> np.ndarray:
    """H×W×3 of the image as `read_image` gives it, in steps of 8 bits."""
    return read_image(path, upright=upright).permute(1, 2, 0).numpy() * 255


def encoded(suffix: str, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, SMOOTH, list(options))[1].tobytes())


@pytest.mark.parametrize("suffix", TURNABLE)
def test_every_orientation_is_as_pillow_turns_it(suffix: str, tmp_path: Path) -> None:
    plain = tmp_path / f"plain.{suffix}"
    RGB.save(plain, **TURNABLE[suffix])
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        path = tmp_path / f"{orientation}.{suffix}"
        RGB.save(path, exif=exif, **TURNABLE[suffix])
        turned = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        assert orientation_of(path) == orientation
        assert np.array_equal(levels(path, upright=True).round(), turned)
        assert np.array_equal(levels(path), levels(plain)), "as stored it is the same picture"


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_in_either_byte_order_and_nonsense_is_upright(order: str, tmp_path: Path) -> None:
    def save(name: str, exif: bytes) -> Path:
        RGB.save(tmp_path / name, exif=b"Exif\0\0" + exif)
        return tmp_path / name

    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    block = mark + struct.pack(f"{order}IH HHIHH I", 8, 1, 274, 3, 1, 8, 0, 0)
    assert orientation_of(save("eight.jpg", block)) == 8
    for place, wrong in enumerate(
        (
            block[:-9],
            mark + b"\xff" * 8,
            block.replace(struct.pack(f"{order}HH", 8, 0), struct.pack(f"{order}HH", 99, 0)),
        )
    ):
        path = save(f"wrong{place}.jpg", wrong)
        assert orientation_of(path) == 1
        assert levels(path, upright=True).shape == (24, 40, 3)


ALPHA_MODES = {
    "rgba.png": with_alpha(RGB),
    "rgba.webp": with_alpha(RGB),
    "rgba.tif": with_alpha(RGB),
    "rgba.lzw.tif": with_alpha(RGB),
    "rgba.bmp": with_alpha(RGB),
    "grey.png": with_alpha(RGB.convert("L")),
    "grey.tif": with_alpha(RGB.convert("L")),
    "clear.png": with_alpha(RGB, np.zeros_like(ALPHA)),
    "clear.tif": with_alpha(RGB, np.zeros_like(ALPHA)),
    "palette.png": with_alpha(RGB).quantize(40),
    "palette.bmp": RGB.quantize(40),
    "palette.tif": RGB.quantize(40),
    "bits.png": RGB.convert("1"),
    "bits.tif": RGB.convert("1"),
    "cmyk.jpg": RGB.convert("CMYK"),
    "cmyk.tif": RGB.convert("CMYK"),
}


@pytest.mark.parametrize("name", ALPHA_MODES)
def test_alpha_is_dropped_and_modes_are_as_pillow_reads_them(name: str, tmp_path: Path) -> None:
    options: dict[str, object] = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    if "lzw" in name:
        options["compression"] = "tiff_lzw"
    ALPHA_MODES[name].save(tmp_path / name, **options)
    stored = Image.open(tmp_path / name)
    if stored.mode == "LA":
        stored = stored.getchannel("L")
    expected = np.asarray(stored.convert("RGBA" if stored.mode in ("RGBA", "P") else "RGB"))[..., :3].astype(float)
    tolerance = 1 if stored.mode == "CMYK" else 0
    assert np.abs(levels(tmp_path / name).round() - expected).max() <= tolerance


def test_sixteen_bit_colours_with_alpha(tmp_path: Path) -> None:
    sixteen = RNG.integers(0, 65536, (24, 40, 4), dtype=np.uint16)
    for suffix in (".png", ".tif"):
        assert cv2.imwrite(str(tmp_path / f"a{suffix}"), sixteen)
        expected = torch.from_numpy(sixteen[..., 2::-1].astype(np.float32)).permute(2, 0, 1) / 65535
        assert torch.equal(read_image(tmp_path / f"a{suffix}"), expected)


def test_premultiplied_tiff_colours_are_divided_by_alpha(tmp_path: Path) -> None:
    """ExtraSamples says 1: what is stored is colour times alpha."""
    path = tmp_path / "a.tif"
    half = (PIXELS // 2).astype(np.uint8)
    with_alpha(Image.fromarray(half), np.full_like(ALPHA, 128)).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", 338, 3, 1)) + 8
    data[at : at + 2] = struct.pack("<H", 1)
    path.write_bytes(data)
    assert np.abs(levels(path) - half * (255 / 128)).max() <= 0.51


def test_a_ppm_is_scaled_by_its_own_white(tmp_path: Path) -> None:
    values = RNG.integers(0, 4096, (4, 6, 3)).astype(">u2")
    (tmp_path / "a.ppm").write_bytes(b"P6\n# a camera's 12 bits\n6 4\n4095\n" + values.tobytes())
    assert np.allclose(levels(tmp_path / "a.ppm"), values / 4095 * 255, atol=1e-3)
    for data, expected in (
        (b"P2 2 1 100 100 50", (1, 0.5)),
        (b"P2 2 1 1000 1000 500", (1, 0.5)),
        (b"P5 2 1 100 \x64\x32", (1, 0.5)),
        (b"P5 2 1 100 \xff\x00", (1, 0)),
        (b"P1 2 1 0 1", (1, 0)),
    ):
        (tmp_path / "b.ppm").write_bytes(data)
        assert read_image(tmp_path / "b.ppm")[0, 0].tolist() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_what_follows_a_picture_is_not_its_own(suffix: str, tmp_path: Path) -> None:
    """A phone's motion photo: a video, which holds any bytes, behind the picture."""
    whole = encoded(suffix)
    (tmp_path / f"plain{suffix}").write_bytes(whole)
    expected = read_image(tmp_path / f"plain{suffix}")
    path = tmp_path / f"motion{suffix}"
    for seed in range(12):
        video = np.random.default_rng(seed).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
        path.write_bytes(whole + b"MotionPhoto_Data" + video + b"\xff\xda\xff" * (seed % 2))
        assert torch.equal(read_image(path), expected)
    path.write_bytes(whole[: len(whole) // 2] + b"\xff" * 3 + bytes(range(250)))
    with pytest.raises(InputError, match="motion"):
        read_image(path)


def test_a_multi_picture_jpeg_gives_its_first(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "a.mpo", save_all=True, append_images=[RGB])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (3, 240, 400)


def test_a_thumbnail_is_not_taken_for_the_end(tmp_path: Path) -> None:
    """EXIF holds a small JPEG with an end mark of its own."""
    thumbnail = io.BytesIO()
    RGB.save(thumbnail, "JPEG")
    Image.fromarray(SMOOTH).save(tmp_path / "a.jpg", comment=thumbnail.getvalue())
    data = (tmp_path / "a.jpg").read_bytes()
    assert data.count(b"\xff\xd9") >= 2
    assert read_image(tmp_path / "a.jpg").shape == (3, 240, 400)
    (tmp_path / "a.jpg").write_bytes(data[:-3])
    with pytest.raises(InputError, match="cut short"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp", ".ppm"])
@pytest.mark.parametrize("kept", [0.03, 0.5, 0.98])
def test_a_cut_file_of_any_format_is_named(suffix: str, kept: float, tmp_path: Path) -> None:
    whole = encoded(suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match=f"cut{suffix}: .*(cut short|damaged)"):
        read_image(path)


DAMAGED = {
    "baseline.jpg": encoded(".jpg"),
    "progressive.jpg": encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restart.jpg": encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "deflate.png": encoded(".png"),
    "deflate.tif": encoded(".tif", cv2.IMWRITE_TIFF_COMPRESSION, 8),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_changed_bytes_in_the_middle_are_named(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = DAMAGED[name]
    (tmp_path / name).write_bytes(whole)
    assert read_image(tmp_path / name).shape == (3, 240, 400)
    middle = len(whole) // 2
    flip = 0xFF if name.endswith(".tif") else 0x5A  # only some changes are errors in TIFF, which has no checksum
    changed = bytes(b ^ flip for b in whole[middle : middle + 64])
    (tmp_path / name).write_bytes(whole[:middle] + changed + whole[middle + 64 :])
    with pytest.raises(InputError, match=rf"{name}: the \w+ image is damaged or cannot be decoded: \S"):
        read_image(tmp_path / name)
    assert capfd.readouterr().err == "", "what the decoder says is in the message, not beside it"


def test_padding_before_the_end_mark_is_no_damage(tmp_path: Path) -> None:
    whole = encoded(".jpg")
    for name, filled, refused in (("zeros", b"\0" * 40, False), ("others", b"\x11\x22" * 20, True)):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(whole[:-2] + filled + whole[-2:])
        if refused:
            with pytest.raises(InputError, match="36 extraneous bytes"):
                read_image(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DecoderWarning)
                assert read_image(path).shape == (3, 240, 400)


def with_bad_profile(data: bytes) -> bytes:
    """A PNG that its decoder remarks on, though its pixels are right: an sRGB chunk of an unknown kind."""
    body = b"sRGB" + b"\x09"
    return data[:33] + struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def test_a_decoders_remarks_name_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(with_bad_profile(encoded(".png")))
    with every_decoder_warning() as remarks:
        images = [read_image(tmp_path / name) for name in ("one.png", "two.png")]
    assert torch.equal(images[0], images[1])
    assert [remark.split(": ")[0] for remark in remarks] == [str(tmp_path / "one.png"), str(tmp_path / "two.png")]
    assert all("libpng warning: sRGB" in remark for remark in remarks)
    code = (
        "import sys; from adu_depth.data.image_files import read_image; [read_image(path) for path in sys.argv[1:]]; "
        "print('read')"
    )
    files = [str(tmp_path / name) for name in ("one.png", "two.png")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert "one.png: libpng warning: sRGB" in done.stderr
    assert "two.png" not in done.stderr, "the same remark is made once"
    assert capfd.readouterr().err == ""


def test_other_threads_keep_their_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(".jpg"))
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            os.write(2, f"line {written}\n".encode())
            written += 1
            time.sleep(1e-4)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DecoderWarning)
            for _ in range(30):
                read_image(path)
    finally:
        stop.set()
        writer.join()
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(f"line {number}" for number in range(written))


def test_a_closed_standard_error_is_no_hindrance(tmp_path: Path) -> None:
    broken = DAMAGED["baseline.jpg"]
    middle = len(broken) // 2
    (tmp_path / "a.jpg").write_bytes(broken[:middle] + b"\x5a" * 64 + broken[middle + 64 :])
    code = (
        "import os, sys; os.close(2)\nfrom adu_depth.data.image_files import read_image\n"
        "try: read_image(sys.argv[1])\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.jpg")], stdout=subprocess.PIPE, text=True, check=True
    )
    assert "Corrupt JPEG data" in done.stdout


FOREIGN = {
    "clip.png": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + b"\0" * 64, "a video: take its frames out first"),
    "clip.avi": (b"RIFF\x10\0\0\0AVI LIST" + b"\0" * 64, "a video"),
    "clip.mkv": (b"\x1aE\xdf\xa3" + b"\0" * 64, "a video"),
    "photo.jpg": (b"\0\0\0\x18ftypheic" + b"\0" * 64, "a HEIC photo: convert it to PNG or JPEG"),
    "photo.avif": (b"\0\0\0\x18ftypavif" + b"\0" * 64, "an AVIF image: convert it"),
    "moving.png": (b"GIF89a" + b"\0" * 64, "a GIF"),
    "pointer.png": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself: run"),
    "page.jpg": (b"\n<!DOCTYPE html><html>", "a web page saved in the image's place: download it again"),
    "zeros.png": (b"\0" * 600, "nothing but zeros"),
    "array.png": (b"\x93NUMPY\x01\0", "a numpy array"),
    "map.png": (b"Pf\n3 2\n-1\n", "a PFM map"),
    "empty.png": (b"", "got an empty file"),
    "text.png": (b"fx = 700", "expected PNG, JPEG, WebP, TIFF, BMP or PPM"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_image_is_said_with_what_to_do(name: str, tmp_path: Path) -> None:
    data, told = FOREIGN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name}: not an image that can be read, .*{told}"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("bits", [10, 12])
def test_unscaled_bits_of_a_camera_are_refused_with_what_to_do(bits: int, tmp_path: Path) -> None:
    values = RNG.integers(0, 1 << bits, (24, 40, 3), dtype=np.uint16)
    values[0, 0] = (1 << bits) - 1
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), values)
    with pytest.raises(InputError, match=f"a camera's {bits} bits .* multiply the values by {1 << (16 - bits)}"):
        read_image(path)
    assert cv2.imwrite(str(path), values << (16 - bits))
    assert read_image(path).max() > 0.99
    for dark in (np.zeros((4, 4), np.uint16), np.full((4, 4), 3 * 257, np.uint16)):
        assert cv2.imwrite(str(path), dark)
        assert read_image(path).max() < 0.02


def big_png(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * ((1 + side // 8) * side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def big_jpeg() -> bytes:
    whole = encoded(".jpg")
    return whole.replace(struct.pack(">HH", 240, 400), struct.pack(">HH", 65000, 65000), 1)


def big_webp() -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + (16383).to_bytes(3, "little") * 2
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def big_bmp() -> bytes:
    return b"BM" + struct.pack("<IHHI IiiHHIIiiII", 70, 0, 0, 54, 40, 30000, 30000, 1, 8, 1, 0, 0, 0, 0, 0) + b"\0" * 16


def big_tiff() -> bytes:
    entries = ((256, 30000), (257, 30000), (258, 8), (259, 5), (262, 1), (273, 8), (277, 1), (278, 30000), (279, 8))
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + struct.pack("<H", len(entries)) + packed + b"\0" * 4


BOMBS = {
    "a.png": lambda: big_png(32000),
    "a.jpg": big_jpeg,
    "a.webp": big_webp,
    "a.bmp": big_bmp,
    "a.tif": big_tiff,
    "a.ppm": lambda: b"P3 99999 99999 255 1 2 3",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_size_is_looked_at_before_anything_is_allocated(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    with pytest.raises(InputError, match=f"{name}: an image of .*×.* pixels: .*limit of 640 MB for one file"):
        read_image(tmp_path / name)


def test_the_limit_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded(".png"))
    monkeypatch.setenv("ADU_DEPTH_MAX_MB", "1.1")
    with pytest.raises(InputError, match=r"400×240 pixels"):
        read_image(tmp_path / "a.png")
    monkeypatch.setenv("ADU_DEPTH_MAX_MB", "1.2")
    assert read_image(tmp_path / "a.png").shape == (3, 240, 400)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0abcd\0\0\0\0" * 300_000,
        b"\xff\xd8\xff\xe0\0\4ab" + b"\xff\x01" * 2_000_000,
        b"\xff\xd8\xff" + b"\xff" * 8_000_000,
        encoded(".jpg")[:-2] + b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0" * 4000 + b"\xff\xd9",
        encoded(".jpg").replace(struct.pack(">HH", 240, 400), struct.pack(">HH", 7000, 7000), 1)[:-2]
        + b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0" * 40
        + b"\xff\xd9",
        b"II*\0\x08\0\0\0\xff\xff" + b"\x11\1\4\0\xff\xff\xff\xff\x08\0\0\0" * 65535,
    ],
    ids=["chunks", "markers", "fill", "scans", "large scans", "tags"],
)
def test_a_header_that_goes_on_for_ever_is_refused_soon(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png: the image is (damaged|cut short)"):
        read_image(tmp_path / "a.png")


def test_a_tile_is_no_larger_than_its_picture(tmp_path: Path) -> None:
    entries = (
        (256, 40),
        (257, 40),
        (258, 8),
        (259, 1),
        (262, 1),
        (277, 1),
        (322, 32768),
        (323, 32768),
        (324, 8),
        (325, 8),
    )
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    data = b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + struct.pack("<H", len(entries)) + packed + b"\0" * 4
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tif: the image is damaged: its tiles are far larger than the picture"):
        read_image(tmp_path / "a.tif")
