"""Any damaged data file is refused by name or read right: no other exception, no hang, no memory without end."""

from __future__ import annotations

import faulthandler
import resource
import sys
import time
import warnings
from pathlib import Path

import pytest

from adu_depth.errors import InputError
from tests.data.mutations import FORMATS, mutated, path_of

FEW, MANY = 25, 3000
LONGEST = 5.0  # seconds for one file
MOST_MEMORY = 1e9  # bytes more than before


def largest_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def try_all(kind: str, count: int, folder: Path) -> tuple[int, int]:
    """How many damaged files were refused, and how many read."""
    form = FORMATS[kind]
    path = path_of(form, folder)
    path.write_bytes(form.good())
    form.read(path)  # the whole file is right
    before, refused = largest_memory(), 0
    for seed in range(count):
        path.write_bytes(mutated(form, seed))
        faulthandler.dump_traceback_later(60, exit=True)  # a hang within a decoder cannot be raised out of
        started, message = time.monotonic(), path.name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                form.read(path)
        except InputError as error:
            refused += 1
            message = str(error)
        except Exception as error:
            raise AssertionError(f"{kind}, seed {seed}: {error!r}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
        assert path.name in message, f"{kind}, seed {seed}: {message}"
        assert time.monotonic() - started < LONGEST, f"{kind}, seed {seed}"
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
