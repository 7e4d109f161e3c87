"""What people hand over as an image, and the numbers of its camera."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from adu_depth.data.image_files import read_image
from adu_depth.errors import InputError
from adu_depth.images import refuse_unscaled
from adu_depth.inference.predict_files import PredictOutcome, to_be_turned


def view_of(name: str, image: Any, stereo: bool, timeout: float | None = None) -> np.ndarray | Tensor:
    """An image as `images.image_batch` takes it.

    image: a file by its path, read and turned upright as `adu-depth predict` does; a URL or base64 text; a PIL picture,
    turned as its EXIF orientation says unless it is of a pair; arrays and tensors are left as they are.
    InputError, with `name`, where it cannot be read.
    """
    if (path := file_of(image)) is not None:
        return read_image(path, upright=orientation_to_turn(path, stereo) != 1)
    if isinstance(image, np.ndarray | Tensor):
        return image
    from PIL import Image, ImageOps
    from transformers.image_utils import load_image

    try:
        if isinstance(image, str):
            return _pixels(name, load_image(image, timeout))
        if isinstance(image, Image.Image):
            return _pixels(name, image if stereo else ImageOps.exif_transpose(image))
    except InputError:
        raise
    except Exception as error:  # what a decoder or a network says
        raise InputError(f"{name}: expected an image, got what cannot be read as one: {str(error)[:300]}") from error
    raise InputError(
        f"{name}: expected a file, a URL, a PIL picture, an H×W×3 array or a 3×H×W tensor, got {type(image).__name__}"
    )


def file_of(image: Any) -> Path | None:
    """The path of an image that is given as a file; a text is one where such a file is there."""
    if isinstance(image, Path):
        return image
    return Path(image) if isinstance(image, str) and len(image) < 4096 and os.path.exists(image) else None


def orientation_to_turn(image: Path, stereo: bool) -> int:
    """EXIF's orientation by which `adu-depth predict` turns an image; 1: it is taken as stored."""
    return to_be_turned(image, PredictOutcome(), {}, stereo)


def require_numbers(stereo: bool, reference_focal: float | None, fx: Any, baseline: Any) -> None:
    """InputError where metres need a camera's numbers that were not given; it says how to give them."""
    if stereo and (fx is None or baseline is None):
        absent = " and ".join(name for name, value in (("fx", fx), ("baseline", baseline)) if value is None)
        raise InputError(
            f"camera: a stereo teacher's metres need fx, the focal length in pixels of the image, and baseline, the "
            f"distance of the two cameras in metres; got no {absent}: give fx=…, baseline=…"
        )
    if reference_focal is not None and fx is None:
        raise InputError(
            f"camera: this student's metres need fx, the focal length in pixels of the image, got none: give fx=… "
            f"(fx={reference_focal:g} at the network's size leaves its depth unscaled)"
        )


def _pixels(name: str, picture: Any) -> np.ndarray:
    """H×W×3 uint8 or uint16 of a PIL picture: grey three times, without alpha."""
    if picture.mode.startswith("I"):
        levels = np.array(picture)
        if levels.min() < 0 or levels.max() > 65535:
            raise InputError(f"{name}: expected 8 or 16 bits a pixel, got values of {levels.min()} to {levels.max()}")
        levels = levels.astype(np.uint16)
        refuse_unscaled(levels, name)
        return np.stack([levels] * 3, axis=-1)
    if picture.mode == "F":
        raise InputError(
            f"{name}: expected 8 or 16 bits a pixel, got a picture of floats, which do not say what white is"
        )
    return np.array(picture.convert("RGB"))
