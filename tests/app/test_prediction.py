"""What the page shows is what `adu-depth predict` writes; what that refuses is refused here, by the file's own name."""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from adu_depth.app.prediction import Answer, Request, number_of, predict_request
from adu_depth.app.viewer import MOST_SENT, WIDEST
from adu_depth.cli import main
from adu_depth.data import SyntheticStereo
from adu_depth.data.camera_file import read_camera
from adu_depth.data.image_files import read_png16
from adu_depth.errors import InputError
from adu_depth.inference import write_samples
from adu_depth.inference.image_files import encode_jpeg, write_png
from adu_depth.inference.predictor import Predictor
from tests.inference.test_point_cloud import read_ply
from tests.inference.test_predict_files import Student, student, teacher, turned_jpeg
from tests.training.tiny import train_three

pytest.importorskip("trimesh", reason="pip install 'adu-depth[app]'")

HEIGHT, WIDTH = 48, 88


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student, a light student without uncertainty; pairs of another size than they were trained at."""
    folder = tmp_path_factory.mktemp("app")
    train_three(folder)
    write_samples(SyntheticStereo(2, HEIGHT, WIDTH, seed=1), folder / "pairs", 2)
    return folder


def asked(predictor: Predictor, folder: Path, **fields: object) -> Answer:
    folder.mkdir(exist_ok=True)
    return predict_request(predictor, Request(**fields), folder)  # type: ignore[arg-type]


def sent(view: str, name: str) -> str:
    """An attribute of the view's HTML."""
    found = re.search(rf'data-{name}="([^"]*)"', view)
    assert found is not None, name
    return unescape(found[1])


def floats(view: str, name: str) -> np.ndarray:
    rows, columns = int(sent(view, "rows")), int(sent(view, "columns"))
    return np.frombuffer(base64.b64decode(sent(view, name)), "<f4").reshape(rows, columns)


@pytest.mark.parametrize("network", ["teacher", "student", "light"])
@pytest.mark.parametrize("camera", ["numbers", "camera.toml"])
def test_files_are_those_that_predict_writes(network: str, camera: str, made: Path, tmp_path: Path) -> None:
    pairs = made / "pairs"
    known = read_camera(pairs / "camera.toml", "000001", (HEIGHT, WIDTH))
    numbers = {name: float(getattr(known, name)) for name in ("fx", "cx", "cy", "baseline")}
    source = pairs if network == "teacher" else pairs / "left"
    given = [] if camera == "camera.toml" else [a for n, v in numbers.items() for a in (f"--{n}", repr(v))]
    words = ["predict", made / network, source, "--ply", "--device", "cpu", "--output", tmp_path / "out", *given]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert not ended.value.code
    fields: dict[str, object] = {"camera_source": camera, "image": pairs / "left" / "000001.png", "max_depth": 80.0}
    fields |= {"camera_file": pairs / "camera.toml"} if camera == "camera.toml" else numbers
    if network == "teacher":
        fields["right"] = pairs / "right" / "000001.png"
    answer = asked(Predictor.from_checkpoint(made / network, "cpu"), tmp_path / "page", **fields)
    expected = sorted((tmp_path / "out").glob("000001_*"))
    assert [file.name for file in sorted(answer.files)] == [file.name for file in expected]
    for file, other in zip(sorted(answer.files), expected, strict=True):
        assert file.read_bytes() == other.read_bytes(), file.name
    depth = floats(answer.view, "depth")
    assert depth.shape == (HEIGHT, WIDTH)
    written = read_png16(tmp_path / "out" / "000001_depth.png")
    assert np.array_equal(np.maximum(np.rint(depth * 256), 1) / 256, written)
    assert bool(sent(answer.view, "log-scale")) == (network != "light")
    assert [float(n) for n in sent(answer.view, "camera").split()] == [
        pytest.approx(float(getattr(known, name))) for name in ("fx", "fy", "cx", "cy")
    ]


