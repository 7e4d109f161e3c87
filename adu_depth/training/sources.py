"""The data a run reads: opened as its configuration says, and known again by what it holds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch

from adu_depth.data import built_in_scenes, open_dataset
from adu_depth.data.config import BUILT_IN, DataConfig, SourceConfig
from adu_depth.data.dataset import Dataset, FileDataset
from adu_depth.data.identity import frames_digest
from adu_depth.data.layouts import folder_options, recognised, refuse_folder_options
from adu_depth.data.mixed import Mixed, Source
from adu_depth.data.transforms import CentreCut, Resized, require_fit
from adu_depth.errors import InputError
from adu_depth.progress import Progress
from adu_depth.training.batches import InMemory, is_built_in


def open_samples(data: DataConfig, device: torch.device, progress: Progress | None = None) -> Dataset:
    """The data set a configuration names, or the mixture of several; samples at the size and fit it asks for."""
    progress = progress or Progress(enabled=False)
    if not data.mix:
        return _opened(data, data, device, "data.root", progress)
    named = named_sources(data)
    opened = [_opened(source, data, device, name, progress) for name, source in named]
    if data.rescales and all(map(is_built_in, opened)):
        low, high = data.crop_scale
        raise InputError(
            f"data.crop_scale {low:g} {high:g}: the built-in scenes are rendered at data.size and not resized, and no "
            "folder is among the data sets; leave data.crop_scale out"
        )
    rest = 1000 - sum(source.thousandths for source in data.mix)
    shares = [rest, *(source.thousandths for source in data.mix)]
    labels = [True, *(source.labels for source in data.mix)]
    names = [name for name, _ in named]
    mixed = Mixed([Source(*part) for part in zip(names, opened, shares, labels, strict=True)])
    told = [
        f"{part.name} {part.share / 10:g} % ({len(part.samples):,} frames{'' if part.labels else ', unlabelled'})"
        for part in mixed.sources
    ]
    progress.say(f"{len(told)} data sets are mixed: {', '.join(told)}")
    return mixed


def named_sources(data: DataConfig) -> list[tuple[str, DataConfig | SourceConfig]]:
    """What is mixed, data.root first: its name for messages, and its settings. InputError for built-in scenes without
    end among it."""
    named: list[tuple[str, DataConfig | SourceConfig]] = [(f"data.root {data.root}", data)]
    named += [(f"data.mix {source.root}", source) for source in data.mix]
    for name, source in named:
        if source.root == BUILT_IN and not source.pairs:
            raise InputError(f"{name}: built-in scenes that are mixed must be finite: say how many (pairs)")
    return named


def _opened(
    source: DataConfig | SourceConfig, data: DataConfig, device: torch.device, name: str, progress: Progress
) -> Dataset:
    """One data set. data: how large the samples of all are. name: of the setting, for messages."""
    if source.root == BUILT_IN:
        if data.fit == "centre" or (data.fit == "crop" and not data.mix):
            raise InputError(f"data.fit {data.fit}: the built-in scenes are rendered at data.size, there is nothing to "
                             "cut; leave data.fit out")  # fmt: skip
        if source.proxies:
            told = f"proxies {source.proxies} are for a data set's folder, and these are the built-in scenes"
            raise InputError(f"{name}: {told}")
        refuse_folder_options(source, "data." if source is data else f"{name}: ", name)
        height, width = data.size
        if not source.pairs:
            return built_in_scenes(source.scenery, None, height, width, source.scene_seed, device)
        scenes = InMemory(built_in_scenes(source.scenery, source.pairs, height, width, source.scene_seed))
        if data.mix:
            scenes.fill(progress, "built-in scenes")
        return scenes
    samples = open_folder(source)
    for note in samples.notes:
        progress.say(note)
    if data.fit == "centre":
        middles = CentreCut(samples, data.size, data.short_side)
        for note in middles.notes():
            progress.say(note)
        return middles
    if data.fit == "crop":
        require_fit(samples, data.size, data.crop_scale[1])
    return Resized(samples, data.size) if data.fit == "resize" else samples


def open_folder(source: DataConfig | SourceConfig) -> FileDataset:
    """The data set of files that these settings name, as it is stored, with its proxies."""
    options = folder_options(source)
    unlabelled = isinstance(source, SourceConfig) and not source.labels
    if unlabelled and source.layout == "auto" and Path(source.root).is_dir() and not recognised(Path(source.root)):
        options["layout"] = "pictures"
    samples = open_dataset(source.root, **options, truth=not unlabelled)
    if source.proxies:
        samples.use_proxies(source.proxies)
    return samples


def seen_frames(samples: Dataset, truth: bool = True) -> dict[str, str]:
    """What a resumed run must have again: the same frames in the same order, wherever they and a split file lie now."""
    if isinstance(samples, Mixed):
        parts = [seen_frames(source.samples, truth) for source in samples.sources]
        if not any(parts):
            return {}
        keys = ("frames", "frames_content")
        return {key: " + ".join(part.get(key, "built-in scenes") for part in parts) for key in keys}
    named = samples.samples if isinstance(samples, Resized) else samples
    if not isinstance(named, FileDataset):
        return {}
    digest = hashlib.sha256(os.fsencode("\n".join(named.names))).hexdigest()
    return {
        "frames": f"{len(named)} (sha256 of their names {digest[:16]})",
        "frames_content": frames_digest(named, truth)[:16],
    }
