"""The commands as a user types them: they work, and bad input ends with a clear line and a code that is not 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from adu_depth import cli
from adu_depth.checkpoint import list_checkpoints
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


@pytest.mark.parametrize(
    "command",
    [
        "quickstart",
        "quickstart-real",
        "report",
        "render",
        "train-teacher",
        "distill",
        "evaluate",
        "predict",
        "export",
        "submit",
        "pack",
        "doctor",
        "splits",
    ],
)
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
    (output / "report.html").unlink()
    moved = output.rename(tmp_path / "moved")
    assert run("report", moved, "--device", "cpu") == 0
    assert (moved / "report.html").read_text() == page, "the same page, drawn from the folder"
    moved.rename(output)
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
    assert {"epe", "d1", "abs_rel", "nll"} <= kept["methods"]["teacher"]["none"]["means"].keys()
    assert len((folder / "metrics" / "teacher.csv").read_text().splitlines()) == 3


def test_predict_takes_an_image_a_pair_and_a_folder(folder: Path) -> None:
    image = folder / "scenes" / "left" / "000000.png"
    assert run("predict", folder / "student", image, "--output", folder / "one") == 0
    depth = cv2.imread(str(folder / "one" / "000000_depth.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16
    assert depth.shape == (48, 96)
    assert depth.min() > 0
    options = ("--flip", "mean", "--temperature", "3")
    assert run("predict", folder / "student", image, "--output", folder / "options", *options) == 0
    for kind in ("depth", "uncertainty"):
        file = f"000000_{kind}.png"
        assert (folder / "options" / file).read_bytes() != (folder / "one" / file).read_bytes()
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
    expect_error(
        capsys, "no-such-backbone", "distill", "--model.encoder", "no-such-backbone", "--run", tmp_path / "run", *TINY
    )
    expect_error(capsys, "num_groups", "train-teacher", "--model.num-groups", "7", "--run", tmp_path / "run", *TINY)
    expect_error(capsys, "multiples of 32", "train-teacher", "--run", tmp_path / "run", "--data.size", "50", "50")
    expect_error(capsys, "parsing settings.model: ", "train-teacher", "--model.max-disparity", "7")
    expect_error(capsys, str(empty), "train-teacher", "--run", tmp_path / "run", "--data.root", empty)
    assert not (tmp_path / "run").exists(), "nothing is begun with bad input"


def test_a_clip_is_predicted_and_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "drive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (96, 48))
    noise = np.random.default_rng(0).integers(0, 255, (12, 24, 3), np.uint8)
    for _ in range(4):
        writer.write(cv2.resize(noise, (96, 48)))
    writer.release()
    predict = ("predict", folder / "student", tmp_path / "drive.avi", "--output", tmp_path / "out")
    assert run(*predict, "--video.stabilise", "0.7") == 0
    said = capsys.readouterr().out
    assert "4 frames, " in said
    assert " images/s" in said
    assert "as the network says: flicker 0.00% (from frame to frame 0.00%, over 100% of the pixels)" in said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["drive_depth.json", "drive_depth.mp4"]
    expect_error(capsys, "a stereo teacher needs pairs", "predict", folder / "teacher", *predict[2:])
    left = folder / "scenes" / "left"
    student = ("predict", folder / "student")
    expect_error(capsys, "video: its settings are a clip's", *student, left, "--video.stabilise", "0.5")
    expect_error(capsys, "ply, rerun: points are of images", *student, left, "--as-video", "--ply")
    expect_error(capsys, "as_video: expected a folder", *student, left / "000000.png", "--as-video")
    expect_error(capsys, "there is no such camera", *student, "camera:987", "--output", tmp_path / "live")
    expect_error(capsys, "cannot be read: No such file", *student, tmp_path / "no", "--as-video")


def test_one_bad_file_in_a_folder_does_not_stop_the_rest(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a", "b"):
        (images / f"{name}.png").write_bytes((folder / "scenes" / "left" / "000000.png").read_bytes())
    (images / "broken.png").write_bytes(b"\x89PNG")
    assert run("predict", folder / "student", images, "--output", tmp_path / "out") == 1
    assert sorted(p.name for p in (tmp_path / "out").glob("*_depth.png")) == ["a_depth.png", "b_depth.png"]


def test_names_with_brackets_are_shown_as_they_are(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expect_error(capsys, "nosuch[red].png does not exist", "predict", folder / "student", tmp_path / "nosuch[red].png")
    odd = tmp_path / "x[" / "y]"
    (odd / "images").mkdir(parents=True)
    (odd / "images" / "broken[red].png").write_bytes(b"\x89PNG")
    assert run("predict", folder / "student", odd / "images", "--output", odd / "out") == 1
    told = capsys.readouterr()
    assert f"to {odd / 'out'}" in told.out
    assert "broken[red].png: " in told.err
    assert run("train-teacher", "--run", odd / "run", "--model.max-disparity", "16", *TINY) == 0
    assert f"teacher in {odd / 'run'}:" in capsys.readouterr().out
    assert run("evaluate", odd / "run", "--pairs", "1", "--output", odd / "metrics", "--device", "cpu") == 0
    assert f"wrote {odd / 'metrics'}" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["file", "file/below"])
def test_an_output_that_cannot_be_written_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    (tmp_path / "file").write_text("mine")
    bad, image = tmp_path / output, folder / "scenes" / "left" / "000000.png"
    cannot = f"cannot write {bad}"
    expect_error(capsys, cannot, "render", "--output", bad, "--count", "1", "--size", "32", "64")
    expect_error(capsys, cannot, "predict", folder / "student", image, "--output", bad)
    expect_error(capsys, cannot, "predict", folder / "student", image.parent, "--output", bad)
    expect_error(capsys, cannot, "train-teacher", "--run", bad, "--model.max-disparity", "16", *TINY)
    expect_error(capsys, cannot, "distill", "--run", bad, *TINY)
    capsys.readouterr()
    assert run("evaluate", folder / "student", "--pairs", "1", "--output", bad, "--device", "cpu") == 2
    told = capsys.readouterr()
    assert cannot in told.err
    assert told.out == "", "found before the work"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (OSError(28, "No space left on device", "/full[red]"), 2, "No space left on device: '/full[red]'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_the_system_and_the_user_may_stop_a_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    text: str,
) -> None:
    def stopped(config: object) -> int:
        raise raised

    monkeypatch.setitem(cli.COMMANDS, cli.RenderConfig, stopped)
    assert run("render") == code
    [line] = capsys.readouterr().err.splitlines()
    assert text in line


@pytest.mark.parametrize("ask", [lambda: bytearray(1 << 60), lambda: np.empty(1 << 50), lambda: torch.empty(1 << 50)])
def test_too_little_memory_is_said_without_a_traceback(
    ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, cli.RenderConfig, lambda config: ask())
    assert cli.command(["render"]) == 1
    assert "error: out of memory; what was written until now stays" in capsys.readouterr().err.replace("\n", " ")


def test_other_errors_of_torch_are_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, cli.RenderConfig, lambda config: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        cli.command(["render"])


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_devices_are_named(folder: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    source = [folder / "scenes" / "left"] if command == "predict" else []
    expect_error(capsys, "'banana'", command, folder / "student", *source, "--device", "banana")
    if not torch.cuda.is_available():
        expect_error(capsys, "no CUDA device", command, folder / "student", *source, "--device", "cuda")


def test_a_student_with_a_reference_focal_length_asks_for_fx_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = tmp_path / "student"
    assert run("distill", "--run", student, "--model.reference-focal", "60", *TINY) == 0
    image = tmp_path / "image.png"
    image.write_bytes((folder / "scenes" / "left" / "000000.png").read_bytes())
    expect_error(capsys, "give --fx (pixels), or put it into", "predict", student, image, "--output", tmp_path / "out")
    means = []
    for fx in ("60", "120"):
        assert run("predict", student, image, "--output", tmp_path / fx, "--fx", fx) == 0
        means.append(cv2.imread(str(tmp_path / fx / "image_depth.png"), cv2.IMREAD_UNCHANGED).mean())
    assert means[1] == pytest.approx(2 * means[0], rel=0.01)
    (tmp_path / "camera.toml").write_text("fx = 60\n")
    assert run("predict", student, image, "--output", tmp_path / "from-file") == 0
    same = [(tmp_path / name / "image_depth.png").read_bytes() for name in ("60", "from-file")]
    assert same[0] == same[1]


def kitti_from(scenes: Path, root: Path) -> Path:
    """Rendered pairs laid out as KITTI 2015, with a calibration of no importance."""
    truth = (("disparity", "disp_noc_0"), ("disparity", "disp_occ_0"))
    pairs = (("left", "image_2"), ("right", "image_3"), *truth)
    for source, name in pairs:
        (root / name).mkdir(parents=True)
        for file in (scenes / source).iterdir():
            (root / name / f"{file.stem}_10.png").write_bytes(file.read_bytes())
    (root / "calib_cam_to_cam").mkdir()
    for file in (scenes / "left").iterdir():
        lines = [f"P_rect_{n}: 60 0 48 {shift} 0 60 24 0 0 0 1 0" for n, shift in (("02", 0), ("03", -30))]
        (root / "calib_cam_to_cam" / f"{file.stem}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_a_student_trained_on_windows_is_evaluated_on_whole_images(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = kitti_from(folder / "scenes", tmp_path / "kitti")
    student = tmp_path / "student"
    settings = ["--data.root", data, "--data.fit", "crop", "--loop.workers", "0"]
    assert run("distill", "--run", student, *settings, *TINY) == 0
    metrics = []
    for size in ("trained", "full"):
        output = tmp_path / size
        capsys.readouterr()
        arguments = ["--data", data, "--size", size, "--output", output, "--device", "cpu"]
        assert run("evaluate", student, *arguments) == 0
        said = capsys.readouterr().out
        assert "network at each image's own size" in said
        assert f"checkpoint {list_checkpoints(student)[-1]}" in said, "which of the run's"
        metrics.append((output / "student.csv").read_text())
    assert metrics[0] == metrics[1]
    for size, told, factor in (("0.75", "0.75 of each image's own size", 0.75), ("32x64", "32×64", None)):
        output = tmp_path / size
        assert run("evaluate", student, "--data", data, "--size", size, "--output", output, "--device", "cpu") == 0
        assert f"network at {told}" in capsys.readouterr().out
        assert json.loads((output / "metrics.json").read_text())["network_factor"] == factor
    for command in (("evaluate", student, "--data", data), ("predict", student, folder / "scenes" / "left")):
        for size, told in (("0.5", "an image of 48×96 would be 24×48"), ("-1", "above 0"), ("half", "got 'half'")):
            more = ("--size", size, "--output", tmp_path / "none", "--device", "cpu")
            assert run(*command, *more) in ((1, 2) if command[0] == "predict" else (2,))
            assert told in " ".join(capsys.readouterr().err.split())
    assert run("evaluate", student, "--pairs", "1", "--device", "cpu") == 0, "built-in scenes of the windows' size"
