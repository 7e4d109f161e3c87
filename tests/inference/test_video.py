"""`adu-depth predict` on clips: video files, folders of frames, a camera; what it writes, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from adu_depth.data.camera_file import write_cameras
from adu_depth.data.image_files import read_png16
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference.command import PredictConfig, predict_images
from adu_depth.inference.image_files import write_png
from adu_depth.inference.predict_files import predict_files
from adu_depth.inference.predictor import Predictor
from adu_depth.inference.video import ClipOutcome, VideoConfig, open_clip, predict_clip
from adu_depth.inference.video.capture import captured
from adu_depth.inference.video.earlier import EarlierRuns
from adu_depth.inference.video.panels import Panels
from adu_depth.inference.video.sources import LiveCamera, is_clip
from adu_depth.inference.video.writing import video_writer, writable_rate
from adu_depth.models.prediction import DepthPrediction
from adu_depth.stopping import Stopped
from adu_depth.training.loop import Interrupted
from tests.inference.test_predict_files import CAMERA, Student, teacher, write_images

COUNT = 5


def pictures(count: int = COUNT, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """A window that moves over one picture by two pixels a frame, H×W×3 RGB."""
    noise = np.random.default_rng(0).integers(0, 255, (size[0], size[1] + 2 * count, 3), np.uint8)
    wide = cv2.GaussianBlur(noise, (0, 0), 2)
    return [np.ascontiguousarray(wide[:, 2 * k : 2 * k + size[1]]) for k in range(count)]


def write_clip(path: Path, frames: list[np.ndarray] | None = None, fps: float = 5.0) -> Path:
    frames = pictures() if frames is None else frames
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, fps, frames[0].shape[1::-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def write_frames(folder: Path, count: int = COUNT) -> Path:
    for number, frame in enumerate(pictures(count)):
        write_png(folder / f"{number:03d}.png", frame)
    return folder


def frames_of(video: Path) -> list[np.ndarray]:
    found = []
    with captured(str(video)) as capture:
        assert capture.isOpened()
        while True:
            there, frame = capture.read()
            if not there:
                return found
            found.append(frame[..., ::-1])


class NoScale(nn.Module):
    """A student that does not say how sure it is."""

    def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
        return DepthPrediction(1.0 + 10 * image.mean(dim=1, keepdim=True), None, ())


class Counting(Student):
    """Counts its calls, and fails at one."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.calls, self.fails_at = 0, fails_at

    def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        self.calls += 1
        return super().forward(image, camera)


def predict(source: Path, output: Path, model: nn.Module | None = None, **settings: Any) -> ClipOutcome:
    predictor = Predictor(model or Student(), size=None)
    return predict_clip(predictor, open_clip(source), output, settings=VideoConfig(**settings))


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_becomes_a_video_beside_its_source(suffix: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / f"drive{suffix}")
    outcome = predict(clip, tmp_path / "out", format=suffix[1:])
    assert set(os.listdir(tmp_path / "out")) == {"drive_depth.json", f"drive_depth{suffix}"}
    shown = frames_of(outcome.video)
    assert len(shown) == outcome.frames == COUNT
    source = frames_of(clip)
    height, width = source[0].shape[:2]
    for picture, frame in zip(shown, source, strict=True):
        assert all(side % 2 == 0 for side in picture.shape[:2])
        spots = [
            np.abs(picture[y : y + height, 8 : 8 + width].astype(int) - frame).mean()
            for y in range(picture.shape[0] - height)
        ]
        assert min(spots) < 16, "the source is the panel on the left"
        assert picture.shape[1] >= 3 * (width + 8), "depth and uncertainty beside it"
    facts = json.loads(outcome.summary.read_text())
    assert facts["frames"] == COUNT
    assert facts["fps"] == 5.0
    assert facts["size"] == [48, 64]
    assert facts["depth_range"] == [2.0, 80.0]
    assert facts["flicker"] == facts["network_flicker"]


