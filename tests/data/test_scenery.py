"""Scenes beyond the usual street: that each change does what its name says, and that geometry stays exact."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adu_depth.data import PhotometryConfig, SceneryConfig, StereoSample, SyntheticStereo
from adu_depth.data.synthetic.jpeg import compress
from adu_depth.data.synthetic.scenery import add_scenery
from adu_depth.data.synthetic.shapes import MATERIAL_COLUMNS
from adu_depth.errors import InputError

HEIGHT, WIDTH = 96, 320
OFF = PhotometryConfig.off()
EVERYTHING = SceneryConfig(low_sun=0.5, night=0.5, reflections=1.0, thin=1.0, repeated=1.0, near=1.0)
EVERY_CAMERA = PhotometryConfig(defocus=(0.0, 0.2), rolling=0.2, vignette=(0.1, 0.4), jpeg=(20.0, 80.0))


def scenes(count: int = 4, photometry: PhotometryConfig = OFF, **chances: float) -> list[StereoSample]:
    dataset = SyntheticStereo(count, HEIGHT, WIDTH, seed=5, photometry=photometry, scenery=SceneryConfig(**chances))
    return [dataset[i] for i in range(count)]


@pytest.fixture(scope="module")
def usual() -> list[StereoSample]:
    return scenes()


def solids_of(dataset: SyntheticStereo, index: int) -> int:
    solids = dataset._street(index).scene.solids
    return len(solids.prisms) + len(solids.rounds)


def warped_right(s: StereoSample) -> torch.Tensor:
    column = torch.arange(WIDTH, dtype=torch.float32) - s.disparity[0]
    row = torch.arange(HEIGHT, dtype=torch.float32)[:, None].expand(HEIGHT, WIDTH)
    grid = torch.stack([2 * column / (WIDTH - 1) - 1, 2 * row / (HEIGHT - 1) - 1], -1)
    assert s.right is not None
    return F.grid_sample(s.right[None], grid[None], align_corners=True, padding_mode="border")[0]


def test_every_change_together_keeps_the_geometry_and_the_bits_of_a_batch() -> None:
    dataset = SyntheticStereo(6, HEIGHT, WIDTH, seed=3, photometry=EVERY_CAMERA, scenery=EVERYTHING)
    indices = [4, 0, 2]
    batch = dataset.render_batch(indices)
    together = dataset._render([dataset._street(i) for i in indices])
    for position, index in enumerate(indices):
        alone = dataset[index]
        product = (alone.depth * alone.disparity)[alone.valid]
        expected = torch.full_like(product, float(alone.camera.fx * alone.camera.baseline))
        torch.testing.assert_close(product, expected, rtol=1e-5, atol=0)
        for view in (alone.left, alone.right):
            assert view is not None
            assert torch.isfinite(view).all()
            assert 0 <= view.min() <= view.max() <= 1
        for name, tensor in alone._tensors().items():
            assert torch.equal(tensor, getattr(batch, name)[position]), name
            assert torch.equal(tensor, getattr(together, name)[position]), name


def test_a_chance_of_half_changes_about_half_and_leaves_the_others_bit_for_bit(usual: list[StereoSample]) -> None:
    some = SyntheticStereo(40, 32, 64, seed=5, scenery=SceneryConfig(near=0.5))
    none = SyntheticStereo(40, 32, 64, seed=5)
    changed = [solids_of(some, i) > solids_of(none, i) for i in range(40)]
    assert 10 <= sum(changed) <= 30
    same = changed.index(False)
    for name, tensor in none[same]._tensors().items():
        assert torch.equal(tensor, getattr(some[same], name)), name


def test_light_changes_pictures_and_not_shapes(usual: list[StereoSample]) -> None:
    for chance in ("low_sun", "night", "reflections"):
        for s, before in zip(scenes(**{chance: 1.0}), usual, strict=True):
            assert torch.equal(s.depth, before.depth)
            assert (s.left - before.left).abs().mean() > 0.002, chance


def test_the_night_is_dark_far_away_and_lit_near_by(usual: list[StereoSample]) -> None:
    lit, unlit = [], []
    for s, before in zip(scenes(night=1.0), usual, strict=True):
        share = (s.left / before.left.clamp_min(0.02)).mean(0)
        lit.append(share[(s.depth[0] > 0) & (s.depth[0] < 8)].mean())
        unlit.append(share[(s.depth[0] > 60) | ~s.valid[0]].mean())
    assert torch.stack(unlit).mean() < 0.6
    assert torch.stack(lit).mean() > 1.3 * torch.stack(unlit).mean()


def test_at_night_the_two_views_show_a_point_alike() -> None:
    """There is one lamp, not one in each camera."""
    for s in scenes(night=1.0):
        seen = (s.valid & ~s.occluded)[0] & (s.depth[0] < 8)  # type: ignore[operator]
        error = (warped_right(s) - s.left).abs().mean(0)[seen]
        assert error.median() < 0.01
        assert error.quantile(0.9) < 0.06


def test_one_more_change_leaves_the_others_as_they_are() -> None:
    alone, both = (
        SyntheticStereo(12, 32, 64, seed=2, scenery=SceneryConfig(near=0.5, reflections=shown)) for shown in (0.0, 1.0)
    )
    jpeg = SyntheticStereo(
        12, 32, 64, seed=2, scenery=SceneryConfig(near=0.5), photometry=PhotometryConfig(jpeg=(50, 90))
    )
    for index in range(12):
        assert torch.equal(alone[index].depth, both[index].depth)
        assert torch.equal(alone[index].depth, jpeg[index].depth)


def test_noise_is_higher_at_night() -> None:
    noisy = PhotometryConfig(0.0, 0.0, 0.0, 0.0, (0.01, 0.01), 0.0)
    dataset = SyntheticStereo(6, 64, 96, seed=1, photometry=noisy, scenery=SceneryConfig(night=1.0))
    for i in range(6):
        assert 0.015 <= dataset._street(i).cameras[0, 4] <= 0.03


def test_the_low_sun_is_low() -> None:
    dataset = SyntheticStereo(8, 64, 96, seed=1, scenery=SceneryConfig(low_sun=1.0))
    for i in range(8):
        assert np.degrees(np.arcsin(dataset._street(i).scene.sun[1])) < 16.01


def test_mirrors_make_the_views_disagree_where_glass_is(usual: list[StereoSample]) -> None:
    """Elsewhere the true disparity explains the left view as well as before."""
    worse, alike = [], []
    for s, before in zip(scenes(reflections=1.0), usual, strict=True):
        seen = (s.valid & ~s.occluded)[0]  # type: ignore[operator]
        mirrors = ((s.left - before.left).abs().mean(0) > 0.02) & seen
        error, error_before = ((warped_right(p) - p.left).abs().mean(0) for p in (s, before))
        plain = seen & (s.left == before.left).all(0) & (warped_right(s) == warped_right(before)).all(0)
        worse.append((error - error_before)[mirrors].mean())
        alike.append(plain.float().sum() / seen.float().sum())
        assert mirrors.sum() > 30
    assert torch.stack(worse).mean() > 0.004
    assert torch.stack(alike).mean() > 0.3


@pytest.mark.parametrize("chance", ["thin", "near"])
def test_things_that_are_added_stand_in_front(chance: str, usual: list[StereoSample]) -> None:
    nearer = 0
    for s, before in zip(scenes(**{chance: 1.0}), usual, strict=True):
        far = torch.where(before.valid, before.depth, torch.inf)
        assert (torch.where(s.valid, s.depth, torch.inf) <= far * (1 + 1e-4)).all()
        nearer += int((s.depth < 0.9 * far)[s.valid].sum())
    assert nearer > 200


def test_near_things_have_large_disparities_and_leave_the_cameras_free() -> None:
    dataset = SyntheticStereo(30, HEIGHT, WIDTH, seed=2, scenery=SceneryConfig(near=1.0))
    nearest = torch.stack([(s := dataset[i]).depth[s.valid].min() for i in range(30)])
    assert nearest.min() < 2.6
    assert nearest.min() > 1.2


def test_repeated_patterns_are_equal_and_closer_together() -> None:
    dataset = SyntheticStereo(8, 64, 96, seed=4)
    for i in range(8):
        scene = dataset._street(i).scene
        before = np.array(scene.solids.prism_materials)
        add_scenery(scene, np.random.default_rng(i), SceneryConfig(repeated=1.0))
        after = np.array(scene.solids.prism_materials)[: len(before)]
        if (changed := (before != after).any(1)).any():
            variety, period = (MATERIAL_COLUMNS.index(name) for name in ("variety", "period_side"))
            assert (after[changed][:, variety] == 0).all()
            assert (after[changed][:, period] <= before[changed][:, period] * 0.7).all()
            return
    pytest.fail("no building of eight streets was changed")


# --- the camera -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_compression_is_that_of_a_jpeg_library(quality: int) -> None:
    """OpenCV's libjpeg at 4:4:4: the difference to it is rounding to 8 bits, little of what compression changes."""
    height, width = 61, 90
    picture = SyntheticStereo(1, height, width, seed=1)[0].left
    levels = (picture * 255).round()
    _, data = cv2.imencode(
        ".jpg", levels.permute(1, 2, 0).numpy().astype(np.uint8)[..., ::-1],
        [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    )  # fmt: skip
    theirs = torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].copy()).permute(2, 0, 1).float()
    ours = compress(levels[None] / 255, torch.tensor([float(quality)]))[0] * 255
    inside = (slice(None), slice(0, 56), slice(0, 88))  # a library fills the last blocks by its own rule
    difference, change = (ours - theirs)[inside].abs().mean(), (theirs - levels)[inside].abs().mean()
    assert difference < 0.6 + 0.05 * change, (difference, change)


