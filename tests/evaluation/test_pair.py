"""Figures of a disparity on pairs without ground truth: known answers, what wins none of them, commands, training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adu_depth.checkpoint import best_checkpoint
from adu_depth.cli import main
from adu_depth.data import StereoSample, SyntheticStereo, open_dataset
from adu_depth.distillation.left_right import mirrored_views
from adu_depth.errors import InputError
from adu_depth.evaluation import Scorer, evaluate_protocols
from adu_depth.evaluation.baselines import SemiGlobalMatching
from adu_depth.evaluation.pair import PAIR_METRICS, WORST, pair_metrics
from adu_depth.inference import Predictor, write_samples
from adu_depth.models.prediction import DepthPrediction
from adu_depth.progress import Progress
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.validation_config import ValidationConfig
from tests.evaluation.test_processes import in_threads
from tests.training.tiny import LOOP, SIZE, tiny_student, tiny_teacher

QUIET = Progress(enabled=False)


def test_figures_by_hand() -> None:
    """Of eight columns two leave the right view; of the six others the right view confirms four."""
    image = torch.rand(3, 4, 8, generator=torch.Generator().manual_seed(1))
    left, right = torch.full((1, 4, 8), 2.0), torch.full((1, 4, 8), 2.9)
    right[..., 1], right[..., 4] = 3.1, 0.0
    found = pair_metrics(image, image, left, right)
    assert found["outside"] == 25.0
    assert found["left_right"] == pytest.approx(100 * 2 / 6)
    large = torch.full((1, 4, 64), 40.0)  # 5 % of 40 px are two
    wide = torch.rand(3, 4, 64)
    assert pair_metrics(wide, wide, large, large + 1.9)["left_right"] == 0
    assert pair_metrics(wide, wide, large, large + 2.1)["left_right"] == 100


def test_what_leaves_the_right_view_everywhere_is_the_worst() -> None:
    image, far = torch.rand(3, 4, 8), torch.full((1, 4, 8), 9.0)
    assert pair_metrics(image, image, far, far) == {**WORST, "outside": 100.0}
    with pytest.raises(InputError, match=r"pair: expected two views of one size, 3×3 pixels or larger"):
        pair_metrics(image[:, :2], image[:, :2], far[:, :2], far[:, :2])


def seen_from_the_right(disparity: Tensor) -> Tensor:
    """Of a left view's true disparity the right view's: the nearest thing wins, what it hides nobody knows (−99)."""
    found = np.full(disparity.shape[-2:], -99.0, np.float32)
    for row, values in enumerate(disparity[0].numpy()):
        for column, value in enumerate(values):
            place = round(column - float(value))
            if 0 <= place < len(values):
                found[row, place] = max(found[row, place], value)
    return torch.from_numpy(found)[None]


def test_the_true_disparity_is_better_than_another_and_a_constant_does_not_win_all() -> None:
    for sample in SyntheticStereo(2, 64, 192, seed=4):
        assert sample.occluded is not None
        right = sample.require_right("a test")
        true = torch.where(sample.valid, sample.disparity, 0.0)
        seen = seen_from_the_right(true)
        of_truth = pair_metrics(sample.left, right, true, seen)
        hidden = 100 * float(sample.occluded.double().mean())
        assert of_truth["left_right"] <= hidden + 3, "outside what the right camera cannot see hardly anything"
        constant = torch.full_like(true, float(true.median()))
        for wrong in (true + 3, true * 0, constant):
            assert pair_metrics(sample.left, right, wrong, wrong)["photometric"] > of_truth["photometric"] + 0.1
        assert pair_metrics(sample.left, right, constant, constant)["left_right"] == 0, "which alone says nothing"
        assert pair_metrics(sample.left, right, true, seen + 3)["left_right"] > 90


def test_the_second_look_gives_the_right_views_disparity() -> None:
    """The matcher's, of a pair whose left view is the right one moved by six columns."""
    right = SyntheticStereo(1, 64, 192, seed=4)[0].left
    sample = replace(SyntheticStereo(1, 64, 192, seed=4)[0], left=right.roll(6, 2), right=right, name="0")
    found = evaluate_protocols(SemiGlobalMatching(64), [sample], Scorer(("pair",)))["pair"].rows["0"]
    assert found["left_right"] < 5
    assert found["photometric"] < 0.1
    seen: list[StereoSample] = []

    def looked_at(batch: StereoSample) -> DepthPrediction:
        seen.append(batch)
        return by_brightness(batch)

    evaluate_protocols(looked_at, [sample], Scorer(("pair",)))
    first, second = seen
    assert second.right is not None
    assert torch.equal(torch.stack(mirrored_views(second.left, second.right)), torch.stack((first.left, right[None])))
    assert second.camera.pair_mirrored(192) == first.camera
    assert second.name == first.name
    assert first.valid.any()
    assert not any(t.any() for t in (second.valid, second.depth, second.disparity)), "the truth is of the other view"


