"""Split files: which frames of a data set to use, and the command that writes such files from what is on disk.

A split file has one frame a line, by the name the data set calls it (with or without the image's suffix). Empty lines
and lines that begin with # are passed over, unless a frame is called so. Layouts may understand more: kitti_eigen reads
BTS's and Monodepth2's.
"""

from __future__ import annotations

import csv
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path

from adu_depth.data.dataset import FileDataset, SeveralFrames
from adu_depth.errors import InputError
from adu_depth.files import read_name_lines, replacing
from adu_depth.folder_lock import locked
from adu_kernels.checks import plain_number

SHOWN = 3  # examples in a sentence
USES = {"train": re.compile("train|sync$"), "validation": re.compile("val$|valid"), "test": re.compile("test|eval")}
"""Words that say what frames are for; `sync` is what NYU-v2's training part is called."""


def use_split(
    dataset: FileDataset, path: str | Path, skip_missing: bool = False, *, keep_missing: bool = False
) -> None:
    """Leaves the frames that the split file names, in its order; says in `dataset.notes` what a user should know.

    Raises InputError naming file and line if a line cannot be understood, or names a frame one of whose files is not
    there; with skip_missing such frames are left out and counted, with keep_missing they stay, for who reports on them.
    InputError too if no frame remains.
    """
    names: list[str] = []
    skipped: list[str] = []
    known = frozenset(dataset.names)
    for where, line in _lines(Path(path)):
        line = line if line in known else line.strip()  # a name may begin or end with a space
        if line.startswith("#") and not _names_one(dataset, line, Path(path).name, known):
            continue
        try:
            name = line if line in known else _inside(dataset.split_entry(line, Path(path).name))
            missing = _missing(dataset, name)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        if not missing or (keep_missing and _has(dataset, name)):
            names.append(name)
        elif skip_missing:
            skipped.append(name)
        else:
            raise InputError(f"{where}: {missing} (skip_missing leaves such frames out)")
    if not names:
        raise InputError(f"{path}: no frame of {dataset.root} remains, {len(skipped)} were skipped")
    dataset.select(names)
    _note_skipped(dataset, skipped, f"{path}: ")
    if repeated := len(names) - len(set(names)):
        dataset.notes.append(f"{path}: {repeated} of {len(names)} lines repeat a frame")
    unlabelled = sum(not dataset.teaches(name) for name in names)
    if unlabelled and dataset.truth:
        dataset.notes.append(f"{path}: {unlabelled} of {len(names)} frames have no ground truth")


