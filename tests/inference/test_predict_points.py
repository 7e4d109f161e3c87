"""`adu-depth predict --ply` and `--rerun`: for students, pairs and exported files; what is missing or wrong says so."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from adu_depth.cli import main
from adu_depth.data import SyntheticStereo
from adu_depth.data.camera_file import camera_from_numbers, read_camera
from adu_depth.data.image_files import read_png16
from adu_depth.inference import write_samples
from adu_depth.inference.point_output import PointOutput
from adu_depth.inference.predict_files import predict_files
from adu_depth.inference.predictor import Predictor
from tests.inference.test_point_cloud import read_ply
from tests.inference.test_predict_files import Student, teacher, turned_jpeg, write_images
from tests.training.tiny import train_three

HEIGHT, WIDTH = 48, 88


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student, a light student without uncertainty; a file of the student; pairs of another size."""
    folder = tmp_path_factory.mktemp("points")
    train_three(folder)
    assert run("export", folder / "student", "--format", "torch-export", "--output", folder / "student.pt2") == 0
    write_samples(SyntheticStereo(2, HEIGHT, WIDTH, seed=1), folder / "pairs", 2)
    return folder


def predict(*arguments: object) -> int:
    return run("predict", *arguments, "--device", "cpu")


@pytest.mark.parametrize(
    ("network", "source", "uncertainty"),
    [
        ("teacher", "pairs", True),
        ("student", "pairs/left", True),
        ("student.pt2", "pairs/left", True),
        ("light", "pairs/left", False),
    ],
)
def test_points_are_those_of_the_depth_beside_them(
    network: str, source: str, uncertainty: bool, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_all = ("--points.min-angle", 0, "--points.max-depth", "inf")
    assert predict(made / network, made / source, "--output", tmp_path, "--ply", *keep_all) == 0
    count = 8 if uncertainty else 6
    assert f"wrote {count} files" in capsys.readouterr().out
    camera = read_camera(made / "pairs" / "camera.toml", "000001", (HEIGHT, WIDTH))
    vertices, _ = read_ply(tmp_path / "000001_points.ply")
    assert len(vertices) == HEIGHT * WIDTH
    depth = read_png16(tmp_path / "000001_depth.png").ravel()
    assert np.array_equal(np.maximum(np.rint(vertices["z"] * 256), 1) / 256, depth)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1)
    assert np.abs(vertices["x"] / vertices["z"] * camera.fx + camera.cx - columns).max() < 1e-3
    assert np.abs(vertices["y"] / vertices["z"] * camera.fy + camera.cy - rows).max() < 1e-3
    colours = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)
    picture = cv2.imread(str(made / "pairs" / "left" / "000001.png"))[..., ::-1]
    assert np.array_equal(colours.reshape(HEIGHT, WIDTH, 3), picture)
    assert ("uncertainty" in (vertices.dtype.names or ())) == uncertainty


def test_no_points_are_written_unless_asked_for(made: Path, tmp_path: Path) -> None:
    assert predict(made / "student", made / "pairs" / "left", "--output", tmp_path) == 0
    assert not list(tmp_path.glob("*.ply"))


def test_a_temperature_moves_the_uncertainty_of_the_points_and_its_cut(made: Path, tmp_path: Path) -> None:
    image = made / "pairs" / "left" / "000000.png"
    keep_all = ("--ply", "--points.min-angle", 0, "--points.max-depth", "inf")
    for name, more in (("plain", ()), ("warm", ("--temperature", 2.0))):
        assert predict(made / "student", image, "--output", tmp_path / name, *keep_all, *more) == 0
    plain, warm = (read_ply(tmp_path / name / "000000_points.ply")[0]["uncertainty"] for name in ("plain", "warm"))
    assert np.abs(warm - plain - np.log(2)).max() < 1e-5
    cut = float(np.median(warm))
    more = ("--temperature", 2.0, "--points.max-uncertainty", cut)
    assert predict(made / "student", image, "--output", tmp_path / "cut", *keep_all, *more) == 0
    left = read_ply(tmp_path / "cut" / "000000_points.ply")[0]["uncertainty"]
    assert np.array_equal(left, warm[warm <= np.float32(cut)])


def refused(capsys: pytest.CaptureFixture[str], output: Path, *arguments: object) -> str:
    """What a refused command says; it leaves no file."""
    capsys.readouterr()
    assert predict(*arguments, "--output", output) == 2
    assert not [path for path in output.rglob("*") if path.is_file()]
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.replace("│", " ").split())


