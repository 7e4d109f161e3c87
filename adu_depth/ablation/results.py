"""result.json of a row and seed: what it was trained with, and what came out. One that is there is not made again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adu_depth.ablation.cost import Cost
from adu_depth.errors import InputError
from adu_depth.files import write_json
from adu_depth.schema import read_json
from adu_depth.training.run_folder import FREE_TO_CHANGE, differing_settings, with_defaults

RESULT, SPENT = "result.json", "spent.json"


@dataclass(frozen=True)
class Result:
    """training: the settings of the run, without where it lies. identity: what else it depends on. seconds: of the
    training, all parts of one that was interrupted together."""

    row: str
    seed: int
    training: dict[str, Any]
    identity: dict[str, Any]
    metrics: dict[str, float]
    cost: Cost
    seconds: float
    environment: dict[str, Any] = field(default_factory=dict)


def without_places(training: dict[str, Any]) -> dict[str, Any]:
    """A run's settings without where it, its teacher and its data lie (frames are known by their content), and how it
    is executed and watched: those may change."""
    data = {name: value for name, value in training["data"].items() if name not in ("root", "layout", "split")}
    if "mix" in data:
        mix = [{k: v for k, v in s.items() if k not in ("root", "layout", "split")} for s in data["mix"]]
        data["mix"] = mix
    loop = {name: value for name, value in training["loop"].items() if f"loop.{name}" not in FREE_TO_CHANGE}
    free = (*FREE_TO_CHANGE, "teacher", "validation")
    kept = {name: value for name, value in training.items() if name not in free}
    return {**kept, "data": data, "loop": loop}


Described = tuple[dict[str, Any], dict[str, Any]]
"""What a training was told, and what else its result depends on."""


def kept_result(folder: Path, described: Described, defaults: Described) -> Result | None:
    """The result of `folder`, None where there is none yet. InputError where it is of other settings.

    defaults: the same of a run, and its teacher's, in which nothing was chosen: for what a result is too old to name.
    """
    if not (folder / RESULT).is_file():
        return None
    found: Result = read_json(folder / RESULT, Result)
    before = with_defaults(found.training, defaults[0]), with_defaults(found.identity, defaults[1])
    differing = [text for was, now in zip(before, described, strict=True) for text in differing_settings(was, now)]
    if differing:
        raise InputError(
            f"{folder} was trained with other settings; these differ: {'; '.join(differing)}. Remove it, or name "
            "another --output"
        )
    return found


@contextmanager
def clocked(folder: Path) -> Iterator[None]:
    """Adds the seconds within to those that were spent on this folder before."""
    began = time.monotonic()
    try:
        yield
    finally:
        write_json(folder / SPENT, {"seconds": round(spent(folder) + time.monotonic() - began, 1)})


def spent(folder: Path) -> float:
    if not (folder / SPENT).is_file():
        return 0.0
    return float(read_json(folder / SPENT, dict[str, float]).get("seconds", 0.0))
