"""Which samples a step has: a function of seed and step, every sample once an epoch, no sample twice over processes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import adu_depth.training.batches
from adu_depth.data import StereoSample, SyntheticStereo, collate
from adu_depth.data.augmentation import AugmentationConfig, draw_flips, draw_generator, flip_where
from adu_depth.data.transforms import draw_window, resize_sample
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.geometry import disparity_to_depth
from adu_depth.models.prediction import TeacherTargets
from adu_depth.progress import Progress
from adu_depth.training.batches import InMemory, TrainingBatch, batches
from adu_depth.training.order import step_indices
from adu_depth.training.sources import open_samples
from tests.data.augmented import colour_jitter
from tests.training.tiny import DATA, LOOP, SIZE, count_permutations, tiny_scenes

CPU = torch.device("cpu")


def test_an_epoch_is_a_permutation_and_processes_share_it() -> None:
    order = [i for step in range(3) for i in step_indices(12, step, 4, seed=3, group=ProcessGroup())]
    assert sorted(order) == list(range(12))
    assert order != list(range(12))
    halves = [step_indices(12, step, 2, 3, ProcessGroup(rank, 2)) for step in range(3) for rank in range(2)]
    assert [i for half in halves for i in half] == order
    second = [i for step in range(3, 6) for i in step_indices(12, step, 4, 3, ProcessGroup())]
    assert sorted(second) == list(range(12))
    assert second != order


def test_an_epochs_order_is_drawn_once_not_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A permutation of a million samples takes 5 ms."""
    drawn = count_permutations(monkeypatch)
    for step in range(10):  # 80 samples: two epochs and the start of a third; the fifth step has samples of two
        step_indices(37, step, 8, seed=9182, group=ProcessGroup())
    assert drawn == [37] * 3


def names(stream: list[TrainingBatch]) -> list[list[str]]:
    return [list(batch.sample.name) for batch in stream]


def test_a_stream_from_the_middle_is_the_rest_of_the_whole() -> None:
    crop = replace(DATA, size=(32, 32))
    whole = list(batches(tiny_scenes(), crop, LOOP, 0, ProcessGroup(), CPU))
    rest = list(batches(tiny_scenes(), crop, LOOP, 4, ProcessGroup(), CPU))
    assert len(whole) == LOOP.steps
    assert names(whole)[4:] == names(rest)
    for one, other in zip(whole[4:], rest, strict=True):
        assert torch.equal(one.sample.left, other.sample.left)
        assert torch.equal(one.sample.camera.cx, other.sample.camera.cx)  # type: ignore[arg-type]


def test_workers_give_the_same_batches() -> None:
    scenes = SyntheticStereo(5, *SIZE, seed=0)
    here = list(batches(scenes, DATA, replace(LOOP, workers=0), 0, ProcessGroup(), CPU))
    there = list(batches(scenes, DATA, replace(LOOP, workers=2), 0, ProcessGroup(), CPU))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.sample.left, other.sample.left)