@pytest.mark.parametrize(
    ("fps", "written", "told"),
    [
        (66.6667, 66.67, "the video has 66.67 frames a second: an mp4 does not hold 66.667"),
        (119.987, 119.99, "the video has 119.99 frames a second: an mp4 does not hold 119.987"),
        (500.123, 500.12, "the video has 500.12 frames a second: an mp4 does not hold 500.123"),
        (999.99, 1000.0, "the video has 1000 frames a second: an mp4 does not hold 999.99"),
        (30000 / 1001, 29.97, None),
        (240.0, 240.0, None),
    ],
)
def test_rates_that_an_mp4_does_not_hold_are_rounded(
    fps: float, written: float, told: str | None, tmp_path: Path
) -> None:
    """MPEG-4 has 16 bits for the ticks of a second, and OpenCV asks for one more decimal than fits."""
    clip = write_clip(tmp_path / "drive.avi", fps=fps)
    outcome = predict(clip, tmp_path / "out")
    assert len(frames_of(outcome.video)) == COUNT
    with captured(str(outcome.video)) as capture:
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(written, abs=1e-6)
    assert json.loads(outcome.summary.read_text())["fps"] == written
    assert len(outcome.notes) == (told is not None)
    assert all(note.startswith(str(told)) for note in outcome.notes)


def test_an_avi_holds_every_rate(tmp_path: Path) -> None:
    outcome = predict(write_clip(tmp_path / "drive.avi", fps=66.6667), tmp_path / "out", format="avi")
    with captured(str(outcome.video)) as capture:
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(66.667, abs=1e-6)
    assert outcome.notes == []


def test_every_rate_is_one_that_opencv_writes(tmp_path: Path) -> None:
    for fps in [*np.random.default_rng(0).uniform(0.1, 1000.0, 200), 0.1, 65.535, 65.5355, 655.35, 655.355, 1000.0]:
        rate, path = writable_rate(float(fps), "mp4"), tmp_path / "a.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (64, 48))
        assert writer.isOpened(), fps
        writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.release()
        with captured(str(path)) as capture:
            assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(rate, abs=0.00101)
        assert abs(rate - fps) <= 0.0501


def test_a_video_that_opencv_does_not_write_names_the_settings(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"48×64 pixels and 66\.6667 frames a second; .*--video\.format .*--video\.fps"),
        video_writer(tmp_path / "a.mp4", 66.6667) as video,
    ):
        video.add(np.zeros((48, 64, 3), np.uint8))


