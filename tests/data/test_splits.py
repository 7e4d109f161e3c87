"""Split files for any layout, and lists written from what is on disk."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.data import open_dataset
from adu_depth.data.splits import divide, divide_nearly, use_split, write_splits
from adu_depth.errors import InputError
from adu_depth.inference.render import write_samples
from adu_depth.models import MonoStudent
from adu_depth.schema import read_json
from adu_depth.training.config import DataConfig
from adu_depth.training.runs import open_samples, seen_frames, train_teacher
from adu_depth.training.teacher_outputs import cache_identity
from tests.data.pack_files import write_kitti
from tests.data.trees import scenes, write_driving_stereo, write_kitti_raw
from tests.training.tiny import LOOP, STUDENT, tiny_teacher


class Named:
    """As much of a data set as `divide` looks at."""

    root = "here"

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def sequence(self, name: str) -> str:
        return name.rpartition("/")[0]


def halves(names: list[str], validation: float, seed: int = 0) -> tuple[list[str], list[str]]:
    return divide(Named(names), names, validation, seed)  # type: ignore[arg-type]


def test_no_sequence_is_in_both_parts() -> None:
    names = [f"s{k:02d}/{i:03d}" for k in range(20) for i in range(5 + k)]
    for seed in range(5):
        train, val = halves(names, 0.2, seed)
        assert sorted(train + val) == sorted(names)
        assert not {n[:3] for n in train} & {n[:3] for n in val}
        assert 0.1 < len(val) / len(names) < 0.3
    assert halves(names, 0.2, 1) != halves(names, 0.2, 2)
    assert halves(names, 0.2, 1) == halves(names[::-1], 0.2, 1)


def test_without_sequences_the_validation_part_is_one_stretch() -> None:
    names = [f"{i:03d}" for i in range(50)]
    starts = set()
    for seed in range(8):
        train, val = halves(names, 0.1, seed)
        assert len(val) == 5
        assert sorted(train + val) == names
        first = names.index(val[0])
        assert val == names[first : first + 5]
        starts.add(first)
    assert len(starts) > 3


@pytest.mark.parametrize("names", [["a/1", "b/1"], ["a/1", "a/2"], ["a/1", "a/2", "a/3", "b/1"]])
def test_both_parts_hold_something(names: list[str]) -> None:
    for seed in range(6):
        for share in (0.01, 0.5, 0.99):
            assert all(halves(names, share, seed))


def test_of_few_sequences_the_end_of_the_longest_is_held_out() -> None:
    few = [f"a/{i:03d}" for i in range(20)] + [f"b/{i:03d}" for i in range(30)]
    train, val = divide_nearly(Named(few), few[::-1], 0.1, 0)  # type: ignore[arg-type]
    assert val == [f"b/{i:03d}" for i in range(25, 30)]
    assert train == few[:45]
    many = [f"s{k:02d}/{i:03d}" for k in range(20) for i in range(5)]
    assert divide_nearly(Named(many), many, 0.2, 3) == halves(many, 0.2, 3), "whole sequences where they fit"  # type: ignore[arg-type]
    alone = [f"{i:03d}" for i in range(50)]
    assert divide_nearly(Named(alone), alone, 0.1, 3) == halves(alone, 0.1, 3)  # type: ignore[arg-type]


def test_a_frame_that_a_split_repeats_is_in_one_part_and_once() -> None:
    names = [f"{i:03d}" for i in range(20)]
    for seed in range(8):
        for how in (divide, divide_nearly):
            twice = [name for name in names for _ in range(2)]
            assert how(Named(twice), twice, 0.23, seed) == how(Named(names), names, 0.23, seed)  # type: ignore[arg-type]


def test_shares_and_sets_that_cannot_be_divided() -> None:
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="validation must be a share above 0 and below 1"):
            halves(["a", "b"], share)
    with pytest.raises(InputError, match="1 frame cannot be divided"):
        halves(["a"], 0.5)


def test_written_lists_open_again(tmp_path: Path) -> None:
    names = write_driving_stereo(tmp_path / "set")
    written = write_splits(open_dataset(tmp_path / "set"), tmp_path / "lists", 0.5, seed=3)
    parts = {part: open_dataset(tmp_path / "set", split=path) for part, path in written.items()}
    assert sorted(parts["train"].names + parts["val"].names) == sorted(names)
    assert parts["train"].sequence(parts["train"].names[0]) != parts["val"].sequence(parts["val"].names[0])
    assert parts["val"][0].valid.any()
    drives = write_kitti_raw(tmp_path / "raw", tmp_path / "raw")
    lists = write_splits(open_dataset(tmp_path / "raw"), tmp_path / "lists", 0.5, seed=0)
    assert len(open_dataset(tmp_path / "raw", split=lists["train"])) == len(drives) / 2


def test_any_layout_takes_a_list_of_its_names(tmp_path: Path) -> None:
    write_samples(scenes(), tmp_path, 4)
    split = tmp_path / "list.txt"
    split.write_text("# two of four\n000003\n\n000001.png\n")
    dataset = open_dataset(tmp_path, split=split)
    assert [dataset[i].name for i in range(2)] == ["000003", "000001"]
    assert dataset.notes == []
    split.write_text("000001\n000001\n")
    assert open_dataset(tmp_path, split=split).notes == [f"{split}: 1 of 2 lines repeat a frame"]
    split.write_text("000001\n000009\n")
    with pytest.raises(
        InputError, match=rf"{re.escape(str(split))}, line 2: no frame '000009' in .*called 000000, 000001"
    ):
        open_dataset(tmp_path, split=split)
    (tmp_path / "right" / "000001.png").unlink()
    with pytest.raises(InputError, match=rf"line 1: frame 000001 lacks {re.escape(str(tmp_path))}/right/000001.png"):
        open_dataset(tmp_path, split=split)
    with pytest.raises(InputError, match=r"nowhere.txt: cannot be read"):
        open_dataset(tmp_path, split=tmp_path / "nowhere.txt")


def test_lists_as_windows_editors_save_them(tmp_path: Path) -> None:
    write_samples(scenes(), tmp_path, 4)
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf000003.png\r\n\r\n 000001\r\n000002")
    camera = tmp_path / "camera.toml"
    camera.write_bytes(b"\xef\xbb\xbf" + camera.read_bytes().partition(b"\n")[2].replace(b"\n", b"\r\n"))
    dataset = open_dataset(tmp_path, split=tmp_path / "list.txt")
    assert [dataset[i].name for i in range(3)] == ["000003", "000001", "000002"]
    assert dataset[0].camera.baseline == pytest.approx(0.532)


def test_odd_names_come_back_from_a_written_list(tmp_path: Path) -> None:
    write_samples(scenes(), tmp_path, 4)
    odd = ["# a", "b c [x]", "d.png", "e"]
    for side in ("left", "right"):
        for index, name in enumerate(odd):
            (tmp_path / side / f"{index:06d}.png").rename(tmp_path / side / f"{name}.png")
    written = write_splits(open_dataset(tmp_path), tmp_path / "lists", 0.5, seed=0)
    read = [name for path in written.values() for name in open_dataset(tmp_path, split=path).names]
    assert sorted(read) == odd


def test_sequences_may_be_links_to_folders_elsewhere(tmp_path: Path) -> None:
    write_samples(scenes(), tmp_path / "disk" / "a", 4)
    (tmp_path / "set" / "left").mkdir(parents=True)
    (tmp_path / "set" / "right").mkdir()
    (tmp_path / "set" / "camera.toml").write_text("fx = 100\ncx = 95\ncy = 31\nbaseline = 0.5\n")
    for side in ("left", "right"):
        (tmp_path / "set" / side / "monday").symlink_to(tmp_path / "disk" / "a" / side)
        (tmp_path / "set" / side / "round").symlink_to(tmp_path / "set" / side)  # a link back is followed once
    (tmp_path / "set" / "left" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    dataset = open_dataset(tmp_path / "set")
    assert dataset.names == [f"monday/{i:06d}" for i in range(4)]
    assert dataset[3].left.shape == scenes()[3].left.shape


def test_training_uses_the_split_and_the_teacher_cache_knows_it(tmp_path: Path) -> None:
    write_samples(scenes(), tmp_path / "set", 4)
    split = tmp_path / "list.txt"
    split.write_text("000002\n")
    data = DataConfig(root=str(tmp_path / "set"), split=str(split), size=(32, 64))
    assert len(open_samples(data, torch.device("cpu"))) == 1
    config = tiny_teacher(tmp_path / "run", data=data, loop=replace(LOOP, steps=1, batch_size=1))
    assert len(train_teacher(config)) == 1
    assert read_json(tmp_path / "run" / "config.json")["data"]["split"] == str(split)
    split.write_text("000001\n")
    with pytest.raises(InputError, match=r"other settings; these differ: frames: 1 \(sha256 .* → 1 \(sha256 "):
        train_teacher(replace(config, loop=replace(config.loop, resume=True)))
    split.write_text("000002\n")
    assert len(train_teacher(replace(config, loop=replace(config.loop, resume=True)))) == 1

    def identity() -> dict[str, object]:
        return cache_identity(MonoStudent(STUDENT), data, 1, seen_frames(open_samples(data, torch.device("cpu"))))

    torch.manual_seed(0)
    before = identity()
    split.write_text("000001\n")
    torch.manual_seed(0)
    changed = identity()
    assert {key for key in before if changed[key] != before[key]} == {"frames", "frames_content"}


@pytest.mark.parametrize("line", ["../image_2/000000_10", "/etc/passwd", "x/../000000_10", "..", "../../a.png"])
def test_a_split_leads_nowhere_else(line: str, tmp_path: Path) -> None:
    """Joined to a folder, such names opened whatever image lies there."""
    dataset = open_dataset(write_kitti(tmp_path / "raw", 2))
    (tmp_path / "split.txt").write_text(f"000000_10\n{line}\n")
    with pytest.raises(
        InputError, match=r"split\.txt, line 2: expected a frame's name, which leads nowhere else, got '"
    ):
        use_split(dataset, tmp_path / "split.txt")


def test_a_split_names_no_truth_outside_of_its_folder(tmp_path: Path) -> None:
    write_kitti_raw(tmp_path / "raw", tmp_path / "raw")
    dataset = open_dataset(tmp_path / "raw")
    (tmp_path / "split.txt").write_text(f"{dataset.names[0]} ../../secret.png 721.5\n")
    with pytest.raises(InputError, match=r"split\.txt, line 1: expected a path below the ground truth's folder, got '"):
        use_split(dataset, tmp_path / "split.txt")
    (tmp_path / "split.txt").write_text("../x/image_02/0000000005\n")
    with pytest.raises(InputError, match=r"line 1: expected a frame's name, which leads nowhere else"):
        use_split(dataset, tmp_path / "split.txt")
