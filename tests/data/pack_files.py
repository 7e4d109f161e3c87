"""Small data sets in their official forms for the tests of packs, and what those tests compare by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from adu_depth.data import StereoSample
from adu_depth.data.image_files import write_pfm, write_png16
from adu_depth.data.packed.command import PackConfig, run_pack

SIZES = ((48, 100), (45, 96), (50, 97), (48, 100), (64, 96))
MAPS = ("left", "right", "depth", "disparity", "valid", "occluded", "sparse_depth")


def write_kitti(root: Path, count: int = 5) -> Path:
    """KITTI 2015, each frame of another size, disparities at a tenth of the pixels, some of them occluded."""
    for i in range(count):
        rng = np.random.default_rng(i)
        height, width = SIZES[i % len(SIZES)]
        name = f"{i:06d}_10.png"
        for folder in ("image_2", "image_3", "disp_noc_0", "disp_occ_0", "calib_cam_to_cam"):
            (root / "training" / folder).mkdir(parents=True, exist_ok=True)
        for side in ("image_2", "image_3"):
            cv2.imwrite(str(root / "training" / side / name), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        disparity = rng.integers(1, 40 * 256, (height, width)) / 256 * (rng.random((height, width)) < 0.1)
        write_png16(root / "training" / "disp_occ_0" / name, disparity)
        write_png16(root / "training" / "disp_noc_0" / name, disparity * (rng.random((height, width)) < 0.8))
        lines = [f"P_rect_{n}: 71.3 0 48.1 {shift} 0 71.9 24.7 0 0 0 1 0" for n, shift in (("02", 3.1), ("03", -34.7))]
        (root / "training" / "calib_cam_to_cam" / f"{i:06d}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_middlebury(root: Path) -> Path:
    """16-bit views, float disparities that are no multiples of anything, doffs."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    for view in ("im0.png", "im1.png"):
        cv2.imwrite(str(root / view), rng.integers(0, 65536, (40, 60, 3), dtype=np.uint16))
    write_pfm(root / "disp0GT.pfm", np.where(rng.random((40, 60)) < 0.9, rng.random((40, 60)) * 30, np.inf))
    (root / "calib.txt").write_text(
        "cam0=[999.4 0 30.2; 0 999.4 20.1; 0 0 1]\ncam1=[999.4 0 62.9; 0 999.4 20.1; 0 0 1]\n"
        "doffs=32.7\nbaseline=193.001\nwidth=60\nheight=40\n"
    )
    return root


def write_object(root: Path) -> Path:
    """A KITTI object frame: the scan's projection is float32 and sparse, depth and sparse_depth one and the same."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    for view in ("left.png", "right.png"):
        cv2.imwrite(str(root / view), rng.integers(0, 256, (40, 60), dtype=np.uint8))
    points = np.stack([rng.uniform(3, 40, 300), rng.uniform(-5, 5, 300), rng.uniform(-2, 1, 300), np.zeros(300)], 1)
    points.astype("<f4").tofile(root / "lidar.bin")
    (root / "calib.txt").write_text(
        "P2: 60 0 30 2.1 0 60 20 0 0 0 1 0\nP3: 60 0 30 -30.3 0 60 20 0 0 0 1 0\n"
        "R0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: 0 -1 0 0.01 0 0 -1 0.02 1 0 0 0.03\n"
    )
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "kitti2015": write_kitti,
    "middlebury": write_middlebury,
    "kitti_object": write_object,
}


def pack(root: Path, output: Path, **settings: object) -> list[str]:
    said: list[str] = []
    run_pack(
        PackConfig(**{"root": root, "output": output, "pairs_per_shard": 2, "workers": 1, **settings}), said.append
    )  # type: ignore[arg-type]
    return said


def assert_same_bits(one: StereoSample, other: StereoSample) -> None:
    for name in MAPS:
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None), name
        if first is not None:
            assert first.dtype == second.dtype, name
            assert first.shape == second.shape, name
            assert first.contiguous().numpy().tobytes() == second.contiguous().numpy().tobytes(), name
    assert one.camera == other.camera
    assert one.name == other.name


def write_split(folder: Path, *names: str) -> Path:
    path = folder / "wanted.txt"
    path.write_text("\n".join(names))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