def test_points_of_the_glb_are_those_of_the_ply_in_the_axes_of_gltf(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8))
    numbers = {"camera_source": "numbers", "fx": 60.0, "cx": 31.5, "cy": 15.5}
    answer = asked(student(), tmp_path / "page", image=tmp_path / "a.png", min_angle=None, **numbers)
    vertices, _ = read_ply(next(file for file in answer.files if file.suffix == ".ply"))
    assert answer.cloud is not None
    content = answer.cloud.read_bytes()
    magic, version, length, json_length, json_kind = struct.unpack("<4sIIII", content[:20])
    assert (magic, version, length, json_kind) == (b"glTF", 2, len(content), 0x4E4F534A)
    described = json.loads(content[20 : 20 + json_length])
    primitive = described["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0, "points"
    accessor = described["accessors"][primitive["attributes"]["POSITION"]]
    begin = 28 + json_length + described["bufferViews"][accessor["bufferView"]].get("byteOffset", 0)
    positions = np.frombuffer(content, "<f4", 3 * accessor["count"], begin).reshape(-1, 3)
    expected = np.stack([vertices["x"], -vertices["y"], -vertices["z"]], axis=1)
    assert np.array_equal(positions, expected)
    assert f"{32 * 64:,} points of {32 * 64:,} pixels" in answer.notes


def test_a_wide_picture_is_sent_at_some_of_its_pixels_and_the_numbers_are_theirs(tmp_path: Path) -> None:
    width, height = 2 * WIDEST + 301, 64
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    write_png(tmp_path / "wide.png", pixels)
    answer = asked(Predictor(Student(), size=None), tmp_path / "page", image=tmp_path / "wide.png")
    depth = floats(answer.view, "depth")
    assert depth.shape == (round(height * WIDEST / width), WIDEST)
    # The rule of viewer.js: the pixel that stands for a sent one.
    columns = [math.floor(c * (width - 1) / (depth.shape[1] - 1) + 0.5) for c in range(depth.shape[1])]
    rows = [math.floor(r * (height - 1) / (depth.shape[0] - 1) + 0.5) for r in range(depth.shape[0])]
    expected = 1.0 + 10 * pixels.astype(np.float64).mean(axis=2) / 255
    assert np.abs(depth - expected[np.ix_(rows, columns)]).max() < 1e-4


def test_of_a_tall_picture_no_more_is_sent_than_a_browser_bears(tmp_path: Path) -> None:
    write_png(tmp_path / "tall.png", np.random.default_rng(0).integers(0, 255, (6000, 600, 3), np.uint8))
    depth = floats(asked(student(), tmp_path / "page", image=tmp_path / "tall.png").view, "depth")
    assert 0.99 * MOST_SENT < depth.size <= 1.01 * MOST_SENT


def test_a_picture_that_would_take_the_machine_s_memory_is_refused_where_the_network_sees_it_whole(
    tmp_path: Path,
) -> None:
    write_png(tmp_path / "large.png", np.zeros((2100, 2000, 3), np.uint8))
    with pytest.raises(InputError, match=r"see it at 2100×2000, expected at most 4,194,304 pixels: .* --size 0\.5"):
        asked(Predictor(Student(), size=None), tmp_path / "whole", image=tmp_path / "large.png")
    answer = asked(student(), tmp_path / "small", image=tmp_path / "large.png")
    assert "2100×2000 pixels, which the network saw at 16×32" in answer.notes


def test_a_picture_whose_name_begins_with_a_dot_has_results_that_are_handed_out(tmp_path: Path) -> None:
    write_png(tmp_path / ".hidden.png", np.zeros((32, 64, 3), np.uint8))
    answer = asked(student(), tmp_path / "page", image=tmp_path / ".hidden.png")
    assert answer.files[0].name == "hidden_depth.png"


def test_a_photo_is_turned_upright_and_a_note_says_so(tmp_path: Path) -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 32:] = 255  # bright on the right: turned clockwise, bright at the bottom
    (tmp_path / "photo.jpg").write_bytes(turned_jpeg(pixels, 6))
    answer = asked(Predictor(Student(), size=None), tmp_path / "page", image=tmp_path / "photo.jpg")
    depth = floats(answer.view, "depth")
    assert depth.shape == (64, 32)
    assert depth[:20].max() < depth[44:].min()
    assert any("turned upright" in note for note in answer.notes)


