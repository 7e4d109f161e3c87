"""A packed data set: the samples of the one it was made from, bit for bit; resumable, checked, never mixed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.utils.data import DataLoader

from adu_depth.cli import main
from adu_depth.data import FileDataset, StereoSample, collate, open_dataset
from adu_depth.data.fitting import resize_sample
from adu_depth.data.image_files import write_pfm, write_png16
from adu_depth.data.packed import PackConfig, PackedStereo, run_pack
from adu_depth.data.packed.encoding import Window, decode_sample, encode_sample
from adu_depth.data.packed.shards import shard_file
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.training.batches import Place, batches
from adu_depth.training.config import DataConfig, LoopConfig

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kitti(tmp_path_factory.mktemp("kitti"))


@pytest.fixture(scope="module")
def packed(kitti: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("packed") / "pack"
    pack(kitti, output)
    return output


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


@pytest.mark.parametrize(
    "sample",
    [
        odd_sample(),
        odd_sample(right=None, occluded=torch.arange(99).reshape(1, 9, 11) % 5 == 0),
        odd_sample(sparse_depth=torch.zeros(1, 9, 11)),
        odd_sample(depth=torch.zeros(1, 9, 11), disparity=torch.zeros(1, 9, 11), valid=torch.zeros(1, 9, 11).bool()),
        odd_sample(depth=torch.arange(99).reshape(1, 9, 11) * 4.7, sparse_depth=torch.full((1, 9, 11), 255.99609375)),
    ],
    ids=["contradicting", "no right", "sparse zero", "nothing known", "large"],
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
            list(batches(open_dataset(root), data, loop, 0, Place(), torch.device("cpu"))) for root in (kitti, packed)
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
    read = [b.sample.left for b in batches(NoWholeFrames(packed), data, loop, 0, Place(), torch.device("cpu"))]
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
    pack(root, tmp_path / "one", split=_split(tmp_path, "000001_10"))
    assert open_dataset(tmp_path / "one").names == ["000001_10"]


def _split(folder: Path, *names: str) -> Path:
    path = folder / "wanted.txt"
    path.write_text("\n".join(names))
    return path


# ---- resuming, checking, refusing ----


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_stopped_packing_is_no_data_set_and_goes_on_where_it_was(kitti: Path, packed: Path, tmp_path: Path) -> None:
    opened = open_dataset(kitti)
    assert isinstance(opened, FileDataset)
    broken = write_kitti(tmp_path / "raw")
    last = broken / "training" / "image_3" / "000004_10.png"
    whole = last.read_bytes()
    last.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"000004_10\.png"):
        pack(broken, tmp_path / "pack")
    with pytest.raises(InputError, match=r"its packing was stopped after 2 shards; run the same"):
        open_dataset(tmp_path / "pack")
    (tmp_path / "pack" / ".shard-00002.safetensors.77.tmp").write_bytes(b"half")
    finished = (tmp_path / "pack" / shard_file(0)).stat().st_mtime_ns
    last.write_bytes(whole)
    said = pack(broken, tmp_path / "pack")
    assert len(said) == 2, "one shard was missing"
    assert (tmp_path / "pack" / shard_file(0)).stat().st_mtime_ns == finished
    found, expected = contents(tmp_path / "pack"), contents(packed)
    assert {n: b for n, b in found.items() if n != "pack.json"} == {
        n: b for n, b in expected.items() if n != "pack.json"
    }


def command(root: Path, output: Path) -> list[str]:
    settings = ["--pairs-per-shard", "1", "--workers", "1"]
    return [sys.executable, "-m", "adu_depth", "pack", str(root), "--output", str(output), *settings]


def test_a_killed_packing_ends_with_the_bits_of_a_whole_one(tmp_path: Path) -> None:
    """SIGKILL while shards are being written: every file there is whole, and the same command ends the work."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    root = write_kitti(tmp_path / "raw", 120)
    output = tmp_path / "pack"
    process = subprocess.Popen(command(root, output), env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(output.glob("shard-*.json"))) < 3:
        assert process.poll() is None, "the packing ended before its third shard"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (output / "pack.json").exists(), "killed too late to show anything"
    with pytest.raises(InputError, match="its packing was stopped"):
        open_dataset(output)
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("shard-*.safetensors")}
    noted = {f"{path.stem}.safetensors" for path in output.glob("shard-*.json")}
    pack(root, output, pairs_per_shard=1)
    assert all((output / name).stat().st_mtime_ns == before[name] for name in noted), "finished shards stay"
    pack(root, tmp_path / "whole", pairs_per_shard=1)
    assert contents(output) == contents(tmp_path / "whole")
    assert len(contents(output)) == 121, "nothing but the manifest and the shards is left"


