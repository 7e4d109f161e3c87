"""Proxy labels: right where they are, absent where the matcher is unsure, and what a training makes of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adu_depth.cli import main
from adu_depth.data import SyntheticStereo, collate, open_dataset
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.image_files import read_png16, write_png16
from adu_depth.data.packed.command import PackConfig, pack
from adu_depth.data.proxies import map_digest
from adu_depth.errors import InputError
from adu_depth.evaluation.baselines import SemiGlobalMatching
from adu_depth.inference import Predictor, write_samples
from adu_depth.progress import Progress
from adu_depth.proxies.matching import sure_disparity
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.sources import open_samples, seen_frames
from adu_depth.training.validation_config import ValidationConfig
from tests.data.trees import save_image
from tests.training.tiny import LOOP, tiny_student, tiny_teacher

SIZE = (64, 192)
COUNT = 4
CPU = torch.device("cpu")
QUIET = Progress(enabled=False)


@pytest.fixture(scope="module")
def scenes() -> SyntheticStereo:
    return SyntheticStereo(COUNT, *SIZE, seed=5)


@pytest.fixture
def pairs(scenes: SyntheticStereo, tmp_path: Path) -> Path:
    """Views and a camera alone."""
    write_samples(scenes, tmp_path / "pairs", COUNT)
    for role in ("depth", "sparse_depth", "disparity", "occluded"):
        (tmp_path / "pairs" / role).rename(tmp_path / role)
    return tmp_path / "pairs"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["proxies", *map(str, arguments), "--max-disparity", "64"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_what_is_kept_is_right(scenes: SyntheticStereo) -> None:
    matcher = SemiGlobalMatching(64, 15)
    for sample in scenes:
        found = sure_disparity(matcher, sample.left, sample.require_right("a test"))
        kept = found > 0
        known = kept & sample.valid[0].numpy()
        assert kept.mean() > 0.5
        wrong = np.abs(found - sample.disparity[0].numpy())[known] > 3
        loose = matcher.match(sample.left, sample.require_right("a test"))
        also = (loose > 0) & sample.valid[0].numpy()
        wrong_of_all = np.abs(loose - sample.disparity[0].numpy())[also] > 3
        assert wrong.mean() < 0.05
        assert wrong.mean() < wrong_of_all.mean(), "the look back takes wrong ones out"


def test_a_point_that_the_right_view_sees_elsewhere_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: of six points two fall outside the right view, two are where the look back found nothing, and of the
    two that both see at column 2 it agrees with one to a pixel."""
    found = np.array([[2.0, 3.0, 2.0, 3.0, 2.0, 3.0]], np.float32)
    back = np.array([[-1.0, 3.0, 3.5, 3.0, 1.0, 1.0]], np.float32)[:, ::-1]  # of the mirrored right view
    calls: list[np.ndarray] = [found, back]
    matcher = SemiGlobalMatching(16)
    monkeypatch.setattr(matcher, "match", lambda left, right: calls.pop(0))
    image = torch.zeros(3, 1, 6)
    np.testing.assert_array_equal(sure_disparity(matcher, image, image), [[0, 0, 0, 0, 0, 3]])