def test_without_a_camera_there_are_no_points_and_a_note_says_why(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((32, 64, 3), np.uint8))
    for name, fields in (("none", {}), ("focal", {"camera_source": "numbers", "fx": 60.0})):
        answer = asked(student(), tmp_path / name, image=tmp_path / "a.png", **fields)
        assert answer.cloud is None
        assert [file.suffix for file in answer.files] == [".png"] * 3
        assert any("no points" in note for note in answer.notes)
        assert sent(answer.view, "camera") == ""


def test_a_section_of_camera_toml_is_that_of_the_picture_s_name_or_the_one_that_was_chosen(tmp_path: Path) -> None:
    write_png(tmp_path / "000001.png", np.zeros((32, 64, 3), np.uint8))
    toml = tmp_path / "camera.toml"
    toml.write_text(
        'fx = 60\ncx = 31.5\ncy = 15.5\n["000001"]\nfx = 61\n[monday]\nfx = 62\n["monday/000009"]\ncx = 30\n'
        '[sunday]\nfx = 63\n["sunday/000001"]\ncx = 29\n'
    )
    given = {"image": tmp_path / "000001.png", "camera_source": "camera.toml", "camera_file": toml}
    for section, fx, cx in (
        ("", 61.0, 31.5),
        ("monday", 62.0, 31.5),
        ("monday/000009", 62.0, 30.0),
        ("sunday", 63.0, 29.0),
    ):
        answer = asked(student(), tmp_path / f"page {fx} {cx}", section=section, **given)
        assert sent(answer.view, "camera").split() == [str(fx), str(fx), str(cx), "15.5"]
        assert not any("sections" in note for note in answer.notes)
    (tmp_path / "000002.png").write_bytes((tmp_path / "000001.png").read_bytes())
    answer = asked(student(), tmp_path / "page", **(given | {"image": tmp_path / "000002.png"}))
    assert sent(answer.view, "camera").split()[0] == "60.0"
    assert "camera: the numbers above the sections of camera.toml, none is called 000002" in answer.notes


