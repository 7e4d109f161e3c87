"""Depth maps as points: where they lie, which are left out, which way their normals look, and the PLY with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from adu_depth.data.kitti_object import KittiObject
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference.point_cloud import PointCloud, PointCloudConfig, PointFrame, point_cloud, write_ply
from adu_depth.inference.render import to_uint8
from bench.point_cloud import scan_points

CAMERA = Camera(fx=90.0, fy=120.0, cx=30.2, cy=17.9, baseline=0.5)
HEIGHT, WIDTH = 40, 64
KEEP_ALL = PointCloudConfig(max_depth=np.inf, min_angle=0.0)
TYPES = {"float": "<f4", "uchar": "u1", "double": "<f8", "int": "<i4"}


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def rays(camera: Camera = CAMERA, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones_like(rows)], axis=-1)


def plane(normal: tuple[float, float, float], distance: float) -> np.ndarray:
    """Depth of the plane n · P = distance."""
    return (distance / (rays() @ np.array(normal))).astype(np.float32)


def pixels_of(cloud: PointCloud, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = cloud.positions.astype(np.float64).T
    return camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy


def read_ply(path: Path) -> tuple[np.ndarray, list[str]]:
    """The vertices, and the comments, by the format's own description (Turk, "The PLY Polygon File Format")."""
    data = path.read_bytes()
    header, end, body = data.partition(b"\nend_header\n")
    assert end
    lines = header.decode("ascii").split("\n")
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    rest = [line for line in lines[2:] if not line.startswith("comment ")]
    element, name, count = rest[0].split()
    assert (element, name) == ("element", "vertex")
    kinds = []
    for line in rest[1:]:
        word, kind, name = line.split()
        assert word == "property"
        kinds.append((name, TYPES[kind]))
    vertices = np.frombuffer(body, np.dtype(kinds))
    assert len(vertices) == int(count), "no byte more or less than the header says"
    return vertices, [line.removeprefix("comment ") for line in lines if line.startswith("comment ")]


def test_projected_the_points_are_the_pixels_again_and_z_is_the_depth() -> None:
    depth = np.random.default_rng(0).uniform(0.2, 79.0, (HEIGHT, WIDTH)).astype(np.float32)
    colours = picture()
    cloud = point_cloud(depth, colours, CAMERA, config=KEEP_ALL)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    u, v = pixels_of(cloud, CAMERA)
    assert np.abs(u - columns.ravel()).max() < 1e-3
    assert np.abs(v - rows.ravel()).max() < 1e-3
    assert np.array_equal(cloud.positions[:, 2], depth.ravel())
    assert np.array_equal(cloud.colours, colours.reshape(-1, 3))
    assert np.array_equal(cloud.pixels, np.arange(HEIGHT * WIDTH))
    assert cloud.uncertainty is None


@pytest.mark.parametrize("normal", [(0.0, 0.0, 1.0), (0.6, 0.0, 0.8), (-0.3, 0.5, 0.8124), (0.0, 0.9, 0.5)])
def test_a_plane_has_its_own_normal_everywhere(normal: tuple[float, float, float]) -> None:
    cloud = point_cloud(plane(normal, 6.0), picture(), CAMERA, config=KEEP_ALL)
    expected = -np.array(normal) / np.linalg.norm(normal)
    assert np.abs(cloud.normals - expected).max() < 2e-4


def test_normals_are_unit_vectors_towards_the_camera_on_any_map() -> None:
    depth = np.random.default_rng(2).uniform(0.5, 60.0, (HEIGHT, WIDTH)).astype(np.float32)
    depth[::3, ::2] = 0  # pixels with few neighbours, or none
    depth[1::3] = np.inf
    cloud = point_cloud(depth, picture(), CAMERA, config=KEEP_ALL)
    assert np.abs(np.linalg.norm(cloud.normals, axis=1) - 1).max() < 1e-6
    assert (np.sum(cloud.normals * cloud.positions, axis=1) < 0).all()


