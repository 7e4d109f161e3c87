"""Pictures that nobody labelled beside a labelled set: any folder of them, or a set whose labels are left aside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.checkpoint import list_checkpoints
from adu_depth.cli import parse
from adu_depth.data import SyntheticStereo, open_dataset
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.pictures import Pictures
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.inference import write_samples
from adu_depth.models import StudentConfig
from adu_depth.training.batches import batches
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.sources import open_samples
from tests.data.trees import save_image
from tests.training.tiny import DATA, LOOP, SIZE, tiny_student, tiny_teacher

CPU = torch.device("cpu")
TWO = replace(LOOP, steps=2, batch_size=4, log_every=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with all their maps, and a folder of pictures in folders."""
    place = tmp_path_factory.mktemp("unlabelled")
    write_samples(SyntheticStereo(4, *SIZE, seed=0), place / "pairs", 4)
    for number, scene in enumerate(SyntheticStereo(3, *SIZE, seed=1)):
        save_image(place / "photos" / str(number % 2) / f"{number}.jpg", scene.left)
    return place


def half_of(place: Path, name: str, **settings: object) -> DataConfig:
    source = SourceConfig(str(place / name), 0.5, labels=False, **settings)  # type: ignore[arg-type]
    return DataConfig(root=str(place / "pairs"), mix=(source,), size=SIZE)


@pytest.mark.parametrize("name", ["pairs", "photos"])
def test_half_of_every_batch_has_no_truth(place: Path, name: str) -> None:
    data = half_of(place, name)
    samples = open_samples(data, CPU)
    names = set()
    for batch in batches(samples, data, TWO, 0, ProcessGroup(), CPU):
        labelled = (batch.sample.training_target() > 0).flatten(1).any(1)
        assert int(labelled.sum()) == 2, "shares are exact in each round of two"
        assert torch.equal(labelled, (batch.sample.training_target(dense=True) > 0).flatten(1).any(1))
        assert not bool(batch.sample.disparity[~labelled].any())
        names |= {n for n, known in zip(batch.sample.name, labelled, strict=True) if not known}
    assert names <= set(open_dataset(place / name, "auto" if name == "pairs" else "pictures").names)
    sample = samples[len(samples) - 1]
    assert not bool(sample.valid.any())


def test_any_folder_of_images(place: Path, tmp_path: Path) -> None:
    dataset = open_dataset(place / "photos", "pictures")
    assert isinstance(dataset, Pictures)
    assert dataset.names == ["0/0.jpg", "0/2.jpg", "1/1.jpg"]
    assert dataset.load("1/1.jpg").right is None
    with pytest.raises(InputError, match="no known layout"):
        open_dataset(place / "photos")
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="no images, in it and in its folders"):
        open_samples(replace(half_of(place, "photos"), mix=(SourceConfig(str(tmp_path), 0.5, labels=False),)), CPU)


def test_a_teacher_of_other_preparation_is_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataConfig(root=str(place / "pairs"), size=(32, 32), fit="centre", short_side=32)
    config = tiny_student(tmp_path / "one", loop=replace(LOOP, steps=1))
    train_student(replace(config, data=data))
    train_student(replace(config, data=data, teacher=config.run, run=tmp_path / "alike"))
    told = (
        f"{config.run} was trained on images at short side 32, and labels images at {SIZE[0]}×{SIZE[1]}: what a network"
    )
    assert told not in capsys.readouterr().out.replace("\n", " ")
    train_student(replace(config, data=replace(DATA, root=data.root), teacher=config.run, run=tmp_path / "two"))
    assert told in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("network", ["adu", "light"])
def test_both_students_learn_there_from_their_teacher(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: str
) -> None:
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=replace(LOOP, steps=1)))
    model = tiny_student(tmp_path).model if network == "adu" else StudentConfig(network="light")
    config = tiny_student(tmp_path / "run", model=model, teacher=tmp_path / "teacher", loop=TWO)
    rows = train_student(replace(config, data=half_of(place, "pairs")))
    light = {"truth": 0.1, "teacher": 0.9, "unlabelled": 1}
    weights = light if network == "light" else {"silog": 1, "uncertainty": 1, "response": 10, "features": 1}
    for row in rows:
        assert all(row[name] for name in weights)
        assert row["total"] == pytest.approx(sum(weight * row[name] for name, weight in weights.items()), rel=1e-4)
    said = capsys.readouterr().out
    assert f"data.mix {place / 'pairs'} 50 % (4 frames, unlabelled)" in said
    assert "4 frames without labels (labels=false): the teacher alone labels them" in said
    with pytest.raises(InputError, match=r"photos: a stereo teacher needs pairs, but this data set has no right"):
        train_student(replace(config, run=tmp_path / "other", data=half_of(place, "photos")))
    with pytest.raises(InputError, match=r"4 frames without labels \(labels=false\).*with --teacher"):
        train_student(replace(config, run=tmp_path / "alone", teacher=None, data=half_of(place, "pairs")))


def test_a_mixture_from_before_goes_on(place: Path, tmp_path: Path) -> None:
    mix = (SourceConfig(str(place / "pairs"), 0.5),)
    config = tiny_student(tmp_path / "run", data=DataConfig(root=str(place / "pairs"), mix=mix, size=SIZE))
    train_student(replace(config, loop=replace(LOOP, steps=4)))
    expected = (list_checkpoints(config.run)[-1] / "model.safetensors").read_bytes()
    for file in [config.run / "config.json", *config.run.glob("checkpoints/*/config.json")]:
        told = json.loads(file.read_text())
        del told["data"]["mix"][0]["labels"]
        file.write_text(json.dumps(told))
    again = replace(config, loop=replace(LOOP, steps=4, resume=True, resume_from="2"))
    train_student(again)
    assert (list_checkpoints(config.run)[-1] / "model.safetensors").read_bytes() == expected


def test_on_the_command_line() -> None:
    config = parse(["distill", "--data.mix", "photos", "0.5", "labels=false", "split=some.txt"])
    assert config.data.mix == (SourceConfig("photos", 0.5, split="some.txt", labels=False),)
    assert SourceConfig.from_words(config.data.mix[0].words()) == config.data.mix[0]
    with pytest.raises(InputError, match="labels: expected true or false"):
        SourceConfig.from_words(["photos", "0.5", "labels=none"])
