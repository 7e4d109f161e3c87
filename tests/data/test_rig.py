"""One's own pairs: two folders and a camera.toml, and whatever ground truth there is."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from adu_depth.data import Rig, open_dataset
from adu_depth.data.camera_file import CameraFile, write_cameras
from adu_depth.data.image_files import write_pfm
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference.render import write_samples
from tests.data.trees import SIZE, depth_of, disparity_of, save_image, scenes


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    write_samples(scenes(), tmp_path, 3)
    return tmp_path


def test_what_render_writes_opens_as_a_rig(rendered: Path) -> None:
    dataset = open_dataset(rendered)
    assert isinstance(dataset, Rig)
    assert dataset.names == ["000000", "000001", "000002"]
    for index, scene in enumerate(scenes()[:3]):
        sample = dataset[index]
        assert (sample.right - scene.right).abs().max() < 1 / 255  # type: ignore[operator]
        assert sample.camera == scene.camera
        assert sample.depth[0].numpy() == pytest.approx(depth_of(scene), abs=1 / 256)
        assert sample.disparity[0].numpy() == pytest.approx(disparity_of(scene), abs=1 / 256)
        assert sample.occluded is not None
        assert torch.equal(sample.occluded, scene.occluded)  # type: ignore[arg-type]
        assert sample.sparse_depth is not None
        assert (sample.sparse_depth - scene.sparse_depth).abs().max() < 1 / 256  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["png", "pfm", "npy"])
@pytest.mark.parametrize("role", ["depth", "disparity"])
def test_one_kind_of_map_is_enough(tmp_path: Path, role: str, kind: str) -> None:
    scene = scenes()[0]
    values = (depth_of if role == "depth" else disparity_of)(scene)
    for side in ("left", "right"):
        save_image(tmp_path / side / "a.png", getattr(scene, side))
    write_cameras(tmp_path / "camera.toml", {"a": scene.camera})
    (tmp_path / role).mkdir()
    unknown = np.where(values > 0, values, np.inf).astype(np.float32)
    if kind == "png":
        cv2.imwrite(str(tmp_path / role / "a.png"), np.round(values * 256).astype(np.uint16))
    elif kind == "pfm":
        write_pfm(tmp_path / role / "a.pfm", unknown)
    else:
        np.save(tmp_path / role / "a.npy", np.where(values > 0, values, np.nan))
    sample = open_dataset(tmp_path)[0]
    known = scene.valid & sample.valid
    assert known.sum() > 0.98 * scene.valid.sum()
    assert torch.allclose(sample.depth[known], scene.depth[known], rtol=0.03)
    assert torch.allclose(sample.disparity[known], scene.disparity[known], rtol=0.01, atol=0.01)
    assert sample.sparse_depth is None
    assert sample.occluded is None


def test_pairs_alone_with_other_endings_in_folders_of_sequences(tmp_path: Path) -> None:
    for index, name in enumerate(("monday/000001", "monday/000002", "tuesday/000001")):
        save_image(tmp_path / "left" / f"{name}.jpg", scenes()[index].left)
        save_image(tmp_path / "right" / f"{name}.PNG", scenes()[index].right)
    (tmp_path / "camera.toml").write_text(
        'fx = 100\ncx = 95.5\ncy = 31.5\nbaseline = 0.2\n["tuesday"]\nfx = 90\n["monday/000002"]\nbaseline = 0.3\n'
    )
    dataset = open_dataset(tmp_path)
    assert dataset.names == ["monday/000001", "monday/000002", "tuesday/000001"]
    assert [dataset[i].camera.fx for i in range(3)] == [100, 100, 90]
    assert [dataset[i].camera.baseline for i in range(3)] == [0.2, 0.3, 0.2]
    assert [dataset.sequence(name) for name in dataset.names] == ["monday", "monday", "tuesday"]
    assert not dataset[0].valid.any()
    assert not dataset.labelled("monday/000001")


NAMES = ["seq#1/0001", "a.b", 'q"u', "back\\s", "ü", "tab\tx", "caf\udce9", "del\x7f", "plain"]


def test_what_write_cameras_writes_is_read_whatever_the_names(tmp_path: Path) -> None:
    cameras = {name: Camera(1.0 + number, 2.0, 3.0, 4.0, 0.5) for number, name in enumerate(NAMES)}
    write_cameras(tmp_path / "camera.toml", cameras)
    file = CameraFile(tmp_path / "camera.toml")
    assert {name: file.camera(name) for name in NAMES} == cameras


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fx = 1\n[a.b]\nfx = 2", r"\[a.b\] names two tables; a name with a dot stands in quotes"),
        ("fx = true", r"line 1: fx must be a number, got True"),
        ("[[a]]\nfx = 1", r"expected `name = number` with a name of .*, got 'a'"),
        ("fx = " + "1" * 5000, r"camera.toml is not TOML of numbers"),
        ("cx = 1\ncy = 1\nfx = " + "1" * 400, r"fx of .* must be finite"),
        ("x = " + "[" * 5_000, r"camera.toml"),
        ("x = " + "[" * 100_000, r"line 1: 100,004 characters, expected at most 10,000"),
        ("fx = 1\n[a]\nfx = 1\n[a]\nfx = 2", r"line 4: expected `name = number`"),
        ("a.fx = 3", "lacks fx"),
        ("fx = 1\n[x]\ncx = 2\nfx = {a = 1}", r"line 4: fx must be a number|fx. names two tables"),
        ("fx = 2020-01-01", r"line 1: fx must be a number"),
        ("fx == 3", r"line 1: fx must be a number, got '= 3'"),
    ],
    ids=range(12),
)
def test_what_is_no_table_of_numbers_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "camera.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        CameraFile(tmp_path / "camera.toml").camera()


def test_a_missing_right_image_is_named(rendered: Path) -> None:
    (rendered / "right" / "000001.png").unlink()
    dataset = open_dataset(rendered)
    assert dataset.missing("000001") == [rendered / "right" / "000001.png"]
    with pytest.raises(InputError, match=r"right/000001.png: the right image of \S*left/000001.png is missing"):
        dataset[1]
    whole = open_dataset(rendered, skip_missing=True)
    assert whole.names == ["000000", "000002"]
    assert whole.notes == ["skipped for missing files: 1 (000001)"]


def test_camera_toml_is_needed_and_whole(rendered: Path) -> None:
    file = rendered / "camera.toml"
    text = file.read_text()
    for change, message in (
        (re.sub(r"baseline = \S+", "", text), r"camera.toml lacks baseline"),
        (re.sub(r"baseline = \S+", "baseline = 0", text), r"camera.toml: baseline must be positive"),
        (text.replace(f"width = {SIZE[1]}", "width = 1242"), r"is for images of width 1242"),
    ):
        file.write_text(change)
        with pytest.raises(InputError, match=message):
            open_dataset(rendered)[0]
    file.unlink()
    with pytest.raises(InputError, match=r"camera.toml is missing: expected a line each of fx = ….*baseline = …"):
        open_dataset(rendered)


def test_bad_maps_are_named(rendered: Path) -> None:
    file = rendered / "depth" / "000000.png"
    cv2.imwrite(str(file), np.zeros(SIZE, dtype=np.uint8))
    with pytest.raises(InputError, match=r"depth/000000.png: expected a one-channel 16-bit PNG"):
        open_dataset(rendered)[0]
    file.unlink()
    for array, message in (
        (np.zeros((3, 4)), r"expected the image's height and width"),
        (np.zeros(SIZE, dtype=int), r"expected H×W floats, got int64"),
    ):
        np.save(file.with_suffix(".npy"), array)
        with pytest.raises(InputError, match=rf"depth/000000.npy: {message}"):
            open_dataset(rendered)[0]
    file.with_suffix(".npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"depth/000000.npy: not an array"):
        open_dataset(rendered)[0]


def test_what_macos_leaves_beside_images_is_no_image(rendered: Path) -> None:
    (rendered / "left" / "._000000.png").write_bytes(b"Mac OS X")
    assert open_dataset(rendered).names == ["000000", "000001", "000002"]


def test_no_mark_for_unknown_comes_through(rendered: Path) -> None:
    scene = scenes()[0]
    for role in ("depth", "sparse_depth"):
        values = np.full(SIZE, 7.0)
        values[0, :4] = (np.nan, np.inf, -1, 0)
        (rendered / role / "000000.png").unlink()
        np.save(rendered / role / "000000.npy", values)
    sample = open_dataset(rendered)[0]
    for found in (sample.depth, sample.sparse_depth, sample.training_target()):
        assert found is not None
        assert found[0, 0, :4].tolist() == [0, 0, 0, 0]
        assert set(found.unique().tolist()) <= {0.0, 7.0}
    assert not sample.valid[0, 0, :4].any()
    assert sample.valid.sum() <= scene.valid.sum()


def test_two_left_images_of_one_name_are_refused(rendered: Path) -> None:
    save_image(rendered / "left" / "000000.jpg", scenes()[0].left)
    with pytest.raises(InputError, match=r"000000.png and \S*000000.jpg have one name"):
        open_dataset(rendered)


def test_a_sample_of_stored_maps_keeps_both_as_stored(rendered: Path) -> None:
    """The doctor can only compare them if neither is made from the other."""
    scene = scenes()[0]
    write_samples([replace(scene, disparity=scene.disparity * 2)], rendered, 1)  # type: ignore[arg-type]
    sample = open_dataset(rendered)[0]
    assert torch.allclose(sample.disparity[sample.valid], 2 * scene.disparity[sample.valid], atol=0.01)
    assert torch.allclose(sample.depth[sample.valid], scene.depth[sample.valid], atol=0.01)