def test_a_network_without_uncertainty_has_two_panels_and_a_column_is_one_wide(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    two = frames_of(predict(clip, tmp_path / "two", NoScale()).video)[0]
    column = frames_of(predict(clip, tmp_path / "column", NoScale(), layout="column").video)[0]
    assert 2 * 64 < two.shape[1] < 3 * 64
    assert column.shape[1] < 2 * 64
    assert column.shape[0] > 2 * 48


def test_the_colours_of_a_depth_are_the_same_in_every_frame(tmp_path: Path) -> None:
    """The scale is fixed: where the whole picture gets brighter, the depth's colour must change with it."""
    frames = [np.full((48, 64, 3), level, np.uint8) for level in (0, 0, 128, 255)]
    shown = frames_of(predict(write_clip(tmp_path / "a.avi", frames), tmp_path / "out", NoScale(), format="avi").video)
    depths = [frame[30, 8 + 64 + 8 + 32].astype(int) for frame in shown]  # of the right panel
    assert np.abs(depths[0] - depths[1]).max() < 3
    assert np.abs(depths[1] - depths[2]).max() > 25
    assert np.abs(depths[2] - depths[3]).max() > 10
    near = frames_of(
        predict(tmp_path / "a.avi", tmp_path / "near", NoScale(), format="avi", depth_range=(1.0, 12.0)).video
    )
    assert np.abs(near[3][30, 112].astype(int) - depths[3]).max() > 25


def test_a_folder_of_frames_is_a_clip_of_the_depths_that_its_images_have(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames")
    assert not is_clip(folder)
    outcome = predict(folder, tmp_path / "out", frames="png", fps=12.0)
    assert json.loads(outcome.summary.read_text())["fps"] == 12.0
    predict_files(Predictor(Student(), size=None), folder, tmp_path / "images")
    for number in range(COUNT):
        one = read_png16(tmp_path / "out" / "frames_frames" / f"{number:06d}_depth.png")
        other = read_png16(tmp_path / "images" / f"{number:03d}_depth.png")
        assert np.abs(one / other - 1).max() < 2e-4 + 1 / 256


def test_frames_as_npz_hold_metres_and_the_scale_with_its_temperature(tmp_path: Path) -> None:
    predictor = Predictor(Student(), size=None)
    settings = VideoConfig(frames="npz", limit=2)
    clip = open_clip(write_frames(tmp_path / "in"))
    predict_clip(predictor, clip, tmp_path / "out", settings=settings, temperature=2.0)
    assert sorted(os.listdir(tmp_path / "out" / "in_frames")) == ["000000.npz", "000001.npz", "record.json"]
    with np.load(tmp_path / "out" / "in_frames" / "000001.npz") as found:
        expected = predictor.predict_image(pictures()[1]).depth[0, 0].numpy()
        np.testing.assert_allclose(found["depth"], expected, rtol=2e-4)
        np.testing.assert_allclose(found["log_scale"], -2.0 + np.log(2.0), atol=2e-4)


def test_frames_that_exif_turns_are_told_as_images_are_and_the_summary_names_the_files(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "in").mkdir()
    for number, frame in enumerate(pictures(2)):
        Image.fromarray(frame).save(tmp_path / "in" / f"{number}.jpg", exif=turned)
    outcome = predict(tmp_path / "in", tmp_path / "out", frames="png")
    assert "turned upright, as EXIF says: 2 (0.jpg, 1.jpg)" in outcome.notes
    facts = json.loads(outcome.summary.read_text())
    assert facts["size"] == [64, 48]
    assert facts["written"] == ["in_depth.mp4", "in_depth.json", "in_frames"]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_stopped_run_goes_on_and_ends_with_the_same_files(stop: int, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "drive.mp4")
    options: dict[str, Any] = {"frames": "npz", "stabilise": 0.7}
    whole = Counting()
    predict(clip, tmp_path / "whole", whole, **options)
    assert whole.calls == COUNT
    with pytest.raises(KeyboardInterrupt):
        predict(clip, tmp_path / "out", Counting(stop), **options)
    assert os.listdir(tmp_path / "out") == ["drive_unfinished"], "nothing half-written under a final name"
    second = Counting()
    predict(clip, tmp_path / "out", second, **options)
    assert second.calls == COUNT - stop, "what was done is not done again"
    one, other = files_in(tmp_path / "whole"), files_in(tmp_path / "out")
    assert one.keys() == other.keys()
    for name in one:
        if name.endswith(".npz"):  # whose zip holds the time
            with np.load(tmp_path / "whole" / name) as a, np.load(tmp_path / "out" / name) as b:
                assert all(np.array_equal(a[key], b[key]) for key in a.files)
        elif name.endswith(".mp4"):
            pairs = zip(frames_of(tmp_path / "whole" / name), frames_of(tmp_path / "out" / name), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)
        else:
            assert one[name] == other[name], name


def test_a_run_stopped_while_the_video_was_written_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "drive.mp4")
    drawn = Panels.picture

    def stopped(self: Panels, number: int, *maps: Any) -> np.ndarray:
        if number == 2:
            raise KeyboardInterrupt
        return drawn(self, number, *maps)

    with monkeypatch.context() as patch:
        patch.setattr(Panels, "picture", stopped)
        with pytest.raises(KeyboardInterrupt):
            predict(clip, tmp_path / "out", frames="png")
    assert os.listdir(tmp_path / "out") == ["drive_unfinished"]
    second = Counting()
    outcome = predict(clip, tmp_path / "out", second, frames="png")
    assert second.calls == 0
    assert outcome.images_per_second is None
    assert len(frames_of(outcome.video)) == COUNT
    assert sorted(os.listdir(tmp_path / "out")) == ["drive_depth.json", "drive_depth.mp4", "drive_frames"]


def test_frames_of_another_run_are_not_taken(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "drive.mp4")
    with pytest.raises(KeyboardInterrupt):
        predict(clip, tmp_path / "out", Counting(2))
    for predictor, camera, told in (
        (Predictor(Counting(), size=(32, 64)), None, "size was 48×64, now it is 32×64"),
        (Predictor(Counting(), size=None, flip="mean"), None, "flip was none, now it is mean"),
        (Predictor(Counting(), size=None), CAMERA, "camera was None, now it is {'fx': 100.0"),
    ):
        with pytest.raises(InputError, match=f"unfinished frames of another run: {re.escape(told)}"):
            predict_clip(predictor, open_clip(clip), tmp_path / "out", camera=camera)
    write_clip(clip, pictures(COUNT + 1))
    with pytest.raises(InputError, match="unfinished frames of another run: bytes was"):
        predict(clip, tmp_path / "out")


def test_other_weights_do_not_go_on(tmp_path: Path) -> None:
    class Weighted(Counting):
        def __init__(self, value: float, fails_at: int = -1) -> None:
            super().__init__(fails_at)
            self.weight = nn.Parameter(torch.tensor(value))

    clip = write_clip(tmp_path / "drive.mp4")
    with pytest.raises(KeyboardInterrupt):
        predict(clip, tmp_path / "out", Weighted(1.0, 2))
    with pytest.raises(InputError, match="network was"):
        predict(clip, tmp_path / "out", Weighted(2.0))
    assert predict(clip, tmp_path / "out", Weighted(1.0)).frames == COUNT


def test_a_stranger_s_folder_is_left_alone(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "drive.mp4")
    (tmp_path / "out" / "drive_unfinished").mkdir(parents=True)
    (tmp_path / "out" / "drive_unfinished" / "mine.txt").touch()
    with pytest.raises(InputError, match=r"drive_unfinished holds files and no record\.json"):
        predict(clip, tmp_path / "out")


def test_two_clips_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first = predict(write_clip(tmp_path / "drive.mp4"), tmp_path / "out")
    before = files_in(tmp_path / "out")
    assert json.loads(first.summary.read_text())["source"]["clip"] == "drive.mp4"
    (tmp_path / "other").mkdir()
    for other, told in (
        (write_clip(tmp_path / "drive.avi"), "clip was drive.mp4, now it is drive.avi, bytes was"),
        (write_clip(tmp_path / "other" / "drive.mp4", pictures(COUNT + 1)), "bytes was"),
        (write_frames(tmp_path / "drive"), "clip was drive.mp4, now it is drive, "),
    ):
        model = Counting()
        with pytest.raises(InputError, match=rf"drive_depth\.json is of another clip: {told}.*; name another --output"):
            predict(other, tmp_path / "out", model)
        assert model.calls == 0, "before anything is predicted"
        assert files_in(tmp_path / "out") == before
    assert predict(tmp_path / "drive.mp4", tmp_path / "out", limit=2).frames == 2, "the same one is made anew"


def test_a_summary_that_is_none_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "drive_depth.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match=r"drive_depth\.json is of another clip: it does not say of which"):
        predict(write_clip(tmp_path / "drive.mp4"), tmp_path / "out")
    assert (tmp_path / "out" / "drive_depth.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_a_video_of_somebody_s_is_not_replaced(kind: str, tmp_path: Path) -> None:
    """A user may well call one that they made elsewhere drive_depth.mp4."""
    clip, theirs, model = write_clip(tmp_path / "drive.mp4"), tmp_path / "out" / "drive_depth.mp4", Counting()
    theirs.parent.mkdir()
    if kind == "folder":
        theirs.mkdir()
    elif kind == "link":
        theirs.symlink_to(write_clip(tmp_path / "theirs.mp4"))
    else:
        write_clip(theirs)
    before = files_in(tmp_path)
    with pytest.raises(InputError, match=r"drive_depth\.mp4 would be replaced, and is of no earlier run of this clip"):
        predict(clip, tmp_path / "out", model)
    assert model.calls == 0, "before anything is predicted"
    assert files_in(tmp_path) == before
    predict(clip, tmp_path / "out", format="avi")  # which is written, and theirs is not taken for a run's
    assert os.path.lexists(theirs)
    assert files_in(tmp_path).items() >= before.items()


def test_a_video_of_a_run_that_was_changed_since_is_not_replaced(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "drive.mp4")
    video = predict(clip, tmp_path / "out").video
    predict(clip, tmp_path / "out", limit=3)  # as it was written it is
    write_clip(video)
    changed = video.read_bytes()
    for settings in ({}, {"format": "avi"}):
        with pytest.raises(InputError, match="or was changed since") if not settings else nullcontext():
            predict(clip, tmp_path / "out", **settings)
        assert video.read_bytes() == changed


def test_a_video_that_came_while_the_clip_was_predicted_is_not_replaced(tmp_path: Path) -> None:
    theirs = tmp_path / "out" / "drive_depth.mp4"

    class Meanwhile(Counting):
        def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
            theirs.write_bytes(b"mine")
            return super().forward(image, camera)

    clip = write_clip(tmp_path / "drive.mp4")
    with pytest.raises(InputError, match=r"drive_depth\.mp4 would be replaced"):
        predict(clip, tmp_path / "out", Meanwhile(), frames="png")
    assert theirs.read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path / "out")) == ["drive_depth.mp4", "drive_unfinished"], "nor are there frames"
    theirs.unlink()
    assert predict(clip, tmp_path / "out", second := Counting(), frames="png").frames == COUNT
    assert second.calls == 0


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_killed_before_its_summary_knows_its_video_again(
    earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "drive.mp4")
    if earlier:
        predict(clip, tmp_path / "out", limit=2)

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(EarlierRuns, "remove_stale", killed)
            with pytest.raises(KeyboardInterrupt):
                predict(clip, tmp_path / "out", depth_range=(1.0, 30.0))
    outcome = predict(clip, tmp_path / "out")
    assert len(frames_of(outcome.video)) == COUNT
    assert sorted(os.listdir(tmp_path / "out")) == ["drive_depth.json", "drive_depth.mp4"]


