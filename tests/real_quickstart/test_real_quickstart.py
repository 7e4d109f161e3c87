"""`adu-depth quickstart-real`: from bare pairs to a student and a page, stopped anywhere, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adu_depth.adaptation.command import open_pairs
from adu_depth.checkpoint import config_dict, list_checkpoints, load_model
from adu_depth.cli import main
from adu_depth.data import SyntheticStereo, open_dataset
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.identity import shared_frames
from adu_depth.data.packed.command import PackConfig, run_pack
from adu_depth.data.splits import divide_nearly
from adu_depth.distillation import DistillationConfig
from adu_depth.errors import InputError
from adu_depth.files import read_name_lines
from adu_depth.inference import write_samples
from adu_depth.models import LightStudent, StudentConfig, TeacherConfig
from adu_depth.progress import Progress
from adu_depth.quickstart import TEACHER_LEARNING_RATE, QuickstartConfig
from adu_depth.real_quickstart import command
from adu_depth.real_quickstart.checks import focal_at, open_truth, require_usable
from adu_depth.real_quickstart.config import RealQuickstartConfig
from adu_depth.real_quickstart.students import LIGHT, PLAIN, StudentPlan
from adu_depth.training import loop
from adu_depth.training.runs import train_student, train_teacher
from tests.training.tiny import LOOP, tiny_student, tiny_teacher

COUNT = 6
SIZE = (96, 192)
QUIET = Progress(enabled=False)
SMALL = (
    "--teacher-steps", 2, "--teacher-pairs", 4, "--teacher-size", 64, 128, "--adapt-steps", 2, "--max-disparity", 64,
    "--student-steps", 2, "--student-size", 64, 128, "--scenes", 0.25, "--scene-pairs", 2, "--held-out", 0.34,
    "--data.size", 64, 96, "--workers", 0, "--device", "cpu",
)  # fmt: skip
TRUTH_FOLDERS = ("depth", "sparse_depth", "disparity", "occluded", "preview")


def run(output: Path, pairs: Path | str, *more: object) -> int:
    arguments = ["quickstart-real", "--data.root", pairs, "--output", output, *SMALL, *more]
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def bare(folder: Path, seed: int = 5) -> Path:
    """Views and a camera alone."""
    write_samples(SyntheticStereo(COUNT, *SIZE, seed=seed), folder, COUNT)
    for role in TRUTH_FOLDERS:
        shutil.rmtree(folder / role, ignore_errors=True)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare(tmp_path_factory.mktemp("pairs") / "pairs")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    write_samples(SyntheticStereo(2, *SIZE, seed=9), folder, 2)
    return folder


@pytest.fixture(scope="module")
def whole(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole way, never stopped, without any truth."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert run(output, pairs) == 0
    return output


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    train_teacher(tiny_teacher(folder / "teacher"), QUIET)
    return folder / "teacher"


def told(output: Path) -> dict[str, Any]:
    return json.loads((output / "report.json").read_text())  # type: ignore[no-any-return]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_model(run).model.state_dict()


def same(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def names_in(file: Path) -> set[str]:
    return {name for name in read_name_lines(file) if name}


def test_each_part_is_what_it_says(whole: Path, pairs: Path) -> None:
    """The quickstart's teacher; its adaptation; a student of the adapted one that saw no held-out pair."""
    built_in = load_model(whole / "teacher").config
    assert built_in["data"]["root"] == "synthetic"
    assert built_in["optimizer"]["learning_rate"] == TEACHER_LEARNING_RATE
    assert built_in["loop"]["batch_size"] == QuickstartConfig().batch_size // 2
    assert (built_in["data"]["scenery"], built_in["model"]["max_disparity"]) == ("varied", 48)
    adapted = load_model(whole / "adapted" / "teacher")
    assert (adapted.kind, adapted.config["init"]) == ("teacher", str(whole / "teacher"))
    student = load_model(whole / "student")
    assert student.kind == "student"
    assert student.config["teacher"] == str(whole / "adapted" / "teacher")
    assert student.config["teacher_left_right"] is True
    assert student.config["optimizer"]["learning_rate"] == PLAIN.learning_rate
    assert (student.size, student.fit) == ((64, 128), "resize")
    (mixed,) = student.config["data"]["mix"]
    assert (mixed["root"], mixed["share"], mixed["pairs"]) == ("synthetic", 0.25, 2)
    splits = whole / "adapted" / "splits"
    assert student.config["data"]["split"] == str(splits / "train.txt")
    parts = names_in(splits / "train.txt"), names_in(splits / "val.txt")
    assert list(map(len, parts)) == [4, 2]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == set(open_dataset(pairs).names)


