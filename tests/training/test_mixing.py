"""Several data sets in one training: exact shares, the same samples whenever it goes on, each source looked at."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.checkpoint import config_dict
from adu_depth.cli import parse
from adu_depth.data import SyntheticStereo
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.mixed import Mixed, Source
from adu_depth.distillation import TeacherLossConfig
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.files import remove_folder
from adu_depth.inference import write_samples
from adu_depth.progress import Progress
from adu_depth.schema import check
from adu_depth.tensor_files import read_tensors
from adu_depth.training.batches import batches
from adu_depth.training.config import StudentTrainingConfig
from adu_depth.training.order import sample_indices, step_indices
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.sources import open_samples
from adu_depth.training.validation_config import ValidationConfig
from tests.data.pack_files import pack
from tests.training.tiny import LOOP, SIZE, count_permutations, tiny_student, tiny_teacher

CPU = torch.device("cpu")
ONE = ProcessGroup()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Files larger than the window with LiDAR depth, a pack of such, and files of views alone."""
    for number, name in enumerate(("rig", "to-pack", "views")):
        write_samples(SyntheticStereo(4, 48, 96, seed=number), tmp_path / name, 4)
    for role in ("depth", "disparity", "sparse_depth", "occluded"):
        (tmp_path / "views" / role).rename(tmp_path / role)
    pack(tmp_path / "to-pack", tmp_path / "pack")
    return tmp_path


def three(place: Path, **changes: object) -> DataConfig:
    """Half from files, 0.3 from a pack, 0.2 from built-in scenes."""
    mix = (SourceConfig(str(place / "pack"), 0.3), SourceConfig("synthetic", 0.2, pairs=3, scene_seed=7))
    return DataConfig(**{"root": str(place / "rig"), "mix": mix, "size": SIZE, "fit": "crop", **changes})  # type: ignore[arg-type]


def lengths_only(*sources: tuple[int, int]) -> Mixed:
    return Mixed([Source(str(n), range(length), share) for n, (length, share) in enumerate(sources)])  # type: ignore[arg-type]


