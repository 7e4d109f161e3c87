"""The commands as a user types them: they work, and bad input ends with a clear line and a code that is not 0."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from adu_depth.cli import main

TINY = [
    "--data.size",
    "32",
    "64",
    "--data.pairs",
    "4",
    "--loop.steps",
    "2",
    "--loop.batch-size",
    "2",
    "--loop.device",
    "cpu",
]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and a student, trained for two steps, and rendered pairs."""
    path = tmp_path_factory.mktemp("cli")
    assert run("train-teacher", "--run", path / "teacher", "--model.max-disparity", "16", *TINY) == 0
    assert run("distill", "--teacher", path / "teacher", "--run", path / "student", *TINY) == 0
    assert run("render", "--output", path / "scenes", "--count", "2", "--size", "48", "96") == 0
    return path


@pytest.mark.parametrize("command", ["quickstart", "render", "train-teacher", "distill", "evaluate", "predict"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    assert command in text
    assert "usage: adu-depth" in text


def test_quickstart_writes_report_and_checkpoints(tmp_path: Path) -> None:
    output = tmp_path / "quick"
    settings = ["--size", "32", "64", "--pairs", "4", "--held-out", "2", "--steps", "2", "--teacher-steps", "2"]
    assert run("quickstart", "--output", output, "--seeds", "2", "--batch-size", "2", "--device", "cpu", *settings) == 0
    report = json.loads((output / "report.json").read_text())
    assert report["seeds"] == 2
    for model in ("teacher", "student_alone", "student_distilled"):
        metrics = ("abs_rel", "sq_rel", "rmse", "rmse_log", "silog", "a1", "a2", "a3")
        assert all(name in report[model] and f"{name}_sd" in report[model] for name in metrics)
        assert (output / "seed-1" / model / "checkpoints").is_dir()
    assert {"epe", "d1"} <= report["teacher"].keys()
    assert {"teacher", "student_alone", "student_distilled"} <= report["seconds"].keys()
    assert report["environment"]["torch"]
    page = (output / "report.html").read_text()
    assert page.count("data:image/") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert run("quickstart", "--output", output, "--batch-size", "2", "--device", "cpu", *settings) == 0, (
        "replaces its own"
    )
    (output / "thesis.txt").write_text("mine")
    assert run("quickstart", "--output", output, "--batch-size", "2", *settings) == 2, "but nothing else"
    assert (output / "thesis.txt").read_text() == "mine"


def test_evaluate_prints_the_teacher_beside_the_baselines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", folder / "teacher", "--pairs", "2", "--output", folder / "metrics", "--device", "cpu") == 0
    text = capsys.readouterr().out
    assert "StereoSGBM" in text
    assert "constant" in text
    kept = json.loads((folder / "metrics" / "metrics.json").read_text())
    assert {"epe", "d1", "abs_rel", "nll"} <= kept["methods"]["teacher"]["means"].keys()
    assert len((folder / "metrics" / "teacher.csv").read_text().splitlines()) == 3


def test_predict_takes_an_image_a_pair_and_a_folder(folder: Path) -> None:
    image = folder / "scenes" / "left" / "000000.png"
    assert run("predict", folder / "student", image, "--output", folder / "one") == 0
    depth = cv2.imread(str(folder / "one" / "000000_depth.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16
    assert depth.shape == (48, 96)
    assert depth.min() > 0
    right = folder / "scenes" / "right" / "000000.png"
    assert run("predict", folder / "teacher", image, "--right", right, "--output", folder / "pair") == 0
    assert run("predict", folder / "teacher", folder / "scenes", "--output", folder / "all") == 0
    assert len(list((folder / "all").glob("*_depth.png"))) == 2
    assert len(list((folder / "all").glob("*_uncertainty.png"))) == 2


def expect_error(capsys: pytest.CaptureFixture[str], text: str, *arguments: str | Path) -> None:
    capsys.readouterr()
    assert run(*arguments) == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_bad_input_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = folder / "scenes" / "left" / "000000.png"
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:100])
    (tmp_path / "small.png").write_bytes(cv2.imencode(".png", np.zeros((20, 30, 3), np.uint8))[1].tobytes())
    lone = tmp_path / "lone.png"
    lone.write_bytes(image.read_bytes())
    empty = tmp_path / "empty"
    empty.mkdir()
    teacher, student = folder / "teacher", folder / "student"
    expect_error(capsys, "nothing.png", "predict", student, tmp_path / "nothing.png")
    expect_error(capsys, "broken.png", "predict", student, tmp_path / "broken.png")
    expect_error(capsys, "right image", "predict", teacher, image)
    expect_error(capsys, "must have one size", "predict", teacher, image, "--right", tmp_path / "small.png")
    expect_error(capsys, "no calibration", "predict", teacher, lone, "--right", lone)
    expect_error(capsys, "holds no checkpoint", "predict", empty, image)
    expect_error(capsys, "does not exist", "evaluate", tmp_path / "nowhere")
    expect_error(capsys, str(empty), "evaluate", student, "--data", empty)
    expect_error(capsys, "expected a teacher's", "distill", "--teacher", student, "--run", tmp_path / "run", *TINY)
    expect_error(
        capsys, "no-such-backbone", "distill", "--model.encoder", "no-such-backbone", "--run", tmp_path / "run", *TINY
    )
    expect_error(capsys, "num_groups", "train-teacher", "--model.num-groups", "7", "--run", tmp_path / "run", *TINY)
    expect_error(capsys, "multiples of 32", "train-teacher", "--run", tmp_path / "run", "--data.size", "50", "50")
    expect_error(capsys, str(empty), "train-teacher", "--run", tmp_path / "run", "--data.root", empty)
    assert not (tmp_path / "run").exists(), "nothing is begun with bad input"


def test_one_bad_file_in_a_folder_does_not_stop_the_rest(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a", "b"):
        (images / f"{name}.png").write_bytes((folder / "scenes" / "left" / "000000.png").read_bytes())
    (images / "broken.png").write_bytes(b"\x89PNG")
    assert run("predict", folder / "student", images, "--output", tmp_path / "out") == 1
    assert sorted(p.name for p in (tmp_path / "out").glob("*_depth.png")) == ["a_depth.png", "b_depth.png"]