def test_the_video_of_another_format_goes_with_the_run_that_it_was_of(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "drive.mp4")
    predict(clip, tmp_path / "out")
    for suffix, other in (("avi", "mp4"), ("mp4", "avi")):
        outcome = predict(clip, tmp_path / "out", format=suffix)
        assert set(os.listdir(tmp_path / "out")) == {"drive_depth.json", f"drive_depth.{suffix}"}
        assert outcome.notes == [f"removed what the run before wrote: drive_depth.{other}"]


def test_frames_go_with_the_run_that_they_were_of_unless_this_one_would_have_written_the_same(tmp_path: Path) -> None:
    clip, frames = write_clip(tmp_path / "drive.mp4"), tmp_path / "out" / "drive_frames"
    for settings in ({"stabilise": 0.5}, {"limit": 3}, {}):
        predict(clip, tmp_path / "out", frames="png")
        before = files_in(frames)
        assert predict(clip, tmp_path / "out", depth_range=(1.0, 30.0)).notes == []
        assert files_in(frames) == before, "these frames are still what the network says"
        if not settings:
            (frames / "labels.csv").write_text("mine")
            settings = {"stabilise": 0.5}
            assert predict(clip, tmp_path / "out", **settings).notes == []
            assert (frames / "labels.csv").is_file()
        else:
            told = ["removed what the run before wrote: drive_frames"]
            assert predict(clip, tmp_path / "out", **settings).notes == told
            assert not frames.exists()


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_a_folder_of_somebody_s_frames_is_not_replaced(kind: str, tmp_path: Path) -> None:
    """drive_frames is what many call the pictures that they took out of drive.mp4."""
    clip, theirs = write_clip(tmp_path / "drive.mp4"), tmp_path / "out" / "drive_frames"
    write_frames(theirs)
    before, model = files_in(theirs), Counting()
    with pytest.raises(InputError, match=r"drive_frames holds no record\.json.*: name another --output, or move it"):
        predict(clip, tmp_path / "out", model, frames=kind)
    assert model.calls == 0, "before anything is predicted"
    assert files_in(theirs) == before
    predict(clip, tmp_path / "out")  # which writes no such folder
    assert files_in(theirs) == before


