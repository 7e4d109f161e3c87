"""Every layout, written by hand into a temporary folder exactly as the official archives unpack."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from adu_depth.data import KITTI_2012, FileDataset, KittiObject, KittiStereo, MiddleburyStereo, collate, open_dataset
from adu_depth.data.calibration import read_frame_table, read_middlebury_calibration
from adu_depth.data.camera_file import read_camera
from adu_depth.data.image_files import write_pfm
from adu_depth.data.kitti_depth import read_intrinsics
from adu_depth.errors import InputError

HEIGHT, WIDTH = 12, 20
FOCAL, BASELINE = 700.0, 0.5
OFFICIAL_FRAMES = "calib_cam_to_cam"


def noise(seed: int, shape: tuple[int, ...] = (HEIGHT, WIDTH, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def projection(key: str, shift: float) -> str:
    return f"{key}: {FOCAL} 0 9.5 {shift * FOCAL} 0 {FOCAL} 5.5 0.1 0 0 1 0.002\n"


def disparity_levels(hidden: bool = False) -> np.ndarray:
    """uint16 disparity · 256: 0 in the first column, and 5.25 px in the second one only where `hidden` is read."""
    levels = np.full((HEIGHT, WIDTH), 40 * 256 + 128, dtype=np.uint16)
    levels[:, 0], levels[:, 1] = 0, (5 * 256 + 64 if hidden else 0)
    return levels


@pytest.fixture
def kitti2015(tmp_path: Path) -> Path:
    training = tmp_path / "data_scene_flow" / "training"
    for n, frame in enumerate(("000000", "000003")):
        for side, folder in enumerate(("image_2", "image_3")):
            save(training / folder / f"{frame}_10.png", noise(10 * n + side))
            save(training / folder / f"{frame}_11.png", noise(99))
        save(training / "disp_noc_0" / f"{frame}_10.png", disparity_levels())
        save(training / "disp_occ_0" / f"{frame}_10.png", disparity_levels(hidden=True))
        lines = f"calib_time: 09-Jan-2012 13:57:47\nS_rect_02: {WIDTH} {HEIGHT}\nP_rect_00: 1 2 3\n"
        text(
            training / OFFICIAL_FRAMES / f"{frame}.txt",
            lines + projection("P_rect_02", 0.06) + projection("P_rect_03", 0.06 - BASELINE - n),
        )
    return training.parent


def test_kitti2015_reads_what_stands_there(kitti2015: Path) -> None:
    dataset = open_dataset(kitti2015)
    assert isinstance(dataset, KittiStereo)
    assert [dataset[i].name for i in range(len(dataset))] == ["000000_10", "000003_10"]
    sample = dataset[0]
    assert torch.equal(sample.right, torch.from_numpy(noise(1)[..., ::-1] / 255.0).float().permute(2, 0, 1))
    assert sample.disparity.shape == sample.depth.shape == sample.valid.shape == (1, HEIGHT, WIDTH)
    assert sample.valid.dtype == torch.bool
    assert sample.valid[0].sum(0).tolist() == [0, 0, *[HEIGHT] * (WIDTH - 2)]
    assert sample.disparity[sample.valid].unique().tolist() == [40.5]
    assert sample.depth[sample.valid].unique().tolist() == pytest.approx([FOCAL * BASELINE / 40.5])
    assert (sample.depth[~sample.valid] == 0).all()
    assert (sample.disparity[~sample.valid] == 0).all()
    assert (sample.camera.fx, sample.camera.fy, sample.camera.cx, sample.camera.cy) == (FOCAL, FOCAL, 9.5, 5.5)
    assert sample.sparse_depth is None


def test_kitti2015_calibration_is_per_frame(kitti2015: Path) -> None:
    dataset = open_dataset(kitti2015)
    assert [dataset[i].camera.baseline for i in (0, 1)] == pytest.approx([BASELINE, BASELINE + 1])
    assert dataset[-1].camera == dataset[1].camera


def test_kitti2015_occluded_pixels_are_known_from_both_maps_and_read_if_asked(kitti2015: Path) -> None:
    sample = open_dataset(kitti2015 / "training", "kitti2015")[0]
    assert sample.occluded is not None
    assert sample.occluded[0].sum(0).tolist() == [0, HEIGHT, *[0] * (WIDTH - 2)]
    with_hidden = KittiStereo(kitti2015, occluded_too=True)[0]
    assert with_hidden.disparity[0, 0, :3].tolist() == [0.0, 5.25, 40.5]
    shutil.rmtree(kitti2015 / "training" / "disp_occ_0")
    assert open_dataset(kitti2015)[0].occluded is None


@pytest.mark.parametrize("place", ["training/{}", "{}", "kitti_calib/{}", "../kitti_calib/{}"])
def test_kitti2015_calibration_from_a_table_beside_it(kitti2015: Path, place: str) -> None:
    shutil.rmtree(kitti2015 / "training" / OFFICIAL_FRAMES)
    text(
        kitti2015 / place.format("kitti2015_frames.csv"),
        f"folder,frame,width,height,date,fx,cx,cy,baseline_m\nany,000000_10,{WIDTH},{HEIGHT},d,650,9,5,0.25\n"
        f"any,000003_10,{WIDTH + 1},{HEIGHT},d,650,9,5,0.25\n",
    )
    dataset = open_dataset(kitti2015)
    assert (dataset[0].camera.fx, dataset[0].camera.fy, dataset[0].camera.baseline) == (650.0, 650.0, 0.25)
    with pytest.raises(InputError, match=r"kitti2015_frames.csv, frame 000003_10: expected the image's height"):
        dataset[1]


def test_kitti2015_never_guesses_a_calibration(kitti2015: Path) -> None:
    (kitti2015 / "training" / OFFICIAL_FRAMES / "000003.txt").unlink()
    with pytest.raises(InputError, match=r"(?s)no calibration of frame 000003_10: .*000003.txt.*kitti2015_frames.csv"):
        open_dataset(kitti2015)[1]
    table = kitti2015.parent / "table.csv"
    text(table, f"frame,width,height,fx,cx,cy,baseline_m\n000000_10,{WIDTH},{HEIGHT},1,1,1,1\n")
    with pytest.raises(InputError, match=r"table.csv: expected one calibration of frame 000003_10, found 0"):
        KittiStereo(kitti2015, frame_table=table)[1]
    with pytest.raises(InputError, match=r"no calibration of frame 000000_10: looked for \S*gone.csv$"):
        KittiStereo(kitti2015, frame_table=kitti2015 / "gone.csv")[0]
    text(table, "frame,fx\n000000_10,1\n")
    with pytest.raises(InputError, match="missing width, height, cx, cy, baseline_m"):
        KittiStereo(kitti2015, frame_table=table)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("P_rect_02: 1 2 3\n", "P_rect_02 needs 3×4 numbers, got 3"),
        (projection("P_rect_02", 0), "no line 'P_rect_03:', found P_rect_02"),
        (projection("P_rect_02", 0) + projection("P_rect_03", 0.5), "expected a positive focal length and baseline"),
        (f"S_rect_02: {WIDTH + 2} {HEIGHT}\n", "expected the image's height and width"),
        ("", "found no line of numbers"),
    ],
)
def test_kitti2015_broken_calibration_is_named(kitti2015: Path, content: str, message: str) -> None:
    text(kitti2015 / "training" / OFFICIAL_FRAMES / "000000.txt", content)
    with pytest.raises(InputError, match=f"000000.txt.*{message}"):
        open_dataset(kitti2015)[0]


def test_kitti2012_has_its_own_names(kitti2015: Path) -> None:
    training = kitti2015 / "training"
    for old, new in (("image_2", "colored_0"), ("image_3", "colored_1"), ("disp_noc_0", "disp_noc")):
        (training / old).rename(training / new)
    for frame in ("000000", "000003"):
        text(training / "calib" / f"{frame}.txt", projection("P2", 0.0) + projection("P3", -0.54))
    dataset = open_dataset(kitti2015)
    assert isinstance(dataset, KittiStereo)
    assert dataset.folders is KITTI_2012
    assert dataset[1].camera.baseline == pytest.approx(0.54)
    assert dataset[1].disparity[0, 0, 2] == 40.5


def test_a_broken_pair_is_named(kitti2015: Path) -> None:
    training = kitti2015 / "training"
    save(training / "image_3" / "000003_10.png", noise(0, (HEIGHT, WIDTH + 1, 3)))
    with pytest.raises(InputError, match=r"one size .*\(12, 20\) in \S*image_2\S* and \(12, 21\) in \S*image_3"):
        open_dataset(kitti2015)[1]
    (training / "image_3" / "000003_10.png").unlink()
    with pytest.raises(
        InputError, match=r"image_3/000003_10.png: the right image of \S*image_2/000003_10.png is missing"
    ):
        open_dataset(kitti2015)[1]
    save(training / "disp_noc_0" / "000000_10.png", disparity_levels()[:-1])
    with pytest.raises(InputError, match=r"disp_noc_0/000000_10.png: expected the image's height and width"):
        open_dataset(kitti2015)[0]
    with pytest.raises(IndexError):
        open_dataset(kitti2015)[2]


# ---- KITTI object ----

# x forward, y left, z up → x right, y down, z forward, in the camera's own frame 0.1 m in front of the scanner.
TO_CAMERA = "Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 -0.1\n"
POINTS = [
    (10.1, 0.0, 0.0, 0.5),  # at 10 m on the principal point
    (20.1, 0.0, 0.0, 0.5),  # behind it: hidden
    (5.1, -0.05, 0.0214, 0.5),  # 7 px right, 3 px up
    (-5.0, 0.0, 0.0, 0.5),  # behind the camera
    (5.1, 30.0, 0.0, 0.5),  # outside the image
]


def write_object_frame(left: Path, right: Path, scan: Path, calibration: Path) -> None:
    save(left, noise(1))
    save(right, noise(2))
    scan.parent.mkdir(parents=True, exist_ok=True)
    scan.write_bytes(np.array(POINTS, dtype="<f4").tobytes())
    p2 = f"P2: {FOCAL} 0 9 0 0 {FOCAL} 5 0 0 0 1 0\n"
    p3 = f"P3: {FOCAL} 0 9 {-BASELINE * FOCAL} 0 {FOCAL} 5 0 0 0 1 0\n"
    text(calibration, p2 + p3 + "R0_rect: 1 0 0 0 1 0 0 0 1\n" + TO_CAMERA)


def write_official_object(root: Path, frame: str = "000007") -> Path:
    t = root / "training"
    write_object_frame(
        t / "image_2" / f"{frame}.png",
        t / "image_3" / f"{frame}.png",
        t / "velodyne" / f"{frame}.bin",
        t / "calib" / f"{frame}.txt",
    )
    return t


@pytest.mark.parametrize("form", ["official", "training part", "one folder", "folders"])
def test_kitti_object_projects_the_scan(tmp_path: Path, form: str) -> None:
    if form in ("official", "training part"):
        training = write_official_object(tmp_path)
        root, name = (training if form == "training part" else tmp_path), "000007"
    else:
        folder = tmp_path / "scenes" / "town"
        write_object_frame(*(folder / n for n in ("left.png", "right.png", "lidar.bin", "calib.txt")))
        root, name = (folder if form == "one folder" else folder.parent), "town"
    dataset = open_dataset(root)
    assert isinstance(dataset, KittiObject)
    sample = dataset[0]
    assert sample.name == name
    assert len(dataset) == 1
    expected = torch.zeros(1, HEIGHT, WIDTH)
    expected[0, 5, 9], expected[0, 2, 16] = 10.0, 5.0
    assert sample.sparse_depth is not None
    assert torch.allclose(sample.sparse_depth, expected, atol=1e-5)
    assert torch.equal(sample.depth, sample.sparse_depth)
    assert torch.equal(sample.valid, expected > 0)
    assert sample.disparity[0, 5, 9].item() == pytest.approx(FOCAL * BASELINE / 10.0)


def test_kitti_object_the_nearest_point_wins_in_any_order(tmp_path: Path) -> None:
    training = write_official_object(tmp_path)
    (training / "velodyne" / "000007.bin").write_bytes(np.array(POINTS[::-1], dtype="<f4").tobytes())
    assert open_dataset(tmp_path)[0].depth[0, 5, 9].item() == pytest.approx(10.0)


def test_kitti_object_broken_files_are_named(tmp_path: Path) -> None:
    training = write_official_object(tmp_path)
    scan = training / "velodyne" / "000007.bin"
    scan.write_bytes(scan.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"velodyne/000007.bin: expected points of 4 float32 \(16 bytes\), got 77"):
        open_dataset(tmp_path)[0]
    scan.unlink()
    with pytest.raises(InputError, match=r"velodyne/000007.bin: cannot be read"):
        open_dataset(tmp_path)[0]
    text(training / "calib" / "000007.txt", "P2: 1\n")
    with pytest.raises(InputError, match=r"calib/000007.txt"):
        open_dataset(tmp_path)[0]


# ---- Middlebury and ETH3D ----

CALIBRATION = (
    "cam0=[1000 0 9; 0 1001 5; 0 0 1]\ncam1=[1000 0 41; 0 1001 5; 0 0 1]\n"
    f"doffs=32\nbaseline=200\nwidth={WIDTH}\nheight={HEIGHT}\nndisp=70\n"
)


def pfm_disparity() -> np.ndarray:
    disparity = np.full((HEIGHT, WIDTH), 8.0, dtype=np.float32)
    disparity[0, :], disparity[:, -1] = 18.0, np.inf
    return disparity


def write_scene(scene: Path, truth: Path | None = None, name: str = "disp0GT.pfm", mask: bool = True) -> None:
    truth = truth or scene
    save(scene / "im0.png", noise(1)[..., 0])
    save(scene / "im1.png", noise(2)[..., 0])
    text(scene / "calib.txt", CALIBRATION)
    truth.mkdir(parents=True, exist_ok=True)
    write_pfm(truth / name, pfm_disparity())
    if mask:
        values = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
        values[:, 0], values[:, -1] = 128, 0
        save(truth / "mask0nocc.png", values)


@pytest.mark.parametrize("name", ["disp0GT.pfm", "disp0.pfm"])
def test_middlebury_reads_what_stands_there(tmp_path: Path, name: str) -> None:
    write_scene(tmp_path / "trainingQ" / "Adirondack", name=name)
    write_scene(tmp_path / "trainingQ" / "Pipes", name=name, mask=False)
    dataset = open_dataset(tmp_path / "trainingQ")
    assert isinstance(dataset, MiddleburyStereo)
    sample, unmasked = dataset[0], dataset[1]
    assert (sample.name, unmasked.name) == ("Adirondack", "Pipes")
    assert sample.left.shape == (3, HEIGHT, WIDTH)
    assert torch.equal(sample.left[0], sample.left[2])  # grey became three channels
    camera = sample.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (1000.0, 1001.0, 9.0, 5.0)
    assert (camera.baseline, camera.disparity_offset) == (0.2, 32.0)
    assert sample.depth[0, 0, 0].item() == pytest.approx(1000 * 0.2 / (18 + 32))
    assert sample.depth[0, -1, 0].item() == pytest.approx(1000 * 0.2 / (8 + 32))
    assert sample.valid[0].sum(0).tolist() == [*[HEIGHT] * (WIDTH - 1), 0]
    assert (sample.disparity[~sample.valid] == 0).all()
    assert (sample.depth[~sample.valid] == 0).all()
    assert sample.occluded is not None
    assert sample.occluded[0].sum(0).tolist() == [HEIGHT, *[0] * (WIDTH - 1)]
    assert unmasked.occluded is None
    assert torch.equal(open_dataset(tmp_path / "trainingQ" / "Pipes")[0].depth, unmasked.depth)


def test_eth3d_keeps_its_ground_truth_in_a_folder_beside(tmp_path: Path) -> None:
    write_scene(
        tmp_path / "two_view_training" / "delivery_area_1l", tmp_path / "two_view_training_gt" / "delivery_area_1l"
    )
    for root in (tmp_path, tmp_path / "two_view_training"):
        sample = open_dataset(root)[0]
        assert sample.name == "delivery_area_1l"
        assert sample.disparity[0, 0, 0] == 18.0
        assert sample.occluded is not None
    assert open_dataset(tmp_path, "eth3d")[0].valid.any()


@pytest.mark.parametrize(
    ("line", "replaced", "message"),
    [
        ("doffs=32\n", "", "no line 'doffs='"),
        ("baseline=200", "baseline=-200", "expected a positive focal length and baseline"),
        ("cam0=[1000 0 9; 0 1001 5; 0 0 1]", "cam0=[1000 0 9]", "cam0 needs 9"),
        ("baseline=200", "baseline=wide", "baseline: expected numbers, got 'wide'"),
        (f"width={WIDTH}", "width=10", "expected the image's height and width"),
    ],
)
def test_middlebury_broken_calibration_is_named(tmp_path: Path, line: str, replaced: str, message: str) -> None:
    write_scene(tmp_path / "scene")
    text(tmp_path / "scene" / "calib.txt", CALIBRATION.replace(line, replaced))
    with pytest.raises(InputError, match=f"calib.txt: {message}"):
        open_dataset(tmp_path)[0]


def test_middlebury_missing_files_are_named(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene")
    (tmp_path / "scene" / "disp0GT.pfm").unlink()
    with pytest.raises(InputError, match=r"no disparity of scene scene: looked for .*disp0GT.pfm.*disp0.pfm"):
        open_dataset(tmp_path)[0]
    (tmp_path / "scene" / "calib.txt").unlink()
    with pytest.raises(InputError, match=r"scene/calib.txt: cannot be read"):
        open_dataset(tmp_path)[0]


# ---- open_dataset ----


def test_an_unknown_folder_lists_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path)
    for word in (
        "kitti2015",
        "disp_noc_0",
        "kitti2012",
        "colored_0",
        "kitti_object",
        "velodyne",
        "middlebury",
        "eth3d",
    ):
        assert word in str(caught.value)
    with pytest.raises(InputError, match=r"layout: 'kiti' is not known"):
        open_dataset(tmp_path, "kiti")
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        open_dataset(tmp_path / "nowhere")


def test_an_empty_data_set_names_folder_and_pattern(tmp_path: Path) -> None:
    for folder in ("image_2", "disp_noc_0"):
        (tmp_path / "training" / folder).mkdir(parents=True)
    save(tmp_path / "training" / "image_2" / "000000_11.png", noise(0))
    with pytest.raises(InputError, match=r"training/image_2: no stereo pairs, expected files named \*_10.png"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match=r"no stereo pairs, expected im0.png"):
        open_dataset(tmp_path, "middlebury")
    shutil.rmtree(tmp_path / "training")
    with pytest.raises(InputError, match=r"no stereo pairs, expected image_2"):
        open_dataset(tmp_path, "kitti_object")


def test_two_layouts_in_one_folder_are_not_guessed_between(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene")
    write_official_object(tmp_path)
    with pytest.raises(InputError, match=r"more than one layout \(kitti_object, middlebury\)"):
        open_dataset(tmp_path)
    assert isinstance(open_dataset(tmp_path, "middlebury"), MiddleburyStereo)


def test_a_loader_with_workers_reads_it(kitti2015: Path) -> None:
    dataset = open_dataset(kitti2015)
    assert isinstance(dataset, FileDataset)
    batch = next(iter(DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=collate)))  # type: ignore[arg-type]
    assert batch.left.shape == (2, 3, HEIGHT, WIDTH)
    assert batch.name == ["000000_10", "000003_10"]
    assert isinstance(batch.camera.baseline, torch.Tensor)
    assert batch.camera.baseline.tolist() == pytest.approx([BASELINE, BASELINE + 1])


@pytest.mark.parametrize("fx", ["1e30", "1e-300", "1e400", "-1e30"])
def test_numbers_beyond_any_camera_are_refused_of_every_file(fx: str, tmp_path: Path) -> None:
    """Their products are infinite, or 0, in float32."""
    path = tmp_path / "calibration"
    files: dict[str, Callable[[Path], object]] = {
        f"{fx} 0 20 0 30 12 0 0 1\n": read_intrinsics,
        f"cam0=[{fx} 0 20; 0 30 12; 0 0 1]\ndoffs=0\nbaseline=500\nwidth=40\nheight=24\n": read_middlebury_calibration,
        f"frame,width,height,fx,fy,cx,cy,baseline_m\na,40,24,{fx},30,20,12,0.5\n": lambda p: read_frame_table(p, "a"),
        f"fx = {fx}\ncx = 20\ncy = 12\n": read_camera,
    }
    for content, read in files.items():
        text(path, content)
        with pytest.raises(InputError, match=r"calibration"):
            read(path)
        text(path, content.replace(fx, "30"))
        read(path)
