"""torch.export's own archive (.pt2): run by torch alone, without the code of this package."""

from __future__ import annotations

import logging
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from adu_depth.errors import InputError
from adu_depth.export.extras import first_line
from adu_depth.export.note import KEY, Note, read_note
from adu_depth.export.onnx_file import Run
from adu_depth.files import require_regular, writing

MOST_NOTE = 1 << 20  # bytes


def require_writer() -> None:
    """torch is always there."""


def files(path: Path) -> tuple[Path, ...]:
    """What is written under the name: one file."""
    return (path,)


def write(program: ExportedProgram, note: Note, path: Path) -> None:
    """Writes the program as one archive, with the note beside it."""
    with writing(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own deprecated calls
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files=note.metadata())


def open_file(path: Path) -> tuple[Note, Run]:
    """The note of an archive, and what runs it. InputError where it is none of ours, or torch refuses it.

    torch takes an archive for a program that is trusted (SECURITY.md): the record is looked at before it is loaded.
    """
    require_regular(path)
    note = read_note(_record(path), path)
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.CRITICAL)  # it prints a traceback beside the exception
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.export.load(file).module()
    except Exception as error:  # a damaged archive fails anywhere in torch
        raise InputError(f"{path}: expected a torch.export archive, torch refuses it: {first_line(error)}") from None
    finally:
        logger.setLevel(before)

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        try:
            with torch.no_grad():
                found = module(*(inputs[name] for name in note.inputs))
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"{path}: torch cannot run it: {first_line(error)}") from error
        return dict(zip(note.outputs, found, strict=True))

    return note, run


def _record(path: Path) -> str | None:
    """The text of the note in an archive, None where it has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith(f"extra/{KEY}")), None)
            if name is None or archive.getinfo(name).file_size > MOST_NOTE:
                return None
            return archive.read(name).decode("utf-8")
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise InputError(f"{path}: expected a torch.export archive: {error}") from None