def test_shares_are_exact_in_every_round_and_each_source_goes_through_its_own_epochs() -> None:
    mixed = lengths_only((7, 500), (20, 300), (3, 200))  # rounds of 5 : 3 : 2
    order = [i for step in range(35) for i in sample_indices(mixed, step, 4, seed=3, group=ONE)]
    sources = [mixed.place(index)[0] for index in order]
    rounds = [sources[at : at + 10] for at in range(0, 140, 10)]
    assert all(Counter(turn) == {0: 5, 1: 3, 2: 2} for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 5, "drawn anew for each round"
    for number, length in enumerate((7, 20, 3)):
        own = [mixed.place(index)[1] for index in order if mixed.place(index)[0] == number]
        epochs = [own[at : at + length] for at in range(0, len(own) - length + 1, length)]
        assert len(epochs) >= 2
        assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    halves = [sample_indices(mixed, step, 2, 3, ProcessGroup(rank, 2)) for step in range(35) for rank in range(2)]
    assert [i for half in halves for i in half] == order
    assert order != [i for step in range(35) for i in sample_indices(mixed, step, 4, seed=4, group=ONE)]


def test_sources_of_one_length_have_orders_of_their_own() -> None:
    mixed = lengths_only((50, 500), (50, 500))
    order = [mixed.place(i) for step in range(25) for i in sample_indices(mixed, step, 4, seed=3, group=ONE)]
    first, second = ([place for number, place in order if number == source] for source in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert sum(one == other for one, other in zip(first, second, strict=True)) < 10


def test_a_data_set_alone_has_the_order_it_always_had() -> None:
    alone = [sample_indices(range(9), step, 4, 1, ONE) for step in range(6)]  # type: ignore[arg-type]
    assert alone == [step_indices(9, step, 4, 1, ONE) for step in range(6)]


def test_an_epochs_order_is_drawn_once_for_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = count_permutations(monkeypatch)
    mixed = lengths_only((1001, 500), (2003, 500))
    for step in range(50):
        sample_indices(mixed, step, 8, seed=5551, group=ONE)
    assert sorted(length for length in drawn if length > 2) == [1001, 2003]


def test_the_command_line_the_help_and_config_json_hold_the_mixture(capsys: pytest.CaptureFixture[str]) -> None:
    first, others = "--data.root a --data.mix b 0.3", "--data.mix c:d 0.2 split=x=y.txt kb-crop=true pairs=4"
    config = parse(["distill", *first.split(), *others.split()])
    assert isinstance(config, StudentTrainingConfig)
    second = SourceConfig("c:d", 0.2, split="x=y.txt", kb_crop=True, pairs=4)
    assert config.data.mix == (SourceConfig("b", 0.3), second)
    assert SourceConfig.from_words(second.words()) == second
    assert check(DataConfig, json.loads(json.dumps(config_dict(config.data))), "config.json") == config.data
    with pytest.raises(SystemExit):
        parse(["distill", "--help"])
    shown = capsys.readouterr().out
    assert "--data.mix ROOT SHARE [NAME=VALUE" in shown
    assert "(repeatable)" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("b", "expected ROOT SHARE"),
        ("b x", "share: expected a number, got 'x'"),
        ("b 1.5", "share: expected a number from 0.001 to 0.999, got 1.5"),
        ("b 0.3 color=red", r"expected layout=…, split=….*, got 'color=red'"),
        ("b 0.3 kb_crop=yes", "kb_crop: expected true or false, got 'yes'"),
        ("b 0.3 pairs=-1", "pairs: expected a whole number from 0"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused_by_name(words: str, message: str) -> None:
    with pytest.raises(InputError, match=f"data.mix.*{message}"):
        SourceConfig.from_words(words.split())


def test_shares_must_leave_some_for_the_first() -> None:
    with pytest.raises(InputError, match=r"data\.mix: expected shares below 1 .* got 0\.6 \+ 0\.4 = 1"):
        DataConfig(mix=(SourceConfig("b", 0.6), SourceConfig("c", 0.4)))


@pytest.mark.parametrize("workers", [0, 2])
def test_files_a_pack_and_scenes_come_in_one_stream_the_same_from_the_middle(
    workers: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, loop = three(place), replace(LOOP, steps=5, batch_size=4, workers=workers)
    samples = open_samples(data, CPU, Progress())
    assert "3 data sets are mixed: data.root " in capsys.readouterr().out
    whole, rest = (list(batches(samples, data, loop, start, ONE, CPU)) for start in (0, 3))
    names = [name for batch in whole for name in batch.sample.name]
    assert sum(name.startswith("synthetic-7-") for name in names) == 4, "a fifth of two rounds"
    assert len(names) == 20
    for one, other in zip(whole[3:], rest, strict=True):
        assert one.sample.name == other.sample.name
        assert torch.equal(one.sample.left, other.sample.left)
        assert torch.equal(one.sample.training_target(), other.sample.training_target())
        assert torch.equal(one.sample.camera.cx, other.sample.camera.cx)  # type: ignore[arg-type]


def test_what_a_sample_is_trained_on_does_not_hang_on_its_neighbours() -> None:
    scene = SyntheticStereo(1, *SIZE, seed=0)[0]
    lidar, dense = replace(scene, name="lidar"), replace(scene, sparse_depth=None, name="dense")
    mixed = Mixed([Source("a", [lidar], 500), Source("b", [dense], 500)])
    (batch,) = batches(mixed, DataConfig(size=SIZE), replace(LOOP, steps=1), 0, ONE, CPU)
    assert sorted(batch.sample.name) == ["dense", "lidar"]
    for name, target in zip(batch.sample.name, batch.sample.training_target(), strict=True):
        assert torch.equal(target, {"lidar": lidar, "dense": dense}[name].training_target())
    assert batch.sample.occluded is None


def test_endless_scenes_cannot_be_mixed(place: Path) -> None:
    endless = (SourceConfig("synthetic", 0.2),)
    with pytest.raises(InputError, match=r"data\.mix synthetic: built-in scenes that are mixed must be finite"):
        open_samples(three(place, mix=endless), CPU)
    with pytest.raises(InputError, match=r"data\.root synthetic: built-in scenes that are mixed must be finite"):
        open_samples(three(place, root="synthetic"), CPU)
    with pytest.raises(InputError, match=r"data\.mix synthetic: split is for a data set's folder"):
        open_samples(three(place, mix=(SourceConfig("synthetic", 0.2, pairs=2, split="x"),)), CPU)


def everything(checkpoint: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoint / "model.safetensors") | read_tensors(checkpoint / "training.safetensors")


def test_a_taught_run_that_goes_on_elsewhere_ends_in_the_same_bits(place: Path) -> None:
    """Its folders moved, its teacher's outputs from the cache."""
    train_teacher(tiny_teacher(place / "teacher", loop=replace(LOOP, steps=1)))
    four = replace(LOOP, steps=4, keep_checkpoints=9)
    settings = {"teacher": place / "teacher", "teacher_cache": place / "cache", "loop": four}
    data = three(place)
    run = tiny_student(place / "run", data=data, **settings)
    train_student(run)
    last = place / "run" / "checkpoints" / "step-00000004"
    whole = everything(last)
    remove_folder(last)
    again = replace(run, loop=replace(four, resume=True))
    first, scenes = data.mix
    more = replace(data, mix=(replace(first, share=0.4), scenes))
    with pytest.raises(InputError, match=r"these differ: data\.mix\.0\.share: 0\.3 → 0\.4"):
        train_student(replace(again, data=more))
    for name in ("rig", "pack"):
        (place / name).rename(place / f"moved {name}")
    moved = replace(first, root=str(place / "moved pack"))
    data = replace(data, root=str(place / "moved rig"), mix=(moved, scenes))
    train_student(replace(again, data=data))
    bits = everything(last)
    assert whole.keys() == bits.keys()
    assert [name for name in whole if not torch.equal(whole[name], bits[name])] == []
    others = replace(data, mix=(moved, replace(scenes, scene_seed=8)))
    with pytest.raises(InputError, match=r"teacher cache .* belongs to another run \(it differs in mix\)"):
        train_student(replace(run, run=place / "new", data=others))


def test_each_source_must_have_something_to_learn_from(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = three(place, mix=(SourceConfig(str(place / "views"), 0.5),))
    once = replace(LOOP, steps=1)
    reason = f"data.mix {place / 'views'}: none of the 4 frames has ground truth"
    with pytest.raises(InputError, match=f"nothing to learn from: {reason}; with --teacher"):
        train_student(tiny_student(place / "run", data=data, loop=once))
    blind = replace(TeacherLossConfig(), photometric=0)
    with pytest.raises(InputError, match=f"nothing to learn from: {reason}"):
        train_teacher(tiny_teacher(place / "run", data=data, loop=once, loss=blind))
    assert not (place / "run").exists()
    train_teacher(tiny_teacher(place / "teacher", data=data, loop=once))
    assert f"{reason}: the pair alone teaches there (loss.photometric)" in capsys.readouterr().out
    train_student(tiny_student(place / "run", data=data, loop=once, teacher=place / "teacher"))
    assert f"{reason}: the teacher alone labels them" in capsys.readouterr().out


def test_a_training_is_not_validated_on_scenes_that_are_mixed_in(place: Path) -> None:
    validation = ValidationConfig(every=2, root="synthetic", scene_seed=7)
    with pytest.raises(InputError, match=r"validation\.scene_seed: 7 is that of the training's scenes"):
        tiny_student(place / "run", data=three(place), validation=validation)
    assert tiny_student(place / "run", data=three(place), validation=replace(validation, scene_seed=8))
