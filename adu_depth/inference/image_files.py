"""Pictures and depth maps as PNG: encoded for embedding, or written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from adu_depth.data.image_files import write_png16
from adu_depth.files import replacing


def write_depth_png(path: str | Path, depth: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Writes H×W metres as a 16-bit grey PNG, value = metres × 256, 0 = none (KITTI's depth format).

    Where depth is finite and positive (and `valid`, H×W bool, is true) at least 1 is stored: a prediction is never
    mistaken for a missing one. Above 255.996 m the value stays at 65535. The same format holds disparities in pixels.
    """
    if depth.ndim != 2:
        raise ValueError(f"depth must be H×W, got shape {depth.shape}")
    write_png16(path, depth if valid is None else np.where(valid, depth, 0.0))


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Writes H×W (grey) or H×W×3 (RGB) uint8 as a PNG."""
    encoded = encode_png(picture)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded)


def encode_png(picture: np.ndarray) -> bytes:
    """PNG bytes of H×W grey or H×W×3 RGB, uint8."""
    return _encode(".png", picture, [])


def encode_jpeg(picture: np.ndarray, quality: int = 90) -> bytes:
    """JPEG bytes of H×W×3 RGB uint8: for photographs, which PNG stores at several times the size."""
    return _encode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(extension: str, picture: np.ndarray, options: list[int]) -> bytes:
    if picture.dtype != np.uint8:
        raise TypeError(f"picture must be uint8, got {picture.dtype}")
    ok, encoded = cv2.imencode(extension, picture[..., ::-1] if picture.ndim == 3 else picture, options)
    if not ok:
        raise ValueError(f"cannot store shape {picture.shape} as {extension}")
    return bytes(encoded.tobytes())
