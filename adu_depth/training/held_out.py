"""The samples that a validation measures on: opened, thinned out, and read ahead by processes of their own.

Of a pair of PNG files of 375×1242 with its depth, reading takes 29 ms of a core (measured), comparing 5.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from adu_depth.data import built_in_scenes
from adu_depth.data.dataset import Dataset, FileDataset
from adu_depth.data.layouts import folder_options, refuse_folder_options
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.evaluation.command import layout_of, open_with_full_truth
from adu_depth.evaluation.temperature import Part
from adu_depth.training.batches import InMemory
from adu_depth.training.validation_config import SCENES, ValidationConfig
from adu_depth.training.workers import delivered, read_or_told

AHEAD = 2  # samples that each process keeps ready: whole frames, some 10 MB each


def open_held_out(config: ValidationConfig, size: tuple[int, int]) -> tuple[Dataset, str]:
    """The samples to validate on, and their layout. size: of built-in scenes, which stay in memory."""
    if config.root == "synthetic":
        refuse_folder_options(config, "validation.", "validation.root")
        scenes = built_in_scenes(config.scenery, config.samples or SCENES, *size, config.scene_seed)
        return InMemory(scenes), "synthetic"
    try:
        samples = open_with_full_truth(config.root, **folder_options(config))
        if config.proxies:
            samples.use_proxies(config.proxies)
        layout = layout_of(config.root, config.layout, samples)
    except InputError as error:
        raise InputError(f"validation.root: {error}") from error
    if len(samples) == 0:
        raise InputError(f"validation.root: {config.root} has no samples")
    return samples, layout


def some_of(samples: Dataset, most: int) -> Dataset:
    """At most so many of a data set's samples, evenly spread; 0: all."""
    if not 0 < most < len(samples):
        return samples
    return Part(samples, [index * len(samples) // most for index in range(most)])


def read_ahead(samples: Dataset, indices: Sequence[int], workers: int) -> Generator[StereoSample, None, None]:
    """These samples in this order, as `samples` has them, read by `workers` processes; by this one for what is in
    memory. They are started for this reading, and end with it, or when it is closed."""
    workers = 0 if isinstance(samples, InMemory) else min(workers, len(indices))
    loader = DataLoader(
        _Stored(samples),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # its seed, which nobody uses, is not drawn from the training's numbers
    )
    with closing(delivered(loader)) as stream:
        for found in stream:
            if isinstance(found, InputError):
                raise found
            yield found.floats()


class _Stored(TorchDataset["StereoSample | InputError"]):
    """Samples with views of 8 bits where they are kept so: a quarter to hand over."""

    def __init__(self, samples: Dataset) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> StereoSample | InputError:
        return read_or_told(partial(self._read, index), index)

    def _read(self, index: int) -> StereoSample:
        samples = self.samples
        if isinstance(samples, Part):
            index, samples = samples.indices[index], samples.samples
        return samples.stored(index) if isinstance(samples, FileDataset) else samples[index]


def _as_it_is(found: Any) -> Any:
    return found
