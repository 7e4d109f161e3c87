"""Flow, flicker and the filter, against scenes whose motion and depth are known."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from adu_depth.data.image_files import grey_levels
from adu_depth.geometry import Camera
from adu_depth.inference.video.flicker import Flicker, FlickerMeter
from adu_depth.inference.video.flow import Motion, consistent, optical_flow, warp
from adu_depth.inference.video.stabilise import Stabiliser, camera_matrix, camera_motion
from tests.doc_examples import run_examples
from tests.inference.driving import camera_of, drive, street

Maps = list[np.ndarray]


def texture(height: int = 64, width: int = 96) -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 255, (height, width), np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX))


def measured(depths: Maps, motions: list[Motion | None]) -> Flicker:
    meter = FlickerMeter()
    for depth, motion in zip(depths, motions, strict=True):
        meter.add(depth, motion)
    return meter.result()


def test_a_picture_that_moves_has_its_flow_and_two_equal_ones_none() -> None:
    picture = texture()
    assert not optical_flow(picture, picture).any()
    moved = np.roll(picture, (2, 3), axis=(0, 1))
    inner = optical_flow(picture, moved)[12:-12, 12:-12]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), (3, 2), atol=0.1)
    wide = cv2.resize(picture, (1600, 1066), interpolation=cv2.INTER_CUBIC)  # found in a smaller copy
    inner = optical_flow(wide, np.roll(wide, (20, 30), axis=(0, 1)))[200:-200, 200:-200]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), (30, 20), atol=1.0)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (8, 8), (20, 12)])
def test_tiny_pictures_have_a_flow(size: tuple[int, int]) -> None:
    picture = texture(*size)
    assert Motion.between(picture, picture).backward_holds.all()


def test_what_the_other_frame_does_not_hold_is_not_consistent() -> None:
    flow = np.zeros((20, 30, 2), np.float32)
    flow[..., 0] = 4
    assert consistent(flow, -flow)[:, :26].all()
    assert not consistent(flow, -flow)[:, 26:].any(), "it lies outside"
    assert not consistent(flow, flow).any(), "there and back leads elsewhere"
    values = np.arange(30, dtype=np.float32)[None].repeat(20, 0)
    assert np.allclose(warp(values, flow)[:, :26], values[:, 4:])
    assert np.isnan(warp(values, flow)[:, 26:]).all()


def test_a_still_scene_with_the_same_depth_has_none() -> None:
    still = Motion.between(texture(), texture())
    depth = np.log(np.random.default_rng(0).uniform(2, 80, (64, 96))).astype(np.float32)
    found = measured([depth] * 4, [None, still, still, still])
    assert (found.flicker, found.change, found.pixels) == (0.0, 0.0, 1.0)


def test_what_jumps_back_and_forth_counts_whole_and_what_grows_evenly_does_not() -> None:
    still = Motion.between(texture(), texture())
    ones = np.ones((64, 96), np.float32)
    motions = [None, *[still] * 4]
    jumps = measured([ones, 1.1 * ones, ones, 1.1 * ones, ones], motions)
    assert jumps.flicker == pytest.approx(0.1, abs=1e-5)
    assert jumps.change == pytest.approx(0.1, abs=1e-5)
    grows = measured([(1 + 0.1 * k) * ones for k in range(5)], motions)
    assert grows.flicker == pytest.approx(0, abs=1e-5)
    assert grows.change == pytest.approx(0.1, abs=1e-5)


def test_a_window_over_a_wall_has_none_and_depth_that_does_not_follow_it_has() -> None:
    wide = texture(64, 128)
    wall = np.log(np.linspace(5, 20, 128, dtype=np.float32))[None].repeat(64, 0)
    steps = range(0, 8, 2)
    greys = [np.ascontiguousarray(wide[:, k : k + 96]) for k in steps]
    motions = [None, *(Motion.between(a, b) for a, b in pairwise(greys))]
    follows = measured([wall[:, k : k + 96] for k in steps], motions)
    assert follows.change is not None
    assert follows.change < 0.003
    assert follows.pixels > 0.8
    stays = measured([wall[:, :96]] * 4, motions)
    assert stays.change is not None
    assert stays.change > 5 * follows.change


def test_the_example_of_the_meter_s_docstring() -> None:
    run_examples(FlickerMeter.__doc__ or "", "FlickerMeter", {"np": np, "Motion": Motion, "FlickerMeter": FlickerMeter})


def test_nan_and_two_frames_are_not_measured() -> None:
    still = Motion.between(texture(), texture())
    ones = np.ones((64, 96), np.float32)
    two = measured([ones, 2 * ones], [None, still])
    assert two.flicker is None
    assert two.change == pytest.approx(1.0)
    assert "not measured" in str(two)
    half = ones.copy()
    half[:, :48] = np.nan
    found = measured([half, half, half], [None, still, still])
    assert found.flicker == 0.0
    assert found.pixels == pytest.approx(0.5, abs=0.02)
    assert measured([np.full_like(ones, np.nan)] * 3, [None, still, still]).flicker is None


def test_the_camera_s_motion_is_found_among_points_that_move_by_themselves() -> None:
    rng = np.random.default_rng(0)
    matrix = camera_matrix(Camera(400.0, 400.0, 320.0, 96.0, 0.0), (192, 640))
    points = rng.uniform((-8, -2, 5), (8, 2, 40), (500, 3))
    rotation = cv2.Rodrigues(np.array([0.01, -0.03, 0.005]))[0]
    shift = np.array([0.05, 0.0, -0.8])
    now = points @ rotation.T + shift
    pixels = now[:, :2] / now[:, 2:] * 400 + matrix[:2, 2]
    pixels[::4] += rng.uniform(-40, 40, (125, 2))
    found = camera_motion(points, pixels, matrix, 2.0)
    assert found is not None
    np.testing.assert_allclose(found[0], rotation, atol=1e-4)
    np.testing.assert_allclose(found[1], shift, atol=1e-2)
    assert camera_motion(points[:20], pixels[:20], matrix, 2.0) is None, "too few"
    assert camera_motion(points, rng.uniform(0, 190, (500, 2)), matrix, 2.0) is None, "they agree on nothing"


def filtered(strength: float, greys: Maps, depths: Maps, motions: list[Motion | None], camera: Camera | None) -> Maps:
    stabiliser = Stabiliser(strength)
    return [stabiliser.add(g, d, None, m, camera) for g, d, m in zip(greys, depths, motions, strict=True)]


@pytest.fixture(scope="module")
def driven() -> tuple[Maps, Maps, list[Motion | None], Camera]:
    """Grey pictures, true depths, motions and camera of a drive of 40 cm a frame that turns."""
    scenes = street(96, 320)
    frames = list(drive(scenes, [0.4 * k for k in range(7)], [0.4 * np.sin(k) for k in range(7)]))
    greys = [grey_levels(picture) for picture, _ in frames]
    motions = [None, *(Motion.between(a, b) for a, b in pairwise(greys))]
    return greys, [np.clip(depth, 0.5, 200) * (depth > 0) for _, depth in frames], motions, camera_of(scenes)


def test_a_drive_past_true_depth_flickers_little_though_everything_comes_nearer(
    driven: tuple[Maps, Maps, list[Motion | None], Camera],
) -> None:
    _, truths, motions, _ = driven
    found = measured([np.log(np.where(t > 0, t, np.nan)) for t in truths], motions)
    assert found.flicker is not None
    assert found.change is not None
    assert found.change > 0.03
    assert found.flicker < found.change / 3


def test_the_filter_takes_flicker_away_and_no_accuracy(
    driven: tuple[Maps, Maps, list[Motion | None], Camera],
) -> None:
    """Depth that is 20 % too far throughout, as a network's may be, and flickers by some 6 %."""
    greys, truths, motions, camera = driven
    rng = np.random.default_rng(0)
    depths = []
    for truth in truths:
        blobs = cv2.resize(rng.normal(0, 0.06, (6, 20)), truth.shape[::-1], interpolation=cv2.INTER_CUBIC)
        depths.append(np.log(1.2 * np.where(truth > 0, truth, 200)) + blobs + rng.normal(0, 0.03))
    result = filtered(0.7, greys, depths, motions, camera)
    before, after = measured(depths, motions), measured(result, motions)
    assert before.flicker is not None
    assert after.flicker is not None
    assert after.flicker < 0.6 * before.flicker

    def error(maps: Maps) -> float:
        last = list(zip(maps, truths, strict=True))[3:]
        return float(np.mean([np.abs(np.exp(m)[t > 0] / (1.2 * t[t > 0]) - 1).mean() for m, t in last]))

    assert error(result) < 0.85 * error(depths)
    unfiltered = filtered(0, greys, depths, motions, camera)
    assert all(np.array_equal(a, b.astype(np.float32)) for a, b in zip(unfiltered, depths, strict=True))