BAD = {
    "no image": ({}, "image: expected an image, got none"),
    "no toml": ({"image": "a.png", "camera_source": "camera.toml"}, "camera: expected a camera.toml, got none"),
    "cut short": ({"image": "cut.jpg"}, "left/cut.jpg"),
    "no image file": ({"image": "note.txt"}, "left/note.txt"),
    "toml of another size": (
        {"image": "a.png", "camera_source": "camera.toml", "camera_file": "other.toml"},
        "other.toml is for images of width 99, but a has width 64",
    ),
    "broken toml": (
        {"image": "a.png", "camera_source": "camera.toml", "camera_file": "broken.toml"},
        "broken.toml, line 1",
    ),
    "section": (
        {"image": "a.png", "camera_source": "camera.toml", "camera_file": "sections.toml", "section": "sunday"},
        "section: expected one of sections.toml, got 'sunday'",
    ),
    "focal length": (
        {"image": "a.png", "camera_source": "numbers", "fx": -1.0, "cx": 1.0, "cy": 1.0},
        "fx of the camera's numbers must be positive",
    ),
    "no numbers": ({"image": "a.png", "camera_source": "numbers"}, "the camera's numbers: expected fx"),
    "colours": ({"image": "a.png", "near": 5.0, "far": 5.0}, "colours: expected metres with 0 < from < to"),
    "largest error": (
        {"image": "a.png", "camera_source": "numbers", "fx": 60.0, "cx": 1.0, "cy": 1.0, "max_error": 0.0},
        "points' largest error: expected percent above 0",
    ),
    "angle": (
        {"image": "a.png", "camera_source": "numbers", "fx": 60.0, "cx": 1.0, "cy": 1.0, "min_angle": 91.0},
        "points.min_angle: expected a number from 0 to 90",
    ),
    "no point left": (
        {"image": "a.png", "camera_source": "numbers", "fx": 60.0, "cx": 1.0, "cy": 1.0, "max_depth": 0.5},
        "left/a.png: no point is left",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_predicted_is_told_and_nothing_is_left_half_done(case: str, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((32, 64, 3), np.uint8))
    (tmp_path / "cut.jpg").write_bytes(encode_jpeg(np.zeros((32, 64, 3), np.uint8))[:200])
    (tmp_path / "note.txt").write_text("not an image")
    (tmp_path / "other.toml").write_text("fx = 60\ncx = 31.5\ncy = 15.5\nwidth = 99\nheight = 32\n")
    (tmp_path / "sections.toml").write_text("fx = 60\ncx = 31.5\ncy = 15.5\n[monday]\nfx = 50\n")
    (tmp_path / "broken.toml").write_text("fx = sixty\n")
    fields, message = BAD[case]
    fields = {k: tmp_path / v if k in ("image", "camera_file") else v for k, v in fields.items()}
    with pytest.raises(InputError) as refused:
        asked(student(), tmp_path / "page", **fields)
    assert message in str(refused.value)
    assert str(tmp_path) not in str(refused.value), "whoever dropped a file knows no folder of ours"
    assert not list((tmp_path / "page").glob("predicted/*"))


def test_a_field_holds_a_number_or_nothing() -> None:
    assert [number_of("fx", text) for text in ("721.5", " 7e2 ", "", "  ")] == [721.5, 700.0, None, None]
    with pytest.raises(InputError, match=r"fx: expected a number such as 721\.5, or nothing, got '721,5'"):
        number_of("fx", "721,5")


def test_a_pair_is_asked_for_by_its_right_picture_and_its_baseline(tmp_path: Path) -> None:
    for name, size in (("a.png", (32, 64)), ("b.png", (32, 60))):
        write_png(tmp_path / name, np.zeros((*size, 3), np.uint8))
    numbers = {"camera_source": "numbers", "fx": 60.0, "cx": 31.5, "cy": 15.5, "baseline": 0.5}
    image, other = tmp_path / "a.png", tmp_path / "b.png"
    cases: list[tuple[dict[str, object], str]] = [
        ({"image": image, **numbers}, "right image: a stereo teacher sees a pair"),
        ({"image": image, "right": other, **numbers}, "must have one size, got 32×64 and 32×60"),
        ({"image": image, "right": image}, "camera: this network needs fx, cx, cy (pixels) and baseline (metres)"),
        ({"image": image, "right": image, **numbers, "baseline": None}, "the camera's numbers lacks baseline"),
        ({"image": image, "right": image, **numbers, "baseline": 0.0}, "camera.baseline > 0"),
        ({"image": image, "right": image, **numbers, "cx": None}, "the camera's numbers lacks cx"),
    ]
    for number, (fields, message) in enumerate(cases):
        with pytest.raises(InputError) as refused:
            asked(teacher(), tmp_path / str(number), **fields)
        assert message in str(refused.value)
    answer = asked(teacher(), tmp_path / "good", image=image, right=image, **numbers)
    assert np.allclose(floats(answer.view, "depth"), 60.0 * 0.5 / 5.0)


def test_points_of_unsure_pixels_are_left_out_by_percent(made: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((32, 64, 3), np.uint8))
    numbers = {"camera_source": "numbers", "fx": 60.0, "cx": 31.5, "cy": 15.5}
    percent = 100 * math.exp(-2.0)  # what the student of the tests expects everywhere
    kept = asked(student(), tmp_path / "above", image=tmp_path / "a.png", max_error=percent * 1.01, **numbers)
    assert kept.cloud is not None
    with pytest.raises(InputError, match="no point is left"):
        asked(student(), tmp_path / "below", image=tmp_path / "a.png", max_error=percent * 0.99, **numbers)
    light = Predictor.from_checkpoint(made / "light", "cpu")
    with pytest.raises(InputError, match="this network predicts none"):
        asked(light, tmp_path / "light", image=tmp_path / "a.png", max_error=10.0, **numbers)
