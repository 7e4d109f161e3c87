"""Which samples make up a step, and their way to the device.

Everything random is a function of (seed, step, place in the batch), so step k has the same batch in a run that was
never stopped and in one resumed at k.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from adu_depth.data import SyntheticStereo
from adu_depth.data.augmentation import draw_generator
from adu_depth.data.dataset import Dataset, FileDataset
from adu_depth.data.mixed import Mixed, parts_of
from adu_depth.data.packed import PackedStereo
from adu_depth.data.sample import StereoSample, collate
from adu_depth.data.transforms import draw_scaled_size, draw_window, resize_sample
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.models.prediction import TeacherTargets
from adu_depth.progress import Progress
from adu_depth.training.config import DataConfig, LoopConfig
from adu_depth.training.kept_targets import KeptTargets
from adu_depth.training.order import sample_indices
from adu_depth.training.workers import delivered, read_or_told
from adu_depth.trees import tensors_of, with_tensors

FILLED_AT_ONCE = 16  # samples in memory that a data set is asked for together
CROP_DRAWS = 2048  # kept apart from the draws of processes, which count from 0


class TeacherOutputs(Protocol):
    """Teacher outputs computed beforehand: those of sample `index`, the whole frame, batch dimension 1."""

    def __getitem__(self, index: int, /) -> TeacherTargets | KeptTargets: ...


@dataclass(frozen=True)
class TrainingBatch:
    """One step's samples, batched, and what the teacher says of them where that was computed beforehand."""

    sample: StereoSample
    teacher: TeacherTargets | KeptTargets | None = None

    def to(self, device: torch.device) -> TrainingBatch:
        """On the device; views that are levels so far become floats there, of a quarter of the bytes."""
        teacher = None if self.teacher is None else self.teacher.map(lambda t: t.to(device, non_blocking=True))
        return TrainingBatch(self.sample.to(device, non_blocking=True).floats(), teacher)

    def pin_memory(self) -> TrainingBatch:
        """Called by the DataLoader, so that copies to a GPU overlap with its work."""
        teacher = None if self.teacher is None else self.teacher.map(Tensor.pin_memory)
        camera = self.sample.camera.map(Tensor.pin_memory)
        return TrainingBatch(replace(self.sample.map(Tensor.pin_memory), camera=camera), teacher)


class InMemory:
    """A data set that computes each sample once and keeps it."""

    def __init__(self, samples: Dataset) -> None:
        self.samples = samples
        self._kept: dict[int, StereoSample] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> StereoSample:
        if index not in self._kept:
            self._kept[index] = self.samples[index]
        return self._kept[index]

    def fill(self, progress: Progress, what: str) -> None:
        """Computes all that is missing, some at once where the data set can: processes that are forked from this one
        later then share it."""
        at_once = getattr(self.samples, "__getitems__", None)
        with progress.task(what, len(self)) as task:
            for first in range(0, len(self), FILLED_AT_ONCE):
                indices = range(first, min(first + FILLED_AT_ONCE, len(self)))
                missing = [index for index in indices if index not in self._kept]
                if missing and at_once is not None:
                    self._kept.update(zip(missing, at_once(missing), strict=True))
                for index in indices:
                    self[index]
                    task.advance()


def is_built_in(samples: Dataset) -> bool:
    """Whether these are the built-in scenes, kept or not."""
    return isinstance(samples.samples if isinstance(samples, InMemory) else samples, SyntheticStereo)


@dataclass(frozen=True)
class _Key:
    """Asks the view for one sample of one step."""

    step: int
    slot: int
    index: int


Item = tuple[StereoSample, "TeacherTargets | KeptTargets | None"]