def test_true_depth_stays_true(driven: tuple[Maps, Maps, list[Motion | None], Camera]) -> None:
    """An average that did not carry depth along would lag behind by two frames' advance: 5 % here."""
    greys, truths, motions, camera = driven
    depths = [np.log(np.where(t > 0, t, 200)) for t in truths]
    result = filtered(0.7, greys, depths, motions, camera)
    seen = truths[-1] > 0
    apart = np.abs(result[-1] - depths[-1])[seen]
    assert np.median(apart) < 0.004
    lag = np.abs(warp(depths[-3], motions[-1].backward) - depths[-1])[seen] if motions[-1] else apart
    assert np.nanmedian(lag) > 0.01


def test_what_moves_by_itself_is_left_as_the_network_says() -> None:
    """A patch moves over a still wall, at another depth in each frame."""
    wall, patch = texture(64, 96), 255 - texture(20, 20)
    greys, depths = [], []
    for k in range(4):
        grey, depth = wall.copy(), np.full((64, 96), np.log(20.0), np.float32)
        grey[20:40, 10 + 6 * k : 30 + 6 * k] = patch
        depth[20:40, 10 + 6 * k : 30 + 6 * k] = np.log(8.0 - 0.5 * k)
        greys.append(grey)
        depths.append(depth)
    depths[3] = depths[3] + np.float32(0.05)
    motions = [None, *(Motion.between(a, b) for a, b in pairwise(greys))]
    result = filtered(0.8, greys, depths, motions, None)[-1]
    off = result - depths[3]
    assert np.median(off[50:, :]) < -0.03, "the still wall is filtered"
    assert np.abs(np.median(off[24:36, 32:44])) < 0.005, "the patch is not"