@pytest.mark.parametrize(("device", "workers", "prefetch"), [("cpu", 0, 2), ("cpu", 1, 5), ("cuda", 2, 4)])
def test_settings_reach_the_loader(device: str, workers: int, prefetch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned memory is for copies to a GPU; in memory there is nothing for workers to do."""
    seen: dict[str, object] = {}

    class Loader(torch.utils.data.DataLoader):  # type: ignore[type-arg]
        def __init__(self, *arguments: object, **settings: object) -> None:
            seen.update(settings)
            super().__init__(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(adu_depth.training.batches, "DataLoader", Loader)
    loop = replace(LOOP, workers=workers, prefetch=prefetch)
    batches(SyntheticStereo(5, *SIZE, seed=0), DATA, loop, 0, ProcessGroup(), torch.device(device))
    assert seen["num_workers"] == workers
    assert seen["prefetch_factor"] == (prefetch if workers else None)
    assert seen["pin_memory"] == (device == "cuda")
    batches(tiny_scenes(), DATA, loop, 0, ProcessGroup(), torch.device(device))
    assert (seen["num_workers"], seen["prefetch_factor"]) == (0, None)


def test_a_batch_is_pinned_whole_and_moved_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []
    moved: list[bool] = []
    to = torch.Tensor.to

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.data_ptr())
        return tensor

    def watched(tensor: torch.Tensor, *arguments: object, **settings: object) -> torch.Tensor:
        moved.append(bool(settings.get("non_blocking")))
        return to(tensor, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    sample = collate([tiny_scenes()[0]])
    features = (torch.ones(1, 2, 4, 8), torch.ones(1, 2, 2, 4))
    taught = TrainingBatch(sample, TeacherTargets(torch.ones(1, 1, 32, 64), features))
    batch = taught.pin_memory()
    tensors = [*sample._tensors().values(), *vars(sample.camera).values(), *features]
    assert taught.teacher is not None
    assert set(pinned) == {t.data_ptr() for t in [*tensors, taught.teacher.depth]}
    monkeypatch.setattr(torch.Tensor, "to", watched)
    batch.to(torch.device("cpu"))
    assert len(moved) == len(pinned)
    assert all(moved)


class Unreadable:
    """A data set whose sample 2 cannot be read."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> StereoSample:
        if index == 2:
            raise InputError("image 2.png is cut short")
        return tiny_scenes()[index]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_one_clear_message_from_a_worker_too(workers: int) -> None:
    with pytest.raises(InputError) as caught:
        list(batches(Unreadable(), DATA, replace(LOOP, workers=workers), 0, ProcessGroup(), CPU))
    assert str(caught.value) == "image 2.png is cut short"


def test_endless_scenes_never_repeat_over_steps_and_processes() -> None:
    scenes = SyntheticStereo(None, *SIZE, seed=0)
    loop = replace(LOOP, steps=2)
    seen = [
        n
        for rank in range(2)
        for b in names(list(batches(scenes, DATA, loop, 0, ProcessGroup(rank, 2), CPU)))
        for n in b
    ]
    assert len(set(seen)) == len(seen) == 8


def test_samples_in_memory_are_filled_some_at_once() -> None:
    samples, asked = SyntheticStereo(19, 32, 64, seed=0), []
    together = samples.__getitems__
    samples.__getitems__ = lambda indices: asked.append(list(indices)) or together(indices)  # type: ignore[method-assign]
    scenes = InMemory(samples)
    kept = scenes[2]
    asked.clear()
    scenes.fill(Progress(enabled=False), "scenes")
    assert asked == [[0, 1, *range(3, 16)], [16, 17, 18]]
    assert scenes[2] is kept
    for index in range(19):
        assert scenes[index].name == samples[index].name
        assert torch.equal(scenes[index].left, samples[index].left)


def test_samples_that_come_one_by_one_are_filled_so() -> None:
    pair = SyntheticStereo(1, 32, 64)[0]

    class Files:
        def __init__(self) -> None:
            self.read: list[int] = []

        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> StereoSample:
            self.read.append(index)
            return pair

    files = Files()
    InMemory(files).fill(Progress(enabled=False), "frames")
    assert files.read == list(range(10))


class Outputs:
    """Teacher outputs that tell where they were cut: every map holds its column number."""

    def __getitem__(self, index: int) -> TeacherTargets:
        def columns(stride: int) -> torch.Tensor:
            return torch.arange(0, 96, stride).float().expand(1, 1, 64 // stride, -1)

        return TeacherTargets(columns(1), (columns(8), columns(16), columns(32)))


def test_crops_cut_cached_teacher_outputs_on_the_feature_grid() -> None:
    scenes = InMemory(SyntheticStereo(4, 64, 96, seed=0))
    crop = replace(DATA, size=(32, 32))
    lefts = set()
    for batch in batches(scenes, crop, replace(LOOP, steps=8), 0, ProcessGroup(), CPU, Outputs()):
        assert batch.teacher is not None
        for i, name in enumerate(batch.sample.name):
            start = batch.teacher.depth[i, 0, 0, 0].item()
            lefts.add(start)
            index = [scenes[k].name for k in range(4)].index(name)
            assert float(batch.sample.camera.cx[i]) == pytest.approx(scenes[index].camera.cx - start)  # type: ignore[index]
            assert [f.shape[-2:] for f in batch.teacher.features] == [(4, 4), (2, 2), (1, 1)]
            assert all(f[i, 0, 0, 0].item() == start for f in batch.teacher.features)
    assert lefts == {0.0, 32.0, 64.0}


def test_resizing_keeps_depth_and_its_disparity_together() -> None:
    sample = SyntheticStereo(1, 64, 128, seed=0)[0]
    small = resize_sample(sample, 32, 96)
    assert small.left.shape == (3, 32, 96)
    assert small.camera.fx == pytest.approx(sample.camera.fx * 0.75)
    depth = disparity_to_depth(small.disparity, small.camera)
    assert torch.allclose(depth[small.valid], small.depth[small.valid], rtol=1e-4)
    assert set(small.depth[small.valid].tolist()) <= set(sample.depth[sample.valid].tolist()), "no invented depth"


def test_built_in_scenes_are_not_cut_and_say_so() -> None:
    with pytest.raises(InputError, match=r"data\.fit crop: the built-in scenes are rendered at data\.size"):
        open_samples(replace(DATA, fit="crop"), CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [("layout", "rig"), ("split", "a.txt"), ("ground_truth", "g"), ("kb_crop", True), ("skip_missing", True)],
)
def test_options_of_folders_are_refused_for_built_in_scenes(name: str, value: str | bool) -> None:
    with pytest.raises(InputError, match=rf"data\.{name} is for a data set's folder"):
        open_samples(replace(DATA, **{name: value}), CPU)


def test_a_crop_larger_than_the_image_names_both() -> None:
    with pytest.raises(InputError, match=r"crop of width 96 does not fit an image of width 64"):
        draw_window((32, 64), (32, 96), draw_generator(0, 0))


def test_augmentation_is_a_function_of_seed_step_and_rank() -> None:
    images = torch.rand(4, 3, 8, 8)
    config = AugmentationConfig(colour=1.0)
    first = colour_jitter(images, config, draw_generator(1, 2, 3))
    torch.rand(7)  # the global generator has no say
    assert torch.equal(first, colour_jitter(images, config, draw_generator(1, 2, 3)))
    assert not torch.equal(first, colour_jitter(images, config, draw_generator(1, 2, 4)))
    assert not torch.equal(first, colour_jitter(images, config, draw_generator(1, 3, 3)))
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(colour_jitter(images, AugmentationConfig(colour=0.0), draw_generator(0, 0)), images)


def test_flips_mirror_only_the_flagged_images() -> None:
    maps = torch.arange(8.0).reshape(2, 1, 1, 4)
    flipped = flip_where(maps, torch.tensor([True, False]))
    assert flipped[0, 0, 0].tolist() == [3, 2, 1, 0]
    assert flipped[1, 0, 0].tolist() == [4, 5, 6, 7]
    assert draw_flips(64, 0.0, draw_generator(0, 0)).sum() == 0
    assert draw_flips(64, 1.0, draw_generator(0, 0)).sum() == 64
