"""`adu-depth adapt`: from a trained teacher and bare pairs to a teacher that is told from the one it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from adu_depth.adaptation import command
from adu_depth.checkpoint import list_checkpoints, load_model
from adu_depth.cli import main
from adu_depth.data import SyntheticStereo, open_dataset
from adu_depth.data.config import DataConfig
from adu_depth.data.splits import divide_nearly
from adu_depth.evaluation.command import EvaluateConfig, evaluate_checkpoint
from adu_depth.files import read_name_lines
from adu_depth.inference import write_samples
from adu_depth.progress import Progress, Task
from adu_depth.training.runs import train_student, train_teacher
from tests.training.tiny import LOOP, tiny_student, tiny_teacher

COUNT = 6
QUIET = Progress(enabled=False)
SMALL = (
    "--max-disparity", 64, "--data.size", 64, 96, "--scenes", 0.25, "--scene-pairs", 2, "--held-out", 0.34,
    "--validate-every", 2, "--loop.steps", 2, "--loop.workers", 0, "--loop.device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    train_teacher(tiny_teacher(folder / "teacher"), QUIET)
    return folder / "teacher"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Views and a camera alone."""
    write_samples(SyntheticStereo(COUNT, 96, 192, seed=5), tmp_path / "pairs", COUNT)
    for role in ("depth", "sparse_depth", "disparity", "occluded", "preview"):
        shutil.rmtree(tmp_path / "pairs" / role, ignore_errors=True)
    return tmp_path / "pairs"


def adapt(start: Path, pairs: Path, output: Path, *more: object) -> int:
    arguments = ["adapt", start, "--data.root", pairs, "--output", output, *SMALL, *more]
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def told(output: Path) -> dict[str, Any]:
    return json.loads((output / "adapt.json").read_text())  # type: ignore[no-any-return]


