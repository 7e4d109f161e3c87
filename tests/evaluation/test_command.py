"""`adu-depth evaluate` on folders as data sets unpack: which protocols, which truth, what it says and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from adu_depth import cli
from adu_depth.data.image_files import write_png16
from adu_depth.evaluation import SemiGlobalMatching
from adu_depth.inference.render import write_samples
from adu_depth.training.runs import train_student, train_teacher
from tests.data.trees import (
    disparity_of,
    projection,
    row,
    save_image,
    save_text,
    scenes,
    write_kitti_depth,
    write_kitti_raw,
)
from tests.training.tiny import tiny_student, tiny_teacher

Evaluate = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and a student of six steps each."""
    folder = tmp_path_factory.mktemp("runs")
    train_teacher(tiny_teacher(folder / "teacher"))
    train_student(tiny_student(folder / "student"))
    return folder


@pytest.fixture
def evaluate(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Exit code, all that was printed, and metrics.json of one call."""

    def call(model: str, *arguments: str | Path) -> tuple[int, str, dict[str, Any]]:
        output = tmp_path / "out"
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main(["evaluate", str(runs / model), "--device", "cpu", "--output", str(output), *map(str, arguments)])
        printed = capsys.readouterr()
        kept = output / "metrics.json"
        content = json.loads(kept.read_text()) if kept.is_file() else {}
        return int(stopped.value.code or 0), " ".join((printed.out + printed.err).split()), content

    return call


def test_kitti_raw_with_a_split(evaluate: Evaluate, tmp_path: Path) -> None:
    """Images of 64×192 are too small for the default protocol, which says so; the others work."""
    root, truth = tmp_path / "raw", tmp_path / "truth"
    names = write_kitti_raw(root, truth)
    frames = [name.split("/") for name in names]
    split = tmp_path / "split.txt"
    split.write_text("\n".join(f"{date}/{drive} {stem.lstrip('0')} l" for date, drive, _, stem in frames))
    arguments = ("--data", root, "--ground-truth", truth, "--split", split)
    code, text, _ = evaluate("student", *arguments)
    assert code == 2
    assert f"image {names[0]}: protocol 'garg-352x1216' needs images of 352×1216 or larger, got 64×192" in text
    code, text, kept = evaluate("student", *arguments, "--protocol", "garg,eigen", "--flip", "monodepth")
    assert code == 0
    assert "1 of 4 frames have no ground truth" in text
    assert "3 images, 1 without ground truth skipped" in text
    assert "flip monodepth" in text
    found = kept["methods"]["student"]
    assert list(found) == ["garg", "eigen"]
    assert found["garg"]["images"] == 3
    assert found["garg"]["skipped"] == [names[3]]
    assert (kept["layout"], kept["flip"]) == ("kitti_eigen", "monodepth")


def test_kittis_depth_selection_gets_the_benchmarks_metrics(evaluate: Evaluate, tmp_path: Path) -> None:
    write_kitti_depth(tmp_path)
    val = tmp_path / "depth_selection" / "val_selection_cropped"
    code, text, kept = evaluate("student", "--data", val)
    assert code == 0
    assert "KITTI depth benchmark: SILog and errors × 100, iRMSE in 1/km" in text
    found = kept["methods"]["student"]
    assert list(found) == ["kitti-depth", "none"]
    assert set(found["kitti-depth"]["means"]) == {"SILog", "sqErrorRel", "absErrorRel", "iRMSE"}
    assert found["kitti-depth"]["means"]["SILog"] == pytest.approx(found["none"]["means"]["silog"], rel=0.2)
    code, text, _ = evaluate("teacher", "--data", val)
    assert code == 2
    assert "needs pairs, but this data set has no right images" in text
    code, text, _ = evaluate("student", "--data", tmp_path / "depth_selection" / "test_depth_prediction_anonymous")
    assert code == 2
    assert "none of 4 images has a valid depth" in text


def test_kitti_stereo_is_scored_on_all_pixels_and_on_those_both_cameras_see(evaluate: Evaluate, tmp_path: Path) -> None:
    training = tmp_path / "kitti2015" / "training"
    for index, sample in enumerate(scenes()[:2]):
        assert sample.right is not None
        assert sample.occluded is not None
        name = f"{index:06d}_10.png"
        save_image(training / "image_2" / name, sample.left)
        save_image(training / "image_3" / name, sample.right)
        disparity = disparity_of(sample)
        write_png16(training / "disp_occ_0" / name, disparity)
        write_png16(training / "disp_noc_0" / name, np.where(sample.occluded[0], 0, disparity))
        camera = sample.camera
        lines = row("P_rect_02", projection(camera, 0)) + row("P_rect_03", projection(camera, -float(camera.baseline)))
        save_text(training / "calib_cam_to_cam" / f"{index:06d}.txt", lines)
    code, text, kept = evaluate("teacher", "--data", training.parent, "--temperature", "2.5")
    assert code == 0
    means = {name: found["none"]["means"] for name, found in kept["methods"].items()}
    assert all({"epe", "d1", "epe_noc", "d1_noc"} <= mean.keys() for mean in means.values())
    assert means["StereoSGBM"]["d1"] > means["StereoSGBM"]["d1_noc"], "hidden pixels cannot be matched"
    assert "temperature 2.5, given: nll" in text
    assert "nll_scaled" in means["teacher"]
    assert "nll" not in means["StereoSGBM"]


def test_what_a_baseline_cannot_do_does_not_cost_the_networks_results(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(scenes(), tmp_path / "set", 4)
    save_image(tmp_path / "set" / "left" / "000002.png", np.zeros((3, 64, 192)))
    match = SemiGlobalMatching.match

    def blind_to_black(self: SemiGlobalMatching, left: Tensor, right: Tensor) -> np.ndarray:
        return match(self, left, right) if left.any() else np.full((64, 192), -1.0, np.float32)

    monkeypatch.setattr(SemiGlobalMatching, "match", blind_to_black)
    code, text, kept = evaluate("teacher", "--data", tmp_path / "set")
    assert code == 0
    assert "StereoSGBM is left out: 000002: no pixel of the left image has a match in the right one" in text
    assert list(kept["methods"])[:1] == ["teacher"]
    assert [name.partition(" ")[0] for name in kept["methods"]] == ["teacher", "constant"]
    assert "StereoSGBM searched" not in text


@pytest.mark.parametrize(
    "option",
    [("--split", "list.txt"), ("--ground-truth", "."), ("--layout", "rig"), ("--kb-crop",), ("--skip-missing",)],
)
def test_options_of_data_sets_are_not_for_built_in_scenes(evaluate: Evaluate, option: tuple[str, ...]) -> None:
    code, text, _ = evaluate("student", *option)
    assert code == 2
    assert f"{option[0][2:].replace('-', '_')} is for a data set's folder, and data is the built-in scenes" in text


def test_a_kept_temperature_and_the_median_scale(evaluate: Evaluate, tmp_path: Path) -> None:
    code, text, kept = evaluate("student", "--pairs", "3", "--fit-temperature", "0.4", "--batch-size", "2")
    assert code == 0
    fit = json.loads((tmp_path / "out" / "temperature.json").read_text())
    assert (fit["fitted_on_images"], fit["data"]) == (1, "synthetic")
    assert kept["temperature"] == fit["temperature"]
    assert kept["methods"]["student"]["none"]["images"] == 2
    assert "fitted on the first 1 images: nll" in text
    given = str(tmp_path / "kept.json")
    (tmp_path / "out" / "temperature.json").rename(given)
    code, text, kept = evaluate("student", "--pairs", "3", "--temperature", given, "--scale", "median")
    assert code == 0
    assert kept["temperature"] == fit["temperature"]
    assert "each prediction scaled to the truth's median" in text
    assert kept["methods"]["student"]["none"]["scale"] == "median"


def test_what_is_refused_before_any_work(evaluate: Evaluate, tmp_path: Path) -> None:
    for arguments, words in (
        (("--protocol", "gard"), "protocol: expected one of none, garg"),
        (("--min-depth", "0"), "depth range: expected 0 < min_depth < max_depth, got 0.0 and 80.0"),
        (("--pairs", "0"), "pairs: expected a whole number from 1 to 99,999,999, got 0"),
        (("--temperature", "2", "--fit-temperature", "0.5"), "not both"),
        (("--no-uncertainty", "--temperature", "2"), "temperature: it is for the uncertainty"),
        (("--batch-size", "0"), "batch_size: expected a whole number from 1 to 1,024, got 0"),
        (("--temperature", "warm"), "temperature: expected a number or a temperature.json, got 'warm'"),
    ):
        code, text, kept = evaluate("student", "--pairs", "2", *arguments)
        assert code == 2, arguments
        assert words in text
        assert kept == {}
    code, text, _ = evaluate("teacher", "--flip", "mean")
    assert code == 2
    assert "flip 'mean' is for a student" in text


REAL_SETS = {"kitti2015": 6, "kitti_object": 1, "eth3d": 1, "middlebury_motorcycleQ": 1}


@pytest.mark.parametrize("name", REAL_SETS)
def test_real_pairs_from_end_to_end(name: str, real_stereo: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    code, _, kept = evaluate("teacher", "--data", real_stereo / name)
    assert code == 0
    for method, found in kept["methods"].items():
        assert found["none"]["images"] == REAL_SETS[name], method
        assert all(np.isfinite(value) for value in found["none"]["means"].values())
    assert kept["methods"]["StereoSGBM"]["none"]["means"]["d1"] < kept["methods"]["teacher"]["none"]["means"]["d1"]
    code, text, kept = evaluate("student", "--data", real_stereo / name, "--protocol", "all", "--flip", "mean")
    assert code == 0
    expected = {"none", "garg", "eigen", "kitti-depth"} | ({"garg-352x1216"} if "kitti" in name else set())
    assert set(kept["methods"]["student"]) == expected
    assert all(protocol in text for protocol in expected)
    for picture in ("student_sparsification.svg", "student_calibration.svg", "student.csv", "student.json"):
        assert (tmp_path / "out" / picture).stat().st_size > 500
