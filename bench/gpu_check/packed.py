"""The one file that a check leaves: every stage's state and result, rewritten whole as they grow.

Only the standard library: it must be writable where torch is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA = 1
RESULTS, SUMMARY, LOG = "results.json", "summary.md", "gpu_check.log"
Entry = dict[str, Any]
"""name, state, code, seconds, key (what it was made from), result (the stage's own document); earlier: the entry that
it is to replace, until its own result is whole."""


class Packed:
    """`results.json` of a folder, and copies of what lies beside it in another."""

    def __init__(self, folder: Path, copies: Path | None = None, earlier: Path | None = None) -> None:
        """copies: every file is written there too. earlier: a results.json to go on from, in place of the folder's.
        ValueError: one of the two is there and none of this check's."""
        self.folder, self.copies = folder, None if copies == folder else copies
        self.tell: Callable[[str], None] = print
        self.told = False
        for place in self.places():
            place.mkdir(parents=True, exist_ok=True)
        source = folder / RESULTS if earlier is None else earlier
        found = read(source)
        if found is None and (earlier is not None or source.exists()):
            raise ValueError(f"{source}: expected a {RESULTS} of this check (schema {SCHEMA}); it is left as it is")
        self.value: dict[str, Any] = found or {"schema": SCHEMA, "calls": [], "stages": {}}

    def places(self) -> list[Path]:
        return [self.folder, *([self.copies] if self.copies else [])]

    @property
    def stages(self) -> dict[str, Entry]:
        return self.value["stages"]  # type: ignore[no-any-return]

    def begin(self, **facts: Any) -> None:
        """A call of the check begins."""
        self.value["calls"].append({"begun": datetime.now(UTC).isoformat(timespec="seconds"), **facts})
        self.save()

    def save(self) -> None:
        self.write(RESULTS, json.dumps(self.value, indent=1, ensure_ascii=False) + "\n")

    def write(self, name: str, text: str) -> None:
        """OSError where the folder itself cannot be written. Copies that cannot are told of once, and tried again."""
        replace_text(self.folder / name, text)
        if self.copies is None:
            return
        try:
            replace_text(self.copies / name, text)
        except OSError as error:
            if not self.told:
                self.told = True
                self.tell(f"{self.copies}: cannot be written: {error}; the check goes on without these copies")


def replace_text(path: Path, text: str) -> None:
    """Whole or not at all, whenever the process is killed."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read(path: Path) -> dict[str, Any] | None:
    """None where there is no file, or none of this form."""
    value = read_json(path)
    if value is None or value.get("schema") != SCHEMA or not isinstance(value.get("calls"), list):
        return None
    stages = value.get("stages")
    entries = stages.values() if isinstance(stages, dict) else [None]
    return value if all(isinstance(entry, dict) for entry in entries) else None


def read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no file, or one that a crash left half-written."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
