"""The command `adu-depth app`: its settings, and what it says."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Annotated, Literal

from rich.console import Console

from adu_depth.app.networks import RUNS, Networks, runs_below
from adu_depth.app.server import serving
from adu_depth.arguments import Positional
from adu_depth.data.camera_file import CameraFile
from adu_depth.errors import InputError
from adu_depth.schema import Range, check_ranges


@dataclass(frozen=True)
class AppConfig:
    """Open a page on this machine (127.0.0.1): drop an image or a pair on it, see its depth.

    Shows depth in colour with its scale in metres, how sure the network is, and the points in space; a cursor over
    them reads metres. `pip install 'adu-depth[app]'`. Ctrl-C ends it.
    """

    checkpoints: Positional[tuple[Path, ...]] = ()
    """Networks to choose from, each a run, a checkpoint or a file of `adu-depth export`; without any, every run below
    runs/."""
    camera: Path | None = None
    """A camera.toml that the page begins with."""
    port: Annotated[int, Range(1, 65535)] | None = None
    """Without one, the first that is free from 7860 on."""
    size: str = "trained"
    """What networks are run at, as --size of predict."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """"auto" is CUDA where there is one."""
    open: bool = False
    """Also open it in this machine's browser."""

    def __post_init__(self) -> None:
        check_ranges(self)


def run_app(config: AppConfig, console: Console) -> None:
    """Serves the page until a signal ends it. Raises InputError where it cannot begin."""
    if config.camera is not None:  # refused here, and not when somebody presses a button
        if config.camera.suffix != ".toml":
            raise InputError(f"camera: expected a file ending in .toml, got {config.camera}")
        CameraFile(config.camera)
    paths = config.checkpoints or tuple(runs_below())
    if not paths:
        raise InputError(f"checkpoints: expected networks to choose from, got none, and no run is below {RUNS}/")
    with serving(Networks(paths, config.device, config.size), config.port, config.camera) as address:
        console.print(f"page: {address} (Ctrl-C ends it)")
        if config.open:
            webbrowser.open(address)
        Event().wait()
