"""One command: every row of every seed, kept where it is done, gone on with where it was stopped, refused where it is
of other settings; and a table that says what its results say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from adu_depth.ablation import built_in
from adu_depth.ablation.config import AblationConfig, IndoorConfig
from adu_depth.ablation.light_indoor import LightIndoor
from adu_depth.ablation.preset import Together
from adu_depth.ablation.rows import ADU, LIGHT
from adu_depth.checkpoint import config_dict
from adu_depth.data import StereoSample
from adu_depth.models.prediction import DepthPrediction
from adu_depth.progress import Progress, Task
from adu_depth.training.config import StudentTrainingConfig
from adu_depth.training.run_folder import differing_settings
from adu_kernels import depth_objective
from tests.ablation.commands import SCENES, light, run, table_of


def test_rows_of_several_seeds_make_one_table(rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert run(*light(rooms, "--seeds", 2, "--rows", "alone-x", "distilled-x-u", "--output", output)) == 0
    table = table_of(output)
    assert [row["name"] for row in table["rows"]] == ["teacher-x", "distilled-x-u", "alone-x"], "with its teacher"
    for row in table["rows"]:
        results = [json.loads((output / f"seed-{s}" / row["name"] / "result.json").read_text()) for s in (0, 1)]
        for key in ("test/rmse", "test/rel", "test/delta3"):
            values = [result["metrics"][key] for result in results]
            assert row["means"][key] == pytest.approx(statistics.fmean(values))
            assert row["sds"][key] == pytest.approx(statistics.stdev(values))
        assert (row["parameters"], row["seeds"]) == (1_673_905, [0, 1])
        assert row["macs"] == pytest.approx(4.02e9, rel=1e-3)
        assert row["cpu_ms"] > 0
        assert row["threads"] == [torch.get_num_threads()]
        assert min(row["seconds"]) > 0
    [alone] = [row for row in table["rows"] if row["name"] == "alone-x"]
    assert alone["sds"]["test/rmse"] > 0, "seeds differ"
    learned = {row["name"]: row["values"]["test/rmse"] for row in table["rows"]}
    assert learned["distilled-x-u"] != learned["alone-x"]
    text = (output / "table.md").read_text()
    mean, sd = alone["means"]["test/rmse"], alone["sds"]["test/rmse"]
    assert "| 2 | 1,673,905 | 4.02 |" in text
    assert f"| {mean:.3f} ± {sd:.3f} |" in text
    assert "| published, on NYU-v2: 2105.06143: N_s, NYU-v2 + unlabelled ScanNet | – | 1.7 M |" in text
    page = (output / "index.html").read_text()
    assert f"<td>{mean:.3f} ± {sd:.3f}</td>" in page
    assert page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert capsys.readouterr().out.count("to be trained)") == 6
    mixed = output / "seed-0" / "distilled-x-u" / "result.json"
    older = json.loads(mixed.read_text())
    del older["training"]["data"]["mix"][0]["proxies"]  # a setting from after it was trained
    mixed.write_text(json.dumps(older))
    assert run(*light(rooms, "--seeds", 2, "--rows", "alone-x", "distilled-x-u", "--output", output)) == 0
    again = ("--seeds", 2, "--rows", "alone-x", "--output", output, "--data.depth-scale", 500)
    assert run(*light(rooms, *again)) == 2
    assert "depth_scale: 1000.0 → 500.0" in capsys.readouterr().err


def test_depth_by_the_focal_length_needs_every_picture_s(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "rooms"
    shutil.copytree(rooms, root)
    for folder, fx in (("a", 40.0), ("b", 50.0)):
        (root / folder / "camera.toml").write_text(f"fx = {fx}\n")
    output = tmp_path / "out"
    chosen = ("--light.reference-focal", 30, "--seeds", 1, "--output", output)
    assert run(*light(root, *chosen, "--rows", "distilled-x-u")) == 2
    told = capsys.readouterr().err
    assert "which unlabelled/nyu/color/7 of" in told
    assert "expected fx in a camera.toml" in told
    (root / "camera.toml").write_text("fx = 45.0\n")
    assert run(*light(root, *chosen, "--rows", "distilled-x-u")) == 0
    assert "depth is scaled by the focal length over 30 pixels" in (output / "table.md").read_text()
    config = json.loads((output / "seed-0" / "teacher-x" / "config.json").read_text())
    assert config["model"]["reference_focal"] == 30


def test_rows_without_data_are_said_with_the_reason(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*light(rooms, "--list")) == 0
    listed = capsys.readouterr().out
    for row in LIGHT:
        [line] = [line for line in listed.splitlines() if line.startswith(f"{row.name} ")]
        assert ("left out, there is no labelled.csv" in line) == ("labelled" in row.data), line
    assert run(*light(rooms, "--rows", "alone-x-labelled", "--output", tmp_path / "out")) == 2
    assert "none of them can be trained" in capsys.readouterr().err
    assert run(*light(rooms, "--rows", "alone-y", "--output", tmp_path / "out")) == 2
    assert "rows: expected some of teacher-x, " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_row_learns_from(rooms: Path, tmp_path: Path) -> None:
    """X and U′ with their depth, U without, though its list names some; the test place only where a row says so."""
    root = shutil.copytree(rooms, tmp_path / "rooms")
    lines = (root / "train.csv").read_text().splitlines()
    (root / "labelled.csv").write_text("\n".join(lines[:3]) + "\n")
    unlabelled = (root / "unlabelled.csv").read_text().replace("7.png,", "7.png,nowhere/7.png")
    (root / "unlabelled.csv").write_text("\n".join([lines[4], unlabelled]))
    preset = LightIndoor(AblationConfig("light-indoor", data=IndoorConfig(str(root)), size=(38, 50)))
    preset.load(Progress(enabled=False))
    found = {}
    for row in preset.rows:
        config = preset.training(row, 0)
        samples = preset._samples({part: preset.parts[part] for part in row.data}, config.data)
        known = [bool(samples[index].valid.any()) for index in range(len(samples))]
        places = sum("holo" in str(samples[index].name) for index in range(len(samples)))
        teacher = "" if config.teacher is None else config.teacher.name
        found[row.name] = (known.count(True), known.count(False), places, teacher)
    assert found == {
        "teacher-x": (5, 0, 0, ""),
        "teacher-x-labelled": (8, 0, 0, ""),
        "distilled-x": (5, 0, 0, "teacher-x"),
        "distilled-u": (0, 3, 0, "teacher-x"),
        "distilled-u-place": (0, 5, 2, "teacher-x"),
        "distilled-x-u": (5, 3, 0, "teacher-x"),
        "distilled-x-u-place": (5, 5, 2, "teacher-x"),
        "distilled-x-labelled": (8, 0, 0, "teacher-x-labelled"),
        "alone-x": (5, 0, 0, ""),
        "alone-x-labelled": (8, 0, 0, ""),
    }


def test_one_process_trains_it(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(*light(rooms, "--output", tmp_path / "out")) == 2
    assert "start it without torchrun" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_trained_stays_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    command = ("--preset", "adu", *SCENES, "--output", output, "--rows")
    assert run(*command, "alone", "--seeds", 1) == 0
    result = output / "seed-0" / "alone" / "result.json"
    before = (result.read_bytes(), result.stat().st_mtime_ns)
    trained: list[str] = []
    really = built_in.train_student

    def counted(config: StudentTrainingConfig, *rest: Any) -> Any:
        trained.append(config.run.name)
        return really(config, *rest)

    monkeypatch.setattr(built_in, "train_student", counted)
    assert run(*command, "alone", "no-gate", "--seeds", 2) == 0
    assert trained == ["no-gate", "no-gate", "alone"], "of seed 0, then both of seed 1"
    assert (result.read_bytes(), result.stat().st_mtime_ns) == before
    assert [row["seeds"] for row in table_of(output)["rows"]] == [[0, 1]] * 3
    taught = output / "seed-0" / "no-gate" / "result.json"
    older = json.loads(taught.read_text())
    for part in (older["training"], older["identity"]["teacher"]["training"]):
        assert part.pop("augmentation"), "a setting from after it was trained does what its default does"
    taught.write_text(json.dumps(older))
    assert run(*command, "alone", "no-gate", "--seeds", 2) == 0
    capsys.readouterr()
    assert run(*command, "alone", "--seeds", 2, "--alone-learning-rate", "1e-3") == 2
    said = capsys.readouterr().err
    assert str(result.parent) in said
    assert "optimizer.learning_rate: 0.004 → 0.001" in said
    assert run(*command, "no-gate", "--seeds", 2, "--teacher-steps", 3) == 2
    assert "loop.steps: 2 → 3" in capsys.readouterr().err
    assert json.loads((output / "ablation.json").read_text())["alone_learning_rate"] == 0.004, "as it was"
    assert len(trained) == 3


def test_a_teacher_of_other_settings_makes_its_students_results_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = ("--preset", "adu", *SCENES, "--output", output, "--seeds", 1, "--rows", "no-gate")
    assert run(*command) == 0
    shutil.rmtree(output / "seed-0" / "teacher")
    assert run(*command, "--teacher-learning-rate", "1e-4") == 2
    said = capsys.readouterr().err
    assert str(output / "seed-0" / "no-gate") in said
    assert "teacher.training.optimizer.learning_rate: 0.002 → 0.0001" in said


def test_a_signal_ends_it_well_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bits of one that was never stopped."""
    command = ("--preset", "adu", *SCENES, "--seeds", 1, "--rows", "alone", "no-gate", "--steps", 4, "--output")
    assert run(*command, tmp_path / "whole") == 0
    advance = Task.advance

    def stopped(task: Task, note: str | None = None) -> None:
        advance(task, note)
        if task.what == "training no-gate" and task.done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Task, "advance", stopped)
        assert run(*command, tmp_path / "stopped") == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert "stopped by SIGTERM; the same command goes on with this ablation" in said
    folder = tmp_path / "stopped" / "seed-0" / "no-gate"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000002"]
    assert not (folder / "result.json").exists()
    assert [len(row["seeds"]) for row in table_of(tmp_path / "stopped")["rows"]] == [1, 0, 0]
    assert "0 of 1" in (tmp_path / "stopped" / "table.md").read_text()
    first = json.loads((folder / "spent.json").read_text())["seconds"]
    assert first > 0
    assert run(*command, tmp_path / "stopped") == 0
    assert json.loads((folder / "result.json").read_text())["seconds"] >= first
    values = [[row["values"] for row in table_of(tmp_path / name)["rows"]] for name in ("whole", "stopped")]
    assert values[0] == values[1]


