"""Validation while a network trains: the same numbers as `evaluate`, the best checkpoint, early stop, pictures."""

from __future__ import annotations

import json
import math
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from adu_depth.checkpoint import best_checkpoint, checkpoint_of, list_checkpoints, load_model, read_standing
from adu_depth.data import SyntheticStereo
from adu_depth.errors import InputError
from adu_depth.evaluation import evaluate
from adu_depth.inference import Predictor
from adu_depth.inference.render import write_samples
from adu_depth.progress import Progress
from adu_depth.training.config import StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.held_out import open_held_out, read_ahead, some_of
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.validation import KEPT, Validation, write_pictures
from adu_depth.training.validation_config import ValidationConfig
from adu_depth.trees import tensors_of
from tests.training.test_resume import Stopping, assert_same_bits
from tests.training.tiny import DATA, LOOP, SIZE, STUDENT, tiny_student, tiny_teacher

VALIDATION = ValidationConfig(every=2, samples=3, pictures=1)
KEPT_ALL = replace(LOOP, keep_checkpoints=9)


def names(run: Path) -> list[str]:
    return [path.name for path in list_checkpoints(run)]


def rows(run: Path, metric: str = "abs_rel") -> dict[int, float]:
    """The validation's course as history.jsonl has it."""
    found = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return {row["step"]: row[f"validation/{metric}"] for row in found if f"validation/{metric}" in row}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: found.append(text))
    return found


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], None]:
    """Validations give these values of abs_rel by step."""

    def plan(values: dict[int, float]) -> None:
        before = Validation.record
        monkeypatch.setattr(
            Validation, "record", lambda self, step, means: before(self, step, {**means, "abs_rel": values[step]})
        )

    return plan


def test_a_validation_has_the_numbers_of_an_evaluation_and_training_does_not_notice(tmp_path: Path) -> None:
    """Of a network with running statistics and of its averages: what a checkpoint gives to inference."""
    config = {"loop": replace(KEPT_ALL, ema=0.9), "model": replace(tiny_teacher(tmp_path).model, norm="batch")}
    train_teacher(tiny_teacher(tmp_path / "plain", **config))
    run = tmp_path / "validated"
    train_teacher(tiny_teacher(run, **config, validation=VALIDATION))
    assert_same_bits(tmp_path / "plain", run)
    scenes = SyntheticStereo(3, *SIZE, seed=VALIDATION.scene_seed)
    for step in (2, 6):
        predictor = Predictor.from_checkpoint(run / "checkpoints" / f"step-{step:08d}", "cpu")
        means = evaluate(predictor, scenes, batch_size=VALIDATION.batch_size).means()
        for metric in ("abs_rel", "a1", "epe"):
            assert rows(run, metric)[step] == means[metric]
    assert list(rows(run)) == [2, 4, 6]


def test_the_best_checkpoint_stays_and_is_what_the_run_stands_for(
    tmp_path: Path, planned: Callable[[dict[int, float]], None]
) -> None:
    planned({2: 0.5, 3: 0.2, 4: 0.6, 6: 0.4})
    run = tmp_path / "run"
    loop = replace(LOOP, keep_checkpoints=1, checkpoint_every=4)
    train_student(tiny_student(run, loop=loop, validation=replace(VALIDATION, every=3)))
    assert names(run) == ["step-00000003", "step-00000006"], "kept though neither newest nor a checkpoint_every's"
    assert best_checkpoint(run) == run / "checkpoints" / "step-00000003"
    for named in (run, run / "checkpoints" / "best"):
        assert load_model(named).path == run / "checkpoints" / "step-00000003"
    assert load_model(run / "checkpoints" / "step-00000006").path.name == "step-00000006"
    train_student(tiny_student(tmp_path / "plain", loop=loop))
    assert checkpoint_of(tmp_path / "plain").name == "step-00000006", "without a validation the newest"
    with pytest.raises(InputError, match="nothing was validated in this run"):
        load_model(tmp_path / "plain" / "checkpoints" / "best")
    shutil.rmtree(run / "checkpoints" / "step-00000003")
    with pytest.raises(InputError, match=r"step-00000003, the best checkpoint of .*, is not there any more"):
        load_model(run)