def test_quality_nought_leaves_a_picture_as_it_is() -> None:
    picture = SyntheticStereo(1, 40, 52, seed=1)[0].left
    both = compress(torch.stack([picture, picture]), torch.tensor([0.0, 30.0]))
    assert torch.equal(both[0], picture)
    assert (both[1] - picture).abs().mean() > 0.003


def test_corners_are_darker_and_rows_drift(usual: list[StereoSample]) -> None:
    corners = scenes(photometry=PhotometryConfig(0, 0, 0, 0, (0, 0), 0, vignette=(0.5, 0.5)))
    for s, before in zip(corners, usual, strict=True):
        ratio = (s.left / before.left.clamp_min(1e-3)).mean(0)
        assert ratio[40:56, 150:170].mean() == pytest.approx(1.0, abs=0.03)
        assert ratio[:6, :6].mean() < 0.85
    rolling = scenes(photometry=PhotometryConfig(0, 0, 0, 0, (0, 0), 0, rolling=0.4))
    drifts = []
    for s, before in zip(rolling, usual, strict=True):
        gain = s.left / before.left.clamp_min(1e-3)
        drifts.append(abs(float(gain[:, :8].mean() - gain[:, -8:].mean())))
    assert max(drifts) > 0.03


def test_the_two_views_are_focused_unlike() -> None:
    dataset = SyntheticStereo(6, 64, 96, seed=1, photometry=PhotometryConfig(blur=0.05, defocus=(0.0, 0.25)))
    blurs = np.array([dataset._street(i).cameras[:, 6] for i in range(6)])
    assert (blurs >= 0.05).all()
    assert (blurs <= 0.3).all()
    assert (blurs[:, 0] != blurs[:, 1]).all()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SceneryConfig(night=1.5), "night"),
        (lambda: SceneryConfig(thin=-0.1), "thin"),
        (lambda: PhotometryConfig(jpeg=(0.0, 50.0)), "jpeg"),
        (lambda: PhotometryConfig(jpeg=(10.0, 500.0)), "jpeg"),
        (lambda: PhotometryConfig(defocus=(0.0, 0.5)), "defocus"),
        (lambda: PhotometryConfig(vignette=(0.0, 1.5)), "vignette"),
        (lambda: PhotometryConfig(rolling=0.9), "rolling"),
    ],
)
def test_wrong_choices_are_named(make: object, named: str) -> None:
    with pytest.raises(InputError, match=named):
        make()  # type: ignore[operator]
