"""What a run that goes on keeps of how it was begun, and how a finished one is extended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adu_depth.checkpoint.wholeness import STATE, State
from adu_depth.errors import InputError
from adu_depth.files import checksum
from adu_depth.models.light_weights import weights_file
from adu_depth.schema import read_json
from adu_depth.training.config import LoopConfig
from adu_depth.training.resuming import chosen_checkpoint, offering_another
from adu_depth.training.run_folder import BEFORE, pairs_of_all, settings_before, shared_otherwise
from adu_depth.training.schedule import learning_rate_factor


def as_begun(run: Path, config: dict[str, Any], loop: LoopConfig) -> tuple[dict[str, Any], list[str]]:
    """The configuration that the run goes on with, and what there is to say about it. A run that begins keeps its own.

    A setting that the run is older than, and whose default does something else than the run did, stays as it was. So
    does what the run started from (another run, an encoder's weights), which need not be named again. With more steps a
    finished run is extended.
    """
    chosen = chosen_checkpoint(run, loop)
    if chosen is None:
        return config, []
    before, notes = settings_before(run, chosen), []
    _require_after_extensions(run, chosen, before)
    for part, settings in BEFORE.items():
        named = before.get(part, {})
        for name, value in settings.items():
            if isinstance(named, dict) and name not in named and config[part][name] != value:
                config = {**config, part: {**config[part], name: value}}
                notes.append(f"{run} is older than {part}.{name}: it goes on as it began, with {value}")
    for name in ("init_weights", "encoder_weights_content", "extended"):
        if name in before:
            config = {**config, name: before[name]}
    if config.get("init") is None:
        config = {**config, "init": before.get("init")}
    config = _with_encoder_weights(before, config)
    notes += _given_up(run, before, config)
    ended = before["loop"].get("steps") if isinstance(before.get("loop"), dict) else None
    if isinstance(ended, int) and loop.steps > ended:
        notes.append(_extension(run, chosen, config, ended, loop.steps))
        config = {**config, "extended": [*before.get("extended", []), ended]}
    if shared_otherwise(before, config) and pairs_of_all(before) == pairs_of_all(config):
        notes.append(
            f"{run} was begun by {before.get('processes', 1)} processes and goes on by {config['processes']}: its "
            "steps have the same frames and crops, their colour changes and sums have other bits"
        )
    return config, notes


def _with_encoder_weights(before: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the place where the encoder's first weights lay, if none is named now, or one where the
    same file lies: the checkpoint has what became of them, they are not read."""
    model = before.get("model")
    was, now = model.get("encoder_weights") if isinstance(model, dict) else None, config["model"].get("encoder_weights")
    if not was or was == now:
        return config
    known = before.get("encoder_weights_content")
    if now and (known is None or checksum(weights_file(now)) != known):
        return config
    return {**config, "model": {**config["model"], "encoder_weights": was}}


def _require_after_extensions(run: Path, chosen: Path, before: dict[str, Any]) -> None:
    """InputError for a checkpoint from before the run was extended: its next steps have the rates of the shorter run,
    and the steps that are done the extended one's."""
    if not before.get("extended"):
        return
    done = _steps_done(run, chosen)
    ended = next((steps for steps in before["extended"] if done < steps), None)
    if ended is not None:
        raise InputError(
            f"cannot go on in {run} from {chosen}: it is of a run of {ended} steps, which was extended since; go on "
            f"from it in another folder (--run), with loop.steps {ended}"
        )


def _steps_done(run: Path, chosen: Path) -> int:
    with offering_another(run, chosen):
        return read_json(chosen / STATE, State)["step"]


def _given_up(run: Path, before: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """What was kept beside the weights and is kept no more, which a command may have left out unawares."""

    def ended(part: str, *names: str) -> str:
        named = before.get(part)
        found = {f"{part}.{name}": named.get(name) for name in names} if isinstance(named, dict) else {}
        given_up = any(found.values()) and not any(config[part][name] for name in names)
        return ", ".join(f"{name} {value}" for name, value in found.items() if value) if given_up else ""

    notes = []
    if was := ended("validation", "every", "every_epochs"):
        notes.append(f"{run} was validated ({was}) and now is not: its best checkpoint goes with the other old ones")
    if was := ended("loop", "ema"):
        notes.append(f"{run} had averages of its weights ({was}) and now has none: its checkpoints hold the weights")
    return notes


def _extension(run: Path, chosen: Path, config: dict[str, Any], ended: int, steps: int) -> str:
    """What is said of it. InputError where the run has not come to its end: there is none to go on from."""
    done = _steps_done(run, chosen)
    if done != ended:
        raise InputError(
            f"cannot extend {run} to loop.steps {steps}: it is one of {ended} steps, and {chosen} has done {done}; "
            f"finish it first, with loop.steps {ended}"
        )
    before, after = (_rate(config["optimizer"], *at) for at in ((ended - 1, ended), (ended, steps)))
    return (
        f"{run} is extended from {ended} to {steps} steps, by the schedule of a run of {steps}: its learning rate goes "
        f"from {before:.3g} to {after:.3g}. A run of {steps} from the beginning has other weights"
    )


def _rate(optimizer: dict[str, Any], step: int, steps: int) -> float:
    warmup_steps = round(optimizer["warmup"] * steps)
    factor = learning_rate_factor(step, steps, warmup_steps, optimizer["decay"], optimizer["power"])
    return float(factor * optimizer["learning_rate"])