def test_each_checkpoint_keeps_the_best_that_it_knows(
    tmp_path: Path, planned: Callable[[dict[int, float]], None]
) -> None:
    """The newest one may yet prove bad: a run that goes on from the one before must find that one's best."""
    planned({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.05, 5: 0.4, 6: 0.5})
    run = tmp_path / "run"
    stop = replace(LOOP, keep_checkpoints=2, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        train_student(tiny_student(run, loop=stop, validation=replace(VALIDATION, every=1)), samples=Stopping(reads=9))
    assert names(run) == [f"step-{n:08d}" for n in (1, 2, 3, 4)]
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    assert checkpoint_of(run).name == "step-00000001"


@pytest.mark.parametrize(("metric", "best"), [("abs_rel", 4), ("a1", 2), ("rmse", 4)])
def test_the_direction_of_a_metric_is_known(metric: str, best: int, tmp_path: Path) -> None:
    config = tiny_student(tmp_path, validation=replace(VALIDATION, metric=metric))
    validation = Validation(config.validation, config.data, "student", accelerator(), 2)
    for step, value in ((2, 0.9), (4, 0.1), (6, 0.5)):
        validation.record(step, {metric: value})
    assert validation.standing["best_step"] == best


def accelerator() -> Any:
    class One:
        device, process_index, num_processes = torch.device("cpu"), 0, 1

    return One()


def test_a_run_that_no_longer_improves_ends_properly_and_goes_on_with_more_patience(
    tmp_path: Path, planned: Callable[[dict[int, float]], None], said: list[str]
) -> None:
    planned({1: 0.3, 2: 0.2, 3: 0.25, 4: 0.2, 5: 0.1, 6: 0.1})
    run, config = tmp_path / "run", replace(VALIDATION, every=1, patience=2, pictures=0)
    loop = replace(LOOP, checkpoint_every=100)
    history = train_student(tiny_student(run, loop=loop, validation=config))
    assert max(row["step"] for row in history) == 4
    assert names(run) == ["step-00000002", "step-00000004"]
    assert sum("2 validations without a better abs_rel" in text for text in said) == 1
    again = replace(loop, resume=True)
    train_student(tiny_student(run, loop=again, validation=config))
    assert names(run)[-1] == "step-00000004", "resumed as it is, it has ended"
    assert sum("2 validations without a better abs_rel" in text for text in said) == 2
    train_student(tiny_student(run, loop=again, validation=replace(config, patience=3)))
    assert names(run)[-1] == "step-00000006"
    assert read_standing(list_checkpoints(run)[-1]) == {
        **read_standing(list_checkpoints(run)[-1]),  # type: ignore[dict-item]
        "best_step": 5,
        "best": 0.1,
        "since": 1,
    }


def test_a_resumed_run_validates_as_one_that_was_never_stopped(tmp_path: Path) -> None:
    settings = {"loop": replace(LOOP, ema=0.9), "validation": replace(VALIDATION, every=1)}
    train_teacher(tiny_teacher(tmp_path / "whole", **settings))
    with pytest.raises(KeyboardInterrupt):
        train_teacher(tiny_teacher(tmp_path / "broken", **settings), samples=Stopping(reads=7))
    again = {**settings, "loop": replace(LOOP, ema=0.9, resume=True)}
    train_teacher(tiny_teacher(tmp_path / "broken", **again))
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    assert names(tmp_path / "whole") == names(tmp_path / "broken")
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    states = [json.loads((list_checkpoints(tmp_path / r)[-1] / "state.json").read_text()) for r in ("whole", "broken")]
    assert states[0] == states[1]


def test_another_validation_looks_for_the_best_anew(tmp_path: Path, said: list[str]) -> None:
    run = tmp_path / "run"
    train_student(tiny_student(run, loop=KEPT_ALL, validation=VALIDATION))
    other = replace(VALIDATION, metric="rmse", every=3)
    train_student(tiny_student(run, loop=replace(KEPT_ALL, resume_from="4"), validation=other))
    assert len([text for text in said if "another validation than before" in text]) == 1
    standing = read_standing(list_checkpoints(run)[-1])
    assert standing is not None
    assert standing["best_step"] == 6
    assert standing["measured"].startswith("rmse on 3 scenes of seed 3, protocol none")


def test_a_validation_that_is_left_out_is_said(tmp_path: Path, said: list[str]) -> None:
    run = tmp_path / "run"
    train_student(tiny_student(run, loop=KEPT_ALL, validation=VALIDATION))
    train_student(tiny_student(run, loop=replace(KEPT_ALL, resume_from="4"), validation=VALIDATION))
    assert [text for text in said if "now is not" in text] == []
    train_student(tiny_student(run, loop=replace(KEPT_ALL, resume_from="4")))
    told = f"{run} was validated (validation.every 2) and now is not: its best checkpoint goes with the other old ones"
    assert said.count(told) == 1


def test_validation_on_files_by_epochs_with_a_protocol(tmp_path: Path) -> None:
    write_samples(SyntheticStereo(5, *SIZE, seed=7), tmp_path / "held-out", 5)
    config = ValidationConfig(
        every_epochs=1.0, root=str(tmp_path / "held-out"), samples=2, protocol="garg", max_depth=50.0, pictures=3
    )
    run = tmp_path / "run"
    train_student(tiny_student(run, validation=config))  # five pairs, two a step: 2.5 steps an epoch
    assert list(rows(run)) == [3, 5, 6]
    standing = read_standing(list_checkpoints(run)[-1])
    assert standing is not None
    assert "on 2 frames " in standing["measured"]
    assert standing["measured"].endswith("protocol garg, 0.001 to 50 m")
    pictures = sorted(path.relative_to(run / "validation").as_posix() for path in (run / "validation").rglob("*.png"))
    assert pictures == [f"step-{step:08d}/{n:02d}.png" for step in (3, 5, 6) for n in range(2)]
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Images("validation/01")] == [3, 5, 6]
    assert [event.step for event in events.Scalars("validation/a1")] == [3, 5, 6]


