"""What is asked before anything long begins: can these pairs, this truth, this teacher and these weights be used."""

from __future__ import annotations

import statistics
from itertools import islice
from pathlib import Path

from adu_depth.adaptation.command import open_pairs
from adu_depth.checkpoint import kind_of, list_checkpoints
from adu_depth.data.config import BUILT_IN, DataConfig
from adu_depth.data.dataset import FileDataset
from adu_depth.data.identity import shared_frames, spread
from adu_depth.data.splits import divide_nearly
from adu_depth.data.transforms import require_fit
from adu_depth.errors import InputError
from adu_depth.evaluation.command import open_with_full_truth
from adu_depth.models import build_student, load_encoder
from adu_depth.progress import Progress
from adu_depth.real_quickstart.config import RealQuickstartConfig
from adu_depth.training.sources import named_sources, open_folder

FRAMES_ASKED = 64
"""Of a large set, frames whose cameras are asked for the focal length."""


def require_usable(config: RealQuickstartConfig, progress: Progress) -> tuple[FileDataset, str]:
    """The pairs and their layout. InputError for what a later part would refuse: of the pairs, of what is mixed in, of
    the truth, of the teacher and of the encoder's weights."""
    if config.teacher is not None and kind_of(config.teacher) != "teacher":
        raise InputError(f"teacher {config.teacher}: expected a stereo teacher, got a network for single images")
    if config.encoder_weights and not list_checkpoints(config.output / "student"):  # which has them, or their heirs
        load_encoder(build_student(config.plan.model), config.encoder_weights)  # type: ignore[type-var]
    pairs, layout = open_pairs(config.data, progress)
    pairs[0].require_right("a stereo teacher")
    if all(map(pairs.teaches, pairs.names)):
        raise InputError(
            f"{pairs.root}: every one of its {len(pairs):,} frames has ground truth: `adu-depth train-teacher` and "
            "`adu-depth distill` learn from that; this way is for pairs that have none"
        )
    _, held_out = divide_nearly(pairs, pairs.names, config.held_out, 0)
    if all(map(pairs.teaches, held_out)):
        raise InputError(
            f"held_out {config.held_out:g}: all {len(held_out)} held-out pairs of {pairs.root} have ground truth, such "
            f"as {held_out[0]}, and the best teacher is chosen where the classical matcher is sure, in pairs without: "
            "expected another share, or a data.split that leaves those out"
        )
    mixed = _open_mixed(config.data)
    if config.truth is not None:
        truth = open_truth(config.truth)
        for trained_on in (pairs, *mixed):
            _require_apart(truth, trained_on, progress)
    return pairs, layout


def _open_mixed(data: DataConfig) -> list[FileDataset]:
    """The folders of data.mix. InputError for one that cannot be opened or learned from, or scenes without end."""
    opened = []
    for _, source in named_sources(data)[1:]:
        if source.root != BUILT_IN:
            samples = open_folder(source)
            if data.fit == "crop":
                require_fit(samples, data.size, data.crop_scale[1])
            samples[0].require_right("a stereo teacher")
            opened.append(samples)
    return opened


def open_truth(folder: Path) -> FileDataset:
    """The pairs with ground truth. InputError where they have none, or are single images."""
    dataset = open_with_full_truth(str(folder))
    if not dataset.measurable():
        raise InputError(
            f"truth {folder}: expected pairs with ground truth, found none in its {len(dataset)} frames: leave truth "
            "out, the report then compares with the classical matcher"
        )
    dataset[0].require_right("a stereo teacher")
    return dataset


def _require_apart(truth: FileDataset, pairs: FileDataset, progress: Progress) -> None:
    """InputError where an image that is trained on has ground truth that is measured on, by whatever name: a file, or a
    copy of it."""
    shared = shared_frames(truth, pairs, lambda names: progress.track(names, f"comparing {pairs.root} with the truth"))
    if shared:
        raise InputError(
            f"truth {truth.root}: {len(shared)} of its {len(truth)} frames are among the pairs that are trained on, "
            f"such as {shared[0]}: expected others"
        )


def focal_at(pairs: FileDataset, width: int) -> float:
    """The pairs' median fx, pixels, once their images are brought to `width`."""
    found = []
    for index in islice(spread(len(pairs)), FRAMES_ASKED):
        pair = pairs[index]
        found.append(float(pair.camera.fx) * width / pair.left.shape[-1])
    return round(statistics.median(found), 2)