def test_a_teacher_learns_from_pairs_alone(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused without proxies; with them every term of its loss has something to learn from."""
    folder = tmp_path / "proxies"
    loop = replace(LOOP, steps=1, batch_size=2)
    bare = tiny_teacher(tmp_path / "run", data=DataConfig(str(pairs), size=SIZE), loop=loop)
    with pytest.raises(InputError, match="none of the 4 frames has ground truth"):
        train_teacher(bare, QUIET)
    assert run(pairs, "--output", folder) == 0
    assert f"--data.proxies {folder}" in capsys.readouterr().out
    history = train_teacher(replace(bare, data=replace(bare.data, proxies=str(folder))), QUIET)
    assert min(history[-1][name] for name in ("disparity", "decoder", "photometric")) > 0


def test_samples_hold_the_maps_and_truth_comes_before_them(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "proxies"
    (pairs / "depth").mkdir()
    shutil.copy(tmp_path / "depth" / "000001.png", pairs / "depth")
    assert run(pairs, "--output", folder) == 0
    assert sorted(path.name for path in folder.glob("*.png")) == ["000000.png", "000002.png", "000003.png"]
    samples = open_samples(DataConfig(str(pairs), size=SIZE, proxies=str(folder)), CPU, QUIET)
    for index, sample in enumerate(samples[index] for index in range(COUNT)):
        truth = tmp_path / "depth" / f"{index:06d}.png"
        if index == 1:
            expected = read_png16(truth)
        else:
            disparity = read_png16(folder / f"{index:06d}.png")
            camera = sample.camera
            with np.errstate(divide="ignore"):
                expected = np.where(disparity > 0, camera.fx * camera.baseline / disparity, 0)
        np.testing.assert_allclose(sample.depth[0], expected, rtol=1e-5)
        np.testing.assert_array_equal(sample.valid[0], expected > 0)


def test_windows_of_a_pack_have_them_too(pairs: Path, tmp_path: Path) -> None:
    assert run(pairs, "--output", tmp_path / "proxies") == 0
    pack(PackConfig(pairs, tmp_path / "pack", workers=1), lambda text: None)
    data = DataConfig(str(tmp_path / "pack"), size=(32, 64), fit="crop", proxies=str(tmp_path / "proxies"))
    packed = open_samples(data, CPU, QUIET)
    of_files = open_samples(replace(data, root=str(pairs)), CPU, QUIET)
    window = packed.stored_window(2, 16, 32, 32, 64)  # type: ignore[attr-defined]
    expected = of_files[2].crop(16, 32, 32, 64)
    assert window.valid.any()
    torch.testing.assert_close(window.disparity, expected.disparity, rtol=0, atol=0)
    before = seen_frames(packed)
    packed.proxies = None  # type: ignore[attr-defined]
    assert seen_frames(packed)["frames_content"] != before["frames_content"], "a run that goes on has the same"


def test_it_goes_on_where_it_was_and_refuses_other_images(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "proxies"
    (tmp_path / "list.txt").write_text("000002\n000001\n000002\n")
    assert run(pairs, "--output", folder, "--split", tmp_path / "list.txt") == 0
    assert sorted(json.loads((folder / "proxies.json").read_text())["maps"]) == ["000001", "000002"]
    assert run(pairs, "--output", folder) == 0, "others are added"
    note = json.loads((folder / "proxies.json").read_text())
    assert sorted(note["maps"]) == [f"{index:06d}" for index in range(COUNT)]
    kept, times = folder / "000001.png", (folder / "000001.png").stat().st_mtime_ns
    (folder / "000002.png").unlink()
    whole = (folder / "000003.png").read_bytes()
    (folder / "000003.png").write_bytes(whole[: len(whole) // 2])
    del note["maps"]["000000"]  # as where it was killed before this was written
    (folder / "proxies.json").write_text(json.dumps(note))
    with pytest.raises(InputError, match=r"2 of the 4 frames .* such as 000000: `adu-depth proxies"):
        open_samples(DataConfig(str(pairs), size=SIZE, proxies=str(folder)), CPU, QUIET)
    assert run(pairs, "--output", folder) == 0
    assert len(json.loads((folder / "proxies.json").read_text())["maps"]) == COUNT
    assert (folder / "000003.png").read_bytes() == whole
    assert kept.stat().st_mtime_ns == times
    save_image(pairs / "left" / "000003.png", SyntheticStereo(1, *SIZE, seed=9)[0].left)
    capsys.readouterr()
    assert run(pairs, "--output", folder) == 2
    assert "holds proxies of other images under the name 000003" in capsys.readouterr().err
    samples = open_samples(DataConfig(str(pairs), size=SIZE, proxies=str(folder)), CPU, QUIET)
    with pytest.raises(InputError, match=r"000003\.png was made of other images than 000003 has"):
        samples[3]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert run(pairs, "--output", tmp_path / "mine") == 2
    assert "holds 'notes.txt' and no proxies.json" in capsys.readouterr().err
    (folder / "proxies.json").write_text('{"settings": []}')
    assert run(pairs, "--output", folder) == 2
    assert "proxies.json" in capsys.readouterr().err


def test_a_map_that_somebody_changed_is_not_learned_from(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "proxies"
    assert run(pairs, "--output", folder) == 0
    data = DataConfig(str(pairs), size=SIZE, proxies=str(folder))
    before = seen_frames(open_samples(data, CPU, QUIET))
    write_png16(folder / "000001.png", np.full(SIZE, 20.0))
    samples = open_samples(data, CPU, QUIET)
    with pytest.raises(InputError, match=r"000001\.png is not what was written"):
        samples[1]
    assert samples[0].valid.any()
    note = json.loads((folder / "proxies.json").read_text())
    note["maps"]["000001"][1] = map_digest(folder / "000001.png")
    (folder / "proxies.json").write_text(json.dumps(note))
    changed = seen_frames(open_samples(data, CPU, QUIET))
    assert changed["frames_content"] != before["frames_content"], "and none that goes on has it"


def test_what_a_teacher_says_does_not_hang_on_them(pairs: Path, tmp_path: Path) -> None:
    """A cache from before there were any, or made without them, is read."""
    folder, cache = tmp_path / "proxies", tmp_path / "cache"
    assert run(pairs, "--output", folder) == 0
    loop = replace(LOOP, steps=1, batch_size=2)
    data = DataConfig(str(pairs), size=SIZE, proxies=str(folder))
    train_teacher(tiny_teacher(tmp_path / "teacher", data=data, loop=loop), QUIET)
    student = tiny_student(tmp_path / "student", teacher=tmp_path / "teacher", teacher_cache=cache, loop=loop)
    train_student(replace(student, data=replace(data, proxies="")), QUIET)
    train_student(replace(student, data=data, run=tmp_path / "with"), QUIET)
    assert "proxies" not in (cache / "cache.json").read_text()


def test_a_lidar_s_points_are_learned_from_beside_a_frame_that_has_proxies(pairs: Path, tmp_path: Path) -> None:
    (pairs / "sparse_depth").mkdir()
    shutil.copy(tmp_path / "sparse_depth" / "000001.png", pairs / "sparse_depth")
    assert run(pairs, "--output", tmp_path / "proxies") == 0
    samples = open_samples(DataConfig(str(pairs), size=SIZE, proxies=str(tmp_path / "proxies")), CPU, QUIET)
    target = collate([samples[0], samples[1]]).training_target()
    np.testing.assert_array_equal(target[1, 0], read_png16(pairs / "sparse_depth" / "000001.png"))
    torch.testing.assert_close(target[0], samples[0].depth)
    assert target[0].any()


@pytest.mark.parametrize("fault", ["exchanged", "black"])
def test_pairs_that_cannot_match_are_refused(
    fault: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scenes: SyntheticStereo
) -> None:
    if fault == "exchanged":
        (pairs / "left").rename(tmp_path / "was-left")
        (pairs / "right").rename(pairs / "left")
        (tmp_path / "was-left").rename(pairs / "right")
    else:
        for path in (pairs / "right").iterdir():
            save_image(path, torch.zeros(3, *SIZE))
    assert run(pairs, "--output", tmp_path / "proxies") == 2
    told = capsys.readouterr().err
    assert "of the pixels match" in told
    assert "adu-depth doctor" in told
    assert json.loads((tmp_path / "proxies" / "proxies.json").read_text())["maps"] == {}


def test_a_training_is_measured_against_them(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Validation and evaluate: their d1 is the share of the matcher's sure pixels that the network has otherwise."""
    folder, runs = tmp_path / "proxies", tmp_path / "run"
    assert run(pairs, "--output", folder) == 0
    validation = ValidationConfig(every=1, root=str(pairs), proxies=str(folder), metric="d1", pictures=0)
    data = DataConfig(str(pairs), size=SIZE, proxies=str(folder))
    config = tiny_teacher(runs, data=data, loop=replace(LOOP, steps=1, batch_size=2), validation=validation)
    train_teacher(config, QUIET)
    rows = [json.loads(line) for line in (runs / "history.jsonl").read_text().splitlines()]
    [validated] = [row for row in rows if any(name.endswith("d1") for name in row)]
    [d1] = [value for name, value in validated.items() if name.endswith("/d1")]
    output = tmp_path / "evaluation"
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(runs), "--data", str(pairs), "--proxies", str(folder), "--output", str(output),
              "--device", "cpu"])  # fmt: skip
    assert ended.value.code == 0
    assert "proxies of a classical matcher stand in for ground truth in 4 of 4 frames" in capsys.readouterr().out
    assert "no ground truth" in (output / "metrics.md").read_text()
    assert "StereoSGBM" not in (output / "metrics.md").read_text()
    found = json.loads((output / "metrics.json").read_text())
    assert found["proxies"] == str(folder)
    predictor = Predictor.from_checkpoint(runs, "cpu")
    wrong = []
    for name in open_dataset(pairs).names:
        sample = open_dataset(pairs).load(name)
        disparity = predictor(collate([sample])).disparity
        assert disparity is not None
        proxy = torch.from_numpy(read_png16(folder / f"{name}.png"))
        error = (disparity[0, 0] - proxy).abs()[proxy > 0]
        wrong.append(float(((error > 3) & (error > 0.05 * proxy[proxy > 0])).float().mean()) * 100)
    assert d1 == pytest.approx(sum(wrong) / len(wrong), abs=0.02)


