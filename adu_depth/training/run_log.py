"""A run's curves: rows in history.jsonl, and the same for TensorBoard and other trackers."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor

from adu_depth.files import make_durable, make_folder, replacing, writing
from adu_depth.held_folders import require_ours
from adu_depth.inference.image_files import encode_png
from adu_depth.training.history import Row, read_history
from adu_depth.training.throughput import ThroughputMeter
from adu_depth.training.trackers import Trackers

_PREFIX = "events.out.tfevents."


class RunLog:
    """The curves of a run that is under way. A resumed run drops what it will redo.

    Raises InputError naming the file where it cannot be written: a full disk, a run folder that was moved.
    """

    def __init__(self, run: Path, start: int, enabled: bool, trackers: Trackers, tensorboard: bool = True) -> None:
        """enabled: this process writes. trackers: told each row too. tensorboard: write its file."""
        self.path, self.note, self.enabled, self.trackers = run / "history.jsonl", "", enabled, trackers
        self.rows: list[Row] = []
        self.events = EventFile(run / "tensorboard", start + 1) if enabled and tensorboard else None
        if enabled and self.path.is_file():
            self.rows = read_history(self.path, start)
        if enabled:
            with replacing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")

    def write(
        self, step: int, terms: Mapping[str, Tensor | float], learning_rate: float, meter: ThroughputMeter
    ) -> None:
        """One row; reading the terms waits for the device, which is why it is not done every step."""
        row = {"step": step, **{name: float(value) for name, value in terms.items()}}
        row |= {"learning_rate": learning_rate, **meter.reading()}
        self.note = f"loss {row['total']:.3f}  {meter.note}"
        self.write_row(row)

    def write_row(self, row: Row) -> None:
        """A row as it is."""
        self.rows.append(row)
        if self.enabled:
            require_ours(self.path)
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if self.events is not None:
            self.events.write(row)
        self.trackers.write(row)

    def write_pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Pictures, H×W×3 uint8, by name; for TensorBoard and the trackers that take any."""
        if self.events is not None:
            self.events.write_pictures(step, pictures)
        self.trackers.write_pictures(step, pictures)

    def make_durable(self) -> None:
        """Waits until what was written is on the disk."""
        require_ours(self.path)
        with writing(self.path):
            make_durable(self.path)

    def close(self) -> None:
        if self.events is not None:
            self.events.close()


def _next_second(folder: Path) -> int:
    """Now, or later than any file's here: TensorBoard reads them by name, also where the clock was set back."""
    seconds = (path.name.removeprefix(_PREFIX).split(".")[0] for path in folder.glob(f"{_PREFIX}*"))
    return max([int(time.time()), *(int(second) + 1 for second in seconds if second.isdigit())])


class EventFile:
    """A file that TensorBoard reads, written as rows come: torch's SummaryWriter writes from a thread of its own, whose
    errors (a full disk) end in a traceback, and whose timer stands still when the clock is set back."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """first_step: what an earlier file says of it and later ones is not shown."""
        make_folder(folder)
        self.path = folder / f"{_PREFIX}{_next_second(folder):010d}.{socket.gethostname()}.{os.getpid()}"
        with writing(self.path):
            self._file = self.path.open("wb")
            self._records = RecordWriter(self._file)
            for told in (
                Event(file_version="brain.Event:2"),
                Event(step=first_step, session_log=SessionLog(status=SessionLog.START)),
            ):
                self._add(told)

    def write(self, row: Row) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "step"]
        with writing(self.path):
            self._add(Event(step=int(row["step"]), summary=Summary(value=values)))

    def write_pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        values = []
        for name, picture in pictures.items():
            height, width = picture.shape[:2]
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode_png(picture))
            values.append(Summary.Value(tag=name, image=image))
        with writing(self.path):
            self._add(Event(step=step, summary=Summary(value=values)))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self) -> None:
        with writing(self.path):
            self._file.close()
