"""result.json of a row and seed: what it was trained with, and what came out. One that is there is not made again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adu_depth.ablation.cost import Cost
from adu_depth.checkpoint import list_checkpoints
from adu_depth.errors import InputError
from adu_depth.files import write_json
from adu_depth.schema import read_json
from adu_depth.training.run_folder import FREE_TO_CHANGE, differing_settings, with_defaults, with_mixed_defaults

RESULT, BEGUN, SPENT = "result.json", "begun.json", "spent.json"
WEIGHTS = "encoder_weights"
"""In what a result depends on: the digest of the file that its encoder began with."""


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
    """The result of `folder`, None where there is none yet. InputError where it, or what was begun there, is of other
    settings or data.

    defaults: the same of a run, and its teacher's, in which nothing was chosen: for what a result is too old to name.
    """
    if not (folder / RESULT).is_file():
        _require_same_begun(folder, described, defaults)
        return None
    found: Result = read_json(folder / RESULT, Result)
    _require_same(folder, "trained", (found.training, found.identity), described, defaults)
    return found


@dataclass(frozen=True)
class _Begun:
    """What a training without a result was told, and what it depends on. Its own config.json knows no frames: they are
    handed to it."""

    training: dict[str, Any]
    identity: dict[str, Any]


def begin(folder: Path, described: Described) -> None:
    """Leaves in the folder of a training what it learns from, before its first step."""
    write_json(folder / BEGUN, asdict(_Begun(*described)))


def _require_same_begun(folder: Path, described: Described, defaults: Described) -> None:
    if (folder / BEGUN).is_file():
        begun: _Begun = read_json(folder / BEGUN, _Begun)
        _require_same(folder, "begun", (begun.training, begun.identity), described, defaults)
    elif list_checkpoints(folder):
        raise InputError(
            f"{folder} holds a training that does not say what it learns from (no {BEGUN}): remove it, or name another "
            "--output"
        )


def _require_same(folder: Path, how: str, before: Described, now: Described, defaults: Described) -> None:
    filled = with_defaults(with_mixed_defaults(before[0]), defaults[0]), with_defaults(before[1], defaults[1])
    compared = _without_known_weights(filled, now)
    differing = [text for old, new in zip(*compared, strict=True) for text in differing_settings(old, new)]
    if differing:
        raise InputError(
            f"{folder} was {how} with other settings; these differ: {'; '.join(differing)}. Remove it, or name "
            "another --output"
        )


def _without_known_weights(before: Described, now: Described) -> tuple[Described, Described]:
    """Both without where the encoder's weights lie, where both know their content; else without the content, which a
    result from before it was kept cannot be asked for. Their teachers alike."""
    if WEIGHTS in before[1] and WEIGHTS in now[1]:
        before, now = _without_path(before), _without_path(now)
    else:
        before, now = _without_content(before), _without_content(now)
    if not ("teacher" in before[1] and "teacher" in now[1]):
        return before, now
    teachers = _without_known_weights(*(_teacher(described) for described in (before, now)))
    return _taught(before, teachers[0]), _taught(now, teachers[1])


def _without_path(described: Described) -> Described:
    model = {name: value for name, value in described[0].get("model", {}).items() if name != "encoder_weights"}
    return {**described[0], "model": model}, described[1]


def _without_content(described: Described) -> Described:
    return described[0], {name: value for name, value in described[1].items() if name != WEIGHTS}


def _teacher(described: Described) -> Described:
    teacher = dict(described[1]["teacher"])
    return teacher.pop("training", {}), teacher


def _taught(described: Described, teacher: Described) -> Described:
    return described[0], {**described[1], "teacher": {"training": teacher[0], **teacher[1]}}


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
