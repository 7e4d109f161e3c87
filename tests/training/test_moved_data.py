"""A data set, a split or a teacher that lies elsewhere by now is the same one if its digest is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch

from adu_depth.data import SyntheticStereo, open_dataset
from adu_depth.data import identity as identities
from adu_depth.data.identity import frames_digest
from adu_depth.errors import InputError
from adu_depth.inference import write_samples
from adu_depth.training.config import DataConfig
from adu_depth.training.runs import train_student, train_teacher
from tests.data.pack_files import pack
from tests.training.tiny import LOOP, SIZE, tiny_student, tiny_teacher

ONCE = replace(LOOP, steps=1)
AGAIN = replace(ONCE, resume=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with pairs, a split of two of them, and a teacher."""
    write_samples(SyntheticStereo(3, *SIZE, seed=0), tmp_path / "pairs", 3)
    (tmp_path / "split.txt").write_text("000002\n000000\n")
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=ONCE))
    return tmp_path


def student(
    place: Path, root: str = "pairs", split: str = "split.txt", teacher: str = "teacher", **more: object
) -> None:
    data = DataConfig(root=str(place / root), split=str(place / split), size=SIZE)
    settings = {"teacher": place / teacher, "data": data, "loop": AGAIN, **more}
    train_student(tiny_student(**{"run": place / "run", **settings}))  # type: ignore[arg-type]


def spoil_image(place: Path) -> None:
    """One pixel: the file may even keep its size."""
    path = place / "pairs" / "left" / "000002.png"
    image = cv2.imread(str(path))
    image[3, 5] = 255 - image[3, 5]
    cv2.imwrite(str(path), image)


def spoil_camera(place: Path) -> None:
    path = place / "pairs" / "camera.toml"
    path.write_text(path.read_text().replace("baseline = 0.", "baseline = 1."))


def spoil_split(place: Path) -> None:
    (place / "split.txt").write_text("000000\n000002\n")


def spoil_teacher(place: Path) -> None:
    shutil.rmtree(place / "teacher")
    train_teacher(tiny_teacher(place / "teacher", loop=replace(ONCE, seed=1)))


def move(place: Path) -> None:
    for name in ("pairs", "split.txt", "teacher"):
        (place / name).rename(place / f"moved {name}")


def test_a_run_goes_on_with_all_that_was_moved(place: Path) -> None:
    student(place, teacher_cache=place / "cache")
    move(place)
    moved = {"root": "moved pairs", "split": "moved split.txt", "teacher": "moved teacher"}
    student(place, **moved, teacher_cache=place / "cache")
    move_back = {name: value.removeprefix("moved ") for name, value in moved.items()}
    for value in move_back.values():
        (place / f"moved {value}").rename(place / value)
    student(place, **move_back, teacher_cache=place / "cache")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_image, r"data\.root: .*; frames_content: "),
        (spoil_camera, r"data\.root: .*; frames_content: "),
        (spoil_split, r"data\.split: .*; frames: "),
        (spoil_teacher, r"teacher: .*; teacher_weights: "),
    ],
)
def test_what_was_moved_and_changed_is_refused(spoil: Callable[[Path], None], told: str, place: Path) -> None:
    student(place)
    spoil(place)
    move(place)
    with pytest.raises(InputError, match=f"with other settings; these differ: .*{told}"):
        student(place, root="moved pairs", split="moved split.txt", teacher="moved teacher")


def test_what_changed_in_its_place_is_refused_too(place: Path) -> None:
    student(place)
    spoil_image(place)
    with pytest.raises(InputError, match=r"these differ: frames_content: "):
        student(place)


def test_a_teacher_cache_serves_the_same_pairs_elsewhere_and_no_others(place: Path) -> None:
    cache = {"teacher_cache": place / "cache"}
    student(place, **cache)
    before = {path.name: path.stat().st_mtime_ns for path in (place / "cache").iterdir()}
    shutil.copytree(place / "pairs", place / "copy")
    (place / "copy" / "depth" / "000002.png").unlink()  # supervision does not reach the outputs
    student(place, root="copy", run=place / "other", **cache)
    assert {path.name: path.stat().st_mtime_ns for path in (place / "cache").iterdir()} == before
    spoil_image(place)
    with pytest.raises(InputError, match=r"belongs to another run .*frames_content"):
        student(place, run=place / "third", **cache)


def test_a_pack_is_the_same_one_of_data_that_was_moved(place: Path) -> None:
    def packed(root: str) -> list[str]:
        return pack(place / root, place / "pack")

    packed("pairs")
    before = {path.name: path.stat().st_mtime_ns for path in (place / "pack").glob("shard-*")}
    (place / "pairs").rename(place / "moved")
    assert len(packed("moved")) == 1, "nothing to do"
    assert {path.name: path.stat().st_mtime_ns for path in (place / "pack").glob("shard-*")} == before
    (place / "moved").rename(place / "pairs")
    spoil_image(place)
    (place / "pairs").rename(place / "spoilt")
    with pytest.raises(InputError, match=r"holds a pack of other settings .*root: "):
        packed("spoilt")
    (place / "spoilt").rename(place / "moved")
    assert len(packed("moved")) == 2, "in its place, what changed is packed anew"
    one, other = open_dataset(place / "moved")[2], open_dataset(place / "pack")[2]
    assert torch.equal(one.left, other.left)


def test_a_large_data_set_is_known_by_sizes_and_as_much_content_as_there_is_time_for(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    content = identities._content
    monkeypatch.setattr(identities, "MOST_BYTES", 6000)
    monkeypatch.setattr(identities, "_content", lambda path: (read.append(path), content(path))[1])
    before = frames_digest(open_dataset(place / "pairs"))
    assert 0 < sum(path.stat().st_size for path in read) <= 6000
    last = place / "pairs" / "right" / "000001.png"
    assert last not in read
    last.write_bytes(last.read_bytes() + b"\0")
    assert frames_digest(open_dataset(place / "pairs")) != before
