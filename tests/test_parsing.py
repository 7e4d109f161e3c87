"""What fields say of their place on the command line reaches tyro."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from adu_depth.arguments import Argument, Positional
from adu_depth.parsing import settings_registry
from adu_depth.schema import Range, check_ranges


@dataclass(frozen=True)
class Inner:
    count: Annotated[int, Argument(name="number", aliases=("--pieces",)), Range(1, 9)] = 3


@dataclass(frozen=True)
class Outer:
    root: Positional[Path]
    """Where it lies."""
    inner: Inner
    other: Positional[Path | None] = None
    text: Annotated[str, Argument(aliases=("-t", "--words"))] = ""


def parsed(*arguments: str) -> Outer:
    return tyro.cli(Outer, args=arguments, registry=settings_registry())


def test_by_place() -> None:
    assert parsed("here") == Outer(Path("here"), Inner())
    assert parsed("here", "there") == Outer(Path("here"), Inner(), Path("there"))


@pytest.mark.parametrize("name", ["--text", "--words", "-t"])
def test_by_another_name(name: str) -> None:
    assert parsed("here", name, "said").text == "said"


@pytest.mark.parametrize("name", ["--inner.number", "--pieces"])
def test_within_another_dataclass(name: str) -> None:
    assert parsed("here", name, "5").inner.count == 5


def test_a_renamed_field_has_its_own_name_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("here", "--inner.count", "5")
    assert "inner.count" in capsys.readouterr().err


def test_docstrings_are_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    assert "Where it lies." in capsys.readouterr().out


def test_the_schema_passes_over_it() -> None:
    check_ranges(Inner(), "")
    with pytest.raises(ValueError, match="count"):
        check_ranges(Inner(10), "")
