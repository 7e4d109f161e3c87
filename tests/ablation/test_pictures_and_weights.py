"""What a comparison learns from is what it began with, and nothing that it measures; its rows say what is known."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from adu_depth.ablation.config import AblationConfig, IndoorConfig
from adu_depth.ablation.light_indoor import LightIndoor
from adu_depth.models import LightStudent
from adu_depth.progress import Task
from tests.ablation.commands import light, run


def test_what_was_begun_is_not_gone_on_with_on_other_pictures(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is trained, and gone on with where the pictures are what they were."""
    root, output = shutil.copytree(rooms, tmp_path / "rooms"), tmp_path / "out"
    command = light(root, "--seeds", 1, "--rows", "alone-x", "distilled-x", "--output", output)
    advance = Task.advance

    def stopped(task: Task, note: str | None = None) -> None:
        advance(task, note)
        if task.what == "training distilled-x" and task.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "advance", stopped)
        assert run(*command) == 128 + signal.SIGTERM
    begun = output / "seed-0" / "distilled-x"
    assert (begun / "begun.json").is_file()
    lines = (root / "train.csv").read_text()
    (root / "train.csv").write_text("\n".join(lines.splitlines()[:4]) + "\n")
    shutil.rmtree(output / "seed-0" / "teacher-x")
    capsys.readouterr()
    assert run(*command) == 2
    told = capsys.readouterr().err
    assert f"{begun} was begun with other settings" in told
    assert "frames.x: " in told
    assert not (output / "seed-0" / "teacher-x").exists(), "nothing was trained"
    (root / "train.csv").write_text(lines)
    described = (begun / "begun.json").read_bytes()
    (begun / "begun.json").unlink()
    assert run(*command) == 2
    assert "does not say what it learns from" in capsys.readouterr().err
    (begun / "begun.json").write_bytes(described)
    assert run(*command) == 0
    assert not (begun / "begun.json").exists()


def test_the_encoder_s_weights_are_known_by_their_content(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, output = tmp_path / "weights.pt", tmp_path / "out"
    torch.save(LightStudent().encoder.state_dict(), weights)
    command = ("--seeds", 1, "--rows", "distilled-x", "--output", output, "--light.encoder-weights")
    assert run(*light(rooms, *command, weights)) == 0
    moved = weights.rename(tmp_path / "elsewhere.pt")
    assert run(*light(rooms, *command, moved)) == 0, "another place is nothing to the result"
    capsys.readouterr()
    assert run(*light(rooms, *command, weights)) == 2
    assert f"{weights} is not a file" in capsys.readouterr().err
    torch.save(LightStudent().encoder.state_dict(), moved)
    assert run(*light(rooms, *command, moved)) == 2
    assert "these differ: encoder_weights: " in capsys.readouterr().err
    results = sorted((output / "seed-0").glob("*/result.json"))
    for path in results:  # from before the content was kept: the place is all that is known
        older = json.loads(path.read_text())
        older["training"]["model"]["encoder_weights"] = str(moved)
        del older["identity"]["encoder_weights"]
        if "teacher" in older["identity"]:
            older["identity"]["teacher"]["training"]["model"]["encoder_weights"] = str(moved)
            del older["identity"]["teacher"]["encoder_weights"]
        path.write_text(json.dumps(older))
    assert run(*light(rooms, *command, moved)) == 0
    shutil.copy(moved, weights)
    capsys.readouterr()
    assert run(*light(rooms, *command, weights)) == 2
    assert f"model.encoder_weights: {moved} → {weights}" in capsys.readouterr().err


def test_pictures_that_are_measured_on_are_not_learned_from(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(rooms, tmp_path / "rooms")
    lists = {name: (root / f"{name}.csv").read_text() for name in ("train", "test", "unlabelled")}
    tested, depth = lists["test"].splitlines()[0].split(",")
    (root / "train.csv").write_text(f"{lists['train']}{tested},{depth}\n")
    assert run(*light(root, "--list")) == 2
    assert "train.csv has b/test/color/5, and test.csv, which is measured on, has it too" in capsys.readouterr().err
    (root / "train.csv").write_text(lists["train"])
    shutil.copy(root / tested, root / "unlabelled" / "nyu" / "copy.png")
    (root / "unlabelled.csv").write_text(f"{lists['unlabelled']}unlabelled/nyu/copy.png,\n")
    assert run(*light(root, "--list")) == 2
    told = capsys.readouterr().err
    assert "unlabelled.csv has unlabelled/nyu/copy, and test.csv" in told
    assert "the same picture (b/test/color/5)" in told
    assert "--data.test-place" in told
    place = ("--data.test-place", "unlabelled/nyu")
    assert run(*light(root, "--list", *place)) == 0, "a row with the place says so"
    (root / "val.csv").write_text(f"{tested},{depth}\n")
    capsys.readouterr()
    assert run(*light(root, "--list", *place)) == 2, "no row says that it saw those"
    told = capsys.readouterr().err
    assert "unlabelled.csv has unlabelled/nyu/copy, and val.csv, which is measured on, has the same picture" in told
    assert "take it out of one of the two" in told
    assert "--data.test-place" not in told


def test_a_row_says_only_what_is_known_of_its_pictures(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What shows the test place: pictures below a folder, of whole names; none without such a folder."""

    def listed(*more: object) -> dict[str, str]:
        capsys.readouterr()
        assert run(*light(root, "--list", *more)) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[0]: line for line in lines if line.startswith(("distilled", "alone"))}

    root = shutil.copytree(rooms, tmp_path / "rooms")
    assert listed()["distilled-x-u"].endswith("N_s distilled on X ∪ U, without the test place")
    default = IndoorConfig.test_place
    for place, reason in (("", "names no folder"), (default, f"no picture of unlabelled.csv is below {default}")):
        if place:  # the data set has no such folder
            (root / place).rename(root / "unlabelled" / "hall")
            lines = (root / "unlabelled.csv").read_text()
            (root / "unlabelled.csv").write_text(lines.replace(f"{place}/", "unlabelled/hall/"))
        found = listed("--data.test-place", place)
        assert found["distilled-x-u"].endswith("N_s distilled on X ∪ U"), place
        assert (
            f"with the test place unlabelled: left out, {'data.test-place ' if not place else ''}{reason}"
            in (found["distilled-x-u-place"])
        )
        preset = LightIndoor(AblationConfig("light-indoor", data=IndoorConfig(str(root), test_place=place)))
        assert "4 of U." in preset.about.replace(",", ".")
        assert "test place" not in preset.about
    assert listed("--data.test-place", "unlabelled/hall/")["distilled-x-u"].endswith("without the test place")
    (root / "unlabelled.csv").write_text("\n")
    found = listed("--data.test-place", "nope")  # nothing to look for it in
    assert found["distilled-u"].endswith("left out, unlabelled.csv is empty")
    assert "left out" not in found["distilled-x"]


@pytest.mark.parametrize("place", ["unlabelled/ho", "nope", "/abs"])
def test_a_test_place_that_is_misspelt_is_refused(place: str, rooms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was taken as none: its pictures were learned from as of another place."""
    assert run(*light(rooms, "--list", "--data.test-place", place)) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"data.test-place {place}: expected a folder of pictures of unlabelled.csv" in told
