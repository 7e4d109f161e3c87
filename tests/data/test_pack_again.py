"""Packing again over a pack: what is half the old one and half the new one is no data set."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import cv2
import pytest

from adu_depth.data import open_dataset
from adu_depth.data.packed.shards import shard_file
from adu_depth.errors import InputError
from tests.data.pack_files import assert_same_bits, contents, pack, write_kitti
from tests.data.test_pack_resume import ROOT, command

FRAMES = 40


def change(root: Path) -> None:
    """Exchanges both views of every frame: other content in files of the same size."""
    for left in sorted((root / "training" / "image_2").iterdir()):
        right = root / "training" / "image_3" / left.name
        one, other = left.read_bytes(), right.read_bytes()
        left.write_bytes(other)
        right.write_bytes(one)


def test_a_second_packing_that_is_killed_leaves_no_mixture(tmp_path: Path) -> None:
    root, output = write_kitti(tmp_path / "raw", FRAMES), tmp_path / "pack"
    pack(root, output, pairs_per_shard=1)
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("shard-*.safetensors")}
    change(root)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(root, output), env=environment, stdout=subprocess.DEVNULL)

    def written() -> int:
        return sum((output / name).stat().st_mtime_ns != time_ for name, time_ in before.items())

    deadline = time.monotonic() + 60
    while written() < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert written() < FRAMES, "killed too late to show anything"
    with pytest.raises(InputError, match=r"its packing was stopped after \d+ shards; run the same"):
        open_dataset(output)
    pack(root, output, pairs_per_shard=1)
    pack(root, tmp_path / "whole", pairs_per_shard=1)
    assert contents(output) == contents(tmp_path / "whole")


def test_a_shard_of_another_packing_is_refused_when_the_pack_is_opened(tmp_path: Path) -> None:
    """As a copy that was stopped half-way leaves it: the size is right, the header can be read."""
    root, old, new = write_kitti(tmp_path / "raw"), tmp_path / "old", tmp_path / "new"
    pack(root, old)
    change(root)
    pack(root, new)
    for name in (shard_file(1), "pack.json"):
        mixed = tmp_path / f"mixed with {name}"
        shutil.copytree(old, mixed)
        shutil.copy(new / name, mixed / name)
        assert (mixed / shard_file(1)).stat().st_size == (new / shard_file(1)).stat().st_size
        with pytest.raises(InputError, match=r"shard-0000[01]\.safetensors is of another packing than pack\.json"):
            open_dataset(mixed)


def test_a_pack_that_is_packed_again_while_it_is_read_is_no_mixture(tmp_path: Path) -> None:
    """Shards are opened when first read: a training of hours meets new ones."""
    root, output = write_kitti(tmp_path / "raw"), tmp_path / "pack"
    pack(root, output)
    reading, before = open_dataset(output), open_dataset(root)[0]
    assert_same_bits(reading[0], before)
    change(root)
    pack(root, output)
    assert_same_bits(reading[0], before)
    with pytest.raises(InputError, match=r"shard-0000\d\.safetensors is of another packing than pack\.json"):
        reading[len(reading) - 1]


def test_a_second_packing_that_fails_says_that_it_is_unfinished_and_keeps_what_is_still_right(tmp_path: Path) -> None:
    root, output = write_kitti(tmp_path / "raw"), tmp_path / "pack"
    pack(root, output)
    first = (output / shard_file(0)).stat().st_mtime_ns
    for name, image in (("000003_10", 255), ("000004_10", None)):
        path = root / "training" / "image_2" / f"{name}.png"
        if image is None:
            path.write_bytes(path.read_bytes()[:100])
        else:
            cv2.imwrite(str(path), image - cv2.imread(str(path)))
    with pytest.raises(InputError, match="000004_10"):
        pack(root, output)
    with pytest.raises(InputError, match="its packing was stopped"):
        open_dataset(output)
    shutil.copy(root / "training" / "image_3" / "000004_10.png", root / "training" / "image_2" / "000004_10.png")
    pack(root, output)
    assert (output / shard_file(0)).stat().st_mtime_ns == first
    for index in range(5):
        assert_same_bits(open_dataset(root)[index], open_dataset(output)[index])
