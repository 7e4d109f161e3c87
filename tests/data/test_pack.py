"""A packed data set: the samples of the one it was made from, bit for bit."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.utils.data import DataLoader

from adu_depth.data import StereoSample, SyntheticStereo, collate, open_dataset
from adu_depth.data.packed import PackedStereo
from adu_depth.data.packed.encoding import Window, decode_sample, encode_sample
from adu_depth.data.packed.shards import shard_file
from adu_depth.data.transforms import require_focal_lengths, resize_sample
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.evaluation.command import EvaluateConfig, layout_of
from adu_depth.geometry import Camera
from adu_depth.inference.render import write_samples
from adu_depth.training.batches import batches
from adu_depth.training.config import DataConfig, LoopConfig
from tests.data.pack_files import (
    LAYOUTS,
    SIZES,
    assert_same_bits,
    pack,
    write_kitti,
    write_middlebury,
    write_object,
    write_split,
)
from tests.data.test_rgbd import write_lists


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_bit_comes_back_in_frames_of_any_size_and_in_windows(layout: str, tmp_path: Path) -> None:
    raw = open_dataset(LAYOUTS[layout](tmp_path / "raw"))
    said = pack(tmp_path / "raw", tmp_path / "pack")
    again = open_dataset(tmp_path / "pack")
    assert isinstance(again, PackedStereo)
    assert again.names == raw.names
    assert len(said) == len(list((tmp_path / "pack").glob("shard-*"))) + 1
    for i in range(len(raw)):
        assert_same_bits(raw[i], again[i])
        height, width = again.image_size(i)
        assert (height, width) == tuple(raw[i].left.shape[-2:])
        for window in ((0, 0, height, width), (3, 7, 20, 31), (height - 9, width - 5, 9, 5), (11, 0, 1, width)):
            assert_same_bits(raw[i].crop(*window), again.window(i, *window))
        assert again.labelled(again.names[i])


def test_the_real_pairs_come_back_too(real_stereo: Path, tmp_path: Path) -> None:
    for folder in ("kitti2015", "kitti_object", "eth3d", "middlebury_motorcycleQ"):
        raw = open_dataset(real_stereo / folder)
        pack(real_stereo / folder, tmp_path / folder)
        again = open_dataset(tmp_path / folder)
        assert isinstance(again, PackedStereo)
        for i in range(len(raw)):
            assert_same_bits(raw[i], again[i])
            assert_same_bits(raw[i].crop(100, 200, 192, 320), again.window(i, 100, 200, 192, 320))


def test_a_pack_knows_which_frames_have_no_ground_truth(tmp_path: Path) -> None:
    rig = tmp_path / "rig"
    write_samples(SyntheticStereo(3, 32, 64, seed=0), rig, 3, lambda _: None)
    for kind in ("depth", "disparity", "sparse_depth", "occluded"):
        for file in rig.glob(f"{kind}/000001.*"):
            file.unlink()
    pack(rig, tmp_path / "pack")
    raw, again = open_dataset(rig), open_dataset(tmp_path / "pack")
    known = [[dataset.labelled(name) for name in dataset.names] for dataset in (raw, again)]
    assert known == [[True, False, True]] * 2
    for i in range(3):
        assert_same_bits(raw[i], again[i])
    assert not again[1].valid.any()


def kept(folder: Path, place: int = 0) -> dict[str, torch.dtype]:
    with safe_open(folder / shard_file(0), "pt") as shard:
        names = [name for name in shard.keys() if name.startswith(f"{place}.")]  # noqa: SIM118
        return {name.partition(".")[2]: shard.get_tensor(name).dtype for name in names}


def test_what_is_kept_is_what_the_files_held(packed: Path, tmp_path: Path) -> None:
    """Eight bits a channel and the disparity alone: not float32, not the maps that follow from it."""
    kitti_keeps = {"left": torch.uint8, "right": torch.uint8, "occluded": torch.uint8}
    assert kept(packed) == {**kitti_keeps, "disparity.places": torch.int32, "disparity.values": torch.uint16}
    pack(write_middlebury(tmp_path / "raw"), tmp_path / "pack")
    assert kept(tmp_path / "pack") == {"left": torch.uint16, "right": torch.uint16, "disparity.values": torch.float32}
    pack(write_object(tmp_path / "object"), tmp_path / "lidar")
    views = {"left": torch.uint8, "right": torch.uint8}
    assert kept(tmp_path / "lidar") == {**views, "depth.places": torch.int32, "depth.values": torch.float32}


def odd_sample(**changes: object) -> StereoSample:
    """Values no file holds: levels between 8-bit ones, NaN, −0, maps that contradict each other."""
    generator = torch.Generator().manual_seed(0)
    view = torch.rand(3, 9, 11, generator=generator)
    depth = torch.rand(1, 9, 11, generator=generator)
    depth[0, 0, :4] = torch.tensor([0.0, -0.0, float("nan"), float("inf")])
    sample = StereoSample(
        view, view.flip(-1), depth, depth * 3, depth > 0.5, Camera(61.7, 62.1, 5.3, 4.1, 0.2, 1 / 3), name="odd"
    )
    return replace(sample, **changes)  # type: ignore[arg-type]


def few(*values: float) -> torch.Tensor:
    """A 1×9×11 map of these values, 0 elsewhere."""
    depth = torch.zeros(1, 9, 11)
    depth.view(-1)[: len(values)] = torch.tensor(values)
    return depth


@pytest.mark.parametrize(
    "sample",
    [
        odd_sample(),
        odd_sample(right=None, occluded=torch.arange(99).reshape(1, 9, 11) % 5 == 0),
        odd_sample(sparse_depth=torch.zeros(1, 9, 11)),
        odd_sample(depth=torch.zeros(1, 9, 11), disparity=torch.zeros(1, 9, 11), valid=torch.zeros(1, 9, 11).bool()),
        odd_sample(depth=torch.arange(99).reshape(1, 9, 11) * 4.7, sparse_depth=torch.full((1, 9, 11), 255.99609375)),
        odd_sample(depth=few(1.5, -0.0, 2.25)),
        odd_sample(depth=few(1.5, 260.5)),
        odd_sample(depth=few(1.5, 600.0)),
    ],
    ids=["contradicting", "no right", "sparse zero", "nothing known", "large", "minus zero", "above 256", "above 512"],
)  # fmt: skip
def test_what_follows_from_nothing_is_kept_as_it_is(sample: StereoSample) -> None:
    tensors, described = encode_sample(sample)
    described = json.loads(json.dumps(described))
    assert_same_bits(decode_sample(tensors.__getitem__, described), sample)
    window = Window(2, 3, 5, 7)
    assert_same_bits(decode_sample(tensors.__getitem__, described, window), sample.crop(2, 3, 5, 7))


def test_resized_frames_are_rounded_to_eight_bits_and_nothing_else(kitti: Path, tmp_path: Path) -> None:
    pack(kitti, tmp_path / "pack", size=(32, 64))
    raw, again = open_dataset(kitti), open_dataset(tmp_path / "pack")
    for i in range(len(raw)):
        expected, found = resize_sample(raw[i], 32, 64), again[i]
        assert (expected.left - found.left).abs().max() <= 0.5 / 255 + 1e-6
        assert_same_bits(replace(expected, left=found.left, right=found.right), found)
    assert kept(tmp_path / "pack")["left"] == torch.uint8


def test_crops_are_the_window_at_the_bottom_in_the_middle(kitti: Path, tmp_path: Path) -> None:
    pack(kitti, tmp_path / "pack", size=(32, 64), fit="crop")
    raw, again = open_dataset(kitti), open_dataset(tmp_path / "pack")
    for i, (height, width) in enumerate(SIZES):
        assert_same_bits(raw[i].crop(height - 32, (width - 64) // 2, 32, 64), again[i])
    with pytest.raises(InputError, match=r"000001_10: a window of 46×64 does not fit its 45×96 pixels"):
        pack(kitti, tmp_path / "other", size=(46, 64), fit="crop")


def test_training_gets_the_same_batches_from_the_pack(kitti: Path, packed: Path) -> None:
    loop = LoopConfig(steps=4, batch_size=3, workers=0, device="cpu")
    for data in (DataConfig(size=(32, 64), fit="crop"), DataConfig(size=(32, 96), fit="crop")):
        streams = [
            list(batches(open_dataset(root), data, loop, 0, ProcessGroup(), torch.device("cpu")))
            for root in (kitti, packed)
        ]
        for one, other in zip(*streams, strict=True):
            assert one.sample.name == other.sample.name
            assert torch.equal(one.sample.left, other.sample.left)
            assert torch.equal(one.sample.depth, other.sample.depth)
            assert torch.equal(one.sample.camera.cx, other.sample.camera.cx)  # type: ignore[arg-type]


class NoWholeFrames(PackedStereo):
    def __getitem__(self, index: int) -> StereoSample:
        raise AssertionError("the whole frame was read for a window of it")


def test_windows_are_read_without_the_rest_and_in_other_processes(packed: Path) -> None:
    loop = LoopConfig(steps=2, batch_size=2, workers=2, device="cpu")
    data = DataConfig(size=(32, 64), fit="crop")
    read = [b.sample.left for b in batches(NoWholeFrames(packed), data, loop, 0, ProcessGroup(), torch.device("cpu"))]
    assert [tuple(left.shape) for left in read] == [(2, 3, 32, 64)] * 2
    dataset = open_dataset(packed)
    assert_same_bits(dataset[0], pickle.loads(pickle.dumps(dataset))[0])
    loaded = next(iter(DataLoader(dataset, batch_size=2, sampler=[0, 3], num_workers=1, collate_fn=collate)))  # type: ignore[arg-type]
    assert torch.equal(loaded.left[1], dataset[3].left)


def test_kittis_window_and_splits_work_on_a_pack(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = write_kitti(tmp_path / "raw", 2)
    for file in root.rglob("*_10.png"):
        big = rng.integers(1, 256, (375, 1242, 3), dtype=np.uint8)
        cv2.imwrite(str(file), big if "image" in file.parent.name else big[..., 0].astype(np.uint16) * 37)
    pack(root, tmp_path / "pack")
    raw, again = open_dataset(root, kb_crop=True), open_dataset(tmp_path / "pack", kb_crop=True)
    assert isinstance(again, PackedStereo)
    assert_same_bits(raw[1], again[1])
    assert again.image_size(1) == (352, 1216)
    assert_same_bits(raw[1].crop(5, 6, 32, 64), again.window(1, 5, 6, 32, 64))
    pack(root, tmp_path / "cropped", kb_crop=True)
    assert_same_bits(raw[0], open_dataset(tmp_path / "cropped")[0])
    (tmp_path / "split.txt").write_text("000001_10.png\n")
    assert open_dataset(tmp_path / "pack", split=tmp_path / "split.txt").names == ["000001_10"]
    (tmp_path / "split.txt").write_text("000007_10\n")
    with pytest.raises(InputError, match=r"split\.txt.*holds no frame '000007_10'"):
        open_dataset(tmp_path / "pack", split=tmp_path / "split.txt")
    pack(root, tmp_path / "one", split=write_split(tmp_path, "000001_10"))
    assert open_dataset(tmp_path / "one").names == ["000001_10"]


def test_a_pack_is_evaluated_by_the_protocols_of_what_was_packed(kitti: Path, packed: Path, tmp_path: Path) -> None:
    for folder, expected in ((packed, "kitti2015"), (tmp_path / "small", "packed")):
        if not folder.is_dir():
            pack(kitti, folder, size=(32, 64))
        config = EvaluateConfig(checkpoint=tmp_path, data=str(folder))
        assert layout_of(config.data, config.layout, open_dataset(folder)) == expected


@pytest.mark.parametrize("camera", ["", "fx = 100\n", "fx = 100\ncx = 3\ncy = 4\n"])
def test_single_images_whose_camera_is_not_known(camera: str, tmp_path: Path) -> None:
    """Such a pack was written, and refused when it was opened: its cameras were NaN."""
    write_lists(tmp_path / "set")
    root = tmp_path / "set" / "data"
    if camera:
        (root / "camera.toml").write_text(camera)
        for part in ("train", "test"):
            (root / f"nyu2_{part}" / "kitchen" / "camera.toml").write_text(camera)
    split = root / "nyu2_train.csv"
    pack(root, tmp_path / "pack", split=split)
    before, again = open_dataset(root, split=split), open_dataset(tmp_path / "pack")
    for index in range(len(before)):
        one, other = before[index], again[index]
        assert repr(one.camera) == repr(other.camera)
        assert torch.equal(one.left, other.left)
        assert torch.equal(one.depth, other.depth)
        assert torch.equal(one.valid, other.valid)
    assert again.focal_known(again.names[0]) is bool(camera)
    if not camera:
        with pytest.raises(InputError, match=r"it needs, which p does not know: expected fx in a camera\.toml of what"):
            require_focal_lengths("it needs", again, "p")
