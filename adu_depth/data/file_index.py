"""What lies in folders, each listed once: a split file of KITTI asks for 70,000 files in a few hundred folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from adu_depth.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


class FileIndex:
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


def images_below(folder: Path) -> list[Path]:
    """Every image file in `folder` and its folders, sorted."""
    return [path for path in files_below(folder) if is_image(path.name)]


def files_below(folder: Path) -> list[Path]:
    """Everything but folders in `folder` and its folders, sorted, but for hidden files (macOS leaves `._000001.png`)
    and links to what is not there. Empty if there is no such folder.

    Links to folders are followed, but each real folder is walked once: first under its own name, then through the
    first link to it. So neither a loop of links nor many links to one folder give a file twice.
    Raises InputError if a folder cannot be listed.
    """
    if not folder.is_dir():
        return []
    found: list[Path] = []
    seen = {_identity(folder)}
    links: list[Path] = []
    waiting = [folder]
    while waiting or links:
        if not waiting:
            links.sort()
            link = links.pop(0)
            if (real := _identity(link)) not in seen:
                seen.add(real)
                waiting.append(link)
            continue
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    path = here / entry.name
                    if entry.is_symlink():  # os.path says no to a link that leads nowhere or to itself
                        if os.path.isdir(path):
                            links.append(path)
                        elif os.path.exists(path) and not entry.name.startswith("."):
                            found.append(path)
                    elif not entry.is_dir():
                        if not entry.name.startswith("."):
                            found.append(path)
                    elif (real := _identity(path)) not in seen:
                        seen.add(real)
                        waiting.append(path)
        except OSError as error:
            raise InputError(f"{here}: cannot be listed: {error.strerror or error}") from error
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file of this name is to be taken as an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def suffixes_like(suffix: str) -> tuple[str, ...]:
    """Endings of the right image of a pair, in the order in which to look: the left one's, else any, in both cases."""
    return (suffix, *(form for known in IMAGE_SUFFIXES for form in (known, known.upper())))


def _identity(folder: Path) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino
