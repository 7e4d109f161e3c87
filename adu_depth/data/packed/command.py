"""The work of `adu-depth pack`: shards written one by one, so that a stopped packing goes on where it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from adu_depth.arguments import Positional
from adu_depth.data.dataset import FileDataset
from adu_depth.data.identity import frames_digest
from adu_depth.data.layouts import find_layout, folder_options, open_dataset
from adu_depth.data.packed.encoding import Description, encode_sample
from adu_depth.data.packed.forms import MOST_PER_SHARD
from adu_depth.data.packed.shards import (
    FORMAT,
    MANIFEST,
    PACKING,
    Entry,
    checksum,
    file_size,
    read_entry,
    read_manifest,
    read_note,
    reopen,
    require_sizes,
    shard_file,
    source_state,
    write_shard,
)
from adu_depth.data.sample import StereoSample
from adu_depth.data.transforms import resize_sample
from adu_depth.errors import InputError
from adu_depth.files import require_text_name, write_json
from adu_depth.folder_lock import LOCK_FILE, locked
from adu_depth.schema import require_kinds

Say = Callable[[str], None]
PLACES = ("root", "split", "ground_truth")
"""Settings that say where frames lie: with the same frames elsewhere a pack is the same."""


@dataclass(frozen=True)
class PackConfig:
    """Copy a data set into a few large checksummed files that training reads by memory map, without decoding.

    The pack opens like the data set it was made from (`--data.root DIR`, `--data DIR`) and gives the same samples, bit
    for bit; of windows (`--data.fit crop`) it reads their rows alone. A packing that was stopped goes on when the same
    command is given again. `--verify DIR` compares a pack with its checksums.
    """

    root: Positional[Path | None] = None
    """The data set's folder."""
    output: Path = Path("runs/packed")
    """Folder for the pack; one that holds a pack of other settings is refused."""
    verify: Path | None = None
    """Compare this pack with its checksums, and do nothing else."""
    layout: str = "auto"
    """The folder's layout; "auto" recognises it."""
    split: Path | None = None
    """A file that names the samples to pack, one a line."""
    ground_truth: Path | None = None
    """Folder of the ground truth where it is not in ROOT (KITTI raw)."""
    kb_crop: bool = False
    """Cut every frame to KITTI's 352×1216 benchmark window first."""
    skip_missing: bool = False
    """Pass over, and count, frames whose files are not all there, instead of refusing them."""
    size: tuple[int, int] | None = None
    """Height and width to bring every frame to; without it frames keep their own sizes."""
    fit: Literal["resize", "crop"] = "resize"
    """How: resized whole (views are then rounded to 8 bits), or the window at the bottom, in the middle (exact)."""
    pairs_per_shard: int = 64
    """Pairs in one file; with KITTI's frames some 200 MB."""
    workers: int = 0
    """Threads that read and decode; 0: as many as there are cores."""

    def __post_init__(self) -> None:
        require_kinds(self)
        if self.size is not None and min(self.size) < 1:
            raise InputError(f"size must be two positive numbers (height, width), got {self.size}")
        if self.size is None and self.fit == "crop":
            raise InputError("fit crop needs the window's --size HEIGHT WIDTH")
        if not 1 <= self.pairs_per_shard <= MOST_PER_SHARD:
            raise InputError(
                f"pairs_per_shard must be at least 1, at most {MOST_PER_SHARD:,}, got {self.pairs_per_shard}"
            )
        if self.workers < 0:
            raise InputError(f"workers must be 0 (every core) or more, got {self.workers}")


def run_pack(config: PackConfig, say: Say) -> None:
    """Packs, or verifies. Raises InputError: see `pack` and `verify`."""
    if (config.root is None) == (config.verify is None):
        raise InputError("pack: name a data set's folder to pack, or a pack to look through with --verify; one of them")
    if config.verify is not None:
        verify(config.verify, say)
    else:
        pack(config, say)


def pack(config: PackConfig, say: Say) -> None:
    """Writes what is missing of the pack that `config` describes, then its manifest.

    Shards that are there with the size noted for them stay, as long as the files they were made from are the same by
    size and time of change. Raises InputError where the output holds anything else, or another process packs into it.
    """
    dataset, layout = _open(config)
    for note in dataset.notes:
        say(note)
    settings = describe(config, dataset, layout)
    require_text_name(config.output)
    with locked(config.output, "pack"):
        _claim(config.output, settings)
        entries: list[Entry] = []
        shards = range(0, len(dataset), config.pairs_per_shard)
        workers = config.workers or os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:  # decoding lets other threads run
            for number, first in enumerate(shards):
                indices = range(first, min(first + config.pairs_per_shard, len(dataset)))
                sources = source_state(file for i in indices for file in dataset.files(dataset.names[i]).values())
                entry = _finished(config.output, number, sources)
                if entry is None:
                    reopen(config.output)
                    encoded = list(pool.map(lambda i: _encoded(dataset, i, config), indices))
                    names = [dataset.names[i] for i in indices]
                    labelled = [dataset.teaches(name) for name in names]
                    entry = write_shard(config.output, number, encoded, names, labelled, sources)
                    say(f"{entry['file']}: {len(entry['names'])} pairs, {entry['bytes'] / 1e6:.1f} MB")
                entries.append(entry)
        write_json(config.output / MANIFEST, {"format": FORMAT, "settings": settings, "shards": entries})
        _tidy(config.output, len(entries))
    total = sum(entry["bytes"] for entry in entries)
    say(f"{len(dataset)} pairs in {len(entries)} shards, {total / 1e6:.1f} MB: {config.output}")


