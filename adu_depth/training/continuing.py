"""What a run that goes on keeps of how it was begun, whatever today's defaults are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adu_depth.training.config import LoopConfig
from adu_depth.training.resuming import chosen_checkpoint
from adu_depth.training.run_folder import BEFORE, settings_before


def as_begun(run: Path, config: dict[str, Any], loop: LoopConfig) -> tuple[dict[str, Any], list[str]]:
    """The configuration that the run goes on with, and what there is to say about it. A run that begins keeps its own.

    A setting that the run is older than, and whose default does something else than the run did, stays as it was.
    """
    chosen = chosen_checkpoint(run, loop)
    if chosen is None:
        return config, []
    before, notes = settings_before(run, chosen), []
    for part, settings in BEFORE.items():
        named = before.get(part, {})
        for name, value in settings.items():
            if isinstance(named, dict) and name not in named and config[part][name] != value:
                config = {**config, part: {**config[part], name: value}}
                notes.append(f"{run} is older than {part}.{name}: it goes on as it began, with {value}")
    return config, notes