def by_brightness(batch: StereoSample) -> DepthPrediction:
    """Depends on the pixels, so that a mixed-up order shows."""
    disparity = 4 * batch.left.mean(1, keepdim=True)
    return DepthPrediction(1 + disparity, None, (), disparity=disparity)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (1, 4), (2, 2), (3, 1)])
def test_batches_and_processes_change_no_number(count: int, batch_size: int) -> None:
    scenes = [*SyntheticStereo(3, *SIZE, seed=4), SyntheticStereo(1, 48, 64, seed=4)[0], SyntheticStereo(1, *SIZE)[0]]
    scenes = [replace(scene, valid=scene.valid & False, name=str(i)) for i, scene in enumerate(scenes)]
    expected = {
        str(s.name): pair_metrics(
            s.left,
            s.require_right("a test"),
            4 * s.left.mean(0, keepdim=True),
            4 * s.require_right("a test").mean(0, keepdim=True),
        )
        for s in scenes
    }
    scorer = Scorer(("pair",))
    for results in in_threads(
        count,
        lambda place: evaluate_protocols(by_brightness, scenes, scorer, batch_size=batch_size, processes=place),
    ):
        assert list(results["pair"].rows) == list(expected)
        for name, row in results["pair"].rows.items():
            assert row == pytest.approx(expected[name], abs=1e-6)