def test_damage_is_found_and_mended(kitti: Path, tmp_path: Path) -> None:
    output, said = tmp_path / "pack", []
    pack(kitti, output)
    before = contents(output)
    run_pack(PackConfig(verify=output), said.append)
    assert said == [f"{output}: 3 shards, 5 pairs, all as they were written"]
    data = bytearray(before[shard_file(1)])
    data[-1] ^= 1
    (output / shard_file(1)).write_bytes(data)
    assert len(open_dataset(output)) == 5, "opening looks at sizes alone"
    with pytest.raises(InputError, match=r"1 of 3 shards are not what was written: shard-00001\.safetensors"):
        run_pack(PackConfig(verify=output), said.append)
    (output / shard_file(1)).write_bytes(data[:-1])
    with pytest.raises(InputError, match=rf"shard-00001\.safetensors has {len(data) - 1} bytes, expected {len(data)}"):
        open_dataset(output)
    (output / shard_file(1)).unlink()
    with pytest.raises(InputError, match=r"shard-00001\.safetensors is missing"):
        open_dataset(output)
    assert len(pack(kitti, output)) == 2
    assert contents(output) == before
    assert len(pack(kitti, output)) == 1, "nothing to do"
    (output / "pack.json").write_text("{")
    with pytest.raises(InputError, match=r"pack\.json: cannot be read"):
        open_dataset(output)


def test_packs_are_never_mixed(kitti: Path, packed: Path, tmp_path: Path) -> None:
    before = contents(packed)
    for changes, word in (
        ({"size": (32, 64)}, r"fit: None → resize; size: None → \[32, 64\]"),
        ({"pairs_per_shard": 3}, "pairs_per_shard: 2 → 3"),
        ({"root": write_kitti(tmp_path / "other")}, "root: "),
        ({"split": _split(tmp_path, "000000_10")}, "names: "),
    ):
        with pytest.raises(InputError, match=f"holds a pack of other settings .*{word}"):
            pack(**{"root": kitti, "output": packed, **changes})  # type: ignore[arg-type]
    assert contents(packed) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no pack"):
        pack(kitti, tmp_path / "mine")
    assert list(contents(tmp_path / "mine")) == ["thesis.txt"]


def test_the_command_packs_verifies_and_names_what_is_wrong(
    kitti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as stopped:
            main(["pack", *map(str, arguments)])
        return int(stopped.value.code or 0)

    assert run(kitti, "--output", tmp_path / "pack", "--workers", 1) == 0
    assert "5 pairs in 1 shards" in capsys.readouterr().out
    assert run("--verify", tmp_path / "pack") == 0
    assert "all as they were written" in capsys.readouterr().out
    for arguments, message in (
        ((), "name a data set's folder to pack, or a pack to look through with --verify"),
        ((kitti, "--verify", tmp_path / "pack"), "one of them"),
        (("--verify", tmp_path / "nowhere"), "no such folder, expected a pack"),
        ((tmp_path / "nowhere",), "no such folder"),
        ((kitti, "--fit", "crop"), "fit crop needs the window's --size"),
        ((kitti, "--pairs-per-shard", 0), "pairs_per_shard must be at least 1"),
    ):
        assert run(*arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())