def test_a_folder_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run("--preset", "adu", *SCENES, "--output", tmp_path) == 2
    assert "holds 'notes.txt', which no ablation wrote" in capsys.readouterr().err
    (tmp_path / "ablation.json").write_text('{"preset": "light-indoor"}')
    assert run("--preset", "adu", *SCENES, "--output", tmp_path) == 2
    assert "is of preset light-indoor" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ablation.json", "notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "light-indoor"), "data.root: expected the folder of train.csv and test.csv"),
        (("--preset", "light-indoor", "--data.root", "nowhere"), "data.root nowhere: no such folder"),
        (("--preset", "adu", "--data.root", "x"), "their settings are for preset light-indoor"),
        (("--preset", "light-indoor", "--data.root", "x", "--scenes.pairs", 9), "its settings are for preset adu"),
        (("--preset", "adu", "--seeds", 0), "seeds: expected"),
        (("--preset", "adu", "--size", 40, 64), "multiples of 32"),
        (("--preset", "light-indoor", "--data.root", "x", "--size", 114, 160), "such as 114 152, got 114 160"),
    ],
)
def test_settings_that_cannot_be_are_named(
    arguments: tuple[object, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--output", tmp_path / "out") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_each_row_leaves_out_or_adds_one_part(tmp_path: Path) -> None:
    """Its changes are settings that there are, and nothing else differs from the preset's whole row."""
    preset = built_in.BuiltIn(AblationConfig("adu", output=tmp_path))
    whole = preset.training(preset.row("whole"), 0)
    for row in ADU:
        config = preset.training(row, 0)
        if not isinstance(config, StudentTrainingConfig):
            continue
        differing = {found.partition(":")[0] for found in differing_settings(config_dict(whole), config_dict(config))}
        assert differing == (set(row.changes) if row.taught_by else {"teacher"}), row.name
    assert len({row.name for row in ADU}) == len(ADU)


def test_without_its_focal_weight_the_response_is_the_plain_distance() -> None:
    (beta,) = [row.changes["distillation.beta"] for row in ADU if row.name == "no-focal"]
    generator = torch.Generator().manual_seed(0)
    depth, teacher = (torch.rand(2, 1, 8, 8, generator=generator) * 20 + 1 for _ in range(2))
    depth.requires_grad_()
    found = depth_objective(
        depth, torch.zeros_like(depth), teacher, torch.zeros_like(depth), weights=(0, 0, 1), guide="none", beta=beta
    )
    expected = (depth.log() - teacher.log()).abs().mean()
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, depth)[0] for value in (found.total, expected)))


