"""A submission from a small folder in the benchmark's layout, and every fault that a zip can have, planted."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adu_depth import cli
from adu_depth.data import SyntheticStereo
from adu_depth.data.image_files import read_png16
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference import Predictor
from adu_depth.models import MonoStudent, StudentConfig
from adu_depth.models.prediction import DepthPrediction
from adu_depth.submission import validate_zip, write_submission
from adu_depth.submission.benchmark import file_names
from adu_depth.submission.write import find_test_images
from tests.data.trees import save_image, save_text
from tests.training.tiny import tiny_student

SIZE = (352, 1216)
NAMES = file_names(3)


class BrightnessStudent(nn.Module):
    """Depth = brightness × 800 − 200: also negative, and beyond what a map holds. Notes the cameras."""

    def __init__(self, spoil: float = 1.0) -> None:
        super().__init__()
        self.spoil = spoil
        self.cameras: list[Camera | None] = []

    def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
        self.cameras.append(camera)
        depth = (800 * image.mean(1, keepdim=True) - 200) * self.spoil
        return DepthPrediction(depth, torch.zeros_like(depth), ())


@pytest.fixture(scope="module")
def kitti_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """depth_selection with three rendered test images and their intrinsics, as the archive unpacks."""
    root = tmp_path_factory.mktemp("kitti") / "depth_selection"
    test = root / "test_depth_prediction_anonymous"
    image = SyntheticStereo(1, *SIZE, seed=3)[0].left
    for number, name in enumerate(NAMES):
        save_image(test / "image" / name, image.roll(100 * number, dims=-1))
        save_text(test / "intrinsics" / f"{number:010d}.txt", f"7{number}1.5 0 609.5 0 721.5 172.8 0 0 1")
    (root / "val_selection_cropped" / "image").mkdir(parents=True)
    return root


def test_maps_and_zip_are_as_the_benchmark_wants_them(kitti_test: Path, tmp_path: Path) -> None:
    images = find_test_images(kitti_test, partial=True)
    student = BrightnessStudent()
    done: list[int] = []
    archive = write_submission(Predictor(student, size=None), images, tmp_path / "out", lambda: done.append(1))
    assert len(done) == 3
    assert [float(camera.fx) for camera in student.cameras if camera is not None] == [701.5, 711.5, 721.5]
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == NAMES
        for name in NAMES:
            assert file.read(name) == (tmp_path / "out" / "depth" / name).read_bytes()
    for image, name in zip(images, NAMES, strict=True):
        stored = cv2.imread(str(tmp_path / "out" / "depth" / name), cv2.IMREAD_UNCHANGED)
        assert (stored.dtype, stored.shape) == (np.uint16, SIZE)
        grey = cv2.imread(str(image.image)).astype(np.float64).mean(-1) / 255
        expected = np.clip(np.round((800 * grey - 200) * 256), 1, 65535)
        assert np.abs(stored.astype(np.float64) - expected).max() <= 1  # float32 against float64
        assert (stored == 1).any(), "negative depths are stored as the nearest there is, not as none"
        assert (stored == 65535).any()
        assert read_png16(tmp_path / "out" / "depth" / name).min() > 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["depth", "submission.zip"]
    assert validate_zip(archive, NAMES) == []
    before = archive.read_bytes()
    write_submission(Predictor(BrightnessStudent(), size=None), images, tmp_path / "out")
    assert archive.read_bytes() == before, "the same maps make the same zip, and an earlier one is replaced"


def test_images_are_found_from_any_of_their_folders(kitti_test: Path) -> None:
    test = kitti_test / "test_depth_prediction_anonymous"
    (test / "image" / "._0000000000.png").touch()  # macOS leaves such
    found = [find_test_images(folder, partial=True) for folder in (kitti_test.parent, kitti_test, test, test / "image")]
    assert all(images == found[0] for images in found)
    assert [image.image.name for image in found[0]] == NAMES
    assert all(image.intrinsics is not None for image in found[0])


def test_what_is_no_test_folder_is_refused(kitti_test: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected the benchmark's 500 images .* got 3; the first missing is 0000000003"
    ):
        find_test_images(kitti_test)
    with pytest.raises(InputError, match="no such folder"):
        find_test_images(tmp_path / "nowhere", partial=True)
    with pytest.raises(InputError, match="got 0; the first missing is 0000000000"):
        find_test_images(tmp_path, partial=True)
    for stranger in ("000001_10.png", "0000000500.png"):
        folder = tmp_path / stranger.removesuffix(".png")
        save_image(folder / "image" / stranger, np.zeros((3, 4, 4)))
        with pytest.raises(InputError, match=rf"expected images 0000000000.png to 0000000499.png, got {stranger}"):
            find_test_images(folder, partial=True)


def test_nothing_is_left_of_a_submission_that_fails(kitti_test: Path, tmp_path: Path) -> None:
    images = find_test_images(kitti_test, partial=True)
    with pytest.raises(InputError, match="the predicted depth is NaN at"):
        write_submission(Predictor(BrightnessStudent(torch.nan), size=None), images, tmp_path / "out")
    small = tmp_path / "small"
    for name in NAMES:
        save_image(small / "image" / name, np.full((3, 375, 1242), 0.5))
    with pytest.raises(InputError, match=r"0000000000.png: expected 352×1216 \(height×width\), got 375×1242"):
        write_submission(Predictor(BrightnessStudent(), size=None), find_test_images(small, True), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    scaled = Predictor(MonoStudent(StudentConfig(reference_focal=700.0)), size=(32, 64))
    with pytest.raises(InputError, match="this student needs the focal length, but there are no intrinsics"):
        write_submission(scaled, find_test_images(small, True), tmp_path / "out")
    (tmp_path / "mine" / "depth").mkdir(parents=True)
    (tmp_path / "mine" / "depth" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds more than depth maps \('thesis.txt'\)"):
        write_submission(Predictor(BrightnessStudent(), size=None), images, tmp_path / "mine")
    assert (tmp_path / "mine" / "depth" / "thesis.txt").read_text() == "mine"


def good_map() -> np.ndarray:
    return np.linspace(256, 80 * 256, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint16)


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def with_zero() -> np.ndarray:
    pixels = good_map()
    pixels[5, 7:9] = 0
    return pixels


FAULTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "zeros": (lambda: png(with_zero()), "2 of 428032 pixels store 0, which the benchmark takes for no prediction"),
    "all zero": (lambda: png(0 * good_map()), "428032 of 428032 pixels store 0"),
    "8 bits": (lambda: png((good_map() // 256).astype(np.uint8)), "expected one channel of 16 bits, got 1 of 8 bits"),
    "colour": (
        lambda: png(np.repeat(good_map()[..., None], 3, 2)),
        "expected one channel of 16 bits, got 3 of 16 bits",
    ),
    "size": (lambda: png(good_map()[:, :-1]), "expected 352×1216 (height×width), got 352×1215"),
    "turned": (lambda: png(good_map().T.copy()), "expected 352×1216 (height×width), got 1216×352"),
    "metres": (lambda: png(good_map() // 256), "its farthest depth is 0.31 m: values must be metres × 256"),
    "jpeg": (lambda: bytes(cv2.imencode(".jpg", np.zeros((9, 9), np.uint8))[1].tobytes()), "not a PNG file"),
    "cut short": (lambda: png(good_map())[:2000], "the image is cut short (2000 bytes)"),
    "empty": (lambda: b"", "not a PNG file"),
    "huge": (lambda: bytes(4_000_000), "4000000 bytes, more than a map of this size can need"),
}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_file_is_named_with_it(fault: str, tmp_path: Path) -> None:
    spoiled, words = FAULTS[fault]
    good = png(good_map())
    archive = make_zip(tmp_path / "s.zip", {NAMES[0]: good, NAMES[1]: spoiled(), NAMES[2]: good})
    found = validate_zip(archive, NAMES)
    assert len(found) == 1
    assert found[0].startswith(f"{NAMES[1]}: {words}")


def test_names_that_are_wrong_are_named(tmp_path: Path) -> None:
    good = png(good_map())
    complete = dict.fromkeys(NAMES, good)

    def faults(files: dict[str, bytes]) -> str:
        return "\n".join(validate_zip(make_zip(tmp_path / "s.zip", files), NAMES))

    assert faults(complete) == ""
    assert faults({NAMES[0]: good}) == f"expected 3 files, got 1\nmissing: {NAMES[1]}, {NAMES[2]}"
    assert faults({**complete, "Thumbs.db": b""}) == "expected 3 files, got 4\nnot asked for: Thumbs.db"
    nested = faults({f"depth/{name}": good for name in NAMES})
    assert "in a folder, must lie in the zip's root: depth/0000000000.png" in nested
    assert "missing: 0000000000.png" in nested
    short = faults({name.removeprefix("0000"): good for name in NAMES})
    assert "not asked for: 000000.png, 000001.png, 000002.png" in short
    archive = zipfile.ZipFile(make_zip(tmp_path / "twice.zip", complete), "a")
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(NAMES[1], good)
    archive.close()
    assert validate_zip(tmp_path / "twice.zip", NAMES) == [
        "expected 3 files, got 4",
        "more than once: 0000000001.png",
    ]
    all_missing = validate_zip(make_zip(tmp_path / "s.zip", complete))
    assert all_missing[0] == "expected 500 files, got 3"
    assert all_missing[1].endswith("0000000007.png and 492 more")


def test_archives_that_are_broken_are_told(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    assert "not a zip that can be read" in validate_zip(tmp_path / "text.zip")[0]
    good = png(good_map())
    archive = make_zip(tmp_path / "s.zip", dict.fromkeys(NAMES, good))
    data = bytearray(archive.read_bytes())
    data[len(good) + 200] ^= 0xFF  # inside the second file
    archive.write_bytes(data)
    (fault,) = validate_zip(archive, NAMES)
    assert fault.startswith(f"{NAMES[1]}: cannot be unpacked: Bad CRC-32")
    archive.write_bytes(data[: len(data) // 2])
    assert "not a zip that can be read" in validate_zip(archive, NAMES)[0]
    with pytest.raises(InputError, match="no such file"):
        validate_zip(tmp_path / "none.zip")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


def test_the_command(kitti_test: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from adu_depth.training.runs import train_student

    train_student(tiny_student(tmp_path / "run"))
    submit = ("submit", tmp_path / "run", "--data", kitti_test, "--output", tmp_path / "out", "--device", "cpu")
    assert run(*submit) == 2
    assert "expected the benchmark's 500 images" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    assert run(*submit, "--partial", "--flip", "mean") == 0
    text = capsys.readouterr().out
    assert "3 of 500 images: the benchmark will not take this zip" in text
    assert f"{tmp_path / 'out' / 'submission.zip'}: 3 depth maps, nothing wrong" in text
    assert run("submit", "--validate", tmp_path / "out" / "submission.zip") == 1
    errors = capsys.readouterr().err
    assert "fault: expected 500 files, got 3" in errors
    assert run("submit", "--validate", tmp_path / "no.zip") == 2
    assert run("submit") == 2
    assert run("submit", tmp_path / "run", "--data", kitti_test, "--validate", tmp_path / "out" / "submission.zip") == 2
    whole = make_zip(tmp_path / "whole.zip", dict.fromkeys(file_names(), png(good_map()[:1, :1])))
    capsys.readouterr()
    assert run("submit", "--validate", whole) == 1
    assert capsys.readouterr().err.count("expected 352×1216 (height×width), got 1×1") == 500
    right = make_zip(tmp_path / "right.zip", dict.fromkeys(file_names(), png(np.full(SIZE, 2560, np.uint16))))
    assert run("submit", "--validate", right) == 0
    assert f"{right}: 500 depth maps, nothing wrong" in capsys.readouterr().out
