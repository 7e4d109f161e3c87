"""The work of `adu-depth predict` on a clip: frames in, a video, a summary and files of its frames out.

First the network, frame by frame; what it says is kept in NAME_unfinished/, so that a run that was stopped goes on.
Then, in one go over what is kept, everything that looks at several frames: flow, flicker, the filter, the video. So a
clip that was stopped a hundred times ends with the files of one that never was.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adu_depth.data.image_files import grey_levels
from adu_depth.errors import InputError
from adu_depth.export.opened import format_of
from adu_depth.files import checksum, make_folder, replacing, write_json
from adu_depth.folder_lock import locked
from adu_depth.geometry import Camera
from adu_depth.images import from_levels
from adu_depth.inference.colour import depth_scale
from adu_depth.inference.image_files import write_depth_png, write_png
from adu_depth.inference.predict_files import camera_beside, exif_notes
from adu_depth.inference.predictor import Predictor
from adu_depth.inference.render import to_map, to_uint8
from adu_depth.inference.video.capture import opencv_name
from adu_depth.inference.video.config import VideoConfig
from adu_depth.inference.video.earlier import EarlierRuns
from adu_depth.inference.video.flicker import Flicker, FlickerMeter
from adu_depth.inference.video.flow import Motion
from adu_depth.inference.video.panels import Panels
from adu_depth.inference.video.sources import Clip, Frame, LiveCamera, Pictures
from adu_depth.inference.video.stabilise import Stabiliser
from adu_depth.inference.video.unfinished import RECORD, Unfinished, remove_unfinished
from adu_depth.inference.video.writing import video_writer, writable_rate
from adu_depth.leftovers import remove
from adu_depth.models.prediction import require_temperature
from adu_depth.progress import Progress
from adu_depth.stopping import catch_signals
from adu_depth.training.teacher_outputs import weights_digest

DEFAULT_FPS = 10.0
MOST_MISSING = 0.01
"""Share of the frames that a file may announce and not have: some containers reckon their number from the duration."""


@dataclass
class ClipOutcome:
    """What came of a clip. written: the video, its summary, the folder of its frames. flicker: of the depth in them;
    network_flicker: of what the network said, which is the same without a filter. images_per_second: of the network,
    with reading and keeping; None where all frames had been done before."""

    video: Path
    summary: Path
    frames: int
    flicker: Flicker
    network_flicker: Flicker
    images_per_second: float | None
    written: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)


def predict_clip(
    predictor: Predictor,
    clip: Clip,
    output: str | Path,
    *,
    camera: Camera | None = None,
    temperature: float = 1.0,
    settings: VideoConfig | None = None,
    progress: Progress | None = None,
) -> ClipOutcome:
    """Predicts depth for the frames of a clip (`open_clip`), and writes into `output`

        NAME_depth.mp4         source, depth on one scale in metres, uncertainty where the network predicts it
        NAME_depth.json        the summary: of which clip, files, frames, flicker, settings
        NAME_frames/000000…    if asked for, a file a frame: _depth.png (16-bit, metres × 256) or .npz (depth: H×W
                               float32 metres, 0 = none; log_scale: H×W float32), and record.json, of what they are
        camera-N_recorded/     the pictures of a camera, which are a clip themselves from then on

    each whole or not at all, after all frames are predicted; until then they lie in NAME_unfinished/, from which the
    same call goes on. A frame's depth is kept there to 0.012 %.

    camera: calibration of all frames; where None and the predictor needs one, camera.toml beside the clip, as for
    images. temperature: factor on the predicted scale of the error. A camera is read until it ends, its limit, or
    SIGINT or SIGTERM, after which the clip is finished.

    Raises InputError where a frame cannot be read or predicted, the frames' size changes, the calibration is missing,
    the output is written into by another process, holds unfinished frames of other settings, the summary of another
    clip of this name, or a NAME_depth.mp4 or NAME_frames/ that is of no run (they would be replaced). What an earlier
    run of this clip wrote is replaced, and removed where this one writes none of it: the outcome's `notes` say so. A
    file that ends before the number of frames it announces is in `failures`, with what there was of it predicted.
    """
    require_temperature(temperature)
    output = Path(output)
    job = _Job(predictor, clip, output, camera, temperature, settings or VideoConfig(), progress or Progress())
    with locked(output, "predict"):
        return job.run()


class _Job:
    def __init__(
        self,
        predictor: Predictor,
        clip: Clip,
        output: Path,
        camera: Camera | None,
        temperature: float,
        settings: VideoConfig,
        progress: Progress,
    ) -> None:
        self.predictor, self.clip, self.output, self.given = predictor, clip, output, camera
        self.temperature, self.settings, self.progress = temperature, settings, progress
        self.video = output / f"{clip.name}_depth.{settings.format}"
        opencv_name(self.video)  # before anything is computed
        self.earlier = EarlierRuns(output, clip.name, clip.identity)
        self.summary, self.frames = self.earlier.summary, self.earlier.frames
        self.recorded = output / f"{clip.name}_recorded"
        self.cameras: dict[Any, Camera] = {}
        self.size: tuple[int, int] | None = None

    def run(self) -> ClipOutcome:
        live = isinstance(self.clip, LiveCamera)
        if live and self.recorded.exists():
            raise InputError(
                f"{self.recorded} holds pictures of this camera: predict them by `--as-video` and this folder, remove "
                "it, or name another output"
            )
        self.earlier.require_replaceable(self.video, self.settings.frames != "none")
        frames = self._frames(self.clip)
        first = next(frames, None)  # its size and camera are part of what tells a run from another
        if first is None:
            raise InputError(f"{self.clip.name}: the clip has no frame")
        folder, record = self.output / f"{self.clip.name}_unfinished", self._record(first)
        if not live:
            kept = Unfinished(folder, record)
            return self._finish(kept, *self._predict(kept, self._frames(self.clip, kept.done)))
        self.given = self._camera(first)  # its pictures, once they are files, lie elsewhere
        remove_unfinished(folder)  # frames whose pictures are gone
        kept = Unfinished(folder, record)
        make_folder(self.recorded)
        with catch_signals() as stopped:
            shown = itertools.chain([first], itertools.takewhile(lambda _: not stopped, frames))
            predicted = self._predict(kept, self._recording(shown))
            if stopped:  # a signal more is not to end the finishing, which the first one asked for
                return self._finish(kept, *predicted)
        return self._finish(kept, *predicted)

    def _record(self, first: Frame) -> dict[str, Any]:
        """All that the network's answers hang on."""
        predictor, checkpoint = self.predictor, self.predictor.checkpoint
        file = checkpoint is not None and format_of(checkpoint) is not None
        weights = checksum(checkpoint) if file and checkpoint is not None else weights_digest(predictor.model)
        camera = self._camera(first)
        numbers = None if camera is None else {k: None if math.isnan(v) else float(v) for k, v in vars(camera).items()}
        height, width = predictor.working_size(first.size)
        seen = {"network": weights, "size": f"{height}×{width}", "flip": predictor.flip, "camera": numbers}
        return {**self.clip.identity, "picture": f"{first.size[0]}×{first.size[1]}", **seen}

    def _frames(self, clip: Clip, start: int = 0) -> Iterator[Frame]:
        """The clip's, up to the limit; InputError where one is of another size than those before."""
        for frame in itertools.islice(clip.read(start), None if self.settings.limit is None else self._left(start)):
            self.size = self.size or frame.size
            if frame.size != self.size:
                sizes = " and ".join(f"{height}×{width}" for height, width in (self.size, frame.size))
                raise InputError(f"{frame.source}: the frames of a clip must have one size, got {sizes}")
            yield frame

    def _left(self, start: int) -> int:
        assert self.settings.limit is not None
        return max(0, self.settings.limit - start)

    def _total(self) -> int | None:
        total, limit = self.clip.total, self.settings.limit
        return total if limit is None else limit if total is None else min(total, limit)

    def _camera(self, frame: Frame) -> Camera | None:
        if self.given is not None or not self.predictor.needs_camera:
            return self.given
        key = (frame.task, frame.orientation)
        if key not in self.cameras:
            self.cameras[key] = camera_beside(frame.task, frame.size, self.predictor.stereo, frame.orientation)
        return self.cameras[key]

    def _recording(self, live: Iterator[Frame]) -> Iterator[Frame]:
        for number, frame in enumerate(live):
            write_png(self.recorded / f"{number:06d}.png", frame.left.permute(1, 2, 0).numpy())
            yield frame

    def _predict(self, kept: Unfinished, frames: Iterator[Frame]) -> tuple[int, float | None]:
        """How many frames are predicted at the end, and how many a second this run did."""
        began, done = time.monotonic(), kept.done
        start = done
        with self.progress.task(f"depth of {self.clip.name}", self._total(), done) as task:
            for frame in frames:
                self._predict_frame(kept, done, frame)
                done += 1
                task.advance(f"{(done - start) / max(time.monotonic() - began, 1e-9):.1f} images/s")
        return done, (done - start) / max(time.monotonic() - began, 1e-9) if done > start else None

    def _predict_frame(self, kept: Unfinished, number: int, frame: Frame) -> None:
        if self.predictor.stereo and frame.right is not None and frame.right.shape != frame.left.shape:
            raise InputError(f"{frame.source}: its right image has another size")
        prediction = self.predictor.predict_image(frame.left, frame.right, self._camera(frame), frame.source)
        scale = None if prediction.log_scale is None else to_map(prediction.log_scale)
        kept.write(number, to_map(prediction.depth), scale)

    def _finish(self, kept: Unfinished, count: int, speed: float | None) -> ClipOutcome:
        """Everything that is made of all frames together."""
        if count == 0:
            raise InputError(f"{self.clip.name}: the clip has no frame")
        clip = self.clip
        if isinstance(clip, LiveCamera):
            clip = Pictures(self.recorded)
        count = count if self.settings.limit is None else min(count, self.settings.limit)
        wanted = self.settings.fps or self.clip.fps or DEFAULT_FPS
        fps = writable_rate(wanted, self.settings.format)
        record = {**kept.record, "frames": count, "stabilise": self.settings.stabilise, "temperature": self.temperature}
        after, before, stabiliser = self._assemble(kept, clip, count, fps, record)
        outcome = ClipOutcome(self.video, self.summary, count, after, before, speed)
        outcome.written = [self.video, self.summary]
        if self.settings.frames != "none":
            outcome.written.append(self.frames)
        if isinstance(self.clip, LiveCamera):
            outcome.written.append(self.recorded)
        if stabiliser.unfiltered:
            outcome.notes.append(
                f"{stabiliser.unfiltered} of {count} frames are as the network says: how the camera moved was not found"
            )
        if abs(fps - wanted) > 0.001:  # the third decimal is the last one that any video of ours has
            outcome.notes.append(
                f"the video has {fps:g} frames a second: an mp4 does not hold {wanted:.6g} (--video.format avi does; "
                "--video.fps gives another rate)"
            )
        if isinstance(clip, Pictures):
            outcome.notes += exif_notes(clip.exif)
        total = self._total()
        if total is not None and total - count > max(1.0, MOST_MISSING * total):
            reason = f"it announces {total} frames and ends, or cannot be decoded, after {count}; those are predicted"
            outcome.failures.append((getattr(self.clip, "path", Path(self.clip.name)), reason))
        stale = self.earlier.remove_stale(self.video, record if self.settings.frames == "none" else None)
        if stale:
            outcome.notes.append(f"removed what the run before wrote: {', '.join(path.name for path in stale)}")
        write_json(self.summary, self._facts(outcome, fps))
        remove_unfinished(kept.folder)
        return outcome

    def _facts(self, outcome: ClipOutcome, fps: float) -> dict[str, Any]:
        settings = self.settings
        return {
            "clip": self.clip.name,
            "source": self.clip.identity,
            "written": [path.name for path in outcome.written],
            "sha256": checksum(self.video),
            "frames": outcome.frames,
            "fps": round(fps, 4),
            "size": list(self.size or ()),
            "checkpoint": None if self.predictor.checkpoint is None else str(self.predictor.checkpoint),
            "depth_range": list(settings.depth_range),
            "stabilise": settings.stabilise,
            "flicker": outcome.flicker.as_dict(),
            "network_flicker": outcome.network_flicker.as_dict(),
        }

    def _assemble(
        self, kept: Unfinished, clip: Clip, count: int, fps: float, record: dict[str, Any]
    ) -> tuple[Flicker, Flicker, Stabiliser]:
        """Video and files of frames, each under its name at the end. The flicker of what they show, and that of what
        the network said."""
        settings = self.settings
        note = f", stabilised {settings.stabilise:g}" if settings.stabilise else ""
        panels = Panels(depth_scale(*settings.depth_range), settings.layout, fps, note)
        stabiliser, before, after = Stabiliser(settings.stabilise), FlickerMeter(), FlickerMeter()
        unnamed, files = kept.folder / f"video.{settings.format}", kept.folder / "frames"
        remove(files)
        files.mkdir()
        last: np.ndarray | None = None
        with video_writer(unnamed, fps) as video, self.progress.task(f"video of {self.clip.name}", count) as task:
            for number, frame in enumerate(itertools.islice(self._frames(clip), count)):
                view = from_levels(frame.left)
                grey = grey_levels(view)
                motion = None if last is None else Motion.between(last, grey)
                depth, scale = kept.read(number)
                scale = None if scale is None else scale + np.float32(math.log(self.temperature))
                result = stabiliser.add(grey, depth, scale, motion, self._camera(frame))
                before.add(depth, motion)
                after.add(result, motion)
                video.add(panels.picture(number, to_uint8(view), result, scale))
                self._write_frame(files / f"{number:06d}", result, scale)
                last = grey
                task.advance()
        self.earlier.require_replaceable(self.video, settings.frames != "none")  # what is there may have come since
        self.earlier.about_to_name(self.video, checksum(unnamed))
        if settings.frames != "none":
            write_json(files / RECORD, record)
            with replacing(self.frames) as temporary:
                files.replace(temporary)
        with replacing(self.video) as temporary:
            unnamed.replace(temporary)
        return after.result(), before.result(), stabiliser

    def _write_frame(self, path: Path, log_depth: np.ndarray, log_scale: np.ndarray | None) -> None:
        if self.settings.frames == "none":
            return
        depth = np.nan_to_num(np.exp(log_depth)).astype(np.float32)
        if self.settings.frames == "png":
            write_depth_png(path.with_name(f"{path.name}_depth.png"), depth)
            return
        if log_scale is None:
            np.savez_compressed(path.with_suffix(".npz"), depth=depth)
        else:
            np.savez_compressed(path.with_suffix(".npz"), depth=depth, log_scale=log_scale.astype(np.float32))
