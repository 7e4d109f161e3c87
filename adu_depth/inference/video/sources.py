"""What a clip is read from: a video file, a folder of frames, a camera."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
from torch import Tensor

from adu_depth.data.foreign_files import VIDEO_KINDS, VIDEO_SUFFIXES, is_video, what_it_is
from adu_depth.data.image_files import read_view
from adu_depth.errors import InputError
from adu_depth.files import folder_name, open_regular, refuse_larger
from adu_depth.inference.predict_files import ImageTask, PredictOutcome, find_tasks, to_be_turned
from adu_depth.inference.video.capture import as_view, captured, opencv_name

TAKEN = "expected a video file, a folder of frames, or a camera as camera:0"
_CAMERA = re.compile(r"camera:(\d{1,4})")
_RATES = (0.1, 1000.0)  # frames a second; files without a fixed rate tell nonsense


@dataclass(frozen=True)
class Frame:
    """One picture of a clip, 3×H×W uint8 (or float32 in [0, 1], of 16-bit files), and a pair's right one.

    source: what messages call it. task, orientation: by which `camera_beside` finds its calibration.
    """

    left: Tensor
    right: Tensor | None
    source: str
    task: ImageTask
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.left.shape[-2], self.left.shape[-1]


class Clip(Protocol):
    """Frames in order. name: what results are called. fps: frames a second, total: frames, None where not known.

    identity: what tells this clip from another one, as far as can be told without reading all of it.
    """

    name: str
    fps: float | None
    total: int | None
    identity: dict[str, Any]

    def read(self, start: int = 0) -> Iterator[Frame]:
        """The frames from number `start` on."""
        ...


def open_clip(source: str | Path, right: str | Path | None = None, stereo: bool = False) -> Clip:
    """The clip that `source` names: a video file that OpenCV reads, a folder of frames in the order of their names
    (with `stereo` one of pairs, see `find_tasks`), or `camera:N`.

    Raises InputError where it is none, cannot be read, has no frame, or where a stereo teacher is given single images.
    """
    source = Path(source)
    if source.is_dir():
        return Pictures(source, None if right is None else Path(right), stereo)
    if stereo or right is not None:
        needed = "a stereo teacher needs pairs" if stereo else "right: a student sees one view"
        raise InputError(f"{needed}; of clips these are folders, left/ and right/ by the same names, got {source}")
    if camera := _CAMERA.fullmatch(str(source)):
        return LiveCamera(int(camera[1]))
    return VideoFile(source)


def is_clip(source: Path) -> bool:
    """Whether the source is a camera or a file that is, or is called, a video; not so a folder."""
    if _CAMERA.fullmatch(str(source)):
        return True
    if not source.is_file():
        return False
    return source.suffix.lower() in VIDEO_SUFFIXES or is_video(_head(source))


def _head(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(512)


class VideoFile:
    """A file that OpenCV's FFmpeg decodes; phones' recordings come upright, as their rotation says.

    Only files that begin as a video does are opened: what FFmpeg would take besides (lists of other files, addresses)
    might lead anywhere.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        head = _head(path)
        if not is_video(head):
            told = what_it_is(head) if head else "it is empty"
            raise InputError(f"{path}: expected a video ({VIDEO_KINDS}); by its first bytes {told}")
        with captured(opencv_name(path)) as capture:
            if not capture.isOpened():
                raise InputError(
                    f"{path}: this video cannot be decoded: cut short, damaged, or of a kind that OpenCV does not read "
                    f"here (it reads {VIDEO_KINDS}); convert it, such as by `ffmpeg -i VIDEO -c:v mjpeg CLIP.avi`"
                )
            rate, count = (float(capture.get(asked)) for asked in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
            sides = [float(capture.get(asked)) for asked in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)]
            height, width = (int(side) if 0 < side < 1e6 else 0 for side in sides)
            refuse_larger(path, 12 * height * width, f"{height}×{width} pixels a frame")
            if not capture.read()[0]:
                raise InputError(f"{path}: no frame of this video can be decoded: it is empty, cut short or damaged")
        self.fps = rate if _RATES[0] <= rate <= _RATES[1] else None
        self.total = int(count) if 1 <= count < 1e9 else None
        stat = path.stat()
        self.identity: dict[str, Any] = {"clip": path.name, "bytes": stat.st_size, "modified": stat.st_mtime_ns}

    def read(self, start: int = 0) -> Iterator[Frame]:
        task = ImageTask(self.name, self.path)
        with captured(opencv_name(self.path)) as capture:
            for _ in range(start):  # not by seeking, which many files answer with a frame nearby
                if not capture.grab():
                    return
            for number in itertools.count(start):
                there, picture = capture.read()
                if not there:
                    return
                yield Frame(as_view(picture), None, f"{self.path}, frame {number}", task)


class Pictures:
    """The images of a folder, one after the other; turned upright as `predict` does with each by itself."""

    def __init__(self, folder: Path, right: Path | None = None, stereo: bool = False) -> None:
        self.name = folder_name(folder)
        self.fps: float | None = None
        self.stereo = stereo
        self.exif = PredictOutcome()
        """Which frames were turned, of those read last."""
        self.tasks: Sequence[ImageTask] = find_tasks(folder, right, stereo)
        self.total: int | None = len(self.tasks)
        digest = hashlib.sha256()
        for task in self.tasks:
            if not task.left.exists():
                raise InputError(f"{task.left}: a link to a file that is not there")
            stat = task.left.stat()
            digest.update(f"{task.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        self.identity: dict[str, Any] = {"clip": self.name, "images": len(self.tasks), "digest": digest.hexdigest()}

    def read(self, start: int = 0) -> Iterator[Frame]:
        self.exif, views = PredictOutcome(), dict[Path, frozenset[str]]()
        for task in self.tasks[start:]:
            orientation = to_be_turned(task.left, self.exif, views, self.stereo)
            left = read_view(task.left, upright=orientation != 1)
            right = read_view(task.right) if self.stereo and task.right is not None else None
            yield Frame(left, right, str(task.left), task, orientation)


class LiveCamera:
    """A camera of this machine by its number. What it shows can be read once: whoever needs it again records it."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, f"camera-{number}"
        self.total: int | None = None
        self.fps: float | None = None
        """Frames a second as they were taken, known after the second one."""
        self.identity: dict[str, Any] = {"clip": self.name}

    def read(self, start: int = 0) -> Iterator[Frame]:
        """Until the camera ends. InputError where there is none, or it shows nothing."""
        task = ImageTask(self.name, Path(f"camera:{self.number}"))
        with captured(self.number) as capture:
            if not capture.isOpened():
                raise InputError(f"camera:{self.number}: there is no such camera, or it is in use; {TAKEN}")
            began = math.nan
            for count in itertools.count():
                there, picture = capture.read()
                if not there:
                    if count == 0:
                        raise InputError(f"camera:{self.number}: the camera shows no picture; {TAKEN}")
                    return
                if count == 0:
                    began = time.monotonic()
                elif (taken := time.monotonic() - began) > 0:
                    self.fps = min(max(count / taken, _RATES[0]), _RATES[1])
                yield Frame(as_view(picture), None, f"camera:{self.number}, frame {count}", task)
