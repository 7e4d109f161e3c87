"""The folder of a packed data set.

DIR/pack.json                     what was packed and how, the shards, their sizes and checksums; written last
DIR/shard-00000.safetensors       some pairs: tensors named `<place>.<part>`, descriptions as JSON in the header
DIR/packing.json, shard-00000.json   only while packing, so that a stopped packing can go on: the same settings, and for
                                     each shard that is finished what pack.json will say of it

Every file appears whole or not at all. A shard counts as there if its size is the one noted when it was written; its
checksum is compared by `verify`, which reads everything. Packing again writes those shards anew whose sources changed;
the manifest goes before the first of them does, and each shard's header has a mark that the manifest must know.
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
from adu_depth.data.packed.forms import (
    DescribedSamples,
    EntrySchema,
    Manifest,
    Marked,
    Noted,
    shard_faults,
)
from adu_depth.errors import InputError
from adu_depth.files import checksum, replacing, write_json
from adu_depth.schema import check, parse_json, read_json, shown
from adu_depth.tensor_files import FLOATS, read_forms, require_header, some

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
    path.with_suffix(".json").unlink(missing_ok=True)  # from now on it would speak of another content
    tensors = {f"{place}.{part}": t for place, (parts, _) in enumerate(samples) for part, t in parts.items()}
    described = [described for _, described in samples]
    content = _content(tensors, json.dumps(described))
    with replacing(path) as temporary:
        # One text: safetensors writes several in any order, and the same pack would have other bytes each time.
        save_file(tensors, temporary, {"samples": json.dumps({"content": content, "samples": described})})
        digest, size = checksum(temporary), temporary.stat().st_size
    entry: Entry = {
        "file": path.name,
        "bytes": size,
        "sha256": digest,
        "content": content,
        "names": names,
        "sources": sources,
        "unlabelled": [place for place, known in enumerate(labelled) if not known],
    }
    write_json(path.with_suffix(".json"), entry)
    return entry


def _content(tensors: dict[str, Tensor], described: str) -> str:
    """What marks a shard as the one that the manifest means: a digest of what is in it."""
    digest = hashlib.sha256(described.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


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


def read_note(path: Path) -> dict[str, Any]:
    """What packing.json or pack.json says of the settings; InputError naming the file if it is no such note."""
    found: dict[str, Any] = read_json(path, Noted)
    return found


def read_entry(path: Path) -> Entry:
    """What the note of a finished shard says; InputError naming the file if it is no such note."""
    entry: Entry = read_json(path, EntrySchema)
    _require_place(entry, int(path.stem.rpartition("-")[2]), path)
    return entry


def _require_place(entry: Entry, number: int, source: Path) -> None:
    """InputError for an entry of another file than its own: a name could lead anywhere."""
    if entry["file"] != shard_file(number):
        raise InputError(f"{source}: shard {number}: expected the file {shard_file(number)!r}, got {entry['file']!r}")
    unknown = [place for place in entry["unlabelled"] if place >= len(entry["names"])]
    if unknown:
        raise InputError(f"{source}: {entry['file']}: unlabelled: it has {len(entry['names'])} pairs, got {unknown[0]}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What pack.json says. InputError where the packing was not finished, or is of another format."""
    if not (folder / MANIFEST).is_file():
        done = len(list(folder.glob("shard-*.json")))
        raise InputError(f"{folder}: its packing was stopped after {done} shards; run the same `adu-depth pack` again")
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InputError(f"{folder / MANIFEST}: expected format {FORMAT!r}, got {manifest.get('format')!r:.80}")
    try:
        check(Manifest, manifest, folder / MANIFEST)
        for number, entry in enumerate(manifest["shards"]):
            _require_place(entry, number, folder / MANIFEST)
    except InputError as error:
        raise InputError(f"{folder / MANIFEST} is damaged: {error}; remove the folder and pack again") from error
    listed, pairs = sum(len(entry["names"]) for entry in manifest["shards"]), manifest["settings"]["pairs"]
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


def require_same_packing(folder: Path, entries: list[Entry]) -> None:
    """InputError naming the first shard whose mark is not the one that the manifest has: it is of another packing."""
    for entry in entries:
        path = folder / entry["file"]
        _require_mark(path, _opened(path)[1], entry)


def _require_mark(path: Path, mark: str | None, entry: Entry) -> None:
    if mark != entry.get("content"):
        raise InputError(
            f"{path} is of another packing than {MANIFEST}; remove it and run the same `adu-depth pack` again to "
            "write it anew"
        )


def reopen(folder: Path) -> None:
    """Makes of a finished pack one that is being packed, of which every shard is there so far.

    Until its new manifest is written it is no data set: with the old one it would be a mixture.
    """
    if not (folder / MANIFEST).is_file():
        return
    manifest = read_manifest(folder)
    for entry in manifest["shards"]:
        write_json((folder / entry["file"]).with_suffix(".json"), entry)
    write_json(folder / PACKING, {"format": FORMAT, "settings": manifest["settings"]})
    (folder / MANIFEST).unlink()


def file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _opened(path: Path) -> tuple[Any, str | None, list[Description]]:
    """A shard's file, its mark, and what its header says of the samples; without a mark it is from before there were.

    Raises InputError naming the file if it is no shard, or describes something that is no sample.
    """
    require_header(path)
    try:
        file = safe_open(path, framework="pt")
        written = (file.metadata() or {}).get("samples", "")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a shard that can be read: {error}") from error
    kept = parse_json(written, path)
    if isinstance(kept, list):
        return file, None, check(DescribedSamples, kept, path, "samples") and kept
    return file, check(Marked, kept, path)["content"], kept["samples"]


class Shard:
    """An open shard: tensors are views of the mapped file, read page by page as they are touched.

    Raises InputError unless it is of the packing that the manifest means, its descriptions are those of the entry's
    names, and its tensors those that they speak of.
    """

    def __init__(self, folder: Path, entry: Entry) -> None:
        path, names = folder / entry["file"], entry["names"]
        self._file, mark, self.samples = _opened(path)
        _require_mark(path, mark, entry)  # it may have been packed anew since the pack was opened
        held = [sample["name"] for sample in self.samples]
        if held != list(names):
            told = [f"{len(all)} pairs ({some([shown(name) for name in all])})" for all in (names, held)]
            raise InputError(f"{path}: expected {told[0]}, got {told[1]}")
        self._forms = read_forms(path)
        wrong = shard_faults(self.samples, self._forms)
        if wrong:
            raise InputError(f"{path}: {wrong}")

    def holds_floats(self, place: int, part: str) -> bool:
        """Whether the part is there, and not kept as whole numbers."""
        form = self._forms.get(f"{place}.{part}")
        return form is not None and form.dtype in FLOATS

    def tensor(self, place: int, part: str) -> Tensor:
        found: Tensor = self._file.get_tensor(f"{place}.{part}")
        return found