class _TrainingView(TorchDataset["Item | InputError"]):
    """Samples with their teacher outputs, resized and cropped by a factor and a window that depend on (seed, step,
    slot)."""

    def __init__(self, samples: Dataset, teacher: TeacherOutputs | None, data: DataConfig, seed: int) -> None:
        self.samples, self.teacher, self.seed = samples, teacher, seed
        self.crop, self.scale = data.size, data.crop_scale if data.rescales else None

    def __getitem__(self, key: _Key) -> Item | InputError:
        return read_or_told(partial(self._load, key), key.index)

    def _load(self, key: _Key) -> Item:
        sample, teacher = self._window(key)
        return (self.samples.alike(key.index, sample) if isinstance(self.samples, Mixed) else sample), teacher

    def _window(self, key: _Key) -> Item:
        teacher = None if self.teacher is None else self.teacher[key.index]
        samples, index = self.samples, key.index
        if isinstance(samples, Mixed):
            number, index = samples.place(index)
            samples = samples.sources[number].samples
        whole: Callable[[], StereoSample]
        cut: Callable[[int, int, int, int], StereoSample]
        if isinstance(samples, PackedStereo):  # reads the window's rows alone
            size, whole = samples.image_size(index), partial(samples.stored, index)
            cut = partial(samples.stored_window, index)
        else:
            sample = samples.stored(index) if isinstance(samples, FileDataset) else samples[index]
            size, whole, cut = (sample.left.shape[-2], sample.left.shape[-1]), lambda: sample, sample.crop
        if teacher is not None and teacher.size != tuple(size):
            cached = "×".join(map(str, teacher.size))
            raise InputError(f"teacher outputs of sample {key.index} are for {cached} pixels, got a sample of "
                             f"{size[0]}×{size[1]}: name another teacher_cache, or remove this one")  # fmt: skip
        generator = draw_generator(self.seed, key.step, rank=CROP_DRAWS + key.slot)
        if self.scale is not None and not (size == self.crop and is_built_in(samples)):  # rendered as they are wanted
            scaled = draw_scaled_size(size, self.crop, self.scale, generator)
            if scaled != size:  # the whole frame: no part of it, resized alone, has the same pixels
                size, cut = scaled, resize_sample(whole().floats(), *scaled).crop
        if size == self.crop:
            return cut(0, 0, *size), teacher
        # Features can be cut exactly only on their own grid.
        top, left = draw_window(size, self.crop, generator, align=1 if teacher is None else 32)
        return cut(top, left, *self.crop), None if teacher is None else teacher.crop(top, left, *self.crop)


class _StepKeys:
    """The keys of every batch from one step to another."""

    def __init__(self, samples: Dataset, steps: range, batch_size: int, seed: int, group: ProcessGroup) -> None:
        self.samples, self.steps, self.batch_size, self.seed, self.group = samples, steps, batch_size, seed, group

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[_Key]]:
        first_slot = self.group.rank * self.batch_size
        for step in self.steps:
            indices = sample_indices(self.samples, step, self.batch_size, self.seed, self.group)
            yield [_Key(step, first_slot + slot, index) for slot, index in enumerate(indices)]


def _collate(found: list[Item | InputError]) -> TrainingBatch | InputError:
    items = []
    for item in found:
        if isinstance(item, InputError):
            return item
        items.append(item)
    try:
        sample = collate([s for s, _ in items])
    except InputError as error:
        return error
    teachers = [t for _, t in items if t is not None]
    if not teachers:
        return TrainingBatch(sample)
    joined = [torch.cat(parts) for parts in zip(*map(tensors_of, teachers), strict=True)]
    return TrainingBatch(sample, with_tensors(teachers[0], joined))


def batches(
    samples: Dataset,
    data: DataConfig,
    loop: LoopConfig,
    start: int,
    group: ProcessGroup,
    device: torch.device,
    teacher: TeacherOutputs | None = None,
    needs_focal: str = "",
) -> Generator[TrainingBatch, None, None]:
    """The batches of steps start … loop.steps − 1, on `device`. Closing them ends the processes that read them.

    needs_focal: who needs every sample's focal length (see `models.focal.needs_focal`), for an InputError that names
    the first without.
    """
    if teacher is not None:
        data.require_own_scale("teacher outputs computed beforehand")
    steps = range(start, loop.steps)
    if isinstance(samples, SyntheticStereo) and samples.length is None:
        return _endless(samples, steps, loop.pairs_per_step, group, device)
    kept = all(isinstance(part, InMemory) for part in parts_of(samples))  # each worker would fill a memory of its own
    workers = 0 if kept else loop.workers
    loader = DataLoader(
        _TrainingView(samples, teacher, data, loop.seed),
        batch_sampler=_StepKeys(samples, steps, loop.pairs_per_step, loop.seed, group),
        collate_fn=_collate,
        num_workers=workers,
        prefetch_factor=loop.prefetch if workers else None,
        pin_memory=device.type == "cuda",
    )
    return _arriving(loader, device, needs_focal)


def _arriving(
    loader: DataLoader[Item | InputError], device: torch.device, needs_focal: str
) -> Generator[TrainingBatch, None, None]:
    batch: TrainingBatch | InputError
    with closing(delivered(loader)) as stream:
        for batch in stream:
            if isinstance(batch, InputError):
                raise batch
            if needs_focal:
                batch.sample.require_focal(needs_focal)
            yield batch.to(device)


def _endless(
    scenes: SyntheticStereo, steps: range, batch_size: int, group: ProcessGroup, device: torch.device
) -> Generator[TrainingBatch, None, None]:
    """Scenes that no step and no process sees twice, rendered where the data set renders."""
    for step in steps:
        first = (step * group.world_size + group.rank) * batch_size
        yield TrainingBatch(scenes.render_batch(list(range(first, first + batch_size)))).to(device)