def use_of(name: str) -> str:
    """What a list, or a part of a data set, is for by its name: "train", "validation" or "test"; "" if it does not say,
    or says several."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    found = {use for use, wanted in USES.items() if any(wanted.match(word) for word in words)}
    return found.pop() if len(found) == 1 else ""


def leave_out_missing(dataset: FileDataset) -> None:
    """Leaves the frames whose files are all there, and notes how many were not. InputError if none is whole."""
    skipped = [name for name in dataset.names if dataset.missing(name)]
    gone = set(skipped)
    dataset.select([name for name in dataset.names if name not in gone])
    if not dataset.names:
        raise InputError(f"{dataset.root}: every frame lacks a file, such as {_missing(dataset, skipped[0])}")
    _note_skipped(dataset, skipped)


def divide(dataset: FileDataset, names: Sequence[str], validation: float, seed: int) -> tuple[list[str], list[str]]:
    """Training and validation frames, both sorted. No sequence has frames in both.

    validation: the share of frames wanted, above 0 and below 1. Sequences are drawn by `seed` while they bring the
    count nearer to that share. Where the layout names fewer than two sequences the validation part is one stretch of
    neighbouring frames, at a place drawn by `seed`: frames drawn one by one would each have its near twin in training.
    """
    validation, seed = plain_number(validation), plain_number(seed)
    if not 0 < validation < 1:
        raise InputError(f"validation must be a share above 0 and below 1, got {validation}")
    names = sorted(set(names))  # a split may repeat one, which would be on both sides of a stretch's end
    if len(names) < 2:
        raise InputError(f"{dataset.root}: {len(names)} frame cannot be divided in two")
    rng = random.Random(seed)
    wanted = min(max(round(validation * len(names)), 1), len(names) - 1)
    sequences = _by_sequence(dataset, names)
    if len(sequences) < 2:
        start = rng.randrange(len(names) - wanted + 1)
        return names[:start] + names[start + wanted :], names[start : start + wanted]
    order = list(sequences)
    rng.shuffle(order)
    held_out: list[str] = []
    for sequence in order[:-1]:
        now, then = (abs(n - wanted) for n in (len(held_out), len(held_out) + len(sequences[sequence])))
        if then < now or not held_out:
            held_out += sequences[sequence]
    gone = set(held_out)
    return [name for name in names if name not in gone], sorted(held_out)


def divide_nearly(
    dataset: FileDataset, names: Sequence[str], validation: float, seed: int
) -> tuple[list[str], list[str]]:
    """As `divide`, but where whole sequences would take more than twice the share, of few of them half of all frames,
    the validation part is the end of the longest one: to choose a checkpoint by, not to say how good it is elsewhere.
    """
    names = sorted(set(names))
    training, held_out = divide(dataset, names, validation, seed)
    wanted = max(round(plain_number(validation) * len(names)), 1)
    if len(held_out) <= 2 * wanted:
        return training, held_out
    sequences = _by_sequence(dataset, names)
    held_out = max(sequences.values(), key=len)[-wanted:]
    gone = set(held_out)
    return [name for name in names if name not in gone], held_out


def _by_sequence(dataset: FileDataset, names: Sequence[str]) -> dict[str, list[str]]:
    """The names in their order, by the sequence that they are of."""
    sequences: dict[str, list[str]] = {}
    for name in names:
        sequences.setdefault(dataset.sequence(name), []).append(name)
    return sequences


def write_splits(dataset: FileDataset, output: str | Path, validation: float, seed: int) -> dict[str, Path]:
    """Writes train.txt and val.txt of the data set's frames, as `divide` has them, into `output`; see `write_parts`."""
    return write_parts(dataset, output, *divide(dataset, dataset.names, validation, seed))


def write_parts(
    dataset: FileDataset, output: str | Path, training: Sequence[str], held_out: Sequence[str]
) -> dict[str, Path]:
    """Writes train.txt and val.txt of these of the data set's frames into `output`; returns them by part."""
    parts, written = {"train": training, "val": held_out}, {}
    for name in (name for names in parts.values() for name in names):
        if "\n" in name or name.endswith("\r"):
            raise InputError(f"{dataset.root}: the frame {name!r} cannot stand on a line of a split file: rename it")
    with locked(output, "splits"):
        for part, names in parts.items():
            written[part] = Path(output) / f"{part}.txt"
            with replacing(written[part]) as temporary:
                temporary.write_bytes(os.fsencode("".join(f"{name}\n" for name in names)))
    return written


def _lines(path: Path) -> list[tuple[str, str]]:
    numbered = ((f"{path}, line {number}", line) for number, line in enumerate(read_name_lines(path), start=1))
    return [(where, line) for where, line in numbered if line.strip()]


def _names_one(dataset: FileDataset, line: str, listed: str, known: frozenset[str]) -> bool:
    """Whether the line names a frame, as it is or as the layout writes it: a folder may be called #1."""
    try:
        return line in known or dataset.split_entry(line, listed) in known
    except SeveralFrames:  # whoever reads the line will say so
        return True
    except (InputError, csv.Error):  # a comment, in words that are no frame's
        return False


def _inside(name: str) -> str:
    """The name, if it cannot lead out of the data set's folder."""
    if name.startswith("/") or ".." in name.split("/"):
        raise InputError(f"expected a frame's name, which leads nowhere else, got {name!r}")
    return name


def _missing(dataset: FileDataset, name: str) -> str:
    """What of this frame is not there, in words; "" if all is."""
    try:
        missing = dataset.missing(name)
    except KeyError:
        return f"no frame {name!r} in {dataset.root}, whose frames are called {_some(dataset.names)}"
    return f"frame {name} lacks {', '.join(map(str, missing))}" if missing else ""


def _has(dataset: FileDataset, name: str) -> bool:
    """Whether the data set can say which files the frame needs."""
    try:
        return bool(dataset.files(name))
    except KeyError:
        return False


def _note_skipped(dataset: FileDataset, skipped: list[str], where: str = "") -> None:
    if skipped:
        dataset.notes.append(f"{where}skipped for missing files: {len(skipped)} ({_some(skipped)})")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
