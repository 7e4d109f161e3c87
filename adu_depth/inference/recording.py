"""Predictions one after the other as a recording of Rerun (.rrd): camera, image, depth and points of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

import numpy as np

from adu_depth.errors import InputError
from adu_depth.export.extras import needed
from adu_depth.files import replacing, writing
from adu_depth.held_folders import require_ours
from adu_depth.inference.image_files import encode_jpeg
from adu_depth.inference.point_cloud import PointFrame
from adu_depth.terminal import printable_name

SUFFIX = ".rrd"


class RecordingError(InputError):
    """The recording cannot be written: no fault of the image that was to be added."""


class _NoImage(Exception):
    """A block ended without an image."""


class Recording:
    """An .rrd that images are added to. It gets its name when the `with` block ends without an error, whole; a block
    that raises, or adds no image, leaves nothing, and a file that was there stays.

    Images stand on the timeline "frame", in the order of `add`, each of them as `camera` (a pinhole at the origin, x
    right, y down, z ahead), `camera/image` (JPEG), `camera/depth` (float32 metres), `points` and `name`.
    Raises InputError where rerun is not installed, for another ending than .rrd, and where the file cannot be written:
    as the block begins, before there is an image.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.frames = Path(path), 0
        if self.path.suffix != SUFFIX or self.path.is_dir():
            raise InputError(f"rerun: expected a file ending in {SUFFIX}, got {self.path}")
        if os.name == "nt":
            raise InputError("rerun: expected Linux or macOS, whose pipes have names; Windows has none of that kind")
        self._rerun = needed("rerun", "rerun", "rerun")
        self._open = ExitStack()
        self._stream: Any = None
        self._refused: list[OSError] = []

    def __enter__(self) -> Self:
        """Raises InputError where the file cannot be written: before any work for it is done."""
        rerun = self._rerun
        with ExitStack() as entered:
            temporary = entered.enter_context(replacing(self.path))
            pipe = entered.enter_context(_copied_to(temporary, self._refused))
            self._stream = rerun.RecordingStream("adu-depth")
            self._stream.save(pipe)
            entered.callback(self._stream.disconnect)  # comes first at the end: it writes what is left, closes the pipe
            self._stream.log("/", rerun.ViewCoordinates.RDF, static=True)
            self._open = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self.frames:
            kind, error = _NoImage, _NoImage()  # for `replacing`, which gives its name to what ends without an error
        self._open.__exit__(kind, error, trace)

    def add(self, name: str, frame: PointFrame) -> None:
        """One image: its picture, the camera of that picture, its depth and its points. Within the `with` block.

        Raises RecordingError where the file cannot be written any more: the next image would fare no better.
        """
        if self._stream is None:
            raise ValueError(f"{self.path}: expected images to be added within `with Recording(…) as recording:`")
        self._require_writable()
        rerun, stream, camera = self._rerun, self._stream, frame.camera
        fx, fy, cx, cy = (float(number) for number in (camera.fx, camera.fy, camera.cx, camera.cy))
        pinhole = rerun.Pinhole(
            image_from_camera=[[fx, 0, cx], [0, fy, cy], [0, 0, 1]],
            resolution=frame.depth.shape[::-1],
            camera_xyz=rerun.ViewCoordinates.RDF,
        )
        jpeg = rerun.EncodedImage(contents=encode_jpeg(frame.picture, quality=95), media_type="image/jpeg")
        stream.set_time("frame", sequence=self.frames)
        stream.log("camera", pinhole)
        stream.log("camera/image", jpeg)
        stream.log("camera/depth", rerun.DepthImage(frame.depth.astype(np.float32), meter=1.0))
        stream.log("points", rerun.Points3D(frame.cloud.positions, colors=frame.cloud.colours))
        stream.log("name", rerun.TextDocument(printable_name(name)))
        self.frames += 1

    def _require_writable(self) -> None:
        try:
            require_ours(self.path)
            with writing(self.path):
                if self._refused:
                    raise self._refused[0]
        except InputError as error:
            raise RecordingError(str(error)) from error


@contextmanager
def _copied_to(path: Path, errors: list[OSError]) -> Iterator[str]:
    """The name of a pipe; what is written into it goes to the file. OSError at the end where that was refused; `errors`
    has it before.

    Rerun's own writer only prints that a disk is full, and whoever closes it then waits for ever.
    """
    path.touch()  # refused here, and not in the thread
    source, sink = os.pipe()

    def copy() -> None:
        with open(source, "rb", buffering=0) as pipe, open(path, "wb", buffering=0) as file:
            while block := pipe.read(1 << 20):
                try:
                    while block and not errors:
                        block = block[file.write(block) :]
                except OSError as error:  # the rest is read all the same: the writer would wait
                    errors.append(error)

    thread = Thread(target=copy, daemon=True)
    thread.start()
    try:
        yield f"/dev/fd/{sink}"
    finally:
        os.close(sink)
        thread.join()
    if errors:
        raise errors[0]