def test_a_prediction_at_another_scale_has_no_scaled_error(rooms: Path) -> None:
    preset = LightIndoor(AblationConfig("light-indoor", data=IndoorConfig(str(rooms)), size=(38, 50)))
    preset.load(Progress(enabled=False))
    asked: list[str] = []

    def third(sample: StereoSample) -> DepthPrediction:
        asked.extend(sample.name)
        return DepthPrediction(torch.where(sample.valid, sample.depth, 1.0) / 3, None, ())

    found = preset.measure(third)
    assert found["test/rel"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["test/rel_scaled"] == pytest.approx(0, abs=1e-6)
    assert len(asked) == len(set(asked)) == 2, "each picture once"


def test_parts_stand_one_after_the_other() -> None:
    both = Together([[1, 2], [], [3]])
    assert [both[index] for index in range(len(both))] == [1, 2, 3]
    with pytest.raises(IndexError):
        both[3]


@pytest.mark.slow
def test_trivial_answers_are_those_of_the_data_s_own_description() -> None:
    """Its README's, which other code computed."""
    root = Path(os.environ.get("ADU_INDOOR_RGBD", Path(__file__).resolve().parents[3] / "shared/data/indoor_rgbd"))
    if not (root / "train.csv").is_file():
        pytest.skip(f"{root}: the small indoor set is not there (ADU_INDOOR_RGBD)")
    preset = LightIndoor(AblationConfig("light-indoor", data=IndoorConfig(str(root))))
    preset.load(Progress(enabled=False))
    found = [preset.measure(predict) for predict in preset.trivial().values()]
    expected = (
        {"val": (0.764, 0.407, 0.288), "test": (1.107, 0.325, 0.341)},
        {"val": (0.519, 0.211, 0.587), "test": (1.181, 0.385, 0.273)},
    )
    for metrics, described in zip(found, expected, strict=True):
        for part, numbers in described.items():
            values = [metrics[f"{part}/{name}"] for name in ("rmse", "rel", "delta1")]
            assert values == pytest.approx(numbers, abs=6e-4), part