def test_the_less_sure_frame_takes_more_from_the_one_before() -> None:
    grey = texture()
    still = Motion.between(grey, grey)
    ones = np.ones((64, 96), np.float32)

    def second(scales: tuple[float, float]) -> float:
        stabiliser = Stabiliser(0.5)
        stabiliser.add(grey, 2 * ones, scales[0] * ones, None)
        return float(np.median(stabiliser.add(grey, 2.1 * ones, scales[1] * ones, still)))

    agree = np.exp(-((0.1 / 0.25) ** 2))
    assert second((-2, -2)) == pytest.approx(2.1 - 0.05 * agree, abs=1e-3)
    assert second((-2, -1)) == pytest.approx(2.1 - 0.1 * agree * np.e**2 / (1 + np.e**2), abs=1e-3)
    assert second((-1, -2)) > second((-2, -2)) > second((-2, -1))


def test_a_cut_starts_anew() -> None:
    first, other = texture(), np.ascontiguousarray(255 - texture()[::-1, ::-1])
    stabiliser = Stabiliser(0.9)
    ones = np.ones((64, 96), np.float32)
    stabiliser.add(first, ones, None, None)
    result = stabiliser.add(other, 1.1 * ones, None, Motion.between(first, other))
    assert np.abs(result - 1.1).mean() < 0.02
