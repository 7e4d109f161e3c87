"""A packing that was stopped goes on; what is damaged is found; packs of different settings are never mixed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from safetensors import SafetensorError

from adu_depth.cli import main
from adu_depth.data import open_dataset
from adu_depth.data.packed import shards
from adu_depth.data.packed.command import PackConfig, run_pack
from adu_depth.data.packed.shards import shard_file
from adu_depth.errors import InputError
from adu_depth.folder_lock import locked
from tests.data.pack_files import assert_same_bits, contents, pack, write_kitti, write_split

ROOT = Path(__file__).resolve().parents[2]


def test_a_stopped_packing_is_no_data_set_and_goes_on_where_it_was(packed: Path, tmp_path: Path) -> None:
    broken = write_kitti(tmp_path / "raw")
    last = broken / "training" / "image_3" / "000004_10.png"
    whole = last.read_bytes()
    last.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"000004_10\.png"):
        pack(broken, tmp_path / "pack")
    with pytest.raises(InputError, match=r"its packing was stopped after 2 shards; run the same"):
        open_dataset(tmp_path / "pack")
    for leftover in (f".shard-00002.safetensors.{2**22 + 1}.tmp", ".tmpWGWjg8"):  # ours, and safetensors' own
        (tmp_path / "pack" / leftover).write_bytes(b"half")
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
    assert len(open_dataset(output)) == 5, "opening looks at sizes and marks"
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


def test_a_shard_whose_sources_changed_is_written_anew(tmp_path: Path) -> None:
    root, output = write_kitti(tmp_path / "raw"), tmp_path / "pack"
    pack(root, output)
    left = root / "training" / "image_2" / "000003_10.png"
    cv2.imwrite(str(left), 255 - cv2.imread(str(left)))
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("shard-*")}
    assert len(pack(root, output)) == 2, "one shard, and the summary"
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("shard-*")}
    assert [name for name in after if after[name] != before[name]] == [shard_file(1)]
    assert_same_bits(open_dataset(root)[3], open_dataset(output)[3])
    run_pack(PackConfig(verify=output), lambda _: None)


def test_two_packings_never_write_into_one_folder(kitti: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with (
        locked(tmp_path / "pack", "pack"),
        pytest.raises(InputError, match=r"another process .* is writing"),
    ):
        pack(kitti, tmp_path / "pack")
    assert contents(tmp_path / "pack") == {}
    assert len(pack(kitti, tmp_path / "pack")) == 4, "the lock ended with its holder"


@pytest.mark.parametrize(
    "full",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["of the system", "of safetensors"],
)
def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    full: Exception, kitti: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(shards, "save_file", half)
        with pytest.raises(InputError, match=r"cannot write .*shard-00000\.safetensors: .*No space left on device"):
            pack(kitti, tmp_path / "pack")
    assert list(contents(tmp_path / "pack")) == ["packing.json"]
    assert len(pack(kitti, tmp_path / "pack")) == 4


def test_a_damaged_manifest_is_named(kitti: Path, packed: Path, tmp_path: Path) -> None:
    whole = json.loads((packed / "pack.json").read_text())
    output = tmp_path / "pack"
    shutil.copytree(packed, output)
    for damaged in ({**whole, "shards": whole["shards"][:1]}, {k: v for k, v in whole.items() if k != "shards"}):
        (output / "pack.json").write_text(json.dumps(damaged))
        for use in (lambda: open_dataset(output), lambda: pack(kitti, output)):
            with pytest.raises(InputError, match=r"pack\.json is damaged: .*remove the folder and pack again"):
                use()


def changed_kitti(root: Path) -> Path:
    """The same frames by name, one with other views."""
    write_kitti(root)
    left = root / "training" / "image_2" / "000003_10.png"
    cv2.imwrite(str(left), 255 - cv2.imread(str(left)))
    return root


def test_packs_are_never_mixed(kitti: Path, packed: Path, tmp_path: Path) -> None:
    before = contents(packed)
    for changes, word in (
        ({"size": (32, 64)}, r"fit: None → resize; size: None → \[32, 64\]"),
        ({"pairs_per_shard": 3}, "pairs_per_shard: 2 → 3"),
        ({"root": changed_kitti(tmp_path / "other")}, "root: "),
        ({"split": write_split(tmp_path, "000000_10")}, "names: "),
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
