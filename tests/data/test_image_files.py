"""Images and maps on disk: known content in, the same content out, and a clear word about everything else."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from adu_depth.data.image_files import read_image, read_mask, read_pfm, read_png16, write_pfm, write_png16
from adu_depth.errors import InputError

PIXELS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 51]], [[1, 2, 3], [0, 0, 0], [255, 255, 255]]], dtype=np.uint8)


def save(path: Path, rgb: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), rgb[..., ::-1] if rgb.ndim == 3 and rgb.shape[-1] == 3 else rgb)
    return path


def test_colour_is_rgb_between_0_and_1(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", PIXELS))
    assert image.shape == (3, 2, 3)
    assert image.dtype == torch.float32
    assert image[:, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert image[2, 0, 2].item() == pytest.approx(0.2)
    assert torch.equal(image, torch.from_numpy(PIXELS.astype(np.float32) / 255).permute(2, 0, 1))


def test_sixteen_bits_alpha_and_grey(tmp_path: Path) -> None:
    sixteen = read_image(save(tmp_path / "a.png", PIXELS.astype(np.uint16) * 257))
    assert torch.allclose(sixteen, torch.from_numpy(PIXELS / 255.0).permute(2, 0, 1).float(), atol=1e-6)
    with_alpha = np.dstack([PIXELS[..., ::-1], np.full((2, 3), 7, dtype=np.uint8)])
    assert torch.equal(read_image(save(tmp_path / "b.png", with_alpha)), read_image(save(tmp_path / "c.png", PIXELS)))
    grey = read_image(save(tmp_path / "d.png", PIXELS[..., 0]))
    assert grey.shape == (3, 2, 3)
    assert all(torch.equal(channel, torch.from_numpy(PIXELS[..., 0] / 255.0).float()) for channel in grey)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut{suffix}", noise)
    data = path.read_bytes()
    assert read_image(path).shape == (3, 64, 80)
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=f"cut{suffix}: .*cut short"):
        read_image(path)


def test_a_header_that_promises_too_much_is_named(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 16, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"0")), (b"IEND", b"")]
    packed = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(InputError, match=r"huge\.png: an image of 100000×100000 pixels.* more than the limit"):
        read_image(tmp_path / "huge.png")


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    for name, data in (("empty.png", b""), ("text.png", b"not an image at all")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}: not an image"):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match=r"absent.png: cannot be read"):
        read_image(tmp_path / "absent.png")


def test_png16_keeps_sixteenths_and_marks_none(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "map.png"
    write_png16(path, np.array([[0.0, 1.5, 80.0], [1e-5, np.nan, 300.0], [np.inf, -4.0, 255.99609375]]))
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 384, 20480], [1, 0, 65535], [0, 0, 65535]]
    assert read_png16(path)[0].tolist() == [0.0, 1.5, 80.0]
    assert read_png16(path, scale=128.0)[0, 1] == 3.0
    assert [p.name for p in path.parent.iterdir()] == ["map.png"]  # no temporary file is left


def test_maps_of_the_wrong_depth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a one-channel 16-bit PNG, got uint8"):
        read_png16(save(tmp_path / "a.png", PIXELS[..., 0]))
    with pytest.raises(InputError, match="expected a one-channel 8-bit PNG"):
        read_mask(save(tmp_path / "b.png", PIXELS))
    assert read_mask(tmp_path / "a.png").tolist() == PIXELS[..., 0].tolist()


VALUES = [[1.0, 2.5, float("inf")], [-4.0, 0.0, 1e-3]]  # top row first


@pytest.mark.parametrize(("order", "scale"), [("<", "-1"), (">", "1"), ("<", "-0.003922"), (">", "0.5")])
def test_pfm_rows_and_byte_order(tmp_path: Path, order: str, scale: str) -> None:
    """Written here byte by byte: bottom row first, byte order by the sign of the scale, whose size changes nothing."""
    bottom_up = [value for row in reversed(VALUES) for value in row]
    path = tmp_path / "map.pfm"
    path.write_bytes(f"Pf\n3 2\n{scale}\n".encode() + struct.pack(f"{order}6f", *bottom_up))
    assert np.array_equal(read_pfm(path), np.array(VALUES, dtype=np.float32))


def test_pfm_round_trip_and_first_byte_that_looks_like_space(tmp_path: Path) -> None:
    """The values may begin with bytes that are white space in text: the header ends at its own line end."""
    values = np.array([[3.0, 4.0], [struct.unpack("<f", b"\n \t\x41")[0], 2.0]], dtype=np.float32)
    write_pfm(tmp_path / "a.pfm", values)
    assert (tmp_path / "a.pfm").read_bytes().startswith(b"Pf\n2 2\n-1.0\n\n \t\x41")
    assert np.array_equal(read_pfm(tmp_path / "a.pfm"), values)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Pf\n3 2\n-1\n" + b"\0" * 23, "cut short, 3×2 needs 24 bytes of values, got 23"),
        (b"PF\n3 2\n-1\n" + b"\0" * 72, "expected a one-channel PFM"),
        (b"P5\n3 2\n255\n123456", "not a PFM file"),
        (b"", "not a PFM file"),
    ],
)
def test_a_bad_pfm_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "bad.pfm").write_bytes(data)
    with pytest.raises(InputError, match=f"bad.pfm: .*{message}"):
        read_pfm(tmp_path / "bad.pfm")