def test_what_cannot_be_is_named(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "proxies"
    assert run(pairs, "--output", folder) == 0
    (folder / "000002.png").unlink()
    with pytest.raises(
        InputError, match=r"1 of the 4 frames of .* without ground truth have none there, such as 000002"
    ):
        open_samples(DataConfig(str(pairs), size=SIZE, proxies=str(folder)), CPU, QUIET)
    with pytest.raises(InputError, match=r"no proxies\.json, expected a folder that `adu-depth proxies` wrote"):
        open_samples(DataConfig(str(pairs), size=SIZE, proxies=str(pairs)), CPU, QUIET)
    with pytest.raises(InputError, match="these are the built-in scenes"):
        open_samples(DataConfig(size=SIZE, pairs=2, proxies=str(folder)), CPU, QUIET)
    with pytest.raises(InputError, match=r"validation.root is the built-in scenes"):
        ValidationConfig(every=1, proxies=str(folder))
    with pytest.raises(InputError, match="labels=false leaves aside"):
        SourceConfig(str(pairs), 0.5, labels=False, proxies=str(folder))
    for role in ("depth", "disparity"):
        (tmp_path / role).rename(pairs / role)
    capsys.readouterr()
    assert run(pairs, "--output", tmp_path / "none") == 2
    assert "every one of its 4 frames has ground truth by its layout" in capsys.readouterr().err
    assert open_dataset(pairs).proxies is None