def test_pictures_of_the_newest_validations_stay(tmp_path: Path) -> None:
    for step in range(1, KEPT + 4):
        write_pictures(tmp_path, step, {"00": np.zeros((4, 4, 3), np.uint8)})
    left = sorted(path.name for path in (tmp_path / "validation").iterdir())
    assert left == [f"step-{step:08d}" for step in range(4, KEPT + 4)]


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: ValidationConfig(every=1, every_epochs=1), r"validation\.every_epochs: give this or"),
    (lambda: ValidationConfig(every=-1), r"validation\.every: expected a? ?.*, got -1"),
    (lambda: ValidationConfig(patience=3), r"validation\.patience: nothing is validated"),
    (lambda: ValidationConfig(root="kitti", split="val.txt"), r"validation\.root: nothing is validated"),
    (lambda: ValidationConfig(metric="loss"), r"validation\.metric: expected one of abs_rel, .*, got 'loss'"),
    (lambda: ValidationConfig(protocol="kitti"), r"protocol: expected one of none, .*, got 'kitti'"),
    (lambda: ValidationConfig(min_depth=90.0), r"validation\.min_depth: expected 0 < min_depth < max_depth, got 90"),
    (lambda: StudentTrainingConfig(data=replace(DATA, scene_seed=3), validation=VALIDATION), r"validation\.scene_seed"),
    (lambda: TeacherTrainingConfig(data=replace(DATA, scene_seed=3), validation=VALIDATION), r"validation\.scene_seed"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=range(len(REFUSED)))
