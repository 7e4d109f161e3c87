"""A pack that anybody made: its manifest, descriptions and tensors must agree before a pixel is decoded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adu_depth.data import open_dataset
from adu_depth.errors import InputError
from adu_depth.inference.render import write_samples
from tests.data.pack_files import pack, write_kitti
from tests.data.trees import scenes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(write_kitti(folder / "raw", 2), folder / "pack")
    return folder / "pack"


@pytest.fixture
def packed(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "pack"))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "pack.json").read_text())
    change(manifest)
    (folder / "pack.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["shards"][0].update(file="../../../etc/passwd"), r"expected the file 'shard-00000.safetensors'"),
        (lambda m: m["shards"][0].update(bytes=-1), r"shards\[0\]\.bytes: expected a whole number from 1 to"),
        (lambda m: m["shards"][0].update(names="ab"), r"shards\[0\]\.names: expected a JSON list, got str"),
        (lambda m: m["shards"][0].update(names=["a", 3]), r"shards\[0\]\.names\[1\]: expected text, got 3"),
        (lambda m: m["shards"][0].update(unlabelled=[7]), r"unlabelled: it has 2 pairs, got 7"),
        (lambda m: m["shards"][0].pop("sha256"), r"shards\[0\]\.sha256: expected text, got nothing"),
        (lambda m: m["settings"].update(size=[10**9, 10**9]), r"settings\.size\[0\]: expected .*, got 1000000000"),
        (lambda m: m["settings"].update(pairs=10**9), r"settings\.pairs: expected a whole number from 1 to 100,"),
        (lambda m: m["settings"].pop("kb_crop"), r"settings\.kb_crop: expected true or false, got nothing"),
        (lambda m: m.update(shards={}), r"shards: expected a JSON list, got object"),
        (lambda m: m["shards"][0].update(names=["a", "b"]), r"expected 2 pairs \('a', 'b'\), got"),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_manifest_that_does_not_fit(change: Callable[[dict[str, Any]], object], message: str, packed: Path) -> None:
    edit_manifest(packed, change)
    with pytest.raises(InputError, match=rf"(?s)pack\.json.*{message}|{message}"):
        open_dataset(packed)[0]


def edit_shard(folder: Path, change: Callable[[dict[str, torch.Tensor], list[dict[str, Any]]], object]) -> None:
    path = folder / "shard-00000.safetensors"
    with safe_open(path, "pt") as shard:
        marked = json.loads(shard.metadata()["samples"])
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors, marked["samples"])
    save_file(tensors, path, {"samples": json.dumps(marked)})
    edit_manifest(folder, lambda m: m["shards"][0].update(bytes=path.stat().st_size))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, s: s[0].update(size=[60_000, 60_000]), r"0\.left: expected U8 or U16 or F32 of \[3, 60000, 60000\]"),
        (lambda t, s: s[0].update(size=[48]), r"samples\[0\]\.size: expected a list of 2, got a list of 1"),
        (lambda t, s: s[0]["camera"].update(fx=0), r"samples\[0\]\.camera\.fx: expected a number from 1e-06 to "),
        (lambda t, s: s[0]["camera"].update(baseline=0), r"samples\[0\]\.camera\.baseline: expected a positive one"),
        (lambda t, s: t.update({"0.left": torch.full((3, 48, 100), torch.nan)}), r"left: expected numbers in \[0, 1\]"),
        (lambda t, s: t.update({"0.left": torch.full((3, 48, 100), 1e38)}), r"left: expected values in \[0, 1\]"),
        (lambda t, s: s[0]["camera"].update(tilt=0), r"samples\[0\]\.camera\.tilt: expected no such name"),
        (lambda t, s: s[0].update(maps={}), r"maps: expected depth or disparity, got neither"),
        (lambda t, s: s[0]["maps"]["disparity"].update(scale=7), r"scale: expected 0 or 128 or 256, got 7"),
        (lambda t, s: s.pop(), r"expected 2 pairs \(.*\), got 1 pairs"),
        (lambda t, s: t.pop("0.right"), r"lacks the tensors 0\.right"),
        (lambda t, s: t.update({"9.left": torch.zeros(1)}), r"has the tensors 9\.left of no sample"),
        (lambda t, s: t.update({"0.left": t["0.left"].to(torch.int64)}), r"0\.left: expected .*, got I64 of"),
        (lambda t, s: t.update({"0.disparity.places": t["0.disparity.places"][1:].clone()}), r"places, .* values"),
        (lambda t, s: t["0.disparity.places"].fill_(-5), r"a known pixel lies outside the 48×100 that there are"),
        (lambda t, s: t["0.disparity.places"].fill_(10**9), r"a known pixel lies outside the 48×100"),
    ],
    ids=range(16),
)  # fmt: skip
def test_a_shard_whose_parts_do_not_agree(change: Any, message: str, packed: Path) -> None:
    edit_shard(packed, change)
    with pytest.raises(InputError, match=rf"shard-00000\.safetensors: .*{message}"):
        open_dataset(packed)[0]
    with pytest.raises(InputError, match=r"shard-00000\.safetensors: ") if "pixel" not in message else _anything():
        open_dataset(packed).window(0, 3, 3, 20, 30)  # type: ignore[attr-defined]


class _anything:
    """A window of wrong places holds those that lie in it, and none elsewhere."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("role", ["depth", "disparity"])
def test_a_truth_that_is_known_is_a_number(role: str, value: float, tmp_path: Path) -> None:
    """It went into trainings and metrics as it was."""
    write_samples(scenes(2), tmp_path / "pairs", 2)
    pack(tmp_path / "pairs", tmp_path / "pack")
    open_dataset(tmp_path / "pack")[0]

    def spoil(tensors: dict[str, torch.Tensor], samples: list[dict[str, Any]]) -> None:
        samples[0]["maps"][role] = {"kind": "dense", "scale": 0}
        tensors[f"0.{role}.values"] = torch.full((1, *samples[0]["size"]), value)

    edit_shard(tmp_path / "pack", spoil)
    with pytest.raises(InputError, match=rf"safetensors: 000000: {role}: NaN or infinite where it is called known"):
        open_dataset(tmp_path / "pack")[0]


def test_a_header_larger_than_any_is_not_read(packed: Path) -> None:
    path = packed / "shard-00000.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(InputError, match=r"its header has 1,099,511,627,776 bytes, expected at most 16,000,000"):
        open_dataset(packed)[0]
