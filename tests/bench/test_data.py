"""What `python -m bench data` measures: that every part is there and the rates are those of the parts."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from adu_depth.data import open_dataset
from adu_depth.errors import InputError
from bench.data import DataBenchmark, jpeg_copy, table
from tests.data.pack_files import write_kitti

SMALL = {"pairs": 3, "window": (32, 64), "batch": 2, "repeats": 2}


@pytest.fixture
def threads() -> object:
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_parts_and_the_whole_are_measured(workers: int, tmp_path: Path, threads: object) -> None:
    result = DataBenchmark(root=write_kitti(tmp_path / "kitti", 3), workers=workers, **SMALL).run()  # type: ignore[arg-type]
    assert result["pairs"] == {"files": 3, "JPEG": 3, "pack": 3}
    parts = result["milliseconds_per_window"]
    assert list(parts["files"]) == ["decode", "crop", "resize instead", "collate", "levels to floats", "everything"]
    assert list(parts["pack"]) == ["decode and crop", "resize instead", "collate", "levels to floats", "everything"]
    for name, found in parts.items():
        assert all(times["wall"] > 0 for times in found.values()), name
        rate = result["windows_per_second"][name]
        assert 0 < rate["slowest"] <= rate["median"] <= rate["fastest"]
        assert name in table(result)


def test_the_jpeg_pairs_are_the_pairs_as_jpeg(tmp_path: Path) -> None:
    files = open_dataset(write_kitti(tmp_path / "kitti", 2))
    copied = open_dataset(jpeg_copy(files, tmp_path / "jpeg"))
    assert {path.suffix for path in copied.files("000000").values()} == {".jpg", ".png", ".toml"}
    assert torch.equal(copied[1].disparity, files[1].disparity)
    assert copied[1].left.shape == files[1].left.shape


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        DataBenchmark(repeats=0).run()
    for window in ((0, 64), (-32, 64), (48, 64)):
        with pytest.raises(InputError, match=r"window must be two positive multiples of 32 \(height, width\), got"):
            DataBenchmark(window=window).run()
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="sees no CUDA device"):
            DataBenchmark(device="cuda").run()