def test_a_prediction_without_disparity_or_a_right_view_is_refused() -> None:
    scene = SyntheticStereo(1, *SIZE)[0]
    with pytest.raises(InputError, match="'pair': expected disparities of both views"):
        evaluate_protocols(lambda b: replace(by_brightness(b), disparity=None), [scene], Scorer(("pair",)))
    with pytest.raises(InputError, match="protocol 'pair' needs pairs"):
        evaluate_protocols(by_brightness, [replace(scene, right=None)], Scorer(("pair",)))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Views and a camera alone."""
    write_samples(SyntheticStereo(4, 64, 192, seed=5), tmp_path / "pairs", 4)
    for role in ("depth", "sparse_depth", "disparity", "occluded"):
        (tmp_path / "pairs" / role).rename(tmp_path / role)
    return tmp_path / "pairs"


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0)


def test_a_training_on_pairs_alone_keeps_the_best_checkpoint(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, proxies = tmp_path / "run", tmp_path / "proxies"
    assert command("proxies", pairs, "--output", proxies, "--max-disparity", 64) == 0
    validation = ValidationConfig(every=2, root=str(pairs), metric="photometric", pictures=1, batch_size=3)
    config = tiny_teacher(run, loop=replace(LOOP, keep_checkpoints=9), validation=validation)
    with pytest.raises(InputError, match=r"metric proxy_d1: none of the 4 images of .* has proxies: make them"):
        train_teacher(replace(config, validation=replace(validation, metric="proxy_d1")), QUIET)
    with pytest.raises(InputError, match=r"of a teacher, protocol pair measures photometric, .*'abs_rel'"):
        train_teacher(replace(config, validation=replace(validation, metric="abs_rel")), QUIET)
    for changes, told in (
        ({"metric": "abs_rel"}, "has ground truth that counts by protocol none .* nor proxies in its place"),
        ({}, "this is a student, which has none: it needs ground truth, or proxies"),
    ):
        with pytest.raises(InputError, match=told):
            train_student(tiny_student(tmp_path / "student", validation=replace(validation, **changes)), QUIET)  # type: ignore[arg-type]
    train_teacher(replace(config, validation=replace(validation, proxies=str(proxies))), QUIET)
    found = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    course = {row["step"]: row for row in found if "validation/photometric" in row}
    assert list(course) == [2, 4, 6]
    best = min(course, key=lambda step: course[step]["validation/photometric"])
    assert best_checkpoint(run) == run / "checkpoints" / f"step-{best:08d}"
    samples = open_dataset(pairs)
    samples.use_proxies(proxies)
    for step, row in course.items():
        predictor = Predictor.from_checkpoint(run / "checkpoints" / f"step-{step:08d}", "cpu")
        means = evaluate_protocols(predictor, samples, Scorer(("pair",)), batch_size=3)["pair"].means()
        against = evaluate_protocols(predictor, samples, Scorer(("none",)), batch_size=3)["none"].means()
        assert set(means) == {*PAIR_METRICS, "proxy_epe", "proxy_d1"}
        assert {name: row[f"validation/{name}"] for name in means} == means
        assert (means["proxy_epe"], means["proxy_d1"]) == (against["epe"], against["d1"])
    capsys.readouterr()
    output = tmp_path / "out"
    told = ("evaluate", run, "--data", pairs, "--device", "cpu", "--output", output)
    assert command(*told) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the median of this set's pairs as StereoSGBM matches them" in text
    methods = json.loads((output / "metrics.json").read_text())["methods"]
    assert [name.partition(" ")[0] for name in methods] == ["teacher", "StereoSGBM", "constant"]
    for by_protocol in methods.values():
        assert set(by_protocol) == {"pair"}
        assert set(by_protocol["pair"]["means"]) == set(PAIR_METRICS)
    constant, matcher = (methods[name]["pair"]["means"] for name in (list(methods)[2], "StereoSGBM"))
    assert constant["left_right"] == 0
    assert matcher["photometric"] < constant["photometric"]
    assert command(*told, "--proxies", proxies, "--protocol", "pair,none") == 0
    methods = json.loads((output / "metrics.json").read_text())["methods"]
    assert set(methods["teacher"]["pair"]["means"]) == {*PAIR_METRICS, "proxy_epe", "proxy_d1"}
    assert set(methods["StereoSGBM"]) == {"pair"}
    assert set(methods["StereoSGBM"]["pair"]["means"]) == set(PAIR_METRICS), "not against what it found itself"
    assert {"epe", "abs_rel"} <= set(methods["teacher"]["none"]["means"])


def test_a_student_has_nothing_to_be_measured_by_there(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_student(tiny_student(tmp_path / "student", loop=replace(LOOP, steps=2)), QUIET)
    for arguments, told in (
        ((), "none of 4 images has a valid depth within protocol 'none': it compares with ground truth, or with"),
        (("--protocol", "pair"), "protocol 'pair' holds a stereo teacher's disparity against both views"),
    ):
        assert command("evaluate", tmp_path / "student", "--data", pairs, "--device", "cpu", *arguments) == 2
        assert told in " ".join(capsys.readouterr().err.split())


def test_a_window_of_training_keeps_what_its_maps_are(pairs: Path, tmp_path: Path) -> None:
    assert command("proxies", pairs, "--output", tmp_path / "proxies", "--max-disparity", 64) == 0
    samples = open_dataset(pairs)
    assert not samples[0].proxied
    assert not samples.measurable()
    samples.use_proxies(tmp_path / "proxies")
    assert samples.measurable()
    assert samples[0].crop(0, 0, 8, 8).proxied