def test_frames_of_an_earlier_run_are_replaced_unless_another_s_file_is_among_them(tmp_path: Path) -> None:
    clip, folder = write_clip(tmp_path / "drive.mp4"), tmp_path / "out" / "drive_frames"
    predict(clip, tmp_path / "out", frames="png")
    predict(clip, tmp_path / "out", frames="npz", limit=2)
    assert sorted(os.listdir(folder)) == ["000000.npz", "000001.npz", "record.json"]
    (folder / "labels.csv").write_text("mine")
    with pytest.raises(InputError, match=r"drive_frames would be replaced, and labels\.csv in it is of no earlier run"):
        predict(clip, tmp_path / "out", frames="png")
    assert (folder / "labels.csv").read_text() == "mine"


def test_a_folder_that_came_while_the_clip_was_predicted_is_not_replaced(tmp_path: Path) -> None:
    class Meanwhile(Counting):
        def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
            write_frames(tmp_path / "out" / "drive_frames", 1)
            return super().forward(image, camera)

    with pytest.raises(InputError, match=r"drive_frames holds no record\.json"):
        predict(write_clip(tmp_path / "drive.mp4"), tmp_path / "out", Meanwhile(), frames="png")
    assert os.listdir(tmp_path / "out" / "drive_frames") == ["000.png"]


