"""Colour scales, pictures and 16-bit depth maps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from adu_depth.data.image_files import read_png16
from adu_depth.errors import InputError
from adu_depth.inference.colour import DEPTH, ERROR, INVALID, UNCERTAINTY, ColourScale, depth_scale
from adu_depth.inference.image_files import encode_jpeg, encode_png, write_depth_png, write_png
from adu_depth.inference.pictures import (
    depth_picture,
    error_picture,
    lidar_overlay,
    scale_bar,
    side_by_side,
    uncertainty_picture,
)


def test_depth_png_keeps_metres_to_half_a_step(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).uniform(0.01, 255.9, (37, 53)).astype(np.float32)
    write_depth_png(tmp_path / "d.png", depth)
    assert np.abs(read_png16(tmp_path / "d.png") - depth).max() <= 0.5 / 256 + 1e-5
    stored = cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.shape == (37, 53)


def test_depth_png_never_stores_a_prediction_as_none_and_saturates(tmp_path: Path) -> None:
    depth = np.array([[1e-6, 0.001, 255.99609375, 256.0, 1e9], [0.0, -1.0, np.nan, np.inf, 1.0]], np.float32)
    write_depth_png(tmp_path / "d.png", depth)
    stored = cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED)
    assert stored.tolist() == [[1, 1, 65535, 65535, 65535], [0, 0, 0, 0, 256]]


def test_depth_png_leaves_out_what_is_not_valid(tmp_path: Path) -> None:
    write_depth_png(tmp_path / "d.png", np.ones((2, 2)), np.array([[True, False], [False, True]]))
    assert read_png16(tmp_path / "d.png").tolist() == [[1, 0], [0, 1]]


def test_reading_an_8_bit_png_as_depth_says_what_was_expected(tmp_path: Path) -> None:
    write_png(tmp_path / "grey.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"grey\.png.*16-bit.*uint8"):
        read_png16(tmp_path / "grey.png")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    before = (tmp_path / "a.png").read_bytes()
    whole = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        whole(path, data[: len(data) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    for write in (write_png, write_depth_png):
        with pytest.raises(InputError, match=r"cannot write .*a\.png: No space"):
            write(tmp_path / "a.png", np.ones((9, 9), np.uint8))
    assert (tmp_path / "a.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_encoders_keep_red_red() -> None:
    red = np.full((16, 16, 3), (250, 10, 20), np.uint8)
    for encoded in (encode_png(red), encode_jpeg(red)):
        blue, green, seen = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[8, 8].astype(int)
        assert abs(seen - 250) + abs(green - 10) + abs(blue - 20) < 12


@pytest.mark.parametrize("scale", [DEPTH, UNCERTAINTY, ERROR], ids=lambda s: s.ramp)
def test_lightness_changes_in_one_direction_along_a_scale(scale: ColourScale) -> None:
    lightness = cv2.cvtColor(scale.colours()[None], cv2.COLOR_RGB2GRAY)[0].astype(int)
    steps = np.diff(lightness) * np.sign(lightness[-1] - lightness[0])
    assert steps.min() >= -1  # rounding
    assert abs(lightness[-1] - lightness[0]) > 120


def test_each_doubling_of_depth_gets_its_share_and_beyond_the_ends_nothing_changes() -> None:
    scale = depth_scale(2.0, 32.0)
    assert np.allclose(scale.position(np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 99.0])), [0, 0, 0.25, 0.5, 0.75, 1, 1])


def test_pixels_without_a_value_are_grey_and_only_those() -> None:
    depth = np.array([[5.0, 0.0, -2.0], [np.nan, np.inf, 80.0]])
    grey = (depth_picture(depth, bar=False) == INVALID).all(axis=-1)
    assert grey.tolist() == [[False, True, True], [True, True, False]]


def test_ticks_hold_both_ends_ascend_and_do_not_crowd() -> None:
    for scale in (
        DEPTH,
        UNCERTAINTY,
        ERROR,
        depth_scale(0.3, 7.3),
        depth_scale(1.9, 52.0),
        ColourScale("x", "m", -0.01, 0.013, "viridis"),
    ):
        ticks = scale.ticks()
        assert (ticks[0], ticks[-1]) == (scale.low, scale.high)
        assert np.diff(scale.position(np.array(ticks))).min() > 0.05
        assert 4 <= len(ticks) <= 9
    assert DEPTH.ticks() == [2, 5, 10, 20, 50, 80]


@pytest.mark.parametrize("width", [120, 384, 1242])
def test_the_bar_shows_the_whole_ramp_in_order_with_dark_numbers_below(width: int) -> None:
    bar = scale_bar(DEPTH, width)
    assert bar.shape[1] == width
    rows = [row for row in bar if len(np.unique(row.reshape(-1, 3), axis=0)) > 30]
    assert rows, "no row holds the ramp"
    inside = [tuple(p) for p in rows[len(rows) // 2] if tuple(p) != (255, 255, 255)]
    ramp = [tuple(c) for c in DEPTH.colours()]
    order = [ramp.index(c) for c in inside if c in ramp]
    assert order == sorted(order)
    assert order[0] <= 4  # the end colours themselves lie under the first and the last tick
    assert order[-1] >= 251
    assert len(order) > 0.7 * len(inside)
    below = bar[-max(8, bar.shape[0] // 4) :].min(axis=(0, 2))
    assert (below < 100).sum() >= 6, "no numbers under the ramp"


def test_the_picture_is_unchanged_above_its_bar() -> None:
    depth = np.linspace(2, 80, 40 * 300).reshape(40, 300)
    with_bar = depth_picture(depth)
    assert with_bar.shape[0] > 40
    assert np.array_equal(with_bar[:40], depth_picture(depth, bar=False))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 30)])
def test_tiny_pictures_do_not_fail(shape: tuple[int, int]) -> None:
    assert depth_picture(np.full(shape, 5.0)).shape[1] == shape[1]
    assert lidar_overlay(np.zeros((*shape, 3), np.uint8), np.zeros(shape)).shape[1] == shape[1]


def test_uncertainty_is_the_scale_in_percent() -> None:
    percent = np.array([[1.0, 10.0, 100.0]])
    expected = UNCERTAINTY.colourise(percent)
    assert np.array_equal(uncertainty_picture(np.log(percent / 100), bar=False), expected)


def test_error_is_relative_and_grey_where_the_truth_is_unknown() -> None:
    truth = np.array([[10.0, 20.0, 0.0, 10.0]])
    depth = np.array([[11.0, 18.0, 5.0, np.nan]])
    picture = error_picture(depth, truth, bar=False)
    assert np.array_equal(picture[0, 0], picture[0, 1])
    assert np.array_equal(picture[0, 0], ERROR.colourise(np.array([[10.0]]))[0, 0])
    assert (picture[0, 2:] == INVALID).all()


def test_the_error_of_a_point_is_widened_to_unknown_neighbours_alone() -> None:
    truth, depth = np.zeros((5, 7)), np.full((5, 7), 11.0)
    truth[2, 1], truth[2, 2], truth[2, 6] = 10.0, 11.0, 20.0
    picture = error_picture(depth, truth, bar=False, widen=True)
    colours = ERROR.colourise(np.array([[10.0, 0.0, 45.0, 5.0]]))[0]
    assert (picture[2, [1, 2, 6]] == colours[:3]).all(), "a known pixel keeps its own"
    assert (picture[1, 0] == colours[0]).all()
    assert (picture[3, 3] == colours[1]).all()
    assert (picture[1, 2] == colours[3]).all(), "between two points their mean"
    assert (picture[1:4, 5] == colours[2]).all()
    assert (picture[1:4, 4] == INVALID).all()
    assert (picture[[0, 4]] == INVALID).all()


def test_lidar_points_have_their_depths_colours_and_near_ones_cover_far_ones() -> None:
    image = np.full((20, 30, 3), 200, np.uint8)
    sparse = np.zeros((20, 30))
    sparse[10, 9], sparse[10, 10], sparse[10, 11], sparse[0, 29] = 60.0, 5.0, 60.0, 20.0
    picture = lidar_overlay(image, sparse, bar=False, radius=1)
    near, corner = DEPTH.colourise(np.array([[5.0, 20.0]]))[0]
    assert (picture[10, 9:12] == near).all()
    assert (picture[0, 29] == corner).all()
    assert len(np.unique(picture[15:].reshape(-1, 3), axis=0)) == 1


def test_side_by_side_places_every_picture() -> None:
    pictures = {name: np.full((10, 40, 3), value, np.uint8) for name, value in (("a", 10), ("b", 90), ("c", 180))}
    sheet = side_by_side(pictures, columns=2)
    for value in (10, 90, 180):
        assert (sheet == value).all(axis=-1).sum() >= 10 * 40 * 0.9
    with pytest.raises(ValueError, match="at least one"):
        side_by_side({})
