"""The work of `adu-depth proxies`: a map for each frame, so that a stopped run goes on where it was."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Annotated, Any

from rich.console import Console

from adu_depth.arguments import Positional
from adu_depth.data import open_dataset
from adu_depth.data.dataset import FileDataset
from adu_depth.data.image_files import read_png16, write_png16
from adu_depth.data.proxies import (
    FORMAT,
    MOST_DISPARITY,
    NOTE,
    ProxiesNote,
    map_digest,
    read_note,
    views_digest,
)
from adu_depth.errors import InputError
from adu_depth.evaluation.baselines import SemiGlobalMatching
from adu_depth.files import require_text_name, write_json
from adu_depth.folder_lock import LOCK_FILE, locked
from adu_depth.progress import Progress
from adu_depth.proxies.matching import AGREE, UNIQUENESS, sure_disparity
from adu_depth.schema import Range, check_ranges

Made = tuple[float, list[str]]
NOTED_EVERY = 32
"""Frames after which proxies.json is written: a run that is killed does so many again at most."""
FEW, HARDLY = 0.3, 0.2
"""Share of the pixels with proxies: below FEW a frame is counted as one that hardly matches; below HARDLY in the mean
the pairs are none. Good pairs of KITTI, ETH3D and Middlebury have 0.73 to 0.96; with the views exchanged 0.04 to 0.13,
with one 6 pixels too high 0.10 to 0.43, with a black one 0."""


@dataclass(frozen=True)
class ProxiesConfig:
    """Match pairs classically, and keep the disparities that are sure, for `--data.proxies` of a training.

    They stand in for ground truth where nobody measured any. OpenCV's StereoSGBM finds them; kept is what it finds from
    both views. A run that was stopped goes on when the same command is given again.
    """

    root: Positional[Path]
    """The data set's folder, of pairs."""
    output: Path = Path("runs/proxies")
    """Folder for the maps; one that holds those of other frames or settings is refused."""
    layout: str = "auto"
    """The folder's layout; "auto" recognises it."""
    split: Path | None = None
    """A file that names the frames to match, one a line."""
    ground_truth: Path | None = None
    """Folder of the ground truth where it is not in ROOT (KITTI raw)."""
    skip_missing: bool = False
    """Pass over, and count, frames whose files are not all there, instead of refusing them."""
    max_disparity: Annotated[int, Range(16, MOST_DISPARITY)] = 192
    """Pixels that are searched, at the images' own size; rounded up to a multiple of 16."""
    workers: Annotated[int, Range(0, 1024)] = 0
    """Threads that match; 0: as many as there are cores."""

    def __post_init__(self) -> None:
        check_ranges(self)


def make_proxies(config: ProxiesConfig, console: Console) -> None:
    """Writes the maps of all frames without ground truth that have none yet, and proxies.json.

    Raises InputError where the output holds anything else or maps of other images, another process writes into it, no
    frame lacks ground truth, frames are no pairs, or hardly anything matches.
    """
    progress = Progress(console)
    dataset = open_dataset(
        config.root, config.layout, split=config.split, ground_truth=config.ground_truth,
        skip_missing=config.skip_missing,
    )  # fmt: skip
    for note in dataset.notes:
        progress.say(note)
    names = [name for name in dict.fromkeys(dataset.names) if not dataset.teaches(name)]
    if not names:
        raise InputError(
            f"{config.root}: every one of its {len(dataset):,} frames has ground truth by its layout, nothing to stand "
            "in for; pairs without any go into left and right beside a camera.toml (layout rig)"
        )
    dataset.load(names[0]).require_right("matching")
    require_text_name(config.output)
    with locked(config.output, "proxies"):
        _Making(config, dataset, progress).run(names)


