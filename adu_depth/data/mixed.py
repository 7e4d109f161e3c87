"""Several data sets as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch

from adu_depth.data.dataset import Dataset
from adu_depth.data.sample import StereoSample


@dataclass(frozen=True)
class Source:
    """One of the data sets that are mixed. name: the setting it comes from, and its root. share: thousandths of the
    samples of a training. labels: whether its ground truth is looked at."""

    name: str
    samples: Dataset
    share: int
    labels: bool = True


class Mixed:
    """First the samples of the first source, then those of the next; all with the same maps."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self.starts = [0, *accumulate(len(source.samples) for source in sources)]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> StereoSample:
        number, place = self.place(index)
        return self.alike(index, self.sources[number].samples[place])

    def alike(self, index: int, sample: StereoSample) -> StereoSample:
        """What the sample of this index, or a window of it, is in a batch with the others."""
        source = self.sources[self.place(index)[0]]
        return same_maps(sample if source.labels else without_truth(sample))

    def place(self, index: int) -> tuple[int, int]:
        """The source that a sample is from, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} mixed samples")
        number = bisect_right(self.starts, index) - 1
        return number, index - self.starts[number]


def same_maps(sample: StereoSample) -> StereoSample:
    """With the maps that every sample can have, and the same depth to supervise with.

    A batch keeps only what all of its samples have: what one is trained on must not hang on its neighbours.
    """
    return replace(sample, sparse_depth=sample.training_target(dense=False), occluded=None)


def without_truth(sample: StereoSample) -> StereoSample:
    """The same views, with nothing known of their depth."""
    return replace(
        sample,
        depth=torch.zeros_like(sample.depth),
        disparity=torch.zeros_like(sample.disparity),
        valid=torch.zeros_like(sample.valid),
        sparse_depth=None,
        occluded=None,
    )


def parts_of(samples: Dataset) -> list[Dataset]:
    """The data sets that `samples` is made of; itself where it is one."""
    return [source.samples for source in samples.sources] if isinstance(samples, Mixed) else [samples]