def test_settings_that_make_no_validation_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": replace(VALIDATION, metric="epe")}, r"of a student, protocol none measures abs_rel, .*'epe'"),
        ({"validation": replace(VALIDATION, metric="SILog")}, r"protocol none measures"),
        ({"validation": replace(VALIDATION, protocol="kitti-depth")}, r"kitti-depth measures SILog, .*'abs_rel'"),
        ({"validation": replace(VALIDATION, layout="rig")}, r"validation\.layout is for a data set's folder"),
        ({"validation": replace(VALIDATION, root="/nowhere")}, r"validation\.root: .*nowhere"),
        (
            {"validation": ValidationConfig(every_epochs=1), "data": replace(DATA, pairs=0)},
            r"validation\.every_epochs needs a finite data set",
        ),
    ],
    ids=range(6),
)
def test_what_cannot_be_validated_is_told_before_the_first_step(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train_student(tiny_student(tmp_path / "run", **changes))
    assert not list_checkpoints(tmp_path / "run")


def test_a_data_set_that_nothing_can_be_measured_on_is_told_before_the_first_step(tmp_path: Path) -> None:
    rooms, pairs = tmp_path / "rooms", tmp_path / "pairs"
    write_samples(SyntheticStereo(3, *SIZE, seed=7), pairs, 3)
    for folder in ("images", "depth"):
        (rooms / folder).mkdir(parents=True)
    (rooms / "depth.toml").write_text("depth_scale = 1000\n")
    (rooms / "images" / "0.png").write_bytes((pairs / "left" / "000000.png").read_bytes())
    on = {root: {"validation": replace(VALIDATION, root=str(root))} for root in (rooms, pairs)}
    told = r"validation\.root .*rooms: none of its 1 images has ground truth that counts by protocol none"
    with pytest.raises(InputError, match=told):
        train_student(tiny_student(tmp_path / "run", **on[rooms]))
    assert cv2.imwrite(str(rooms / "depth" / "0.png"), np.full(SIZE, 3000, np.uint16))
    with pytest.raises(InputError, match=r"validation\.root .*rooms: a stereo teacher needs pairs"):
        train_teacher(tiny_teacher(tmp_path / "run", **on[rooms]))
    scaled = {"model": replace(STUDENT, reference_focal=50.0)}
    with pytest.raises(InputError, match=r"focal length, which validation\.root .*rooms does not know"):
        train_student(tiny_student(tmp_path / "run", **on[rooms], **scaled))
    for role in ("depth", "sparse_depth", "disparity"):
        for file in list((pairs / role).iterdir())[:-1]:
            file.unlink()
    train_student(tiny_student(tmp_path / "run", **on[pairs], **scaled))
    assert list(rows(tmp_path / "run")) == [2, 4, 6], "one image with ground truth is enough"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The validations, counted from 0, in which predictions are NaN."""
    bad: set[int] = set()
    before, done = Validation.measure, []

    def measure(self: Validation, network: nn.Module) -> Any:
        factor = torch.nan if len(done) in bad else 1.0
        done.append(factor)
        hook = network.register_forward_hook(lambda _, given, result: replace(result, depth=result.depth * factor))
        try:
            return before(self, network)
        finally:
            hook.remove()

    monkeypatch.setattr(Validation, "measure", measure)
    return bad


NAN = "validation: image synthetic-3-000000: prediction: NaN at 2048 pixels of its depth; training goes on"


def test_a_prediction_of_nan_is_told_and_counts_as_no_better_one(
    broken: set[int], tmp_path: Path, said: list[str]
) -> None:
    """The training's own loss and weights are good."""
    broken.update({0, 2})
    run = tmp_path / "run"
    train_student(tiny_student(run, loop=KEPT_ALL, validation=replace(VALIDATION, metric="rmse")))
    assert [text[:6] for text in said if NAN in text] == ["step 2", "step 6"]
    found = rows(run, "rmse")
    assert [step for step in found if math.isnan(found[step])] == [2, 6]
    assert best_checkpoint(run) == run / "checkpoints" / "step-00000004", "not the first, which has no number"
    standing = read_standing(list_checkpoints(run)[-1])
    assert standing is not None
    assert (standing["best_step"], standing["since"]) == (4, 1)
    assert main_writes_a_report(run)
    train_student(tiny_student(tmp_path / "plain"))
    assert_same_bits(tmp_path / "plain", run)


def main_writes_a_report(run: Path) -> bool:
    from adu_depth.report.command import ReportConfig, draw_report

    return draw_report(ReportConfig(run)).is_file()


def test_a_run_whose_predictions_stay_nan_ends_by_its_patience_and_stands_for_its_newest_step(
    broken: set[int], tmp_path: Path, said: list[str]
) -> None:
    broken.update(range(9))
    run = tmp_path / "run"
    train_student(tiny_student(run, validation=replace(VALIDATION, every=1, patience=3)))
    assert list(rows(run)) == [1, 2, 3]
    assert "no validation had a finite abs_rel: no checkpoint is the best, the run stands for its newest" in said
    assert checkpoint_of(run).name == "step-00000003"


def test_workers_read_what_the_training_would_read_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any part of the data set, in order; the training's random numbers do not notice."""
    write_samples(SyntheticStereo(7, *SIZE, seed=7), tmp_path / "held-out", 7)
    config = replace(VALIDATION, root=str(tmp_path / "held-out"), samples=5)
    samples = some_of(open_held_out(config, SIZE)[0], config.samples)
    own = [samples[index] for index in (0, 1, 4)]
    state = torch.get_rng_state()
    reading = read_ahead(samples, [0, 1, 4], workers=2)
    read = [next(reading)]
    assert len(multiprocessing.active_children()) == 2
    read += reading
    assert torch.equal(torch.get_rng_state(), state)
    assert multiprocessing.active_children() == []
    assert list(read_ahead(samples, [], workers=2)) == [], "of several processes one may have no share"
    for sample, alone in zip(read, own, strict=True):
        assert sample.name == alone.name
        assert all(torch.equal(a, b) for a, b in zip(tensors_of(sample), tensors_of(alone), strict=True))
    asked: list[int] = []

    def noted(samples: Any, indices: Any, workers: int) -> Any:
        asked.append(workers)
        return read_ahead(samples, indices, workers)

    monkeypatch.setattr("adu_depth.training.validation.read_ahead", noted)
    data = replace(DATA, root=config.root, pairs=0)  # the training has workers of its own at the same time
    for workers in (0, 2):
        loop = replace(LOOP, workers=workers)
        train_student(tiny_student(tmp_path / f"run-{workers}", data=data, loop=loop, validation=config))
    assert asked == [0, 0, 0, 2, 2, 2]
    assert rows(tmp_path / "run-0") == rows(tmp_path / "run-2")
    assert_same_bits(tmp_path / "run-0", tmp_path / "run-2")
    image = tmp_path / "held-out" / "left" / "000002.png"
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(InputError, match=r"^validation after step 2: .*000002\.png: the image is cut short"):
        train_student(tiny_student(tmp_path / "bad", loop=replace(LOOP, workers=2), validation=config))
    assert multiprocessing.active_children() == []
