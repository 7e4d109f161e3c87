"""Any damaged data file is refused by name or read right: no other exception, no hang, no memory without end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damaged import MOST_MEMORY, largest_memory, refusal
from tests.data.mutations import FORMATS, mutated, path_of

FEW, MANY = 25, 3000


def try_all(kind: str, count: int, folder: Path) -> tuple[int, int]:
    """How many damaged files were refused, and how many read."""
    form = FORMATS[kind]
    path = path_of(form, folder)
    path.write_bytes(form.good())
    form.read(path)  # the whole file is right
    before, refused = largest_memory(), 0
    for seed in range(count):
        path.write_bytes(mutated(form, seed))
        label = f"{kind}, seed {seed}"
        message = refusal(form.read, path, label)
        refused += message is not None
        assert message is None or path.name in message, f"{label}: {message}"
    assert largest_memory() - before < MOST_MEMORY, kind
    return refused, count - refused


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    try_all(kind, FEW, tmp_path)


@pytest.mark.slow
def test_three_thousand_damaged_files(tmp_path: Path) -> None:
    each = -(-MANY // len(FORMATS))
    found = {}
    for kind in FORMATS:
        folder = tmp_path / kind.replace(" ", "_")
        folder.mkdir()
        found[kind] = try_all(kind, each, folder)
    assert sum(map(sum, found.values())) >= MANY
    print(*(f"{kind}: {refused} refused, {read} read" for kind, (refused, read) in found.items()), sep="\n")