def test_its_defaults_are_the_quickstart_s_and_the_adaptation_s() -> None:
    config = RealQuickstartConfig(data=DataConfig(root="pairs"))
    usual = replace(config, scenery="usual")
    assert config_dict(usual.scene_settings) == config_dict(QuickstartConfig())
    assert config.scene_settings == QuickstartConfig(scenery="varied", max_disparity=48)
    assert config.built_in().data.scenery == "varied"
    for kind in (config, usual):
        adapted, student = kind.adaptation(), kind.student(Path("train.txt"), None)
        mixed = adapted.training(TeacherConfig(), Path("train.txt"), Path("val.txt")).data.mix
        assert [source.scenery for source in mixed] == [kind.scenery]
        assert [source.scenery for source in student.data.mix] == ["usual"]
    assert (config.adaptation().loop.steps, config.adaptation().max_disparity) == (300, 192)
    assert config.adaptation().start == config.built_in().run
    student = config.student(Path("train.txt"), None)
    assert (student.loop.steps, student.data.size) == (PLAIN.steps, (192, 640))
    light = RealQuickstartConfig(data=DataConfig(root="pairs"), encoder_weights="file").student(Path("train.txt"), 370)
    assert (light.model.network, light.model.reference_focal, light.loop.steps) == ("light", 370, LIGHT.steps)


def test_all_that_a_plan_says_reaches_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = StudentPlan(
        StudentConfig(network="light", log_scale=True),
        steps=7,
        batch_size=3,
        learning_rate=5e-4,
        ema=0.9,
        augmentation=AugmentationConfig(zoom=1.5),
        distillation=DistillationConfig(uncertainty=0.5),
    )
    monkeypatch.setattr("adu_depth.real_quickstart.config.LIGHT", plan)
    config = RealQuickstartConfig(data=DataConfig(root="pairs"), encoder_weights="file")
    student = config.student(Path("train.txt"), 370.0)
    assert student.model == replace(plan.model, encoder_weights="file", reference_focal=370.0)
    assert (student.loop.steps, student.loop.batch_size, student.loop.ema) == (7, 3, 0.9)
    assert student.optimizer.learning_rate == 5e-4
    assert (student.augmentation, student.distillation) == (plan.augmentation, plan.distillation)


def test_the_page_and_the_report_without_truth(whole: Path) -> None:
    report = told(whole)
    assert {"before", "adapted"} < set(report["held_out"])
    assert next(iter(report["matcher"])) == "teacher before"
    assert {"teacher adapted", "student"} < set(report["matcher"])
    assert all(np.isfinite(report["matcher"][who]["abs_rel"]) for who in report["matcher"])
    assert "truth" not in report
    assert {"teacher", "adaptation", "student", "evaluation"} == set(report["seconds"])
    page = (whole / "report.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "Nobody measured a depth in any of them" in text
    assert "Against ground truth" not in text
    assert "A classical matcher where it is sure: no ground truth" in text
    assert "Sparse ground truth" not in text, "the matcher's labels are none"
    pictures = 2 + 2 + 2 + 2  # given, depth, difference, uncertainty; of teacher and student
    assert page.count("data:image/") == 2 * pictures
    assert page.count("<svg") > 4
    assert not re.search(r"https?://(?!www\.w3\.org)", page)


def test_given_again_nothing_is_trained_and_report_draws_the_same_page(whole: Path, pairs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}
    tables = {name: told(whole)[name] for name in ("held_out", "matcher")}
    assert run(whole, pairs) == 0
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")} == before
    assert {name: told(whole)[name] for name in tables} == tables
    page = (whole / "report.html").read_text()
    (whole / "report.html").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["report", str(whole), "--device", "cpu"])
    assert ended.value.code == 0
    assert (whole / "report.html").read_text() == page


