"""Any damaged file of the project's own is refused by name or read right: no other exception, no hang, no memory
without end. What data sets hold has such a test in tests/data/test_mutations.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.damaged import MOST_MEMORY, largest_memory, refusal
from tests.own_files import OWN_FILES, mutated, write_all

FEW, MANY = 12, 3000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_all(folder)
    return folder


def try_all(kind: str, count: int, folder: Path) -> tuple[int, int]:
    """How many damaged files were refused, and how many read."""
    file = OWN_FILES[kind]
    path = folder / file.path
    good = path.read_bytes()
    file.read(path)  # the whole file is right
    before, refused = largest_memory(), 0
    for seed in range(count):
        path.write_bytes(mutated(good, kind, seed))
        label = f"{kind}, seed {seed}"
        message = refusal(file.read, path, label)
        if message is not None:
            refused += 1
            assert len(message) < 6100, f"{label}: {message[:300]}"
            assert path.parent.name in message, f"{label}: {message}"
    path.write_bytes(good)
    assert largest_memory() - before < MOST_MEMORY, kind
    return refused, count - refused


@pytest.mark.parametrize("kind", OWN_FILES)
def test_damaged_files(kind: str, written: Path, tmp_path: Path) -> None:
    try_all(kind, FEW, Path(shutil.copytree(written, tmp_path / "files")))


@pytest.mark.slow
def test_three_thousand_damaged_files(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "files"))
    each = -(-MANY // len(OWN_FILES))
    found = {kind: try_all(kind, each, folder) for kind in OWN_FILES}
    assert sum(map(sum, found.values())) >= MANY
    print(*(f"{kind}: {refused} refused, {read} read" for kind, (refused, read) in found.items()), sep="\n")