def verify(folder: Path, say: Say) -> None:
    """Reads every shard of a pack and compares its checksum. Raises InputError naming all that differ."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected a pack")
    entries: list[Entry] = read_manifest(folder)["shards"]
    require_sizes(folder, entries)
    damaged = [entry["file"] for entry in entries if checksum(folder / entry["file"]) != entry["sha256"]]
    if damaged:
        raise InputError(
            f"{folder}: {len(damaged)} of {len(entries)} shards are not what was written: {', '.join(damaged)}; "
            "remove them and run the same `adu-depth pack` again to write them anew"
        )
    say(f"{folder}: {len(entries)} shards, {sum(len(e['names']) for e in entries)} pairs, all as they were written")


def describe(config: PackConfig, dataset: FileDataset, layout: str) -> dict[str, Any]:
    """What a pack's content depends on, as JSON values: two packs of the same settings hold the same samples."""
    names = hashlib.sha256(os.fsencode("\n".join(dataset.names))).hexdigest()
    asked = {name: value for name, value in asdict(config).items() if name not in ("output", "verify", "workers")}
    return {
        **{name: str(value) if isinstance(value, Path) else value for name, value in asked.items()},
        "root": str(dataset.root.resolve()),
        "layout": layout,
        "fit": None if config.size is None else config.fit,
        "size": None if config.size is None else list(config.size),
        "pairs": len(dataset),
        "names": names,
        "frames": frames_digest(dataset),
    }


def fit_sample(sample: StereoSample, config: PackConfig) -> StereoSample:
    """The sample at the size the configuration asks for. InputError where the window is larger than the frame."""
    if config.size is None:
        return sample
    if config.fit == "resize":
        sample = resize_sample(sample, *config.size)
        right = None if sample.right is None else _rounded(sample.right)
        return replace(sample, left=_rounded(sample.left), right=right)
    (height, width), (high, wide) = sample.left.shape[-2:], config.size
    if height < high or width < wide:
        raise InputError(f"{sample.name}: a window of {high}×{wide} does not fit its {height}×{width} pixels")
    return sample.crop(height - high, (width - wide) // 2, high, wide)


def _rounded(view: Tensor) -> Tensor:
    return (view * 255).round().div(255)


def _open(config: PackConfig) -> tuple[FileDataset, str]:
    assert config.root is not None
    dataset = open_dataset(config.root, **folder_options(config))
    return dataset, find_layout(config.root, config.layout).name


def _encoded(dataset: FileDataset, index: int, config: PackConfig) -> tuple[dict[str, Tensor], Description]:
    return encode_sample(fit_sample(dataset[index], config))


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Marks the folder as this pack's; InputError where it is another's, or holds something else."""
    note = next((output / name for name in (MANIFEST, PACKING) if (output / name).is_file()), None)
    if note is not None:
        found = read_note(note).get("settings", {})
        # In the same place changed frames are packed anew, shard by shard; in another one they must be the same.
        free = {"frames", *(PLACES if settings["frames"] == found.get("frames") else ())}
        differing = sorted(k for k in (settings.keys() | found.keys()) - free if settings.get(k) != found.get(k))
        if differing:
            changes = "; ".join(f"{k}: {found.get(k)} → {settings.get(k)}" for k in differing)
            raise InputError(f"{output} holds a pack of other settings ({changes}): name another folder, or remove it")
    elif any(entry.name != LOCK_FILE for entry in output.iterdir()):
        raise InputError(f"{output} is not empty and holds no pack: name another folder")
    else:
        write_json(output / PACKING, {"format": FORMAT, "settings": settings})


def _finished(output: Path, number: int, sources: str) -> Entry | None:
    """What is noted of a shard that is there and made from these sources, None where it must be written."""
    path = output / shard_file(number)
    if (output / MANIFEST).is_file():
        entries = read_manifest(output)["shards"]
        if number >= len(entries):
            return None
        entry = entries[number]
    elif path.with_suffix(".json").is_file():
        entry = read_entry(path.with_suffix(".json"))
    else:
        return None
    return entry if file_size(path) == entry["bytes"] and entry.get("sources") == sources else None


def _tidy(output: Path, shards: int) -> None:
    """The notes of a finished packing have done their part."""
    for name in (PACKING, *(f"{Path(shard_file(number)).stem}.json" for number in range(shards))):
        (output / name).unlink(missing_ok=True)