def test_stopped_in_every_part_it_ends_with_the_same_bits(
    whole: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a signal after the first step of each training."""
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_requested", lambda caught, step, *rest: step == 0)
        for part in ("teacher", "adapted/teacher", "student"):
            assert run(output, pairs) == 128 + 15
            assert "stopped by SIGTERM; the same command goes on from there" in capsys.readouterr().err
            assert [path.name for path in list_checkpoints(output / part)] == ["step-00000001"]
            assert not (output / "report.json").exists()
    with pytest.raises(SystemExit) as ended:
        main(["report", str(output)])
    assert ended.value.code == 2
    assert "has not come to its end" in " ".join(capsys.readouterr().err.split())
    assert run(output, pairs) == 0
    for part in ("teacher", "adapted/teacher", "student"):
        assert same(output / part, whole / part), part
    assert told(output)["matcher"] == told(whole)["matcher"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in LightStudent().encoder.state_dict().items()}, file)
    return file


def test_a_teacher_that_is_there_a_light_student_and_truth(
    teacher: Path, pairs: Path, truth: Path, encoder: Path, tmp_path: Path
) -> None:
    """From a pack, whose camera the reference focal length comes from."""
    run_pack(PackConfig(pairs, tmp_path / "pack"), lambda text: None)
    output = tmp_path / "out"
    more = ("--teacher", teacher, "--truth", truth, "--encoder-weights", encoder)
    assert run(output, tmp_path / "pack", *more) == 0
    assert not (output / "teacher").exists(), "none was trained"
    student = load_model(output / "student")
    fx = float(open_dataset(pairs)[0].camera.fx)
    assert student.config["model"]["network"] == "light"
    assert student.config["model"]["reference_focal"] == pytest.approx(fx * 128 / SIZE[1], abs=0.01)
    assert student.config["optimizer"]["learning_rate"] == LIGHT.learning_rate
    report = told(output)
    columns = report["truth"]
    assert [who for who in columns if "constant" not in who] == [
        "teacher before", "teacher adapted", "StereoSGBM", "student",
    ]  # fmt: skip
    for metric in ("abs_rel", "rmse", "a1"):
        assert all(np.isfinite(found[metric]) for found in columns.values())
    assert all(metric in columns["StereoSGBM"] for metric in ("d1", "epe"))
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Against ground truth" in page
    assert "Pairs with ground truth" in page
    assert "Error of depth, % of the true depth" in page

    moved = encoder.rename(tmp_path / "moved.safetensors")
    more = ("--teacher", teacher, "--truth", truth, "--encoder-weights")
    assert run(output, tmp_path / "pack", *more, moved) == 0, "the student goes on with what became of them"
    assert run(output, tmp_path / "pack", *more, encoder, "--student-steps", 3) == 0
    assert list_checkpoints(output / "student")[-1].name == "step-00000003", "to more steps it goes on"


def test_another_s_folder_and_other_settings_are_refused(
    whole: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "settings.json").write_text("{}")
    kept = {path: path.read_bytes() for path in whole.rglob("*.json")}
    cases: list[tuple[Path, tuple[object, ...], str]] = [
        (tmp_path / "full", (), "holds 'settings.json' and no quickstart-real.json: name an empty folder"),
        (whole, ("--seed", 1), "was begun with other settings; these differ: seed: 0 → 1"),
        (whole, ("--student-size", 64, 96), "these differ: student_size: [64, 128] → [64, 96]"),
        (whole, ("--scenes", 0.5), "these differ: scenes: 0.25 → 0.5"),
    ]
    for output, more, message in cases:
        assert run(output, pairs, *more) == 2
        assert message in " ".join(capsys.readouterr().err.split()), more
    assert {path: path.read_bytes() for path in kept} == kept
    assert os.listdir(tmp_path / "full") == ["settings.json"]


def test_a_folder_from_before_there_was_another_kind_of_scenes_goes_on_with_the_usual_ones(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, usual = tmp_path / "out", ("--scenery", "usual")
    assert run(output, pairs, *usual) == 0

    def forget(settings: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in settings.items() if name != "scenery"}
        return {k: forget(v) if isinstance(v, dict) else [forget(i) if isinstance(i, dict) else i for i in v]
                if isinstance(v, list) else v for k, v in kept.items()}  # fmt: skip

    for file in (output / "quickstart-real.json", *output.rglob("config.json")):
        file.write_text(json.dumps(forget(json.loads(file.read_text()))))
    before = weights(output / "student")
    capsys.readouterr()
    assert run(output, pairs) == 2
    assert "these differ: scenery: usual → varied" in " ".join(capsys.readouterr().err.split())
    assert run(output, pairs, *usual, "--student-steps", 3) == 0
    assert list_checkpoints(output / "student")[-1].name == "step-00000003"
    assert before.keys() == weights(output / "student").keys()


def swapped(root: Path) -> None:
    (root / "left").rename(root / "other")
    (root / "right").rename(root / "left")
    (root / "other").rename(root / "right")


def black(root: Path) -> None:
    for path in (root / "right").glob("*.png"):
        cv2.imwrite(str(path), np.zeros_like(cv2.imread(str(path))))


def without_camera(root: Path) -> None:
    (root / "camera.toml").unlink()


def without_baseline(root: Path) -> None:
    path = root / "camera.toml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "baseline" not in line))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swapped, "above; a teacher would learn them"),
        (black, "above; a teacher would learn them"),
        (without_camera, "camera.toml is missing"),
        (without_baseline, "baseline"),
    ],
)
def test_pairs_that_cannot_work_end_with_a_message_before_anything_is_trained(
    change: Callable[[Path], None], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = bare(tmp_path / "pairs")
    change(root)
    assert run(tmp_path / "out", root) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "out").glob("*")), "nothing was begun"


def test_what_cannot_be_is_named_before_anything_is_trained(
    teacher: Path, pairs: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = tmp_path / "student"
    train_student(tiny_student(student, data=DataConfig(pairs=2, size=(32, 64)), loop=LOOP), QUIET)
    labelled = tmp_path / "labelled"  # the pairs that are trained on, under other names, with a truth
    for view in ("left", "right"):
        (labelled / view).mkdir(parents=True)
        os.link(pairs / view / "000002.png", labelled / view / "a.png")
    (labelled / "depth").mkdir()
    shutil.copy(truth / "depth" / "000000.png", labelled / "depth" / "a.png")
    shutil.copy(pairs / "camera.toml", labelled / "camera.toml")
    torch.save({"one": torch.zeros(3)}, tmp_path / "other.pt")
    cases: list[tuple[Path | str, tuple[object, ...], str]] = [
        (tmp_path / "nowhere", (), "nowhere: no such folder"),
        ("", (), "data.root: expected the folder of your pairs, got nothing"),
        ("synthetic", (), "data.root: expected the folder of your pairs"),
        (pairs, ("--teacher", student), "expected a stereo teacher, got a network for single images"),
        (pairs, ("--teacher", tmp_path / "none"), "none"),
        (pairs, ("--encoder-weights", tmp_path / "none.safetensors"), "none.safetensors is not a file"),
        (pairs, ("--encoder-weights", tmp_path / "other.pt"), "other.pt: not the weights of a MobileNetV2Encoder"),
        (pairs, ("--truth", tmp_path / "none"), "none: no such folder"),
        (pairs, ("--truth", pairs), "expected pairs with ground truth, found none in its 6 frames"),
        (pairs, ("--truth", labelled), "1 of its 1 frames are among the pairs that are trained on, such as a"),
        (truth, (), "every one of its 2 frames has ground truth"),
        (pairs, ("--data.size", 128, 96), "images are smaller"),
        (pairs, ("--held-out", 0), "held_out: expected a share"),
        (pairs, ("--max-disparity", 72), "max_disparity: expected a multiple of 16"),
        (pairs, ("--teacher-size", 72, 128), "teacher_size: data.size must be two positive multiples of 32"),
        (pairs, ("--student-size", 72, 128), "student_size: data.size must be two positive multiples of 32"),
        (pairs, ("--adapt-steps", 0), "adapt_steps: expected a whole number from 1"),
        (pairs, ("--data.proxies", tmp_path), "data.proxies: they are made here"),
    ]
    for number, (root, more, message) in enumerate(cases):
        output = tmp_path / f"out-{number}"
        assert run(output, root, *more) == 2
        assert message in " ".join(capsys.readouterr().err.replace("│", "").split()), more
        assert not list(output.glob("*")), "nothing was begun"


def test_what_is_mixed_in_is_looked_at_before_anything_is_trained(pairs: Path, truth: Path, tmp_path: Path) -> None:
    """Another data set's faults were told once the teacher was trained; its truth was called one that nothing saw."""

    def refused(message: str, *words: str, **more: Any) -> None:
        data = DataConfig(root=str(pairs), size=(64, 96), fit="crop", mix=(SourceConfig.from_words([*words]),))
        with pytest.raises(InputError, match=message):
            require_usable(RealQuickstartConfig(data=data, **more), QUIET)

    refused("nowhere: no such folder", str(tmp_path / "nowhere"), "0.1")
    refused("built-in scenes that are mixed must be finite", "synthetic", "0.1")
    refused("2 of its 2 frames are among the pairs that are trained on", str(truth), "0.1", truth=truth)
    small = tmp_path / "small"
    write_samples(SyntheticStereo(1, 32, 64, seed=9), small, 1)
    refused("images are smaller", str(small), "0.1")
    refused("a stereo teacher needs pairs", str(truth / "left"), "0.1", "labels=false")


def test_a_copy_of_what_is_trained_on_is_no_truth(tmp_path: Path) -> None:
    """By whatever names, and as a pack: only the very files were known again."""
    pairs, others = tmp_path / "pairs", tmp_path / "others"
    write_samples(SyntheticStereo(4, *SIZE, seed=5), pairs, 4)
    write_samples(SyntheticStereo(2, *SIZE, seed=9), others, 2)
    copied = tmp_path / "copied"  # one of the pairs under another name, beside one of the others
    for role in ("left", "right", "depth"):
        (copied / role).mkdir(parents=True)
        shutil.copy(pairs / role / "000002.png", copied / role / "a.png")
        shutil.copy(others / role / "000000.png", copied / role / "b.png")
    shutil.copy(pairs / "camera.toml", copied / "camera.toml")
    for folder in (pairs, copied, others):
        run_pack(PackConfig(folder, tmp_path / f"{folder.name}-packed"), lambda text: None)

    def shared(truth: str, trained_on: str) -> list[str]:
        return shared_frames(open_truth(tmp_path / truth), open_dataset(tmp_path / trained_on))

    for truth in ("copied", "copied-packed"):
        for trained_on in ("pairs", "pairs-packed"):
            assert shared(truth, trained_on) == ["a"], (truth, trained_on)
            assert shared(truth.replace("copied", "others"), trained_on) == []
    assert shared("pairs-packed", "pairs-packed") == open_dataset(pairs).names
    cropped = open_dataset(pairs)
    cropped.kb_crop = True
    assert shared_frames(open_truth(tmp_path / "copied-packed"), cropped) == ["a"], "of frames that are cut the whole"

    spoilt = shutil.copytree(copied, tmp_path / "spoilt")
    size = (spoilt / "left" / "a.png").stat().st_size
    (spoilt / "left" / "a.png").write_bytes(bytes(size))
    for trained_on in ("pairs", "pairs-packed"):  # of one size and other bytes, and whoever reads it will say so
        assert shared_frames(open_dataset(spoilt), open_dataset(tmp_path / trained_on)) == []

    for role in TRUTH_FOLDERS:
        shutil.rmtree(pairs / role, ignore_errors=True)
    data = DataConfig(root=str(pairs), size=(64, 96), fit="crop")
    for truth in ("copied", "copied-packed"):
        config = RealQuickstartConfig(data=data, truth=tmp_path / truth)
        with pytest.raises(InputError, match=r"1 of its 2 frames are among the pairs that are trained on, such as a: "):
            require_usable(config, QUIET)


def test_held_out_pairs_that_have_a_truth_are_told_before_anything_is_trained(pairs: Path, tmp_path: Path) -> None:
    """By the adaptation before, and by a setting of its own."""
    root = shutil.copytree(pairs, tmp_path / "pairs")
    config = RealQuickstartConfig(data=DataConfig(root=str(root)), held_out=0.34)
    held_out = divide_nearly(open_dataset(root), open_dataset(root).names, 0.34, 0)[1]
    write_samples(SyntheticStereo(COUNT, *SIZE, seed=5), tmp_path / "truth", COUNT)
    (root / "depth").mkdir()
    for name in held_out:
        shutil.copy(tmp_path / "truth" / "depth" / f"{name}.png", root / "depth" / f"{name}.png")
    with pytest.raises(InputError, match=rf"^held_out 0\.34: all 2 held-out pairs of .*, such as {held_out[0]}"):
        require_usable(config, QUIET)
    (root / "depth" / f"{held_out[0]}.png").unlink()
    require_usable(config, QUIET)


def test_held_out_pairs_that_nothing_matches_in_are_told_by_a_setting_of_this_command(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By "metric" before, which adapt has and this command has not."""
    root = shutil.copytree(pairs, tmp_path / "pairs")
    for name in divide_nearly(open_dataset(root), open_dataset(root).names, 0.34, 0)[1]:
        for view in ("left", "right"):
            cv2.imwrite(str(root / view / f"{name}.png"), np.full((*SIZE, 3), 128, np.uint8))
    output = tmp_path / "out"
    assert run(output, root, "--no-check") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"held_out 0.34: in none of the 2 held-out pairs of {root} is the matcher sure of a pixel" in said
    assert f"expected another share, which takes another output, and --teacher {output / 'teacher'}" in said
    assert "metric" not in said
    assert list_checkpoints(output / "teacher"), "what it advises is there"


def test_a_damaged_checkpoint_is_told_by_what_this_command_can_do(
    whole: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By --run before, which it has not."""
    output = shutil.copytree(whole, tmp_path / "out")
    for part in ("student", "adapted/teacher", "teacher"):  # what comes first is told first
        newest = list_checkpoints(output / part)[-1]
        (newest / "training.safetensors").write_bytes(b"")
        assert run(output, pairs) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"remove {output / part}, and the same command begins it anew" in said
        assert "--run" not in said


def test_a_focal_length_of_frames_that_are_cut_is_of_what_is_left(tmp_path: Path) -> None:
    write_samples(SyntheticStereo(2, 376, 1242, seed=5), tmp_path / "pairs", 2)
    data = DataConfig(root=str(tmp_path / "pairs"), kb_crop=True)
    opened, _ = open_pairs(data, QUIET)
    assert focal_at(opened, 608) == pytest.approx(float(opened.load("000000").camera.fx) / 2, abs=0.01)


def test_the_curves_are_those_of_the_teacher_that_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the built-in one's, where a folder had one, though another was given."""
    drawn: list[dict[str, Path]] = []
    monkeypatch.setattr(command, "panels", lambda config: [])
    monkeypatch.setattr(command, "write_real_page", lambda *given: drawn.append(given[-1]))
    config = RealQuickstartConfig(data=DataConfig(root="pairs"), output=Path("out"))
    for teacher, expected in ((None, "out/teacher"), (Path("mine"), "mine")):
        command._write(replace(config, teacher=teacher), {})
        assert drawn.pop()["teacher before"] == Path(expected)


def test_several_processes_are_refused(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run(tmp_path / "out", pairs) == 2
    assert "quickstart-real works in one process, got 2" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_focal_length_is_the_median_at_the_width_that_is_trained_at(pairs: Path, tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    shutil.copytree(pairs, root)
    camera = (root / "camera.toml").read_text()
    assert focal_at(open_dataset(root), SIZE[1]) == pytest.approx(float(open_dataset(root)[0].camera.fx), abs=0.01)
    numbers = re.sub(r"(?m)^fx = .*$", "fx = 100", camera)
    section = re.sub(r"(?m)^fx = .*$", "fx = 900", camera)
    (root / "camera.toml").write_text(f'{numbers}\n["000003"]\n{section}')
    assert float(open_dataset(root).load("000003").camera.fx) == 900
    assert focal_at(open_dataset(root), SIZE[1] // 2) == 50


def test_truth_of_single_images_is_refused(tmp_path: Path, truth: Path) -> None:
    (tmp_path / "rooms").mkdir()
    shutil.copy(truth / "left" / "000000.png", tmp_path / "rooms" / "a.png")
    shutil.copy(truth / "depth" / "000000.png", tmp_path / "rooms" / "a_depth.png")
    (tmp_path / "rooms" / "depth.toml").write_text("depth_scale = 256\n")
    (tmp_path / "rooms" / "test.csv").write_text("a.png,a_depth.png\n")
    with pytest.raises(InputError, match="a stereo teacher needs pairs"):
        open_truth(tmp_path / "rooms")
