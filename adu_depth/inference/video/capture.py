"""OpenCV's videos, without what it and FFmpeg print about those that they cannot read or write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from adu_depth.errors import InputError

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; OpenCV reads it before the first video


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Nothing is printed meanwhile: what fails is said by who notices it, in words of ours."""
    level = cv2.getLogLevel()
    cv2.setLogLevel(0)
    try:
        yield
    finally:
        cv2.setLogLevel(level)


@contextmanager
def captured(source: str | int) -> Iterator[cv2.VideoCapture]:
    """The opened source, a file's absolute path or a camera's number; `isOpened()` says whether it is.

    A file is given to FFmpeg alone: OpenCV's other readers would look for numbered pictures behind the name of a file
    that is no video.
    """
    with quiet_opencv():
        capture = cv2.VideoCapture(source) if isinstance(source, int) else cv2.VideoCapture(source, cv2.CAP_FFMPEG)
        try:
            yield capture
        finally:
            capture.release()


def opencv_name(path: Path) -> str:
    """The file's absolute path as OpenCV takes it. InputError for one that is no UTF-8 text."""
    name = os.path.abspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: OpenCV opens no video by a name that is no UTF-8 text: rename it") from None
    return name


def as_view(picture: np.ndarray) -> Tensor:
    """OpenCV's H×W×3 BGR uint8 as 3×H×W RGB uint8."""
    return torch.from_numpy(np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1)))