class _Making:
    """What the steps of one command share. note: what the folder holds. shares: of each frame's pixels those that have
    proxies."""

    def __init__(self, config: ProxiesConfig, dataset: FileDataset, progress: Progress) -> None:
        self.config, self.dataset, self.progress = config, dataset, progress
        self.folder = config.output
        self.range = 16 * math.ceil(config.max_disparity / 16)
        self.shares: dict[str, float] = {}
        self.matchers = local()
        self.note = self._claimed({"max_disparity": self.range, "uniqueness": UNIQUENESS, "agree": AGREE})

    def run(self, names: list[str]) -> None:
        workers = self.config.workers or os.cpu_count() or 1
        with self.progress.task("matching", len(names)) as task, ThreadPoolExecutor(workers) as pool:
            for name, (share, digests) in _in_order(pool, self._made, names, 2 * workers):
                self.shares[name] = share
                self.note["maps"][name] = digests
                task.advance()
                if len(self.shares) % NOTED_EVERY == 0:
                    self._write()
        self._write()
        few = [name for name, share in self.shares.items() if share < FEW]
        if few:
            self.progress.say(f"{len(few):,} frames hardly match, below {FEW:.0%} of their pixels, such as {few[0]}")
        mean = sum(self.shares.values()) / len(names)
        self.progress.say(f"{len(names):,} maps, {mean:.1%} of their pixels are sure: --data.proxies {self.folder}")

    def _claimed(self, settings: dict[str, Any]) -> ProxiesNote:
        """What the folder holds. InputError where that is of other settings, or no proxies at all."""
        if not (self.folder / NOTE).is_file():
            if strangers := [entry.name for entry in self.folder.iterdir() if entry.name != LOCK_FILE]:
                raise InputError(f"{self.folder} holds {strangers[0]!r} and no {NOTE}: name an empty folder")
            note: ProxiesNote = {"format": FORMAT, "settings": settings, "maps": {}}
            write_json(self.folder / NOTE, note)
            return note
        note = read_note(self.folder)
        if note["settings"] != settings:
            raise InputError(
                f"{self.folder} holds proxies of other settings, {note['settings']} and not {settings}: name another "
                "folder, or remove it"
            )
        return note

    def _made(self, name: str) -> tuple[float, list[str]]:
        """Of the frame's pixels the share that has proxies, and the digests of its views and its map, which is written
        where it is not there whole."""
        sample = self.dataset.load_stored(name)
        path, views = self.folder / f"{name}.png", views_digest(sample)
        known = self.note["maps"].get(name)
        if known is not None and known[0] != views:
            raise InputError(
                f"{self.folder} holds proxies of other images under the name {name}: name another folder, or remove it"
            )
        if known is None or not path.is_file() or map_digest(path) != known[1]:
            if not hasattr(self.matchers, "own"):  # OpenCV's keeps buffers: one for each thread
                self.matchers.own = SemiGlobalMatching(self.range, UNIQUENESS)
            pair = sample.floats()
            write_png16(path, sure_disparity(self.matchers.own, pair.left, pair.require_right("matching")))
        return float((read_png16(path) > 0).mean()), [views, map_digest(path)]

    def _write(self) -> None:
        """proxies.json, unless hardly anything matches."""
        mean = sum(self.shares.values()) / len(self.shares)
        if mean < HARDLY:
            raise InputError(
                f"{self.dataset.root}: only {mean:.1%} of the pixels match, in good pairs 70 % and more do: are left "
                "and right exchanged, not rectified, or one camera black? "
                f"`adu-depth doctor {self.dataset.root}` looks"
            )
        write_json(self.folder / NOTE, self.note)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[str], Made], names: list[str], ahead: int
) -> Iterator[tuple[str, Made]]:
    """Each name with what the work gives for it, in order; `ahead` of them are begun, so that one that fails ends it
    soon."""
    waiting = deque((name, pool.submit(work, name)) for name in names[:ahead])
    following = iter(names[ahead:])
    while waiting:
        name, future = waiting.popleft()
        yield name, future.result()
        if (following_name := next(following, None)) is not None:
            waiting.append((following_name, pool.submit(work, following_name)))
