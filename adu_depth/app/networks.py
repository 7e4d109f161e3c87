"""The networks that the page offers: read when first asked for, and again where a run has a newer checkpoint."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch

from adu_depth.checkpoint import checkpoint_of, list_checkpoints
from adu_depth.errors import InputError
from adu_depth.export.opened import format_of
from adu_depth.inference.predictor import Predictor, Size
from adu_depth.terminal import printable_name

MOST_HELD = 2
"""Networks in memory at a time: the one that is looked at, and one beside it to compare with."""
RUNS = Path("runs")
_DEEPEST = 3  # folders below RUNS: `quickstart` and its like keep the runs of each seed in one folder more


class Networks:
    """Networks by the names that the page shows, in the order they were given.

    paths: whatever `adu-depth predict` takes as a network. Raises InputError where there is none, where two are one,
    and where a path holds no network: at once, not when somebody chooses it.

    Example:
        >>> Networks(["runs/nothing"], "cpu")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        adu_depth.errors.InputError: checkpoint runs/nothing does not exist: ...
    """

    def __init__(
        self, paths: Sequence[str | Path], device: torch.device | str = "auto", size: str | Size = "trained"
    ) -> None:
        if not paths:
            raise InputError("checkpoints: expected one network at least, got none")
        self._paths: dict[str, Path] = {}
        for path in map(Path, paths):
            if (name := printable_name(path)) in self._paths:
                raise InputError(f"checkpoints: expected each network once, got {path} twice")
            _file_of(path)
            self._paths[name] = path
        self._device, self._size = device, size
        self._held: OrderedDict[tuple[Path, float], Predictor] = OrderedDict()

    @property
    def names(self) -> list[str]:
        return list(self._paths)

    def get(self, name: str) -> Predictor:
        """The network of this name as its run stands now. InputError for another name, or where it cannot be read."""
        if name not in self._paths:
            raise InputError(f"network: expected one of {', '.join(self._paths)}, got {name}")
        file = _file_of(self._paths[name])
        key = file, file.stat().st_mtime
        if key not in self._held:
            while len(self._held) >= MOST_HELD:  # before another is read: a GPU may not hold three
                self._held.popitem(last=False)
            self._held[key] = Predictor.from_checkpoint(file, self._device, self._size)
        self._held.move_to_end(key)
        return self._held[key]


def runs_below(folder: Path = RUNS) -> list[Path]:
    """The runs in a folder, and in the folders in it, that hold a checkpoint; the one written last first."""
    found: list[tuple[float, Path]] = []
    for depth in range(1, _DEEPEST + 1):
        for checkpoints in folder.glob("/".join(["*"] * depth + ["checkpoints"])):
            if steps := list_checkpoints(checkpoints.parent):
                found.append((steps[-1].stat().st_mtime, checkpoints.parent))
    return [run for _, run in sorted(found, key=lambda one: (-one[0], one[1]))]


def _file_of(path: Path) -> Path:
    """The checkpoint or the exported file that a path stands for now. InputError where there is none."""
    if format_of(path) is None:
        return checkpoint_of(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected a run folder, a checkpoint or a file of `adu-depth export`")
    return path
