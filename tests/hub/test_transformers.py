"""transformers finds a saved network by its folder or its hub's name, offline, and its depth is that of `predict`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adu_depth.cli import main
from adu_depth.data import SyntheticStereo
from adu_depth.data.camera_file import camera_from_numbers
from adu_depth.data.image_files import read_image, read_png16
from adu_depth.hub import AduDepthModel
from adu_depth.inference import Predictor, write_samples
from adu_depth.inference.image_files import write_depth_png
from tests.hub.runs import RUNS, make_run

ROOT = Path(__file__).resolve().parents[2]
CAMERA = {"fx": 721.5, "baseline": 0.54, "disparity_offset": 1.5}
SCENE = {"fx": 70.0, "baseline": 0.54, "disparity_offset": 1.5}
HUB_NAME, COMMIT = "somebody/a-student", "c0ffee" * 6 + "beef"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """A rendered pair, and where it is there a real one."""
    folder = tmp_path_factory.mktemp("pairs")
    write_samples(SyntheticStereo(1, 72, 120, seed=4), folder, 1)
    (folder / "camera.toml").unlink()
    found = {"rendered": (folder / "left" / "000000.png", folder / "right" / "000000.png")}
    real = Path(os.environ.get("ADU_REAL_STEREO", ROOT.parent / "shared" / "data" / "real_stereo"))
    training = real / "kitti2015" / "training"
    if training.is_dir():  # a window of it: some networks work at the image's own size
        for view in ("image_2", "image_3"):
            Image.open(training / view / "000002_10.png").crop((300, 120, 700, 290)).save(folder / f"{view}.png")
        found["real"] = (folder / "image_2.png", folder / "image_3.png")
    return found


def camera_of(name: str, pair: str) -> dict[str, float]:
    numbers = CAMERA if pair == "real" else SCENE
    return {number: numbers[number] for number in RUNS[name].camera}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, pairs: dict[str, tuple[Path, Path]]) -> Path:
    """The maps that transformers gave of every network and pair, NAME.PAIR.WAY.npz; runs and saved folders beside."""
    folder = tmp_path_factory.mktemp("told")
    jobs: list[dict[str, Any]] = []
    for name, kept in RUNS.items():
        AduDepthModel.from_pretrained(make_run(folder / "runs" / name, kept)).save_pretrained(folder / "saved" / name)
        for pair, (left, right) in pairs.items():
            jobs.append(
                {
                    "folder": str(folder / "saved" / name),
                    "left": str(left),
                    "right": str(right) if kept.kind == "teacher" else None,
                    "camera": camera_of(name, pair),
                    "output": str(folder / f"{name}.{pair}"),
                }
            )
    snapshot = folder / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
    shutil.copytree(folder / "saved" / "student", snapshot / "snapshots" / COMMIT)
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text(COMMIT)
    jobs.append({**jobs[0], "folder": HUB_NAME, "output": str(folder / "hub name")})
    place = {"HF_HOME": str(folder / "home"), "HF_HUB_CACHE": str(folder / "hub"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "hub" / "offline.py")],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **place, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("pair", ["rendered", "real"])
@pytest.mark.parametrize("name", RUNS)
def test_it_gives_what_predict_gives(
    name: str, pair: str, told: Path, pairs: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    if pair not in pairs:
        pytest.skip("no real stereo pairs (set ADU_REAL_STEREO)")
    stereo, run = RUNS[name].kind == "teacher", told / "runs" / name
    left, right = pairs[pair]
    numbers = camera_of(name, pair)
    camera = camera_from_numbers(**numbers, needed=("fx",))
    wanted = Predictor.from_checkpoint(run, "cpu").predict_image(
        read_image(left), read_image(right) if stereo else None, camera
    )
    ways = ("auto", "pipeline") if stereo else ("auto", "pipeline", "stock")
    for way in ways:
        found = dict(np.load(told / f"{name}.{pair}.{way}.npz"))
        maps = {"predicted_depth": wanted.depth, "log_scale": wanted.log_scale, "disparity": wanted.disparity}
        expected = {key: value[0, 0].numpy() for key, value in maps.items() if value is not None}
        assert found.keys() == ({"predicted_depth"} if way == "stock" else expected.keys())
        for key, value in found.items():
            assert value.dtype == np.float32
            assert np.array_equal(value, expected[key]), (way, key, np.abs(value - expected[key]).max())
    depth = expected["predicted_depth"]
    assert depth.std() > 1e-3 * depth.mean(), "a flat map would show little"
    if "disparity_offset" in numbers:
        return  # the command line has no name for it
    given = [word for number, value in numbers.items() for word in (f"--{number}", str(value))]
    given += ["--right", str(right), "--cx", "1", "--cy", "1"] if stereo else []
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(told / "saved" / name), str(left), *given, "--device", "cpu", "--output", str(tmp_path)])
    assert ended.value.code == 0
    write_depth_png(tmp_path / "pipeline.png", np.load(told / f"{name}.{pair}.pipeline.npz")["predicted_depth"])
    assert np.array_equal(read_png16(tmp_path / "pipeline.png"), read_png16(tmp_path / f"{left.stem}_depth.png"))


def test_a_hub_s_name_is_found_in_its_cache(told: Path) -> None:
    for way in ("auto", "pipeline", "stock"):
        by_name, by_folder = (np.load(told / f"{one}.{way}.npz") for one in ("hub name", "student.rendered"))
        assert np.array_equal(by_name["predicted_depth"], by_folder["predicted_depth"])


def test_the_folder_s_code_says_what_is_missing_where_the_library_is(told: Path, tmp_path: Path) -> None:
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "adu_depth":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from transformers import AutoModelForDepthEstimation
AutoModelForDepthEstimation.from_pretrained({str(told / "saved" / "student")!r}, trust_remote_code=True)
"""
    place = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **place}
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: this network is run by the library adu-depth, which is not installed here")
