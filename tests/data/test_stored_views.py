"""Views travel to the device as the 8-bit levels they are kept in; the floats in the end are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from adu_depth.data import StereoSample, collate, open_dataset
from adu_depth.data.dataset import maps_from_depth, maps_from_disparity
from adu_depth.data.image_files import read_image, read_view
from adu_depth.data.packed.dataset import PackedStereo
from adu_depth.distributed import ProcessGroup
from adu_depth.geometry import Camera, depth_to_disparity, disparity_to_depth
from adu_depth.images import from_levels
from adu_depth.training.batches import batches
from adu_depth.training.config import DataConfig, LoopConfig
from tests.data.pack_files import assert_same_bits, pack, write_kitti

CAMERA = Camera(721.5, 721.5, 609.6, 172.9, 0.5327, 1.25)


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    return write_kitti(tmp_path / "kitti", 3)


def test_every_level_is_the_float_that_numpy_divides_to() -> None:
    for dtype, white in ((torch.uint8, 255), (torch.uint16, 65535)):
        levels = torch.arange(white + 1, dtype=torch.int32).to(dtype)
        expected = np.arange(white + 1, dtype=np.float32) / np.float32(white)
        assert torch.equal(from_levels(levels), torch.from_numpy(expected))
    assert not torch.equal(torch.arange(256) * (1 / 255), torch.arange(256) / 255), "here a reciprocal would do"
    floats = torch.rand(3)
    assert from_levels(floats) is floats


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_divides_to_the_same_floats() -> None:
    levels = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    assert torch.equal(from_levels(levels.cuda()).cpu(), from_levels(levels.cpu()))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_eight_bits_stay_eight_bits_and_sixteen_become_floats(suffix: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), pixels)
    decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1].transpose(2, 0, 1)
    view = read_view(path)
    assert view.dtype == torch.uint8
    assert torch.equal(view, torch.from_numpy(decoded.copy()))
    assert torch.equal(read_image(path), torch.from_numpy(decoded.astype(np.float32) / np.float32(255)))
    cv2.imwrite(str(tmp_path / "b.png"), pixels.astype(np.uint16) * 257)
    assert read_view(tmp_path / "b.png").dtype == torch.float32


def test_stored_samples_are_the_samples(kitti: Path, tmp_path: Path) -> None:
    pack(kitti, tmp_path / "pack")
    raw, packed = open_dataset(kitti), open_dataset(tmp_path / "pack")
    assert isinstance(packed, PackedStereo)
    for index in range(len(raw)):
        for dataset in (raw, packed):
            stored = dataset.stored(index)
            assert stored.left.dtype == torch.uint8
            assert_same_bits(stored.floats(), raw[index])
        window = packed.stored_window(index, 3, 5, 32, 64)
        assert window.left.dtype == torch.uint8
        assert_same_bits(window.floats(), raw[index].crop(3, 5, 32, 64))


def test_batches_are_those_of_floats(kitti: Path, tmp_path: Path) -> None:
    """Also where one sample has 16 bits: then all of the batch are floats."""
    right = kitti / "training" / "image_3" / "000001_10.png"
    cv2.imwrite(str(right), cv2.imread(str(right)).astype(np.uint16) * 257)
    dataset = open_dataset(kitti)
    samples = [dataset.stored(i).crop(0, 0, 32, 64) for i in range(3)]
    expected = collate([s.floats() for s in samples])
    assert_same(collate(samples), expected)
    levels = collate([samples[0], samples[2]])
    assert levels.left.dtype == torch.uint8
    assert_same(levels.floats(), collate([samples[0].floats(), samples[2].floats()]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_gets_floats(kitti: Path, workers: int) -> None:
    loop = LoopConfig(steps=2, batch_size=2, workers=workers, device="cpu")
    data = DataConfig(size=(32, 64), fit="crop")
    for batch in batches(open_dataset(kitti), data, loop, 0, ProcessGroup(), torch.device("cpu")):
        assert batch.sample.left.dtype == batch.sample.require_right("").dtype == torch.float32
        assert 0.2 < batch.sample.left.mean() < 0.8


def test_a_worker_collates_into_shared_memory(kitti: Path) -> None:
    found = next(iter(DataLoader(Shared(kitti), batch_size=3, num_workers=1, collate_fn=_collated)))  # type: ignore[arg-type]
    assert found == {"left": True, "depth": True, "valid": True}


class Shared:
    def __init__(self, root: Path) -> None:
        self.samples = open_dataset(root)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> StereoSample:
        return self.samples.stored(index).crop(0, 0, 32, 64)


def _collated(samples: list[StereoSample]) -> dict[str, bool]:
    batch = collate(samples)
    assert torch.equal(batch.left, torch.stack([s.left for s in samples]))
    return {name: getattr(batch, name).is_shared() for name in ("left", "depth", "valid")}


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_maps_of_known_pixels_alone_are_those_of_all(share: float) -> None:
    """Computed where something is known, against the whole map at once."""
    rng = np.random.default_rng(1)
    values = (rng.integers(1, 30000, (19, 23)) / 256).astype(np.float32) * (rng.random((19, 23)) < share)
    for strange in (np.nan, np.inf, -np.inf, -1.0, -0.0, 1e-40):
        values[tuple(rng.integers(0, 19, 2))] = strange
    known = np.isfinite(values) & (values > 0)
    clean = np.where(known, values, 0).astype(np.float32)
    for make, derive, name in (
        (maps_from_disparity, disparity_to_depth, "disparity"),
        (maps_from_depth, depth_to_disparity, "depth"),
    ):
        other = np.where(known, derive(clean, CAMERA), 0)
        both = (clean > 0) & (other > 0)
        found = make(values, CAMERA)
        assert torch.equal(found["valid"][0], torch.from_numpy(both))
        assert torch.equal(found[name][0], torch.from_numpy(np.where(both, clean, 0).astype(np.float32)))
        derived = found["depth" if name == "disparity" else "disparity"]
        assert torch.equal(derived[0], torch.from_numpy(np.where(both, other, 0).astype(np.float32)))


def assert_same(one: StereoSample, other: StereoSample) -> None:
    for name, values in one._tensors().items():
        assert values.dtype == getattr(other, name).dtype, name
        assert torch.equal(values, getattr(other, name)), name
    assert isinstance(one.camera.cx, Tensor)
    assert replace(one, camera=other.camera).name == other.name
