"""The built-in scenes: shapes, geometry, the two views, the scanner, and that nothing but seed and index matters."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from adu_depth.data import LidarConfig, PhotometryConfig, RigConfig, StereoSample, SyntheticStereo
from adu_depth.data.synthetic.noise import hash_int, hash_normal, hash_uniform, value_noise
from adu_depth.data.synthetic.objects import BARK, vehicle
from adu_depth.data.synthetic.photometry import draw_cameras
from adu_depth.data.synthetic.render import Renderer, render
from adu_depth.data.synthetic.scene import FARTHEST, Scene
from adu_depth.data.synthetic.shapes import Solids, to_arrays
from adu_depth.data.synthetic.streets import Street
from adu_depth.errors import InputError
from adu_depth.geometry import disparity_to_depth

HEIGHT, WIDTH = 96, 320
LEVEL = RigConfig(pitch=(0.0, 0.0), heading=(0.0, 0.0), height=(1.65, 1.65))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def samples() -> list[StereoSample]:
    scenes = SyntheticStereo(6, HEIGHT, WIDTH, seed=5)
    return [scenes[i] for i in range(6)]


@pytest.fixture(scope="module")
def plain_samples() -> list[StereoSample]:
    """The same streets, seen by two ideal cameras."""
    scenes = SyntheticStereo(6, HEIGHT, WIDTH, seed=5, photometry=PhotometryConfig.off())
    return [scenes[i] for i in range(6)]


def street_of(solids: Solids, height: int = HEIGHT, width: int = WIDTH, **scene: object) -> Street:
    """A level camera 1.65 m above an empty plain with these solids."""
    rng = np.random.default_rng(0)
    rig = LEVEL.draw(rng, height, width)
    arrays = to_arrays(solids, rig.rotation(), np.array([0.0, rig.height, 0.0]))
    cameras = draw_cameras(PhotometryConfig.off(), rng, rng)
    return Street(Scene(solids=solids, **scene), rig, arrays, cameras, 0.0)  # type: ignore[arg-type]


def warp_right(sample: StereoSample, disparity: torch.Tensor) -> torch.Tensor:
    """The right picture, looked up where `disparity` says the left pixels are."""
    column = torch.arange(WIDTH, dtype=torch.float32) - disparity
    row = torch.arange(HEIGHT, dtype=torch.float32)[:, None].expand(HEIGHT, WIDTH)
    grid = torch.stack([2 * column[0] / (WIDTH - 1) - 1, 2 * row / (HEIGHT - 1) - 1], -1)
    return F.grid_sample(sample.right[None], grid[None], align_corners=True, padding_mode="border")[0]


def test_hashes_are_fair() -> None:
    key = torch.arange(1 << 16, dtype=torch.int32)
    bits = torch.stack([(hash_int(key) >> b) & 1 for b in range(32)]).float().mean(1)
    assert (bits - 0.5).abs().max() < 0.01
    normal, uniform = hash_normal(key), hash_uniform(key)
    assert normal.mean().abs() < 0.02
    assert normal.std() == pytest.approx(1.0, abs=0.02)
    assert uniform.mean() == pytest.approx(0.5, abs=0.005)
    place = [torch.rand(1 << 15, generator=torch.Generator().manual_seed(k)) * 300 - 150 for k in range(3)]
    noise = value_noise(*place, torch.zeros((), dtype=torch.int32))
    assert noise.mean().abs() < 0.02
    assert noise.abs().max() <= 1.0


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_shapes_types_and_ranges(samples: list[StereoSample]) -> None:
    for s in samples:
        for view in (s.left, s.right):
            assert view.shape == (3, HEIGHT, WIDTH)
            assert view.dtype == torch.float32
            assert view.min() >= 0
            assert view.max() <= 1
            assert view.std() > 0.05
        for name in ("depth", "disparity", "sparse_depth"):
            assert getattr(s, name).shape == (1, HEIGHT, WIDTH)
            assert getattr(s, name).dtype == torch.float32
            assert torch.isfinite(getattr(s, name)).all()
        assert s.occluded is not None
        assert s.valid.dtype == s.occluded.dtype == torch.bool
        assert all(isinstance(getattr(s.camera, n), float) for n in ("fx", "fy", "cx", "cy", "baseline"))
        assert not (s.depth[~s.valid] != 0).any()
        assert not (s.disparity[~s.valid] != 0).any()
        assert not (s.occluded & ~s.valid).any()
        assert s.depth[s.valid].min() > 2.5
        assert s.depth.max() <= FARTHEST * 1.001
        assert s.valid.float().mean() > 0.5


def test_scenes_reach_from_near_to_far_and_some_show_sky(samples: list[StereoSample]) -> None:
    depth = torch.cat([s.depth[s.valid] for s in samples])
    assert depth.min() < 8
    assert (depth > 80).any()
    assert any((~s.valid).any() for s in samples)


def test_a_sample_depends_on_seed_and_index_alone() -> None:
    scenes = SyntheticStereo(None, 64, 96, seed=1)
    first = scenes[3]
    torch.manual_seed(99)
    torch.rand(17)
    scenes[0]
    again = SyntheticStereo(10, 64, 96, seed=1)[3]
    for name, tensor in first._tensors().items():
        assert torch.equal(tensor, getattr(again, name)), name
    assert first.camera == again.camera
    assert first.name == again.name
    for other in (scenes[4], SyntheticStereo(None, 64, 96, seed=2)[3]):
        assert (other.left - first.left).abs().mean() > 0.02
        assert not torch.equal(other.depth, first.depth)


def test_torch_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    SyntheticStereo(None, 64, 96)[0]
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(("height", "width"), [(96, 320), (61, 83)])
def test_alone_and_in_a_batch_give_the_same_bits(height: int, width: int, threads: int) -> None:
    scenes = SyntheticStereo(8, height, width, seed=4)
    indices = [5, 0, 3, 7, 1]
    batch = scenes.render_batch(indices)
    # A device renders a batch in one go, a CPU picture by picture: both ways are compared.
    together = scenes._render([scenes._street(i) for i in indices])
    for position, index in enumerate(indices):
        alone = scenes[index]
        for name, tensor in alone._tensors().items():
            assert torch.equal(tensor, getattr(batch, name)[position]), name
            assert torch.equal(tensor, getattr(together, name)[position]), name
        assert batch.name[position] == alone.name
        assert float(batch.camera.fx[position]) == pytest.approx(alone.camera.fx)  # type: ignore[index]


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def as_they_come(pairs: list[StereoSample]) -> list[StereoSample]:
    return pairs


def test_a_loader_asks_for_a_batch_at_once(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    scenes, asked = SyntheticStereo(8, 64, 96, seed=4), []
    batch = SyntheticStereo._batch
    monkeypatch.setattr(
        SyntheticStereo, "_batch", lambda self, *told: asked.append(list(told[1])) or batch(self, *told)
    )
    loader = DataLoader(scenes, batch_size=5, sampler=[5, 0, 3, 7, 1, 2], collate_fn=as_they_come)  # type: ignore[arg-type]
    found = [pair for pairs in loader for pair in pairs]
    assert asked == [[5, 0, 3, 7, 1], [2]]
    for pair, alone in zip(found, (scenes[index] for index in (5, 0, 3, 7, 1, 2)), strict=True):
        assert (pair.name, pair.camera) == (alone.name, alone.camera)
        for name, tensor in pair._tensors().items():
            assert torch.equal(tensor, getattr(alone, name)), name
            assert tensor.untyped_storage().nbytes() == tensor.nbytes, f"{name}: one pair holds the memory of all"


@pytest.mark.parametrize("kind", [list, iter, torch.tensor, np.array], ids=["list", "iterator", "tensor", "array"])
@pytest.mark.parametrize("indices", [[0], [3, 0]], ids=str)
def test_a_batch_of_indices_of_any_kind(indices: list[int], kind: Any) -> None:
    loader = DataLoader(SyntheticStereo(4, 32, 64), batch_sampler=[kind(indices)], collate_fn=as_they_come)  # type: ignore[arg-type]
    (found,) = loader
    assert [pair.name for pair in found] == [f"synthetic-0-{index:06d}" for index in indices]


def test_what_a_subclass_makes_of_its_pairs_is_what_a_loader_gives() -> None:
    class Named(SyntheticStereo):
        def __getitem__(self, index: int) -> StereoSample:
            return replace(super().__getitem__(index), name=f"mine {index}")

    (found,) = DataLoader(Named(2, 32, 64), batch_size=2, collate_fn=as_they_come)  # type: ignore[arg-type]
    assert [pair.name for pair in found] == ["mine 0", "mine 1"]


def test_rendering_keeps_the_number_of_threads(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Of this thread and of those that begin later, whether it ends well or not."""

    def later() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    scenes = SyntheticStereo(None, 64, 96)
    scenes.render_batch([0, 1])
    assert (torch.get_num_threads(), later()) == (threads, threads)
    monkeypatch.setattr(SyntheticStereo, "_render", lambda self, streets: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scenes.render_batch([0, 1])
    assert (torch.get_num_threads(), later()) == (threads, threads)


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_depth_times_disparity_is_focal_times_baseline(samples: list[StereoSample]) -> None:
    for s in samples:
        product = (s.depth * s.disparity)[s.valid]
        torch.testing.assert_close(
            product, torch.full_like(product, s.camera.fx * s.camera.baseline), rtol=1e-5, atol=0
        )
        torch.testing.assert_close(disparity_to_depth(s.disparity, s.camera), s.depth, rtol=1e-5, atol=0)


def test_nothing_is_behind_the_ground_and_much_is_on_it() -> None:
    scenes = SyntheticStereo(4, HEIGHT, WIDTH, seed=2, rig=LEVEL)
    for s in scenes:
        rows = torch.arange(HEIGHT, dtype=torch.float64)[:, None].expand(HEIGHT, WIDTH)
        below = (rows - s.camera.cy > 3) & s.valid[0]
        ground = 1.65 * s.camera.fy / (rows - s.camera.cy)
        assert (s.depth[0].double()[below] <= ground[below] * (1 + 1e-4)).all()
        on_it = ((s.depth[0].double() / ground - 1).abs() < 1e-4) & below
        assert on_it.sum() / below.sum() > 0.25
        above = rows - s.camera.cy < -1
        assert not ((s.depth[0].double() / ground.abs() - 1).abs() < 1e-6)[above & s.valid[0]].all()


def test_a_pitched_camera_sees_the_horizon_elsewhere() -> None:
    down, up = (
        SyntheticStereo(1, HEIGHT, WIDTH, seed=2, rig=RigConfig(pitch=(p, p), heading=(0.0, 0.0)))[0]
        for p in (3.0, -3.0)
    )
    assert down.depth[0, -1].median() < up.depth[0, -1].median()


def test_a_vehicle_looks_half_as_high_at_twice_the_distance() -> None:
    heights = {}
    for distance in (10.0, 20.0, 40.0):
        solids = Solids()
        vehicle(solids, np.random.default_rng(1), 0.0, distance, 0.0, "hatchback")
        s = render([street_of(solids, 192, 640)], 192, 640, LidarConfig(), CPU)
        rows = torch.arange(192)[:, None].double()
        ground = 1.65 * float(s.camera.fy) / (rows - float(s.camera.cy)).clamp_min(1e-3)  # type: ignore[arg-type]
        on_vehicle = s.valid[0, 0] & (s.depth[0, 0].double() < ground - 0.3)
        heights[distance] = int(on_vehicle.any(1).sum())
        near = float(s.depth[0, 0][on_vehicle].min())
        # 1.4 to 1.6 m high, of which the wheels' contact with the road is hidden by the margin against the ground
        metres = heights[distance] / float(s.camera.fy) * near  # type: ignore[arg-type]
        assert 1.1 < metres < 1.75, metres
    assert heights[10.0] / heights[20.0] == pytest.approx(2.2, abs=0.35)
    assert heights[20.0] / heights[40.0] == pytest.approx(2.1, abs=0.45)


def brute_force_depth(street: Street, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Nearest solid that is not leafy, each clipped in double precision the textbook way; inf = none."""
    a = street.arrays
    ray = np.stack([x, y, np.ones_like(x)], -1)
    nearest = np.full(x.shape, np.inf)
    n = len(a.planes)
    for planes in a.planes:
        enter, leave = np.zeros(x.shape), np.full(x.shape, np.inf)
        for *normal, offset in planes:
            speed = ray @ np.array(normal)
            t = offset / np.where(speed == 0, 1e-300, speed)
            enter = np.where(speed < 0, np.maximum(enter, t), enter)
            leave = np.where(speed > 0, np.minimum(leave, t), leave)
        nearest = np.where(enter < leave, np.minimum(nearest, enter), nearest)
    for i in np.flatnonzero(a.cut < -1):
        frame, centre, ball = a.frames[n + i], a.centres[n + i], a.ball[i]
        o, d = -frame @ centre, ray @ frame.T
        weight = np.array([1.0, ball, 1.0])
        qa, qb, qc = (d * d) @ weight, (d * o) @ weight, (o * o) @ weight - 1
        root = np.sqrt(np.maximum(qb * qb - qa * qc, 0))
        enter, leave = (-qb - root) / qa, (-qb + root) / qa
        hit = (qb * qb > qa * qc) & (leave > 0)
        if ball == 0:
            ends = np.sort(np.stack([(s - o[1]) / d[..., 1] for s in (-1, 1)]), 0)
            enter, leave = np.maximum(enter, ends[0]), np.minimum(leave, ends[1])
        nearest = np.where(hit & (enter < leave) & (enter > 0), np.minimum(nearest, enter), nearest)
    return nearest


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_every_pixel_shows_the_nearest_solid(seed: int) -> None:
    scenes = SyntheticStereo(1, 64, 160, seed=seed)
    street = scenes._street(0)
    r = Renderer([street], 64, 160, CPU)
    for baseline in (0.0, float(street.rig.camera.baseline)):
        w, identity = (r.grid.to_image(t)[0] for t in r.nearest(np.array([[baseline, 0.0, 0.0]])))
        x, y = (r.grid.to_image(t)[0].double().numpy() for t in (r.x, r.y))
        moved = to_arrays(
            street.scene.solids, street.rig.rotation(),
            np.array([0.0, street.rig.height, 0.0]) + baseline * street.rig.rotation()[0],
        )  # fmt: skip
        solid = brute_force_depth(Street(street.scene, street.rig, moved, street.cameras, 0.0), x, y)
        number = identity.numpy() - 2
        leafy = np.concatenate([np.zeros(len(moved.planes), bool), moved.cut > -1])
        shows_leaf = (number >= 0) & leafy[np.maximum(number, 0)]
        shows_solid = (number >= 0) & ~shows_leaf
        depth = 1 / np.maximum(w.numpy().astype(np.float64), 1e-9)
        error = np.abs(depth / solid - 1)[shows_solid]
        assert shows_solid.mean() > 0.1
        assert np.quantile(error, 0.995) < 2e-4
        # Ground, sky and leaves are in front of every solid, but for rays that graze one.
        assert (depth > solid * (1 + 1e-4))[~shows_solid].mean() < 1e-3


def test_true_disparity_explains_the_left_picture_best(samples: list[StereoSample]) -> None:
    for s in samples:
        use = (s.valid & ~s.occluded)[0]
        smooth = F.avg_pool2d(s.left[None], 5, 1, 2)[0]
        use &= (s.left - smooth).abs().mean(0) > 0.02
        errors = [
            float((warp_right(s, factor * s.disparity) - s.left).abs().mean(0)[use].mean())
            for factor in (1.0, 0.0, 0.5, 2.0)
        ]
        assert use.float().mean() > 0.1
        assert errors[0] < 0.75 * min(errors[1:]), errors


def test_ideal_cameras_see_the_same_colours(plain_samples: list[StereoSample]) -> None:
    for s in plain_samples:
        error = (warp_right(s, s.disparity) - s.left).abs().mean(0)[(s.valid & ~s.occluded)[0]]
        assert error.median() < 0.008
        assert error.quantile(0.9) < 0.06


def test_photometry_makes_the_views_differ(samples: list[StereoSample], plain_samples: list[StereoSample]) -> None:
    for s, plain in zip(samples, plain_samples, strict=True):
        assert torch.equal(s.depth, plain.depth)
        assert (s.left - plain.left).abs().mean() > 0.003
    flat = PhotometryConfig(0.0, 0.0, 0.0, 0.0, (0.02, 0.02), 0.0)
    noisy = SyntheticStereo(6, HEIGHT, WIDTH, seed=5, photometry=flat)[0]
    left, right = noisy.left - plain_samples[0].left, noisy.right - plain_samples[0].right
    assert 0.008 < left.std() < 0.022
    assert abs(float(torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1])) < 0.02


def test_occlusion_agrees_with_a_left_right_check() -> None:
    scenes = SyntheticStereo(4, HEIGHT, WIDTH, seed=6)
    for index in range(4):
        s, street = scenes[index], scenes._street(index)
        r = Renderer([street], HEIGHT, WIDTH, CPU)
        right = r.grid.to_image(r.nearest(np.array([[street.rig.camera.baseline, 0.0, 0.0]]))[0])[0]
        right = right * street.rig.camera.fx * street.rig.camera.baseline
        column = torch.arange(WIDTH) - s.disparity[0]
        inside = (column >= 0) & (column <= WIDTH - 1)
        assert s.occluded is not None
        assert s.occluded[0][s.valid[0] & ~inside].all()
        low = column.floor().long().clamp(0, WIDTH - 1)
        high = (low + 1).clamp(max=WIDTH - 1)
        seen = torch.stack([right.gather(1, low), right.gather(1, high)])
        clear = (seen[0] - seen[1]).abs() < 0.3  # elsewhere the right view has an edge between its pixels
        compare = clear & inside & s.valid[0]
        hidden = seen.min(0).values > s.disparity[0] + 0.5
        visible = (seen - s.disparity[0]).abs().max(0).values < 0.25
        decided = compare & (hidden | visible)
        assert decided.float().mean() > 0.6
        agreement = (s.occluded[0] == hidden)[decided].float().mean()
        assert agreement > 0.995, float(agreement)
        assert (s.occluded[0] & decided).sum() > 50


def test_shadow_lies_away_from_the_sun() -> None:
    solids = Solids()
    solids.prism((0.0, 0.0, 15.0), (0.8, 1.0, 0.8), BARK)
    slope = float(np.sqrt(0.5))
    r = Renderer([street_of(solids, sun=(slope, slope, 0.0))], HEIGHT, WIDTH, CPU)
    from adu_depth.data.synthetic.shadows import sunlit

    origin = np.zeros((1, 3))
    w, _ = r.nearest(origin)
    point = r.points(origin, r.depth(w))
    light = sunlit(r.plan.towards_sun(origin), point)
    ground = ((point[1] - 1.65).abs() < 1e-3) & ((point[2] - 15).abs() < 0.6)
    dark, bright = ground & (point[0] < -1.0) & (point[0] > -2.5), ground & ((point[0] > 1.0) | (point[0] < -3.0))
    assert dark.sum() > 5
    assert bright.sum() > 5
    assert (light[dark] < 0.05).all()
    assert (light[bright] > 0.95).all()


# --- the scanner ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(96, 320), (192, 384), (192, 640)])
def test_scanner_covers_a_fair_share(height: int, width: int) -> None:
    sparse = SyntheticStereo(6, height, width, seed=8).render_batch(range(6)).sparse_depth
    assert sparse is not None
    share = (sparse > 0).float().mean((1, 2, 3))
    assert share.min() > 0.05
    assert share.max() < 0.20


def test_scanner_measures_the_depth_with_little_noise(samples: list[StereoSample]) -> None:
    for s in samples:
        assert s.sparse_depth is not None
        measured = s.sparse_depth > 0
        assert not (measured & ~s.valid).any()
        assert s.sparse_depth.max() < 80.5
        error = (s.sparse_depth - s.depth)[measured]
        assert error.abs().max() < 0.25
        assert 0.008 < error.std() < 0.04
        assert error.mean().abs() < 0.004
        horizon = int(s.camera.cy - np.tan(np.deg2rad(4.0)) * s.camera.fy)
        assert not measured[:, :horizon].any()
        lines = measured[0].any(1).float()
        assert lines[horizon + 8 :].mean() > 0.3


def test_scanner_options_are_heard() -> None:
    blind = SyntheticStereo(1, 64, 96, lidar=LidarConfig(drop_out=1.0))[0]
    short = SyntheticStereo(1, 64, 96, lidar=LidarConfig(max_range=12.0, noise=0.0, noise_relative=0.0))[0]
    few = SyntheticStereo(1, 64, 96, lidar=LidarConfig(beams=4))[0]
    coarse = SyntheticStereo(1, 64, 96, lidar=LidarConfig(azimuth_step=8.0))[0]
    assert blind.sparse_depth is not None
    assert short.sparse_depth is not None
    assert few.sparse_depth is not None
    assert coarse.sparse_depth is not None
    assert blind.sparse_depth.max() == 0
    assert 0 < (coarse.sparse_depth > 0).sum() < 0.5 * (short.sparse_depth > 0).sum()
    assert 0 < short.sparse_depth.max() <= 12.0
    hit = short.sparse_depth > 0
    torch.testing.assert_close(short.sparse_depth[hit], short.depth[hit])
    assert 0 < (few.sparse_depth > 0).sum() < hit.sum()


# --- choices and mistakes ---------------------------------------------------------------------------------------------


def test_rig_is_drawn_from_its_ranges() -> None:
    rig = RigConfig(focal=(0.5, 0.8), baseline=(0.1, 0.3), principal_x=(0.4, 0.6), principal_y=(0.4, 0.6))
    cameras = [SyntheticStereo(None, 64, 96, rig=rig)._street(i).rig.camera for i in range(20)]
    focal, baseline = (np.array([getattr(c, n) for c in cameras]) for n in ("fx", "baseline"))
    assert ((focal >= 0.5 * 96) & (focal <= 0.8 * 96)).all()
    assert ((baseline >= 0.1) & (baseline <= 0.3)).all()
    assert focal.std() > 3
    assert all(c.fx == c.fy for c in cameras)
    default = SyntheticStereo(None, 375, 1242)._street(0).rig
    assert default.camera.fx == pytest.approx(721.5)
    assert default.camera.baseline == pytest.approx(0.54)


def test_length_bounds_the_indices() -> None:
    scenes = SyntheticStereo(2, 64, 96)
    assert len(scenes) == 2
    assert len(list(scenes)) == 2
    for index in (-1, 2):
        with pytest.raises(IndexError, match=str(index)):
            scenes[index]
        with pytest.raises(IndexError):
            scenes.render_batch([0, index])
    endless = SyntheticStereo(None, 64, 96)
    assert endless[10**9].left.shape == (3, 64, 96)
    with pytest.raises(TypeError):
        len(endless)
    with pytest.raises(IndexError):
        endless[-1]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SyntheticStereo(0, 64, 96), "length"),
        (lambda: SyntheticStereo(None, 8, 96), "height"),
        (lambda: SyntheticStereo(None, 64, 96, seed=-1), "seed"),
        (lambda: SyntheticStereo(None, 64, 96).render_batch([]), "index"),
        (lambda: RigConfig(baseline=(0.5, 0.4)), "baseline"),
        (lambda: RigConfig(focal=(0.0, 0.4)), "focal"),
        (lambda: RigConfig(pitch=(-40.0, 0.0)), "pitch"),
        (lambda: LidarConfig(drop_out=1.5), "LidarConfig.drop_out: expected a number from 0 to 1, got 1.5"),
        (lambda: LidarConfig(beams=1), "LidarConfig.beams: expected a whole number from 2 to 100,000, got 1"),
        (lambda: PhotometryConfig(blur=0.9), "PhotometryConfig.blur: expected a number from 0 to 0.5, got 0.9"),
    ],
)
def test_wrong_choices_are_named(make: object, named: str) -> None:
    with pytest.raises(InputError, match=named):
        make()  # type: ignore[operator]


def test_render_benchmark_reports_what_it_measured() -> None:
    from bench.render import RenderBenchmark

    result = RenderBenchmark(height=64, width=96, batch=2, repeats=2).run()
    assert result["slowest"] <= result["pairs_per_second"] <= result["fastest"]
    assert (result["height"], result["width"]) == (64, 96)
