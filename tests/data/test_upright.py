"""Photos that nothing but themselves says anything of are taught as they are looked at: turned as EXIF says."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from adu_depth.data import open_dataset
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.identity import frames_digest
from adu_depth.data.image_files import read_png16
from adu_depth.data.pictures import Pictures
from adu_depth.doctor import OK, WARNING, examine
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference import write_samples
from adu_depth.inference.predict_files import predict_files
from adu_depth.inference.predictor import Predictor
from adu_depth.models.focal import scaled_by_focal
from adu_depth.models.prediction import DepthPrediction
from adu_depth.training.sources import open_samples
from tests.data.test_indoor import write_nyu
from tests.data.test_rgbd import write_lists
from tests.data.trees import save_text, scenes
from tests.inference.test_predict_inputs import turn_all

SIZE = (24, 40)
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def save_photo(path: Path, orientation: int, pixels: np.ndarray = PIXELS) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif)


def looked_at(path: Path) -> Tensor:
    """3×H×W uint8, as a viewer shows it."""
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(ImageOps.exif_transpose(image).convert("RGB")).transpose(2, 0, 1).copy())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_and_their_camera_with_them(orientation: int, tmp_path: Path) -> None:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[5, 11] = 255
    save_photo(tmp_path / "a.png", orientation, pixels)
    save_text(tmp_path / "camera.toml", "fx = 30\nfy = 50\ncx = 18.5\ncy = 9\n")
    dataset = open_dataset(tmp_path, "pictures")
    sample = dataset.stored(0)
    assert torch.equal(sample.left, looked_at(tmp_path / "a.png"))
    assert dataset.image_size(0) == tuple(sample.left.shape[-2:]) == tuple(sample.depth.shape[-2:])
    [[y, x]] = torch.argwhere(sample.left[0] > 0).tolist()
    camera = sample.camera
    ray = (abs(x - camera.cx) / camera.fx, abs(y - camera.cy) / camera.fy)
    expected = ((18.5 - 11) / 30, (9 - 5) / 50)
    assert ray == pytest.approx(expected if orientation < 5 else expected[::-1])


@pytest.mark.parametrize(("width", "height", "turns"), [(40, 24, True), (24, 40, False)])
def test_a_camera_file_may_be_of_either_size(width: int, height: int, turns: bool, tmp_path: Path) -> None:
    save_photo(tmp_path / "a.png", 6)
    save_text(tmp_path / "camera.toml", f"fx = 30\nfy = 50\nwidth = {width}\nheight = {height}\n")
    camera = open_dataset(tmp_path, "pictures")[0].camera
    assert (camera.fx, camera.fy) == ((50, 30) if turns else (30, 50))
    save_text(tmp_path / "camera.toml", "fx = 30\nwidth = 40\nheight = 40\n")
    with pytest.raises(InputError, match=r"camera.toml is for images of height 40, but a has height 24"):
        open_dataset(tmp_path, "pictures")[0]


class Focal(nn.Module):
    """Its depth tells the picture and the focal length it was given."""

    class Config:
        reference_focal = 10.0

    config = Config()

    def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
        return DepthPrediction(scaled_by_focal(1 + image.mean(1, keepdim=True), camera, 10.0), None, ())


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_predict_and_training_see_the_same(orientation: int, tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "a.png", orientation, np.tile(PIXELS, (2, 2, 1)))
    save_text(tmp_path / "photos" / "camera.toml", "fx = 30\nfy = 50\n")
    write_samples(scenes(), tmp_path / "pairs", 2)  # type: ignore[arg-type]
    mix = (SourceConfig(str(tmp_path / "photos"), 0.5, labels=False),)
    data = DataConfig(root=str(tmp_path / "pairs"), mix=mix, size=(64, 96), fit="crop")
    with pytest.raises(InputError, match=rf"a\.png of {'80×48' if orientation > 4 else '48×80'}"):
        open_samples(data, torch.device("cpu"))
    sample = open_samples(DataConfig(root=data.root, mix=mix, size=(32, 32), fit="crop"), torch.device("cpu"))[2]
    predictor = Predictor(Focal(), size=None)
    predict_files(predictor, tmp_path / "photos" / "a.png", tmp_path / "out")
    expected = predictor.predict_image(sample.left, camera=sample.camera).depth[0, 0].numpy()
    assert np.abs(read_png16(tmp_path / "out" / "a_depth.png") - expected).max() <= 1 / 512


def test_what_has_depth_is_as_stored_and_what_has_none_is_not(tmp_path: Path) -> None:
    """Maps are of the pixels as stored; without them nothing is."""
    write_lists(tmp_path / "rgbd")
    write_nyu(tmp_path / "nyu")
    for root, pattern, layout in ((tmp_path / "rgbd" / "data", "*/*/*.jpg", "rgbd"), (tmp_path / "nyu", "*/*.jpg", "")):
        images = turn_all(root, pattern, 6)
        dataset = open_dataset(root, layout or "nyu_v2", together=True)
        assert dataset[0].left.shape[-2:] == dataset[0].depth.shape[-2:] == dataset.image_size(0) == (96, 192)
        assert bool(dataset[0].valid.any())
        without = open_dataset(root, layout or "nyu_v2", together=True, truth=False)
        assert without[0].left.shape[-2:] == without[0].depth.shape[-2:] == without.image_size(0) == (192, 96)
        assert torch.equal(without.stored(0).left, looked_at(without.files(without.names[0])["left"]))
        assert frames_digest(without, truth=False) != frames_digest(dataset, truth=False)
        [finding] = [f for f in examine(dataset, layout or "nyu_v2").findings if f.check == "orientation"]
        assert (finding.level, f"{len(images)} images with an EXIF" in finding.text) == (WARNING, True)
    name = dataset.names[0]
    depth = dataset.files(name)["depth"]
    levels = cv2.imread(str(depth), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(depth), np.rot90(levels, -1))
    with pytest.raises(
        InputError, match=r"got \(192, 96\): .*00000\.jpg is stored turned \(EXIF's orientation 6\), st"
    ):
        dataset.load(name)
    depth.unlink()
    again = open_dataset(root, "nyu_v2")
    assert again.load(name).left.shape[-2:] == (192, 96)
    found = [(f.level, f.text) for f in examine(again, "nyu_v2").findings if f.check == "orientation"]
    assert [level for level, _ in found] == [WARNING, OK]
    assert found[1][1].startswith("1 image with an EXIF orientation and without ground truth: turned upright when ")


def test_the_doctor_counts_sizes_as_they_are_shown(tmp_path: Path) -> None:
    for orientation in (1, 3, 6):
        save_photo(tmp_path / f"{orientation}.jpg", orientation)
    report = examine(open_dataset(tmp_path, "pictures"), "pictures")
    told = {finding.check: finding.text for finding in report.findings}
    assert told["image sizes"] == "2 sizes, height × width 24×40 (2), 40×24 (1); 1 picture upright"
    assert told["orientation"].startswith("2 images with an EXIF orientation and without ground truth: turned upright")


def test_digests_are_others_of_turned_photos_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache or a run of photos that were taken as stored is of other pictures; all others stay what they are."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.ppm").write_bytes(b"P6 4 2 255\n" + bytes(range(24)))
    for orientation in range(1, 9):
        save_photo(tmp_path / str(orientation) / "a.jpg", orientation)

    def digests() -> list[str]:
        return [frames_digest(open_dataset(path, "pictures")) for path in sorted(tmp_path.iterdir())]

    now = digests()
    monkeypatch.setattr(Pictures, "upright", lambda self, name: False)
    before = digests()
    assert [one == other for one, other in zip(now, before, strict=True)] == [True, *[False] * 7, True]
    assert now[-1] == before[-1] == "175eecd997f983ee87c2d56cc08c83b23a2301cbd5e2e721153d7dac1e98a9d3"
