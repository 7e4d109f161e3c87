"""An operation's README opens on one screen: what it is, a call with its result, bytes, what was measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import adu_kernels
from tests.doc_examples import run_examples

KERNELS = Path(adu_kernels.__file__).parent
READMES = {path.parent.name: path for path in sorted(KERNELS.glob("*/README.md"))}
SCREEN = 50  # lines
NAMESPACE = {"torch": torch, **{name: getattr(adu_kernels, name) for name in adu_kernels.__all__}}


def opening(text: str) -> str:
    """What stands before the second heading."""
    return "# " + re.split(r"^#+ ", text, flags=re.MULTILINE)[1]


def show(example: str) -> str:
    """A block of Python as an interactive session: what is printed is what the comment behind the print says."""
    lines = []
    for line in example.splitlines():
        code, _, said = line.partition("  # ") if line.startswith("print(") else (line, "", "")
        lines += [f">>> {code}"] + [said] * bool(said) if line else []
    return "\n".join(lines) + "\n"


def session(text: str) -> str:
    """Sessions as they stand, blocks of Python as `show` writes them."""
    found, *blocks = re.split(r"```python\n", text)
    for block in blocks:
        code, _, rest = block.partition("```\n")
        found += "\n" + show(code) + "\n" + rest
    return found


def run(text: str, name: str) -> None:
    run_examples(session(text), name, NAMESPACE)


def test_every_operation_has_one() -> None:
    assert set(READMES) == {path.parent.name for path in KERNELS.glob("*/op.py")}


@pytest.mark.parametrize("name", READMES)
def test_it_opens_on_one_screen(name: str) -> None:
    first = opening(READMES[name].read_text(encoding="utf-8"))
    assert len(first.splitlines()) <= SCREEN
    assert "bytes" in first
    assert "**Measured**" in first
    assert ">>> " in session(first)


@pytest.mark.parametrize("path", [KERNELS / "README.md", *READMES.values()], ids=lambda path: path.parent.name)
def test_its_examples_give_what_they_say(path: Path) -> None:
    run(path.read_text(encoding="utf-8"), path.parent.name)


@pytest.mark.parametrize("text", ["    >>> 1 + 1\n    3\n", "```python\nx = 1\nprint(x + 1)  # 3\n```\n"])
def test_a_wrong_example_is_seen(text: str) -> None:
    with pytest.raises(AssertionError, match=r"(?s)Expected:\s+3\s+Got:\s+2"):
        run(text, "planted")
    with pytest.raises(AssertionError, match="no call with a result"):
        run("```python\nx = 1\n```\n", "planted")
