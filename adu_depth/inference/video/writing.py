"""A video file, written by OpenCV frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from adu_depth.errors import InputError
from adu_depth.inference.video.capture import captured, opencv_name, quiet_opencv

CODECS = {"mp4": "mp4v", "avi": "MJPG"}
MPEG4_TICKS = 65535
"""MPEG-4 has 16 bits for the ticks of a second. OpenCV makes of 66.6667 a second 66667 ticks, and is refused."""


def writable_rate(fps: float, format: str) -> float:
    """The rate nearest to `fps` (frames a second) that OpenCV can write into such a video: of three decimals, of fewer
    where an mp4 cannot count them. (It may leave the last one out, where that changes the rate by 0.001 or less.)"""
    decimals = 3
    while format == "mp4" and decimals and round(fps * 10**decimals) > MPEG4_TICKS:
        decimals -= 1
    return round(fps, decimals)


class VideoFileWriter:
    """Takes H×W×3 uint8 RGB pictures of one size, both sides even."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps, self.count = path, fps, 0
        self._writer: cv2.VideoWriter | None = None

    def add(self, picture: np.ndarray) -> None:
        """InputError where OpenCV cannot write such a video."""
        if self._writer is None:
            code = CODECS[self.path.suffix[1:]]
            size = (picture.shape[1], picture.shape[0])
            with quiet_opencv():
                self._writer = cv2.VideoWriter(opencv_name(self.path), cv2.VideoWriter.fourcc(*code), self.fps, size)
            if not self._writer.isOpened():
                raise InputError(
                    f"cannot write {self.path}: OpenCV has no encoder {code} here, or it takes no video of "
                    f"{size[1]}×{size[0]} pixels and {self.fps:g} frames a second; try another --video.format (mp4, "
                    "avi) or --video.fps"
                )
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))
        self.count += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def require_whole(self) -> None:
        """InputError unless the file holds what was given to it: OpenCV says nothing of a disk that is full."""
        with captured(opencv_name(self.path)) as capture:
            found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        if found != self.count:
            raise InputError(
                f"cannot write {self.path}: of {self.count} frames {max(found, 0)} are in it; is the disk full?"
            )


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator[VideoFileWriter]:
    """Writes to `path`, whose suffix says how; what is not whole raises InputError at the end."""
    writer = VideoFileWriter(path, fps)
    try:
        yield writer
    finally:
        writer.close()
    writer.require_whole()
