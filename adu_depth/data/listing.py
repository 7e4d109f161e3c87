"""What lies in folders, each listed once: a split file of KITTI asks for 70,000 files in a few hundred folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from adu_depth.errors import InputError


class Listing:
    """Remembers the file names of each folder it was asked about."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def names(self, folder: Path) -> frozenset[str]:
        """Names of everything in `folder`, but for links to what is not there; empty if there is no such folder.

        Raises InputError if it cannot be listed.
        """
        key = str(folder)
        if key not in self._names:
            try:
                with os.scandir(key) as entries:
                    self._names[key] = frozenset(
                        e.name for e in entries if not e.is_symlink() or os.path.exists(e.path)
                    )
            except (FileNotFoundError, NotADirectoryError):
                self._names[key] = frozenset()
            except OSError as error:
                raise InputError(f"{folder}: cannot be listed: {error.strerror or error}") from error
        return self._names[key]

    def holds(self, path: Path) -> bool:
        return path.name in self.names(path.parent)

    def find(self, folder: Path, stem: str, suffixes: Sequence[str]) -> Path | None:
        """The file `stem` with the first of `suffixes` that is there, None if there is none."""
        names = self.names(folder)
        return next((folder / (stem + suffix) for suffix in suffixes if stem + suffix in names), None)