def test_what_points_lack_is_said_and_nothing_is_left(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, image = tmp_path / "out", made / "pairs" / "left" / "000000.png"
    write_images(tmp_path / "lone", "street.png", size=(HEIGHT, WIDTH))
    street = tmp_path / "lone" / "street.png"
    wanted = "no calibration for " + str(street) + ": give --fx, --cx, --cy (pixels), or put it into "
    assert wanted in refused(capsys, output, made / "student", street, "--ply")
    told = refused(capsys, output, made / "student", street, "--ply", "--fx", 90)
    assert "the camera of --fx, --cx, --cy, --baseline lacks cx, cy" in told
    told = refused(capsys, output, made / "student", image, "--ply", "--points.max-depth", 0.01)
    assert "000000.png: no point is left: depths from" in told
    told = refused(capsys, output, made / "student", image, "--points.max-depth", 10)
    assert "points: they are settings of what --ply and --rerun write" in told
    told = refused(capsys, output, made / "light", image, "--ply", "--points.max-uncertainty", -2)
    assert "points.max_uncertainty: it is for the uncertainty, and this network predicts none" in told
    told = refused(capsys, output, made / "student", image, "--ply", "--points.min-angle", 100)
    assert "points.min_angle: expected a number from 0 to 90, got 100" in told
    broken = tmp_path / "lone" / "broken.png"
    broken.write_bytes(image.read_bytes()[:300])
    assert "broken.png" in refused(
        capsys, output, made / "student", broken, "--ply", "--fx", 90, "--cx", 44, "--cy", 24
    )
    (tmp_path / "lone" / "camera.toml").write_text("fx = 90\ncx = 44\ncy = 24\nwidth = 4000\n")
    assert "for images of width 4000" in refused(capsys, output, made / "student", street, "--ply")
    assert "a stereo teacher needs the right image" in refused(
        capsys, output, made / "teacher", image, "--ply", "--fx", 90, "--cx", 44, "--cy", 24, "--baseline", 0.5
    )


def test_a_broken_image_of_a_folder_leaves_the_others_points(made: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in", "a.png", "b.png", size=(HEIGHT, WIDTH))
    (tmp_path / "in" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    camera = ("--fx", 90, "--cx", 44, "--cy", 24)
    assert predict(made / "student", tmp_path / "in", "--output", tmp_path / "out", "--ply", *camera) == 1
    assert [path.name for path in (tmp_path / "out").glob("*.ply")] == ["b_points.ply"]


def test_a_turned_photo_s_points_are_upright_by_its_camera_turned_along(tmp_path: Path) -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    (tmp_path / "photo.jpg").write_bytes(turned_jpeg(pixels, 6))
    (tmp_path / "camera.toml").write_text("fx = 90\nfy = 80\ncx = 40\ncy = 10\nwidth = 64\nheight = 32\n")
    predictor = Predictor(Student(), size=None)
    predict_files(predictor, tmp_path / "photo.jpg", tmp_path / "out", points=PointOutput())
    vertices, comments = read_ply(tmp_path / "out" / "photo_points.ply")
    assert "image height 64 width 32" in comments
    assert "camera fx 80.0 fy 90.0 cx 21.0 cy 40.0" in comments  # the column is height - 1 - row
    assert vertices["x"][0] == pytest.approx((0 - 21) / 80 * vertices["z"][0])
    assert vertices["y"][-1] == pytest.approx((63 - 40) / 90 * vertices["z"][-1])


def test_a_pair_by_its_own_function(tmp_path: Path) -> None:
    write_images(tmp_path, "left.png", "right.png")
    camera = camera_from_numbers(100.0, cx=31.5, cy=15.5, baseline=0.5)
    predict_files(
        teacher(),
        tmp_path / "left.png",
        tmp_path / "out",
        right=tmp_path / "right.png",
        camera=camera,
        points=PointOutput(),
    )
    vertices, _ = read_ply(tmp_path / "out" / "left_points.ply")
    assert np.allclose(vertices["z"], 10.0)
    assert np.allclose(vertices["nz"], -1.0)


def test_a_missing_library_is_named_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    told = refused(capsys, tmp_path / "out", tmp_path / "no run", tmp_path, "--rerun", tmp_path / "a.rrd")
    assert "rerun: expected rerun to be installed" in told
    assert "pip install 'adu-depth[rerun]'" in told


def test_a_recording_has_its_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, tmp_path / "out", tmp_path / "no run", tmp_path, "--rerun", tmp_path / "a.ply")
    assert "rerun: expected a file ending in .rrd, got" in told


def test_a_recording_alone_is_written_and_told(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rerun", reason="pip install 'adu-depth[rerun]'")
    record = tmp_path / "a.rrd"
    assert predict(made / "teacher", made / "pairs", "--output", tmp_path / "out", "--rerun", record) == 0
    assert f"wrote {record}: 2 images" in capsys.readouterr().out.replace("\n", "")
    assert record.read_bytes()[:3] == b"RRF"
    assert not list(tmp_path.rglob("*.ply"))
