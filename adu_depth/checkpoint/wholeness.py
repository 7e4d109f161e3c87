"""Whether a checkpoint's tensors are what was written.

state.json keeps the size and CRC-32 of each tensor file. The header that safetensors has would show a file that was cut
short, not bytes that changed on a disk or in a copy; CRC-32 shows them too, at some gigabytes a second, where SHA-256
would take as long as the writing itself. It is no protection against somebody who means to change a checkpoint.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypedDict

from adu_depth.data.config import MOST
from adu_depth.errors import InputError
from adu_depth.files import open_regular
from adu_depth.schema import Length, Range, read_json
from adu_depth.tensor_files import read_forms

STATE = "state.json"


class Sum(TypedDict):
    bytes: Annotated[int, Range(0, 2**62)]
    crc32: Annotated[int, Range(0, 2**32 - 1)]


class Standing(TypedDict):
    """How a run's validation stands. measured: what, in words. best_step: 0 before the first. since: validations since
    then, none of which was better."""

    measured: Annotated[str, Length(8192)]
    best_step: Annotated[int, Range(0, MOST)]
    best: float
    since: Annotated[int, Range(0, MOST)]


class Sums(TypedDict, total=False):
    """By name of file; checkpoints from before there were sums do not have them. validation: where there is any."""

    files: dict[str, Sum]
    validation: Standing


class State(Sums):
    """state.json."""

    step: Annotated[int, Range(1, MOST)]


def read_standing(checkpoint: Path) -> Standing | None:
    """How the validation of its run stood; None where there was none. InputError for a state.json that is none."""
    state: State = read_json(checkpoint / STATE, State)
    return state.get("validation")


def sums(folder: Path, names: Iterable[str]) -> dict[str, Sum]:
    """Sizes and sums of files just written, while they are in memory still."""
    return {name: _sum(folder / name) for name in names}


def require_unchanged(checkpoint: Path, name: str) -> None:
    """InputError where a tensor file is not what state.json says was written; nothing is known without such sums."""
    if not (checkpoint / STATE).is_file():  # weights that somebody took out of a checkpoint
        return
    state: Sums = read_json(checkpoint / STATE, Sums)
    expected = state.get("files", {}).get(name)
    if expected is None:
        return
    found = _sum(checkpoint / name)
    if found["bytes"] != expected["bytes"]:
        raise InputError(
            f"checkpoint file {checkpoint / name} is damaged: {found['bytes']:,} bytes, expected {expected['bytes']:,}"
        )
    if found != expected:
        raise InputError(
            f"checkpoint file {checkpoint / name} is damaged: its content is not what was written (CRC-32 "
            f"{found['crc32']:08x}, expected {expected['crc32']:08x})"
        )


def is_whole(checkpoint: Path, names: Iterable[str]) -> bool:
    """Whether every file is there, can be read and is unchanged."""
    try:
        read_json(checkpoint / "config.json")
        read_json(checkpoint / STATE, State)
        for name in names:
            read_forms(checkpoint / name)
            require_unchanged(checkpoint, name)
    except InputError:
        return False
    return True


def _sum(path: Path) -> Sum:
    size, crc = 0, 0
    with open_regular(path) as file:
        while block := file.read(1 << 22):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return {"bytes": size, "crc32": crc}
