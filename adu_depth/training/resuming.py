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


class RefusedCheckpoint(InputError):
    """A checkpoint that a run cannot go on from. whole: the newest other one that is whole."""

    def __init__(self, reason: str, run: Path, chosen: Path, whole: Path | None) -> None:
        if whole is None:
            advice = f"no other checkpoint of {run} is whole: begin anew in another folder (--run)"
        else:
            step = int(whole.name.removeprefix("step-"))
            advice = f"the newest whole checkpoint is {whole}: --loop.resume-from {step} goes on from it"
        super().__init__(f"{reason}; {advice}")
        self.reason, self.run, self.chosen, self.whole = reason, run, chosen, whole

    def __reduce__(self) -> tuple[type, tuple[str, Path, Path, Path | None]]:  # `args` is the message
        return type(self), (self.reason, self.run, self.chosen, self.whole)


@contextmanager
def without_run_settings(named: str = "") -> Iterator[None]:
    """For a command that goes on when it is given again, and whose user has no --run: where a checkpoint is refused,
    the InputError says what to remove instead. named: its loop.resume_from, if it has one and it was given."""
    try:
        yield
    except RefusedCheckpoint as refused:
        if refused.whole is None:
            again = ", without --loop.resume-from," if named else ""
            advice = (
                f"no other checkpoint of {refused.run} is whole: remove {refused.run}, and the same command{again} "
                "begins it anew"
            )
        elif named:
            raise
        else:
            advice = f"remove {refused.chosen}, and the same command goes on from {refused.whole}"
        raise InputError(f"{refused.reason}; {advice}") from refused


@contextmanager
def offering_another(run: Path, chosen: Path | None) -> Iterator[None]:
    """Where the chosen checkpoint is refused, the InputError also names the newest whole one, and how to take it."""
    try:
        yield
    except InputError as error:
        if chosen is None:  # it begins: what is refused is no checkpoint
            raise
        others = [path for path in list_checkpoints(run) if path.name != chosen.name]
        whole = next((path for path in reversed(others) if is_whole(path, (MODEL, TRAINING))), None)
        raise RefusedCheckpoint(str(error), run, chosen, whole) from error


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
