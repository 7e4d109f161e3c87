"""The work of `adu-depth proxies`: a map for each frame, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
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
from adu_depth.data.identity import frames_digest
from adu_depth.data.image_files import read_png16, write_png16
from adu_depth.data.proxies import FORMAT, MOST_DISPARITY, NOTE, UNFINISHED, ProxiesNote, proxy_file
from adu_depth.errors import InputError
from adu_depth.evaluation.baselines import SemiGlobalMatching
from adu_depth.files import checksum, require_text_name, write_json
from adu_depth.folder_lock import LOCK_FILE, locked
from adu_depth.progress import Progress
from adu_depth.proxies.matching import AGREE, UNIQUENESS, sure_disparity
from adu_depth.schema import Range, check_ranges, read_json

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
    """Writes the maps of all frames without ground truth that have none yet, then proxies.json.

    Raises InputError where the output holds anything else, another process writes into it, no frame lacks ground truth,
    frames are no pairs, or hardly anything matches.
    """
    progress = Progress(console)
    dataset = open_dataset(
        config.root, config.layout, split=config.split, ground_truth=config.ground_truth,
        skip_missing=config.skip_missing,
    )  # fmt: skip
    for note in dataset.notes:
        progress.say(note)
    names = [name for name in dict.fromkeys(dataset.names) if not dataset.supervised(name)]
    if not names:
        raise InputError(
            f"{config.root}: every one of its {len(dataset):,} frames has ground truth, nothing to stand in for"
        )
    dataset.load(names[0]).require_right("matching")
    dataset.select(names)
    dataset.truth = False
    require_text_name(config.output)
    with locked(config.output, "proxies"):
        _Making(config, dataset, progress).run()


class _Making:
    """What the steps of one command share. shares: of each frame's pixels that have proxies."""

    def __init__(self, config: ProxiesConfig, dataset: FileDataset, progress: Progress) -> None:
        self.config, self.dataset, self.progress = config, dataset, progress
        self.folder = config.output
        self.range = 16 * math.ceil(config.max_disparity / 16)
        self.shares: dict[str, float] = {}
        self.settings: dict[str, Any] = {
            "max_disparity": self.range, "uniqueness": UNIQUENESS, "agree": AGREE,
            "frames": frames_digest(dataset, truth=False),
        }  # fmt: skip
        self.matchers = local()

    def run(self) -> None:
        self._claim()
        names = self.dataset.names
        workers = self.config.workers or os.cpu_count() or 1
        with self.progress.task("matching", len(names)) as task, ThreadPoolExecutor(workers) as pool:
            for name, share in _in_order(pool, self._share, names, 2 * workers):
                self.shares[name] = share
                task.advance()
        self._require_matches()
        note: ProxiesNote = {
            "format": FORMAT, "settings": self.settings, "frames": len(names), "digest": self._digest(),
        }  # fmt: skip
        write_json(self.folder / NOTE, note)
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        few = [name for name, share in self.shares.items() if share < FEW]
        if few:
            self.progress.say(f"{len(few):,} frames hardly match, below {FEW:.0%} of their pixels, such as {few[0]}")
        mean = sum(self.shares.values()) / len(names)
        self.progress.say(f"{len(names):,} maps, {mean:.1%} of their pixels are sure: --data.proxies {self.folder}")

    def _claim(self) -> None:
        """Marks the folder as of these frames and settings; InputError where it is of others, or holds other things."""
        note = next((self.folder / name for name in (NOTE, UNFINISHED) if (self.folder / name).is_file()), None)
        if note is None:
            if strangers := [entry.name for entry in self.folder.iterdir() if entry.name != LOCK_FILE]:
                raise InputError(f"{self.folder} holds {strangers[0]!r} and no proxies: name an empty folder")
        else:
            found = read_json(note, dict[str, Any]).get("settings", {})
            differing = sorted(
                key for key in self.settings.keys() | found.keys() if self.settings.get(key) != found.get(key)
            )
            if differing:
                changes = "; ".join(f"{key}: {found.get(key)} → {self.settings.get(key)}" for key in differing)
                raise InputError(
                    f"{self.folder} holds proxies of other frames or settings ({changes}): name another folder, or "
                    "remove it"
                )
        write_json(self.folder / UNFINISHED, {"settings": self.settings})
        (self.folder / NOTE).unlink(missing_ok=True)

    def _share(self, name: str) -> float:
        """Of the frame's pixels those with proxies; their map is written where it is not there."""
        path = proxy_file(self.folder, name)
        if not path.is_file():
            sample = self.dataset.load(name)
            if not hasattr(self.matchers, "own"):  # OpenCV's keeps buffers: one for each thread
                self.matchers.own = SemiGlobalMatching(self.range, UNIQUENESS)
            right = sample.require_right("matching")
            write_png16(path, sure_disparity(self.matchers.own, sample.left, right))
        return float((read_png16(path) > 0).mean())

    def _require_matches(self) -> None:
        mean = sum(self.shares.values()) / len(self.shares)
        if mean < HARDLY:
            raise InputError(
                f"{self.dataset.root}: only {mean:.1%} of the pixels match, in good pairs 70 % and more do: are left "
                "and right exchanged, not rectified, or one camera black? "
                f"`adu-depth doctor {self.dataset.root}` looks; then remove {self.folder}"
            )

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name in self.dataset.names:
            digest.update(f"{name}\0{checksum(proxy_file(self.folder, name))}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[str], float], names: list[str], ahead: int
) -> Iterator[tuple[str, float]]:
    """Each name with what the work gives for it, in order; `ahead` of them are begun, so that one that fails ends it
    soon."""
    waiting = deque((name, pool.submit(work, name)) for name in names[:ahead])
    following = iter(names[ahead:])
    while waiting:
        name, future = waiting.popleft()
        yield name, future.result()
        if (following_name := next(following, None)) is not None:
            waiting.append((following_name, pool.submit(work, following_name)))
