"""Recordings for the Rerun viewer, read back by Rerun's own reader."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from adu_depth.errors import InputError
from adu_depth.folder_lock import locked
from adu_depth.geometry import Camera
from adu_depth.inference.point_cloud import PointFrame, point_cloud
from adu_depth.inference.point_output import PointOutput
from adu_depth.inference.predict_files import ImageTask, predict_files
from adu_depth.inference.recording import Recording
from tests.inference.test_point_cloud import read_ply
from tests.inference.test_predict_files import student, write_images

chunk = pytest.importorskip("rerun.chunk", reason="pip install 'adu-depth[rerun]' (0.41 reads its files by this name)")
CAMERA = Camera(fx=90.0, fy=80.0, cx=31.0, cy=15.0, baseline=0.0)


def frame(number: int) -> PointFrame:
    depth = np.full((32, 64), 4.0 + number, np.float32)
    picture = np.full((32, 64, 3), 40 * number, np.uint8)
    return PointFrame(picture, CAMERA, depth, point_cloud(depth, picture, CAMERA))


def read(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """What is logged, by entity and place on the timeline "frame"."""
    found = {}
    for part in chunk.RrdReader(path).stream():
        if not part.is_static:
            table = part.to_record_batch().drop_columns(["log_time"]).to_pydict()
            for row, number in enumerate(table["frame"]):
                found[part.entity_path, int(number)] = {name: values[row] for name, values in table.items()}
    return found


def test_camera_image_depth_and_points_of_every_frame_are_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.rrd"
    frames = [frame(number) for number in range(3)]
    with Recording(path) as recording:
        for number, one in enumerate(frames):
            recording.add(f"name {number}", one)
        assert not path.exists(), "it has no name before it is whole"
    assert [p.name for p in path.parent.iterdir()] == ["a.rrd"]
    logged = read(path)
    assert set(logged) == {
        (entity, number)
        for entity in ("/camera", "/camera/image", "/camera/depth", "/points", "/name")
        for number in range(3)
    }
    for number, one in enumerate(frames):
        points = np.array(logged["/points", number]["Points3D:positions"], np.float32)
        assert np.array_equal(points, one.cloud.positions)
        packed = np.array(logged["/points", number]["Points3D:colors"], np.uint32)
        colours = np.stack([packed >> shift & 255 for shift in (24, 16, 8)], axis=1)
        assert np.array_equal(colours, one.cloud.colours)
        depth = bytes(np.array(logged["/camera/depth", number]["DepthImage:buffer"][0], np.uint8))
        assert np.array_equal(np.frombuffer(depth, np.float32).reshape(32, 64), one.depth)
        matrix = np.array(logged["/camera", number]["Pinhole:image_from_camera"][0]).reshape(3, 3).T
        assert matrix.tolist() == [[90, 0, 31], [0, 80, 15], [0, 0, 1]]
        assert logged["/camera", number]["Pinhole:resolution"][0] == [64, 32]
        encoded = np.array(logged["/camera/image", number]["EncodedImage:blob"][0], np.uint8)
        assert np.abs(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1].astype(int) - one.picture).max() <= 2
        assert logged["/name", number]["TextDocument:text"] == [f"name {number}"]


def test_predict_records_a_folder_and_passes_over_what_is_broken(tmp_path: Path) -> None:
    write_images(tmp_path / "in", "a.png", "b.png", "c.png")
    (tmp_path / "in" / "b.png").write_bytes(b"")
    (tmp_path / "in" / "camera.toml").write_text("fx = 90\ncx = 31\ncy = 15\n")
    with Recording(tmp_path / "out" / "a.rrd") as recording:
        outcome = predict_files(student(), tmp_path / "in", tmp_path / "out", points=PointOutput(recording=recording))
    assert [path.name for path, _ in outcome.failures] == ["b.png"]
    logged = read(tmp_path / "out" / "a.rrd")
    assert [logged["/name", number]["TextDocument:text"] for number in range(2)] == [["a"], ["c"]]
    vertices, _ = read_ply(tmp_path / "out" / "c_points.ply")
    assert np.array_equal(
        np.array(logged["/points", 1]["Points3D:positions"], np.float32),
        np.stack([vertices[name] for name in "xyz"], axis=1),
    )


def record(path: Path, count: int, error: Exception | None = None) -> None:
    with Recording(path) as recording:
        for number in range(count):
            recording.add("a", frame(number))
        if error is not None:
            raise error


def test_an_error_or_no_frame_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.rrd"
    path.write_bytes(b"before")
    with pytest.raises(InputError, match="stopped"):
        record(path, 1, InputError("stopped"))
    record(path, 0)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.rrd"]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Any longer file is refused by the system, as by a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.rrd"
    with files_up_to(20_000), pytest.raises(InputError, match=r"cannot write .*a\.rrd: "):
        record(path, 5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["a file in the folder's place", "a folder that nobody may write into"])
def test_a_recording_that_cannot_be_begun_ends_the_run_before_any_image(what: str, tmp_path: Path) -> None:
    write_images(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "in" / "camera.toml").write_text("fx = 90\ncx = 31\ncy = 15\n")
    if what == "a file in the folder's place":
        (tmp_path / "taken").write_bytes(b"")
    else:
        (tmp_path / "taken").symlink_to("/proc")  # root may write into any other
    with (
        pytest.raises(InputError, match=r"cannot write .*taken/a\.rrd: "),
        Recording(tmp_path / "taken" / "a.rrd") as recording,
    ):
        predict_files(student(), tmp_path / "in", tmp_path / "out", points=PointOutput(recording=recording))
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_ends_the_run_and_is_no_image_s_fault(tmp_path: Path) -> None:
    names = [f"{number:02}.png" for number in range(30)]
    write_images(tmp_path / "in", *names)
    (tmp_path / "in" / "camera.toml").write_text("fx = 90\ncx = 31\ncy = 15\n")
    done: list[str] = []

    def progress(task: ImageTask, reason: str | None) -> None:
        assert reason is None
        done.append(task.name)
        time.sleep(0.05)  # Rerun's own thread writes to the pipe a few times a second

    with (
        files_up_to(50_000),
        pytest.raises(InputError, match=r"cannot write .*a\.rrd: "),
        Recording(tmp_path / "a.rrd") as recording,
    ):
        predict_files(
            student(),
            tmp_path / "in",
            tmp_path / "out",
            points=PointOutput(ply=False, recording=recording),
            progress=progress,
        )
    assert 0 < len(done) < len(names), "what would be predicted in vain is not"
    assert not (tmp_path / "a.rrd").exists()


def test_a_recording_whose_folder_is_another_s_now_ends_the_run(tmp_path: Path) -> None:
    write_images(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "in" / "camera.toml").write_text("fx = 90\ncx = 31\ncy = 15\n")
    done: list[str | None] = []

    def progress(task: ImageTask, reason: str | None) -> None:
        done.append(reason)
        (tmp_path / "records").rename(tmp_path / "moved")

    with (
        locked(tmp_path / "records", "predict"),
        pytest.raises(InputError, match="records: the folder was moved to"),
        Recording(tmp_path / "records" / "a.rrd") as recording,
    ):
        predict_files(
            student(), tmp_path / "in", tmp_path / "out", points=PointOutput(recording=recording), progress=progress
        )
    assert done == [None]


def test_images_are_added_within_the_block_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.rrd: expected images to be added within `with Recording"):
        Recording(tmp_path / "a.rrd").add("a", frame(0))
