"""Files that are there whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from adu_depth.errors import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write a file or a folder to; renames it to `path` if nothing was raised.

    A file already at `path` is replaced; a folder there is removed just before the rename. Raises InputError where
    the system refuses: no such folder can be made, no permission, a full disk.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def make_folder(path: str | Path) -> None:
    """Makes the folder that results will go to, before the work for them begins. Raises InputError if that fails."""
    with _writing(Path(path)):
        Path(path).mkdir(parents=True, exist_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN is not JSON and raises ValueError."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        elsewhere = error.filename not in (None, str(path))
        at = f"{error.filename}: " if elsewhere else ""
        raise InputError(f"cannot write {path}: {at}{error.strerror or error}") from error
    except SafetensorError as error:  # safetensors writes by itself, and tells a full disk in its own words
        raise InputError(f"cannot write {path}: {error}") from error