@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_folder_is_not_replaced_by_frames(link: bool, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    place, model = tmp_path / "out" / "drive_frames", Counting()
    place.symlink_to(tmp_path / "gone") if link else place.write_text("mine")
    with pytest.raises(InputError, match="drive_frames is in the place of the folder of frames"):
        predict(write_clip(tmp_path / "drive.mp4"), tmp_path / "out", model, frames="png")
    assert model.calls == 0
    assert os.path.lexists(place)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.mp4", b"", "expected a video .*: it is empty|by its first bytes it is empty"),
        ("a.mp4", b"hello, I am text", "expected a video (mp4, mov, avi, mkv, webm, mpg, flv, ogg, wmv or ts)"),
        ("a.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "expected a video"),
        ("a.mp4", b"\0\0\0\x20ftypisom" + b"\0" * 64, "cannot be decoded: cut short, damaged"),
        ("a.mkv", b"\x1aE\xdf\xa3" + b"\0" * 64, "cannot be decoded: cut short, damaged"),
    ],
    ids=["empty", "text", "playlist", "mp4", "mkv"],
)
def test_what_is_no_video_is_told(
    name: str, data: bytes, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    assert is_clip(tmp_path / name)
    with pytest.raises(InputError) as raised:
        predict(tmp_path / name, tmp_path / "out")
    assert told in str(raised.value) or re.search(told, str(raised.value))
    assert str(tmp_path / name) in str(raised.value)
    assert not (tmp_path / "out").exists()
    assert capfd.readouterr().err == "", "the libraries are quiet"


def test_a_video_without_a_frame_is_told(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (64, 48))
    writer.release()
    with pytest.raises(InputError, match=r"a\.avi: (this video cannot|no frame of this video can) be decoded"):
        predict(tmp_path / "a.avi", tmp_path / "out")


def test_a_video_that_is_cut_short_is_predicted_as_far_as_it_goes_and_told(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.avi", pictures(20))
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    outcome = predict(clip, tmp_path / "out")
    assert 0 < outcome.frames < 20
    ((path, reason),) = outcome.failures
    assert path == clip
    assert f"it announces 20 frames and ends, or cannot be decoded, after {outcome.frames}" in reason


def test_a_name_that_is_no_image_sequence_is_looked_for(tmp_path: Path) -> None:
    """OpenCV would read a.%03d.mp4 or a000.mp4 as the first of many pictures."""
    for number in range(3):
        write_png(tmp_path / "a000.png", pictures()[number])
    (tmp_path / "a000.mp4").write_bytes((tmp_path / "a000.png").read_bytes())
    with pytest.raises(InputError, match="expected a video"):
        predict(tmp_path / "a000.mp4", tmp_path / "out")


def test_frames_of_two_sizes_and_a_broken_frame(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "in")
    write_images(folder, "900.png", size=(48, 66))
    with pytest.raises(InputError, match=r"900\.png: the frames of a clip must have one size, got 48×64 and 48×66"):
        predict(folder, tmp_path / "out")
    (folder / "900.png").write_bytes((folder / "000.png").read_bytes()[:99])
    with pytest.raises(InputError, match=r"900\.png: the image is cut short"):
        predict(folder, tmp_path / "out2")
    assert os.listdir(tmp_path / "out2") == ["in_unfinished"]


def test_pairs_of_a_folder_are_a_stereo_teacher_s_clip(tmp_path: Path) -> None:
    for side in ("left", "right"):
        write_frames(tmp_path / "rig" / side)
    write_cameras(tmp_path / "rig" / "camera.toml", {"000": CAMERA}, (48, 64))
    outcome = predict_clip(
        teacher(), open_clip(tmp_path / "rig", stereo=True), tmp_path / "out", settings=VideoConfig(frames="png")
    )
    assert outcome.frames == COUNT
    assert np.allclose(read_png16(tmp_path / "out" / "rig_frames" / "000003_depth.png"), 10.0, atol=0.01)
    with pytest.raises(InputError, match="a stereo teacher needs pairs; of clips these are folders, left/ and right/"):
        open_clip(write_clip(tmp_path / "a.mp4"), stereo=True)


def scaled_student() -> Predictor:
    predictor = Predictor(Student(), size=None)
    predictor.needs_camera = True
    return predictor


def test_the_camera_of_a_clip_stands_beside_it(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "drive.mp4")
    with pytest.raises(InputError, match=r"no calibration for .*drive\.mp4: give --fx \(pixels\), or put it into"):
        predict_clip(scaled_student(), open_clip(clip), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "camera.toml").write_text("fx = 50\n[other]\nfx = 60\n[drive]\nwidth = 65\n")
    with pytest.raises(InputError, match="but drive has width 64"):
        predict_clip(scaled_student(), open_clip(clip), tmp_path / "out")
    (tmp_path / "camera.toml").write_text("fx = 50\n")
    assert predict_clip(scaled_student(), open_clip(clip), tmp_path / "out").frames == COUNT


class Lens:
    """Stands where cv2.VideoCapture opens a camera, and shows the frames of a file."""

    def __init__(self, path: Path, then: Any = None) -> None:
        self.capture, self.then, self.count = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), then, 0

    def isOpened(self) -> bool:
        return self.capture.isOpened()

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.count += 1
        if self.then is not None and self.count == 4:
            self.then()
        return self.capture.read()

    def release(self) -> None:
        self.capture.release()


@pytest.fixture
def lens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    clip, options = write_clip(tmp_path / "shown.mp4"), dict[str, Any]()
    real = cv2.VideoCapture

    def opened(source: Any, *backend: int) -> Any:
        return Lens(clip, options.get("then")) if source == 0 else real(source, *backend)

    class Module:
        def __getattr__(self, name: str) -> Any:
            return opened if name == "VideoCapture" else getattr(cv2, name)

    monkeypatch.setattr("adu_depth.inference.video.capture.cv2", Module())
    return options


def test_a_camera_is_recorded_until_its_limit(lens: dict[str, Any], tmp_path: Path) -> None:
    assert is_clip(Path("camera:0"))
    assert isinstance(open_clip("camera:0"), LiveCamera)
    outcome = predict(Path("camera:0"), tmp_path / "out", limit=3)
    assert outcome.frames == 3
    names = ["camera-0_depth.json", "camera-0_depth.mp4", "camera-0_recorded"]
    assert sorted(os.listdir(tmp_path / "out")) == names
    assert sorted(os.listdir(tmp_path / "out" / "camera-0_recorded")) == ["000000.png", "000001.png", "000002.png"]
    assert len(frames_of(outcome.video)) == 3
    with pytest.raises(InputError, match=r"camera-0_recorded holds pictures of this camera: predict them by"):
        predict(Path("camera:0"), tmp_path / "out")
    again = predict(tmp_path / "out" / "camera-0_recorded", tmp_path / "again")
    assert again.flicker == outcome.flicker


def test_ctrl_c_ends_a_camera_and_finishes_its_clip(lens: dict[str, Any], tmp_path: Path) -> None:
    lens["then"] = lambda: os.kill(os.getpid(), signal.SIGINT)
    outcome = predict(Path("camera:0"), tmp_path / "out")
    assert outcome.frames == 3
    assert len(frames_of(outcome.video)) == 3
    names = ["000000.png", "000001.png", "000002.png"]
    assert sorted(os.listdir(tmp_path / "out" / "camera-0_recorded")) == names, "as many as the video has"


def test_a_second_ctrl_c_does_not_end_the_finishing_of_a_camera_s_clip(
    lens: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Panels.picture

    def again(self: Panels, number: int, *maps: Any) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGINT)
        return drawn(self, number, *maps)

    monkeypatch.setattr(Panels, "picture", again)
    lens["then"] = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert len(frames_of(predict(Path("camera:0"), tmp_path / "out").video)) == 3


def test_a_camera_that_is_stopped_in_the_finishing_names_the_folder_to_predict(
    lens: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limit has ended it: the same command would be refused, as the pictures are there."""

    def stopped(*_: Any) -> np.ndarray:
        raise Stopped(signal.SIGINT)

    def loaded(*_: Any) -> Predictor:
        return Predictor(Student(), size=None)

    monkeypatch.setattr(Panels, "picture", stopped)
    monkeypatch.setattr(Predictor, "from_checkpoint", loaded)
    config = PredictConfig(Path("student"), Path("camera:0"), output=tmp_path / "out", video=VideoConfig(limit=3))
    with pytest.raises(Interrupted, match=r"predict \S+/out/camera-0_recorded --as-video") as raised:
        predict_images(config, Console())
    assert "same command" not in str(raised.value)
    assert len(os.listdir(tmp_path / "out" / "camera-0_recorded")) == 3


def test_a_camera_that_needs_its_calibration_keeps_it(
    lens: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no calibration for camera:0: give --fx"):
        predict_clip(scaled_student(), open_clip("camera:0"), tmp_path / "out")
    Path("camera.toml").write_text("fx = 50\n")
    assert predict_clip(scaled_student(), open_clip("camera:0"), tmp_path / "out").frames == COUNT


def test_no_such_camera(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="camera:987: there is no such camera, or it is in use; expected a video"):
        predict(Path("camera:987"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"depth_range": (80.0, 2.0)}, "video.depth_range: expected metres 0 < low < high, got 80 and 2"),
        ({"depth_range": (0.0, 2.0)}, "video.depth_range: expected metres 0 < low < high, got 0 and 2"),
        ({"stabilise": 1.0}, "video.stabilise: expected a number from 0 to 0.95, got 1.0"),
        ({"limit": 0}, "video.limit: expected"),
        ({"fps": 0.0}, "video.fps: expected"),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        VideoConfig(**wrong)
