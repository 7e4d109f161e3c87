"""`scenery` reaches what it is asked for: trainings, mixtures, validations, evaluations, caches; and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adu_depth.adaptation.config import AdaptConfig
from adu_depth.cli import main
from adu_depth.data import StereoSample, SyntheticStereo, built_in_scenes
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.errors import InputError
from adu_depth.evaluation.command import EvaluateConfig
from adu_depth.inference import write_samples
from adu_depth.models import StereoTeacher
from adu_depth.quickstart import QuickstartConfig, teacher_training, training_scenes
from adu_depth.saved_network.card import _data
from adu_depth.training.held_out import open_held_out
from adu_depth.training.sources import open_samples
from adu_depth.training.teacher_outputs import cache_identity
from adu_depth.training.validation_config import ValidationConfig
from tests.training.tiny import TEACHER, tiny_teacher

SIZE = (32, 64)
CPU = torch.device("cpu")
VARIED = built_in_scenes("varied", 3, *SIZE, seed=1)


def same(one: StereoSample, other: StereoSample) -> bool:
    return torch.equal(one.left, other.left) and one.camera.fx == other.camera.fx


def test_usual_scenes_are_those_of_the_data_set_s_defaults_and_varied_ones_are_not() -> None:
    plain = SyntheticStereo(3, *SIZE, seed=1)
    for index in range(3):
        assert same(built_in_scenes("usual", 3, *SIZE, seed=1)[index], plain[index])
        assert VARIED[index].camera.baseline != plain[index].camera.baseline


@pytest.mark.parametrize("pairs", [0, 3])
def test_a_training_has_the_kind_that_it_asks_for(pairs: int) -> None:
    data = DataConfig(size=SIZE, pairs=pairs, scene_seed=1, scenery="varied")
    assert same(open_samples(data, CPU)[2], VARIED[2])
    assert not same(open_samples(replace(data, scenery="usual"), CPU)[2], VARIED[2])


def test_what_is_mixed_in_has_a_kind_of_its_own(tmp_path: Path) -> None:
    write_samples(SyntheticStereo(2, *SIZE), tmp_path / "pairs", 2)
    source = SourceConfig.from_words(["synthetic", "0.5", "pairs=3", "scene_seed=1", "scenery=varied"])
    assert source.words()[-1] == "scenery=varied"
    mixed = open_samples(DataConfig(root=str(tmp_path / "pairs"), size=SIZE, mix=(source,)), CPU)
    assert same(mixed.sources[1].samples[2], VARIED[2])  # type: ignore[attr-defined]


def test_a_validation_and_what_it_is_compared_with(tmp_path: Path) -> None:
    settings = ValidationConfig(every=1, samples=3, scene_seed=1, scenery="varied")
    assert same(open_held_out(settings, SIZE)[0][2], VARIED[2])


def test_a_quickstart_trains_validates_and_measures_on_one_kind() -> None:
    config = QuickstartConfig(size=SIZE, pairs=3, scenery="varied", validate=True)
    training = teacher_training(config, 0, Path("run"))
    assert (training.data.scenery, training.validation.scenery) == ("varied", "varied")
    assert same(training_scenes(config)[2], VARIED[2])


def test_an_adaptation_mixes_in_varied_scenes_but_where_others_are_asked_for() -> None:
    config = AdaptConfig(Path("run"), data=DataConfig(root="pairs", fit="crop", size=(192, 448)))
    for kind in ("varied", "usual"):
        training = replace(config, scenery=kind).training(TEACHER, Path("train.txt"), Path("val.txt"))  # type: ignore[arg-type]
        assert training.data.mix[-1].scenery == kind


def test_evaluate_and_render_hear_it(tmp_path: Path) -> None:
    from adu_depth.training.runs import train_teacher

    training = tiny_teacher(tmp_path / "run")
    train_teacher(training)
    found: dict[str, Any] = {}
    for kind in ("usual", "varied"):
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", str(tmp_path / "run"), "--pairs", "2", "--scenery", kind, "--device", "cpu",
                  "--output", str(tmp_path / kind)])  # fmt: skip
        assert ended.value.code == 0
        found[kind] = json.loads((tmp_path / kind / "metrics.json").read_text())
        assert found[kind]["scenery"] == kind
    means = [next(iter(one["methods"]["teacher"].values()))["means"]["abs_rel"] for one in found.values()]
    assert means[0] != means[1]
    with pytest.raises(SystemExit) as ended:
        main(["render", "--output", str(tmp_path / "scenes"), "--count", "2", "--size", "32", "64", "--seed", "1",
              "--scenery", "varied"])  # fmt: skip
    assert ended.value.code == 0
    assert f"baseline = {VARIED[1].camera.baseline}" in (tmp_path / "scenes" / "camera.toml").read_text()


def test_caches_of_usual_scenes_and_of_folders_are_those_of_before() -> None:
    network = StereoTeacher(TEACHER)
    mixed = SourceConfig("synthetic", 0.1, pairs=3)
    for data in (DataConfig(), DataConfig(root="kitti", mix=(mixed,))):
        assert "scenery" not in json.dumps(cache_identity(network, data, 5, {}))
    varied = DataConfig(scenery="varied")
    assert cache_identity(network, varied, 5, {}) != cache_identity(network, DataConfig(), 5, {})
    other = DataConfig(root="kitti", mix=(replace(mixed, scenery="varied"),))
    assert cache_identity(network, other, 5, {})["mix"][0]["scenery"] == "varied"


def test_a_model_card_tells_the_kind() -> None:
    assert _data({"root": "synthetic", "pairs": 3, "scenery": "varied"}) == "varied built-in scenes, 3, seed 0"
    assert _data({"root": "synthetic", "pairs": 3}) == "built-in scenes, 3, seed 0"


REFUSED: list[tuple[Any, str]] = [
    (lambda: DataConfig(scenery="foo"), "data.scenery: expected one of usual, varied, got 'foo'"),
    (
        lambda: DataConfig(root="kitti", scenery="varied"),
        "data.scenery varied is for the built-in scenes, and data.root",
    ),
    (
        lambda: SourceConfig.from_words(["synthetic", "0.2", "scenery=foo"]),
        "data.mix synthetic: scenery: expected one of usual, varied",
    ),
    (lambda: SourceConfig("kitti", 0.2, scenery="varied"), "data.mix kitti: scenery varied is for the built-in scenes"),
    (
        lambda: ValidationConfig(1, root="kitti", scenery="varied"),
        "validation.scenery varied is for the built-in scenes",
    ),
    (lambda: EvaluateConfig(Path("run"), data="kitti", scenery="varied"), "scenery varied is for the built-in scenes"),
    (lambda: EvaluateConfig(Path("run"), data="kitti", pairs=8), "pairs 8 is for the built-in scenes, and data kitti"),
    (lambda: built_in_scenes("foo", 3, *SIZE), "scenery: expected one of usual, varied, got 'foo'"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_a_kind_that_is_not_there_or_not_asked_for_scenes_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make()