def test_a_teacher_goes_on_on_bare_pairs(
    start: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "adapted"
    assert adapt(start, pairs, output) == 0
    report = told(output)
    assert {"before", "adapted"} < set(report["held_out"])
    for name in ("photometric", "left_right", "proxy_epe", "proxy_d1"):
        assert all(np.isfinite(report["held_out"][column][name]) for column in ("before", "adapted"))
    parts = {part: [n for n in read_name_lines(output / "splits" / f"{part}.txt") if n] for part in ("train", "val")}
    assert (len(parts["train"]), len(parts["val"])) == (4, 2)
    assert not set(parts["train"]) & set(parts["val"]), "what is held out is not trained on"
    trained = load_model(output / "teacher")
    assert trained.kind == "teacher"
    assert trained.config["model"]["max_disparity"] == 64
    assert trained.config["data"]["proxies"] == str(output / "proxies")
    assert [source["root"] for source in trained.config["data"]["mix"]] == ["synthetic"]
    said = capsys.readouterr().out
    assert "held-out pairs" in said
    assert ("WARNING: it got worse" in said) == bool(report["worse"])

    before = {path: path.stat().st_mtime_ns for path in (output / "teacher").rglob("*.safetensors")}
    assert adapt(start, pairs, output) == 0, "given again it has nothing left to do"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert told(output)["held_out"] == report["held_out"]


def test_it_says_where_it_got_worse(
    start: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate that breaks the network."""
    output = tmp_path / "adapted"
    assert adapt(start, pairs, output, "--optimizer.learning-rate", 3, "--optimizer.clip-norm", 0) == 0
    said = capsys.readouterr().out
    worse = told(output).get("worse")
    assert worse
    assert f"WARNING: it got worse in {', '.join(worse)}" in said


def test_a_stopped_one_goes_on(start: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "adapted"
    assert adapt(start, pairs, output, "--loop.steps", 1) == 0
    assert adapt(start, pairs, output, "--loop.steps", 3) == 0
    assert list_checkpoints(output / "teacher")[-1].name == "step-00000003"
    assert adapt(start, pairs, output, "--loop.steps", 3, "--data.size", 64, 128) == 2
    assert "size" in capsys.readouterr().err, "another training does not go on in its place"


def test_ctrl_c_says_what_goes_on_and_what_was_measured_before_is_kept(
    start: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, measured, divided, advance = tmp_path / "adapted", [], [], Task.advance

    def stopped(task: Task, note: str | None = None) -> None:
        advance(task, note)
        if task.what == "training teacher" and task.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    def measure(settings: EvaluateConfig, console: Console) -> Any:
        measured.append(settings.checkpoint)
        return evaluate_checkpoint(settings, console)

    def divide(*given: Any) -> Any:
        divided.append(given)
        return divide_nearly(*given)

    monkeypatch.setattr(command, "evaluate_checkpoint", measure)
    monkeypatch.setattr(command, "divide_nearly", divide)
    with monkeypatch.context() as patch:
        patch.setattr(Task, "advance", stopped)
        assert adapt(start, pairs, output) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "stopped by SIGINT; the same command goes on with this adaptation\n"
    assert list_checkpoints(output / "teacher")[-1].name == "step-00000001"
    assert (measured, len(divided)) == ([start], 1)
    kept = json.loads((output / "before.json").read_text())
    assert adapt(start, pairs, output) == 0
    assert (measured, len(divided)) == ([start, output / "teacher"], 2)
    assert told(output)["held_out"]["before"] == kept["figures"]

    (output / "before.json").write_text(json.dumps({**kept, "of": {**kept["of"], "frames": "others"}, "figures": {}}))
    assert adapt(start, pairs, output) == 0
    assert measured[2:] == [start, output / "teacher"], "figures of other pairs are not taken for theirs"
    assert told(output)["held_out"]["before"] == kept["figures"]


def flip(path: Path) -> None:
    """One bit of the last number."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_told_by_what_this_command_can_do(
    start: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By --run before, which adapt has not, and by --loop.resume-from where the same command goes on as well."""
    output, often = tmp_path / "adapted", ("--loop.checkpoint-every", 1, "--loop.keep-checkpoints", 2)
    assert adapt(start, pairs, output, *often) == 0
    first = told(output)["held_out"]
    older, newest = list_checkpoints(output / "teacher")

    def refused(*more: object) -> str:
        capsys.readouterr()
        assert adapt(start, pairs, output, *often, *more) == 2
        return " ".join(capsys.readouterr().err.split())

    flip(newest / "training.safetensors")
    said = refused()
    assert said.endswith(f"; remove {newest}, and the same command goes on from {older}")
    assert "--run" not in said
    assert "--loop.resume-from 1 goes on from it" in refused("--loop.resume-from", 2), "there it is no other command"
    shutil.rmtree(newest)
    assert adapt(start, pairs, output, *often) == 0
    assert told(output)["held_out"] == first
    for checkpoint in list_checkpoints(output / "teacher"):
        flip(checkpoint / "training.safetensors")
    said = refused()
    whole = f"no other checkpoint of {output / 'teacher'} is whole: remove {output / 'teacher'}, and the same command"
    assert said.endswith(f"; {whole} begins it anew")
    assert f"{whole}, without --loop.resume-from, begins it anew" in refused("--loop.resume-from", 1)
    shutil.rmtree(output / "teacher")
    assert adapt(start, pairs, output, *often) == 0
    assert told(output)["held_out"] == first


def test_held_out_pairs_without_proxies_are_told_by_a_setting_of_this_command(
    start: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By "validation.proxies" before, which adapt has not."""
    dataset = open_dataset(pairs)
    held_out = divide_nearly(dataset, dataset.names, 0.34, 0)[1]
    for name in held_out:
        for view in ("left", "right"):
            shutil.copy(pairs / view / f"{name}.png", tmp_path / f"{view}-{name}.png")
            cv2.imwrite(str(pairs / view / f"{name}.png"), np.full((96, 192, 3), 128, np.uint8))
    assert adapt(start, pairs, tmp_path / "grey", "--no-check") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "metric proxy_d1: in none of the 2 held-out pairs of" in said
    assert "expected metric photometric or left_right" in said
    assert not (tmp_path / "grey" / "teacher").exists()
    assert adapt(start, pairs, tmp_path / "grey", "--no-check", "--metric", "photometric") == 0
    assert "proxy_d1" not in told(tmp_path / "grey")["held_out"]["adapted"]

    for name in held_out:
        for view in ("left", "right"):
            shutil.copy(tmp_path / f"{view}-{name}.png", pairs / view / f"{name}.png")
    truth = tmp_path / "truth"
    write_samples(SyntheticStereo(COUNT, 96, 192, seed=5), truth, COUNT)
    (pairs / "depth").mkdir()
    for name in held_out:
        shutil.copy(truth / "depth" / f"{name}.png", pairs / "depth" / f"{name}.png")
    assert adapt(start, pairs, tmp_path / "measured") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"metric proxy_d1: all 2 held-out pairs of {pairs} have ground truth, such as {held_out[0]}" in said
    assert not (tmp_path / "measured" / "proxies").exists(), "before anything is matched"
    assert adapt(start, pairs, tmp_path / "measured", "--metric", "photometric") == 0
    assert set(told(tmp_path / "measured")["held_out"]["adapted"]) >= {"photometric", "left_right"}


def test_it_goes_on_where_teacher_and_folder_lie_elsewhere(start: Path, pairs: Path, tmp_path: Path) -> None:
    """By another path, the same weights: the training refused the path, after all pairs were matched."""
    assert adapt(start, pairs, tmp_path / "adapted") == 0
    first = told(tmp_path / "adapted")["held_out"]
    moved, output = shutil.copytree(start, tmp_path / "moved"), tmp_path / "elsewhere"
    (tmp_path / "adapted").rename(output)
    assert adapt(moved, pairs, output) == 0
    assert told(output)["held_out"] == first
    assert load_model(output / "teacher").config["init"] == str(start), "what it began with stays told"


def test_what_would_make_it_another_is_refused_and_leaves_all_as_it_was(
    start: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its metric chose the checkpoint, its splits say what it learned from, its start is what it is held against."""
    output, own = tmp_path / "adapted", tmp_path / "start"
    shutil.copytree(start, own)
    assert adapt(own, pairs, output) == 0
    kept = {path: path.read_bytes() for path in output.rglob("*") if path.suffix in (".json", ".txt")}
    assert output / "splits" / "val.txt" in kept
    capsys.readouterr()

    def refused(*more: object) -> str:
        assert adapt(own, pairs, output, *more) == 2
        assert {path: path.read_bytes() for path in kept} == kept
        return " ".join(capsys.readouterr().err.split())

    assert "metric photometric: " in (said := refused("--metric", "photometric"))
    assert "by proxy_d1" in said
    assert "held_out 0.17" in refused("--held-out", 0.17)
    for view in ("left", "right"):
        shutil.copy(pairs / view / "000000.png", pairs / view / "000009.png")
    assert "splits: other pairs than" in refused()
    for view in ("left", "right"):
        (pairs / view / "000009.png").unlink()
    newest = list_checkpoints(own)[-1]
    shutil.rmtree(newest)
    assert f"{own}: other weights than" in refused()


def swapped(root: Path) -> None:
    (root / "left").rename(root / "other")
    (root / "right").rename(root / "left")
    (root / "other").rename(root / "right")


def moved_rows(root: Path) -> None:
    for path in (root / "right").glob("*.png"):
        cv2.imwrite(str(path), np.roll(cv2.imread(str(path)), 6, axis=0))


def black(root: Path) -> None:
    for path in (root / "right").glob("*.png"):
        cv2.imwrite(str(path), np.zeros_like(cv2.imread(str(path))))


@pytest.mark.parametrize("change", [swapped, moved_rows, black])
@pytest.mark.parametrize("check", ["--check", "--no-check"])
def test_pairs_that_cannot_work_end_with_a_message(
    change: Callable[[Path], None],
    check: str,
    start: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The doctor's, or without it the matcher's; and nothing is trained."""
    change(pairs)
    assert adapt(start, pairs, tmp_path / "adapted", check) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert ("above; a teacher would learn them" if check == "--check" else "of the pixels match") in said
    assert not (tmp_path / "adapted" / "teacher").exists()


def test_what_cannot_be_is_named(start: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = tmp_path / "student"
    train_student(tiny_student(student, data=DataConfig(pairs=2, size=(32, 64)), loop=LOOP), QUIET)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((student, pairs, tmp_path / "a"), "expected a stereo teacher"),
        ((start, tmp_path / "nowhere", tmp_path / "b"), "nowhere"),
        ((start, "synthetic", tmp_path / "c"), "data.root: expected the folder of your pairs"),
        ((start, pairs, tmp_path / "full"), "holds 'mine.txt'"),
        ((start, pairs, tmp_path / "d", "--data.proxies", tmp_path), "data.proxies: they are made here"),
        ((start, pairs, tmp_path / "e", "--max-disparity", 72), "max_disparity: expected a multiple of 16"),
        ((start, pairs, tmp_path / "f", "--held-out", 0), "held_out: expected a share"),
        ((start, pairs, tmp_path / "z", "--data.size", 128, 96), "images are smaller"),
        ((start, pairs, tmp_path / "g", "--metric", "abs_rel"), "metric: expected one of photometric, left_right"),
        ((start, pairs, tmp_path / "h", "--scenes", 0.0004), "scenes: expected 0 or a share of at least 0.001"),
        ((start, pairs, tmp_path / "i", "--data.mix", pairs, 0.8), "data.mix: expected shares below 1 in all"),
    ]
    for arguments, message in cases:
        assert adapt(*arguments) == 2  # type: ignore[arg-type]
        assert message in " ".join(capsys.readouterr().err.replace("│", "").split()), arguments
        assert not (arguments[2] / "proxies").exists(), "nothing was matched for it"  # type: ignore[operator]
    assert not (tmp_path / "z" / "proxies").exists(), "before anything is matched"
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
