"""Names of files are bytes: in any encoding they are carried through, or refused by name. And links are walked once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from adu_depth.cli import COMMANDS, parse
from adu_depth.data import open_dataset
from adu_depth.data.camera_file import CameraFile
from adu_depth.data.file_index import files_below
from adu_depth.data.splits import write_splits
from adu_depth.errors import InputError
from adu_depth.files import write_json
from adu_depth.inference.render import write_samples
from adu_depth.schema import read_json
from tests.data.trees import scenes

NAMES = {
    "latin-1": b"caf\xe9",
    "gbk": "深度".encode("gbk"),
    "utf-8": "深é".encode(),
    "spaces": b" two  words ",
    "line separators": "a\u2028b\x0bc\x85".encode(),
    "hash": b"#1",
    "dots": b"a.b.c",
    "quotes": b"a'b\"c",
    "brackets": b"[a]",
}
ROLES = ("left", "right", "depth", "disparity", "sparse_depth", "occluded")


def rename_all(root: Path, name: bytes) -> None:
    for role in ROLES:
        for path in sorted((root / role).glob("*.png")):
            os.rename(path, os.fsencode(root / role) + b"/" + name + os.fsencode(path.name))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    write_samples(scenes(3), tmp_path / "pairs", 3)
    return tmp_path / "pairs"


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_in_any_encoding_goes_through_split_files(kind: str, pairs: Path, tmp_path: Path) -> None:
    rename_all(pairs, NAMES[kind])
    dataset = open_dataset(pairs, "rig")
    assert all(NAMES[kind] in os.fsencode(name) for name in dataset.names)
    written = write_splits(dataset, tmp_path / "splits", 0.34, seed=0)
    lines = written["train"].read_bytes() + written["val"].read_bytes()
    assert lines.count(NAMES[kind]) == 3, "as they are on the disk, byte by byte"
    again = open_dataset(pairs, "rig", split=written["train"])
    assert again.names == [name for name in dataset.names if name in again.names]
    assert len(again) == 2
    assert torch.equal(again[0].left, dataset[dataset.names.index(again.names[0])].left)


def test_a_split_file_of_windows_and_its_mark_are_understood(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_bytes(b"\xef\xbb\xbf000001.png\r\n\r\n000000\r\n")
    assert open_dataset(pairs, "rig", split=tmp_path / "split.txt").names == ["000001", "000000"]


def test_a_name_that_no_split_file_can_hold_is_refused(pairs: Path, tmp_path: Path) -> None:
    rename_all(pairs, b"a\nb")
    with pytest.raises(InputError, match=r"frame 'a\\nb000000' .*: rename it"):
        write_splits(open_dataset(pairs, "rig"), tmp_path, 0.34, seed=0)


def test_cameras_by_names_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "camera.toml").write_bytes(b'fx = 1\ncx = 1\ncy = 1\n# caf\xe9\n["caf\xe9"]\nfx = 2\n')
    assert CameraFile(tmp_path / "camera.toml").camera(os.fsdecode(b"caf\xe9")).fx == 2


def test_json_keeps_bytes_that_are_no_text(tmp_path: Path) -> None:
    value = {"root": os.fsdecode(b"caf\xe9"), "other": "深 é"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_commands_on_names_of_another_encoding(environment: dict[str, str], pairs: Path, tmp_path: Path) -> None:
    """doctor, splits and pack, as an archive unpacked under Latin-1 leaves the names."""
    rename_all(pairs, NAMES["latin-1"])
    script = (
        "from adu_depth.cli import COMMANDS, parse\n"
        "for line in ('doctor pairs --json d.json', 'splits pairs --output s', 'pack pairs --output packed'):\n"
        "    config = parse(line.split())\n"
        "    assert COMMANDS[type(config)](config) == 0, line\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
    )
    assert done.returncode == 0, done.stderr[-900:].decode(errors="replace")
    assert (tmp_path / "s" / "train.txt").read_bytes().count(b"caf\xe9") == 2
    packed = open_dataset(tmp_path / "packed")
    assert sorted(packed.names) == open_dataset(pairs, "rig").names
    assert torch.equal(packed[0].left, open_dataset(pairs, "rig")[0].left)


def test_each_real_folder_is_walked_once(tmp_path: Path) -> None:
    """Diamonds of links thirty deep would be a billion paths; loops would have no end."""
    for level in range(30):
        folder = tmp_path / "left" / f"{level:02d}"
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
        for link in ("x", "y"):
            (folder / link).symlink_to(f"../{level + 1:02d}")
    (tmp_path / "left" / "30").mkdir()
    (tmp_path / "left" / "30" / "up").symlink_to("..")
    (tmp_path / "left" / "itself").symlink_to("itself")
    (tmp_path / "left" / "nowhere").symlink_to("no such")
    started = time.monotonic()
    found = files_below(tmp_path / "left")
    assert [path.relative_to(tmp_path / "left").as_posix() for path in found] == [f"{n:02d}/a.png" for n in range(30)]
    assert time.monotonic() - started < 1


def test_a_folder_that_is_only_linked_is_found_under_its_first_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "left").mkdir()
    for link in ("tuesday", "monday"):
        (tmp_path / "left" / link).symlink_to("../elsewhere")
    assert files_below(tmp_path / "left") == [tmp_path / "left" / "monday" / "a.png"]


def test_a_pipe_among_images_is_refused_by_name(pairs: Path) -> None:
    (pairs / "left" / "000001.png").unlink()
    os.mkfifo(pairs / "left" / "000001.png")
    dataset = open_dataset(pairs, "rig")
    with pytest.raises(InputError, match=r"left/000001\.png: expected a regular file, got a named pipe"):
        dataset.load("000001")


@pytest.mark.parametrize(
    "command",
    [
        "train-teacher --data.root pairs --run",
        "distill --data.root pairs --run",
        "pack pairs --output",
        "quickstart --output",
        "quickstart-real --data.root pairs --output",
    ],
)
def test_a_folder_for_weights_must_have_a_name_of_text(
    command: str, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pairs.parent)
    config = parse([*command.split(), os.fsdecode(b"run\xe9")])
    with pytest.raises(InputError, match="weights cannot be kept below a name that is no UTF-8 text"):
        COMMANDS[type(config)](config)
    assert [path.name for path in pairs.parent.iterdir()] == ["pairs"]
