"""`python -m bench`: every line of the documentation is one that it takes, and an option says what is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS, parse

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = re.compile(r"python -m bench ([a-z][^`#\n]*)")


def documented() -> list[str]:
    texts = [*ROOT.glob("*.md"), *ROOT.glob("bench/**/*.md"), *ROOT.glob("adu_kernels/**/*.md")]
    return sorted({line.strip() for path in texts for line in WRITTEN.findall(path.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("line", documented())
def test_a_documented_line_is_taken(line: str) -> None:
    # NAME and W stand for what the reader puts there.
    words = [{"NAME": "cost-volume", "W": "4"}.get(word, word) for word in shlex.split(line)]
    if "--operation" in words:
        words[words.index("--operation") + 1] = "cost_volume"
    assert type(parse(words)) is BENCHMARKS[words[0]]


def test_an_option_that_may_be_repeated_takes_the_place_of_its_default() -> None:
    chosen = parse(["step-model", "--precision", "fp32", "--implementation", "kernels", "--case", "a", "--case", "b"])
    assert (chosen.precision, chosen.implementation, chosen.case) == (("fp32",), ("kernels",), ("a", "b"))


def test_old_names_are_still_taken() -> None:
    assert parse(["machine-code", "--room", "cost_volume"]).operation == "cost_volume"
    suite = parse(["cost-volume", "--size", "card"])
    assert suite.chosen_size(suite.chosen_device()) == "gpu"


def test_a_report_takes_its_files_as_the_shell_gives_them() -> None:
    assert parse(["report", "a.json", "b.json", "--output", "c"]).results == (Path("a.json"), Path("b.json"))
