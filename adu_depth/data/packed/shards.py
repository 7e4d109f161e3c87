"""The folder of a packed data set.

DIR/pack.json                     what was packed and how, the shards, their sizes and checksums; written last
DIR/shard-00000.safetensors       some pairs: tensors named `<place>.<part>`, descriptions as JSON in the header
DIR/packing.json, shard-00000.json   only while packing, so that a stopped packing can go on: the same settings, and for
                                     each shard that is finished what pack.json will say of it

Every file appears whole or not at all. A shard counts as there if its size is the one noted when it was written; its
checksum is compared by `verify`, which reads everything. Packing again writes those shards anew whose sources changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adu_depth.data.packed.encoding import Description
from adu_depth.errors import InputError
from adu_depth.files import replacing, write_json

FORMAT = "adu-depth pack 1"
MANIFEST, PACKING = "pack.json", "packing.json"
Entry = dict[str, Any]


def shard_file(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def write_shard(
    folder: Path,
    number: int,
    samples: list[tuple[dict[str, Tensor], Description]],
    names: list[str],
    labelled: list[bool],
    sources: str,
) -> Entry:
    """Writes one shard and its note; returns what the manifest says of it. sources: see `source_state`."""
    path = folder / shard_file(number)
    tensors = {f"{place}.{part}": t for place, (parts, _) in enumerate(samples) for part, t in parts.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"samples": json.dumps([described for _, described in samples])})
        digest, size = checksum(temporary), temporary.stat().st_size
    entry: Entry = {
        "file": path.name,
        "bytes": size,
        "sha256": digest,
        "names": names,
        "sources": sources,
        "unlabelled": [place for place, known in enumerate(labelled) if not known],
    }
    write_json(path.with_suffix(".json"), entry)
    return entry


def source_state(files: Iterable[Path]) -> str:
    """Sixteen hex digits over the names, sizes and times of change of files: others where one was written anew."""
    digest = hashlib.sha256()
    for path in files:
        try:
            found = path.stat()
        except OSError:  # whoever reads it will say so
            continue
        digest.update(os.fsencode(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0"))
    return digest.hexdigest()[:16]


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. InputError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def read_note(path: Path) -> dict[str, Any]:
    """A JSON object of this folder; InputError naming the file if it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_manifest(folder: Path) -> dict[str, Any]:
    """What pack.json says. InputError where the packing was not finished, or is of another format."""
    if not (folder / MANIFEST).is_file():
        done = len(list(folder.glob("shard-*.json")))
        raise InputError(f"{folder}: its packing was stopped after {done} shards; run the same `adu-depth pack` again")
    manifest = read_note(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InputError(f"{folder / MANIFEST}: expected format {FORMAT!r}, got {manifest.get('format')!r}")
    try:
        listed = sum(len(entry["names"]) for entry in manifest["shards"])
        pairs = manifest["settings"]["pairs"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged: {error!r}; remove the folder and pack again") from error
    if listed != pairs:
        told = f"{pairs} pairs, {listed} listed"
        raise InputError(f"{folder / MANIFEST} is damaged: {told}; remove the folder and pack again")
    return manifest


def require_sizes(folder: Path, entries: list[Entry]) -> None:
    """InputError naming the first shard that is missing or has another size than when it was written."""
    for entry in entries:
        found = file_size(folder / entry["file"])
        if found != entry["bytes"]:
            state = "is missing" if found is None else f"has {found} bytes, expected {entry['bytes']}"
            raise InputError(f"{folder / entry['file']} {state}; run the same `adu-depth pack` again to write it anew")


def file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


class Shard:
    """An open shard: tensors are views of the mapped file, read page by page as they are touched."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt")
            self.samples: list[Description] = json.loads(self._file.metadata()["samples"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a shard that can be read: {error!r}") from error

    def tensor(self, place: int, part: str) -> Tensor:
        found: Tensor = self._file.get_tensor(f"{place}.{part}")
        return found
