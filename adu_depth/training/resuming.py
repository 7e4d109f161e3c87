"""Which checkpoint a run goes on from, and what happens to those after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adu_depth.checkpoint.folder import MODEL, TRAINING, checkpoint_path, list_checkpoints
from adu_depth.checkpoint.wholeness import STATE, is_whole
from adu_depth.errors import InputError
from adu_depth.files import remove_folder
from adu_depth.training.config import LoopConfig

ASIDE = ".aside"


def chosen_checkpoint(run: Path, loop: LoopConfig) -> Path | None:
    """The checkpoint to go on from: the one of loop.resume_from (a step, or a folder), the newest with loop.resume.

    None where the run begins. Raises InputError where the one that was named is not there.
    """
    if not loop.resume_from:
        return next(reversed(list_checkpoints(run)), None) if loop.resume else None
    named = loop.resume_from
    path = checkpoint_path(run, int(named)) if named.isdecimal() and len(named) < 19 else Path(named)
    if not (path / STATE).is_file():
        found = [str(int(known.name.removeprefix("step-"))) for known in list_checkpoints(run)]
        there = f"{run} has those of step {', '.join(found)}" if found else f"{run} has none"
        raise InputError(f"loop.resume_from {named}: no checkpoint {path}; {there}")
    return path


@contextmanager
def offering_another(run: Path, chosen: Path | None) -> Iterator[None]:
    """Where the chosen checkpoint is refused, the InputError also names the newest whole one, and how to take it."""
    try:
        yield
    except InputError as error:
        others = [path for path in list_checkpoints(run) if chosen is not None and path.name != chosen.name]
        whole = next((path for path in reversed(others) if is_whole(path, (MODEL, TRAINING))), None)
        if whole is None:
            advice = f"no other checkpoint of {run} is whole: begin anew in another folder (--run)"
        else:
            step = int(whole.name.removeprefix("step-"))
            advice = f"the newest whole checkpoint is {whole}: --loop.resume-from {step} goes on from it"
        raise InputError(f"{error}; {advice}") from error


def set_aside_newer(run: Path, step: int) -> list[Path]:
    """Renames the checkpoints of later steps, which will be done anew, to NAME.aside; returns the new names."""
    moved = []
    for path in list_checkpoints(run):
        if int(path.name.removeprefix("step-")) > step:
            aside = path.with_name(path.name + ASIDE)
            if aside.exists():
                remove_folder(aside)
            moved.append(path.rename(aside))
    return moved