@pytest.mark.parametrize("hole", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_a_pixel_without_depth_is_no_point_and_bends_no_normal(hole: float) -> None:
    depth = plane((0.6, 0.0, 0.8), 6.0)
    depth[10, 20] = hole
    cloud = point_cloud(depth, picture(), CAMERA)
    assert set(range(HEIGHT * WIDTH)) - set(cloud.pixels.tolist()) == {10 * WIDTH + 20}
    assert np.isfinite(cloud.positions).all()
    assert np.abs(cloud.normals - (-0.6, 0, -0.8)).max() < 2e-4


def box_before_a_wall(scale: int) -> tuple[np.ndarray, Camera]:
    """Depth as a network gives it: 4 m before 9 m, with a ramp of a few pixels between them; any size of picture."""
    sharp = np.full((HEIGHT * scale, WIDTH * scale), 1 / 9)
    sharp[10 * scale : 30 * scale, 20 * scale : 44 * scale] = 1 / 4
    smooth = cv2.blur(sharp, (5 * scale, 5 * scale))
    return (1 / smooth).astype(np.float32), CAMERA.resized(scale, scale)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_no_point_hangs_between_two_surfaces_at_any_size_of_the_picture(scale: int) -> None:
    depth, camera = box_before_a_wall(scale)
    colours = picture(*depth.shape)

    def between(config: PointCloudConfig) -> float:
        metres = point_cloud(depth, colours, camera, config=config).positions[:, 2]
        return float(np.mean((metres > 4.2) & (metres < 8.4)))

    config = PointCloudConfig(min_angle=8.0)
    assert between(replace(config, min_angle=0.0)) > 0.05
    assert between(config) < 5e-4, "where two ramps meet in a corner they begin gently"
    kept = point_cloud(depth, colours, camera, config=config).pixels
    assert len(kept) > 0.7 * depth.size, "the surfaces themselves stay"
    box = np.zeros(depth.shape, bool)
    box[14 * scale : 26 * scale, 24 * scale : 40 * scale] = True
    assert np.isin(np.flatnonzero(box), kept).all()


def test_by_default_a_car_s_edge_is_cut_and_the_road_stays_to_63_m() -> None:
    camera = Camera(720.0, 720.0, 100.0, 10.0, 0.5)
    road = (1.65 * 720 / np.maximum(np.arange(200.0) - 10, 1e-9))[:, None].repeat(200, axis=1)
    road[:11] = 0
    cloud = point_cloud(road.astype(np.float32), picture(200, 200), camera)
    assert 55 < cloud.positions[:, 2].max() < 63.1  # 1.65 m / tan 1.5°, and rows are metres apart there
    assert np.isin(np.flatnonzero((road > 0) & (road < 55)), cloud.pixels).all()
    car = np.full((60, 60), 20.0, np.float32)
    car[:, 30:] = 10.0
    kept = point_cloud(car, picture(60, 60), camera).pixels % 60
    assert sorted(set(range(60)) - set(kept.tolist())) == [29, 30], "both sides of a sharp edge, and nothing else"


def test_far_and_unsure_pixels_are_left_out() -> None:
    depth = np.linspace(1, 10, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    log_scale = np.random.default_rng(3).uniform(-5, 0, (HEIGHT, WIDTH)).astype(np.float32)
    cloud = point_cloud(
        depth, picture(), CAMERA, log_scale, PointCloudConfig(max_depth=7.0, max_uncertainty=-2.3, min_angle=0.0)
    )
    assert np.array_equal(cloud.pixels, np.flatnonzero((depth <= 7.0) & (log_scale <= -2.3)))
    assert cloud.uncertainty is not None
    assert np.array_equal(cloud.uncertainty, log_scale.ravel()[cloud.pixels])


def test_what_cannot_be_made_into_points_says_why() -> None:
    depth = np.full((HEIGHT, WIDTH), 5.0, np.float32)
    told = r"street.png: no point is left: depths from 5 to 5 m, cut by points.max_depth 3 m, min_angle 1.5°"
    with pytest.raises(InputError, match=told):
        point_cloud(depth, picture(), CAMERA, config=PointCloudConfig(max_depth=3.0), name="street.png")
    with pytest.raises(InputError, match="no depth is finite and positive"):
        point_cloud(np.zeros_like(depth), picture(), CAMERA)
    with pytest.raises(InputError, match=r"points\.max_uncertainty: image: the network predicts no uncertainty"):
        point_cloud(depth, picture(), CAMERA, config=PointCloudConfig(max_uncertainty=-2.0))
    with pytest.raises(InputError, match="picture H×W×3 of its size"):
        point_cloud(depth, picture(7, 9), CAMERA)


@pytest.mark.parametrize("name", ["fx", "fy", "cx", "cy"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_camera_without_its_numbers_is_refused_by_name(name: str, value: float) -> None:
    """NaN is what a camera of a student has for cx and cy that nobody gave."""
    depth = np.full((HEIGHT, WIDTH), 5.0, np.float32)
    with pytest.raises(InputError, match=rf"street\.png: camera\.{name}: expected a finite number"):
        point_cloud(depth, picture(), replace(CAMERA, **{name: value}), name="street.png")


@pytest.mark.parametrize("name", ["fx", "fy"])
@pytest.mark.parametrize("value", [0.0, -90.0])
def test_a_focal_length_is_above_0(name: str, value: float) -> None:
    depth = np.full((HEIGHT, WIDTH), 5.0, np.float32)
    with pytest.raises(InputError, match=rf"camera\.{name}: expected a finite number above 0, got {value:g}"):
        point_cloud(depth, picture(), replace(CAMERA, **{name: value}))


def test_arrays_of_another_shape_or_type_are_refused_by_name() -> None:
    depth = np.full((HEIGHT, WIDTH), 5.0, np.float32)
    with pytest.raises(InputError, match=r"picture: expected uint8 RGB, 0 to 255, got float64"):
        point_cloud(depth, picture() / 255, CAMERA)
    for shape in ((HEIGHT, WIDTH - 1), (1, HEIGHT, WIDTH), (WIDTH,)):
        with pytest.raises(InputError, match=r"log_scale: expected 40×64 as depth, got shape \("):
            point_cloud(depth, picture(), CAMERA, np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_depth", value) for value in (0.0, -1.0, np.nan)),
        *(("min_angle", value) for value in (-1.0, 91.0, np.nan)),
        *(("max_uncertainty", value) for value in (51.0, np.nan)),
    ],
)
def test_a_cut_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"points\.{name}: expected"):
        PointCloudConfig(**{name: value})


def a_frame(log_scale: bool) -> PointFrame:
    depth = plane((0.6, 0.0, 0.8), 6.0)
    scale = np.linspace(-5, -1, depth.size, dtype=np.float32).reshape(depth.shape) if log_scale else None
    return PointFrame(picture(), CAMERA, depth, point_cloud(depth, picture(), CAMERA, scale))


@pytest.mark.parametrize("log_scale", [True, False])
def test_a_ply_holds_every_point_to_the_last_bit(log_scale: bool, tmp_path: Path) -> None:
    frame = a_frame(log_scale)
    write_ply(tmp_path / "a.ply", frame)
    vertices, comments = read_ply(tmp_path / "a.ply")
    names = ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    assert list(vertices.dtype.names or ()) == names + ["uncertainty"] * log_scale
    for columns, expected in (
        (names[:3], frame.cloud.positions),
        (names[3:6], frame.cloud.normals),
        (names[6:9], frame.cloud.colours),
    ):
        assert np.array_equal(np.stack([vertices[name] for name in columns], axis=1), expected)
    if log_scale:
        assert np.array_equal(vertices["uncertainty"], frame.cloud.uncertainty)
    assert any("x right, y down, z ahead" in comment for comment in comments)
    assert "camera fx 90.0 fy 120.0 cx 30.2 cy 17.9" in comments
    assert f"image height {HEIGHT} width {WIDTH}" in comments
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


@pytest.mark.parametrize("library", ["plyfile", "trimesh", "open3d"])
def test_other_people_s_readers_take_it(library: str, tmp_path: Path) -> None:
    reader = pytest.importorskip(library, reason=f"pip install {library}: only this test asks for it")
    frame, path = a_frame(True), tmp_path / "a.ply"
    write_ply(path, frame)
    if library == "plyfile":
        found = reader.PlyData.read(str(path))["vertex"]
        positions = np.stack([found[name] for name in "xyz"], axis=1)
        normals = np.stack([found[name] for name in ("nx", "ny", "nz")], axis=1)
        colours = np.stack([found[name] for name in ("red", "green", "blue")], axis=1)
        assert np.array_equal(found["uncertainty"], frame.cloud.uncertainty)
    elif library == "trimesh":
        found = reader.load(str(path), process=False)
        positions, colours, normals = found.vertices, found.colors[:, :3], frame.cloud.normals  # it drops normals
    else:
        found = reader.io.read_point_cloud(str(path))
        positions, normals = np.asarray(found.points), np.asarray(found.normals)
        colours = np.rint(np.asarray(found.colors) * 255)
    assert np.array_equal(positions, frame.cloud.positions)
    assert np.array_equal(normals, frame.cloud.normals)
    assert np.array_equal(colours, frame.cloud.colours)


def test_a_ply_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(b"before")
    frame = a_frame(True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adu_depth.files.os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*a\.ply: No space left on device"):
        write_ply(path, frame)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]
    assert path.read_bytes() == b"before"


def test_points_of_a_scan_s_depths_lie_where_the_scan_has_them(real_stereo: Path) -> None:
    """The camera of the pair and its pixel centres, against the calibration's own way from the scanner to the camera:
    only what a point is moved by onto its pixel's centre is between the two."""
    root = real_stereo / "kitti_object"
    sample = KittiObject(root)[0]
    depth = sample.depth[0].numpy()
    cloud = point_cloud(depth, to_uint8(sample.left), sample.camera, config=KEEP_ALL)
    scan = scan_points(root)
    camera = sample.camera
    u = np.rint(camera.fx * scan[:, 0] / scan[:, 2] + camera.cx)
    v = np.rint(camera.fy * scan[:, 1] / scan[:, 2] + camera.cy)
    assert len(cloud.pixels) > 10_000
    far_first = np.argsort(-scan[:, 2], kind="stable")
    seen = {(v[place], u[place]): place for place in far_first}  # the nearest of a pixel stays
    expected = scan[[seen[divmod(int(pixel), depth.shape[1])] for pixel in cloud.pixels]]
    off = np.abs(cloud.positions - expected) / expected[:, 2:]
    assert off[:, 2].max() < 1e-6
    assert off[:, :2].max() < 0.5001 / 721.5377
    assert np.abs(np.mean((cloud.positions - expected) / expected[:, 2:], axis=0)).max() < 0.02 / 721.5377, "centred"
