"""The folder of a training: what may be started or resumed in it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeGuard, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from adu_depth.checkpoint import list_checkpoints
from adu_depth.data.config import SourceConfig
from adu_depth.errors import InputError
from adu_depth.files import require_text_name, write_json
from adu_depth.folder_lock import locked
from adu_depth.leftovers import sweep
from adu_depth.schema import check, read_json
from adu_depth.training.config import LoopConfig
from adu_depth.training.resuming import chosen_checkpoint
from adu_depth.training.validation_config import ValidationConfig

Value = TypeVar("Value")
BEFORE: dict[str, dict[str, Any]] = {"optimizer": {"decay_norms_and_biases": True}}
"""What runs did from before a setting was there, where its default does something else."""


class _Parts(TypedDict, total=False):
    """What is read of a run's config.json before its settings are compared one by one."""

    data: dict[str, Any]
    loop: dict[str, Any]
    validation: dict[str, Any]
    extended: list[int]


@contextmanager
def only_writer(accelerator: Accelerator, folder: Path, what: str) -> Iterator[None]:
    """Keeps other processes than those of this run from writing into `folder`, see `locked`."""
    require_text_name(folder)
    share = partial(from_first, accelerator)
    with locked(folder, what, first=accelerator.is_main_process, share=share) as alone:
        for below in ("checkpoints", "validation"):
            sweep(folder / below, alone)
        yield


def from_first(accelerator: Accelerator, value: Value) -> Value:
    """What the first process of a run hands in, in every one of them."""
    shared = [value]
    if accelerator.num_processes > 1:
        broadcast_object_list(shared)
    return shared[0]


def prepare_run_folder(run: Path, config: dict[str, Any], loop: LoopConfig, defaults: dict[str, Any]) -> None:
    """Makes the run folder and its config.json; refuses to overwrite a run, or to resume another configuration.

    A setting that the run's config.json does not name is newer than the run, which did what its default does, or what
    BEFORE says.
    """
    chosen = chosen_checkpoint(run, loop)
    if chosen is None and list_checkpoints(run):
        raise InputError(
            f"run folder {run} already holds a training: go on with --loop.resume, or name another with --run"
        )
    if chosen is not None:
        before = with_mixed_defaults(settings_before(run, chosen))
        filled = with_defaults(before, with_defaults(BEFORE, defaults))
        free = places_free(before, config) | ({"loop.steps", "extended"} if is_extension(before, config) else set())
        differing = differing_settings(filled, config, free=free)
        if differing:
            advice = ""
            if shared_otherwise(filled, config):
                advice = (
                    f". Another number of processes goes on with {pairs_of_all(filled)} pairs a step of all together "
                    "(processes × loop.batch_size × loop.accumulate)"
                )
            raise InputError(f"cannot resume {run} with other settings; these differ: {'; '.join(differing)}{advice}")
    write_json(run / "config.json", config)


def settings_before(run: Path, chosen: Path) -> dict[str, Any]:
    """The configuration of the run; for a checkpoint that was copied from elsewhere, the one it was made with."""
    if chosen.absolute().parent == (run / "checkpoints").absolute() and (run / "config.json").exists():
        try:
            found: dict[str, Any] = read_json(run / "config.json")
            check(_Parts, found, run / "config.json")
        except InputError as error:  # a machine that lost power may have left it empty
            raise InputError(f"{error}; remove it, and that of {chosen} is taken") from error
        return found
    own = {**read_json(chosen / "config.json")}
    check(_Parts, own, chosen / "config.json")
    for key in ("kind", "backbone"):  # which the run's own config.json does not have
        own.pop(key, None)
    return own


def with_mixed_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """With the settings of mixed data sets that are newer than these: the run did what their defaults do."""
    data = settings.get("data")
    if not isinstance(data, dict) or not _objects(data.get("mix")):
        return settings
    newer = {f.name: f.default for f in fields(SourceConfig) if f.name in ("labels", "proxies", "scenery")}
    return {**settings, "data": {**data, "mix": [{**newer, **source} for source in data["mix"]]}}


def is_extension(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the run is what it was before but for more steps, see `as_begun`. extended: where it ended before."""
    return bool(now.get("extended") == [*before.get("extended", []), before.get("loop", {}).get("steps")])


def places_free(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """Settings that only say where something lies which the digests show to be the same."""

    def same(digest: str) -> bool:
        return before.get(digest) is not None and before[digest] == now.get(digest)

    free = set()
    if same("frames_content"):
        sources = ["data", *(f"data.mix.{number}" for number in range(len(now["data"].get("mix", ()))))]
        free |= {
            f"{source}.{place}"
            for source in sources
            for place in ("root", "layout", "split", "ground_truth", "proxies")
        }
    if same("teacher_weights"):
        free.add("teacher")
    if now.get("teacher") is None:  # nobody read it; it was not refused always
        free.add("teacher_precision")
    if shared_otherwise(before, now) and pairs_of_all(before) == pairs_of_all(now):
        free |= {"processes", "loop.batch_size", "loop.accumulate"}
    return free


def pairs_of_all(settings: dict[str, Any]) -> int:
    """The pairs of a step, of all processes together."""
    loop = settings.get("loop", {})
    if not isinstance(loop, dict):
        return 0
    counts = settings.get("processes", 1), loop.get("batch_size"), loop.get("accumulate", 1)
    return math.prod(count if isinstance(count, int) else 0 for count in counts)


def shared_otherwise(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether another number of processes is to do the steps."""
    return bool(before.get("processes", 1) != now.get("processes", 1))


# How a run is executed and watched, and what is averaged beside it, may change when it is resumed; what it learns not.
FREE_TO_CHANGE = {"run", "teacher_cache", "model.recompute_aggregation"}
FREE_TO_CHANGE |= {f"validation.{field.name}" for field in fields(ValidationConfig)}
FREE_TO_CHANGE |= {
    f"loop.{name}"
    for name in (
        *("resume", "resume_from", "workers", "prefetch", "device", "graph", "graph_several", "ema"),
        "process_timeout",
        *("log_every", "check_every", "checkpoint_every", "keep_checkpoints", "trackers"),
    )
}


def with_defaults(settings: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`settings`, and of `defaults` what they do not name, nested objects alike."""
    filled = {**defaults, **settings}
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(filled[key], dict):
            filled[key] = with_defaults(filled[key], value)
    return filled


def differing_settings(
    before: dict[str, Any], now: dict[str, Any], prefix: str = "", free: Collection[str] = ()
) -> list[str]:
    """Settings that differ between two configurations, as "name: before → now", but for those that are free to."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differing_settings(old, new, f"{name}.", free)
        elif _objects(old) and _objects(new) and len(old) == len(new):
            found += differing_settings(_numbered(old), _numbered(new), f"{name}.", free)
        elif old != new and name not in FREE_TO_CHANGE and name not in free:
            found.append(f"{name}: {old} → {new}")
    return found


def _objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether it is a list of nested settings."""
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _numbered(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {str(number): part for number, part in enumerate(parts)}
