"""What the papers say can be followed: links, cited sections, and the README's example."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest

from adu_depth.cli import parse
from adu_depth.errors import InputError

ROOT = Path(__file__).parent.parent
FOLDERS = ("adu_kernels", "adu_depth", "bench", "tests", "scripts")
PAPERS = sorted([*ROOT.glob("*.md"), *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.md"))])


@pytest.mark.parametrize("paper", [str(p.relative_to(ROOT)) for p in PAPERS])
def test_links_lead_somewhere(paper: str) -> None:
    path = ROOT / paper
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    missing = [link for link in local if not (path.parent / link).exists()]
    assert not missing


def test_headings_that_are_linked_exist() -> None:
    for path in PAPERS:
        for link in re.findall(r"\]\(([^)\s:]*#[^)\s]+)\)", path.read_text(encoding="utf-8")):
            file, _, anchor = link.partition("#")
            target = (path.parent / file) if file else path
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            names = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in names, f"{path.relative_to(ROOT)}: {link}"


def test_cited_sections_exist() -> None:
    sections = set(re.findall(r"^## (\d+)\.", (ROOT / "adu_depth" / "METHOD.md").read_text("utf-8"), re.MULTILINE))
    cited: dict[str, set[str]] = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for first, last in re.findall(r"METHOD(?:\.md)? §(\d+)(?:–§(\d+))?", path.read_text(encoding="utf-8")):
                cited.setdefault(str(path.relative_to(ROOT)), set()).update({first, last or first})
    assert len(cited) >= 8, f"the pattern finds too little: {sorted(cited)}"
    missing = {path: found - sections for path, found in cited.items() if found - sections}
    assert not missing, f"sections {sorted(sections)}, cited and not there: {missing}"


def test_the_readme_fits_two_screens_and_its_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 90
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    (said,) = re.findall(r"^print\(.*\) +# (.*)$", example, re.MULTILINE)
    assert capsys.readouterr().out.strip() == said


def commands_of(paper: Path) -> list[str]:
    """The commands of its indented blocks, lines that go on joined, and of the first column of its tables."""
    text = paper.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^    (?:\.venv/bin/)?adu-depth ([^#\n]*)", text, re.MULTILINE)
    return [*blocks, *re.findall(r"^\| `adu-depth ([^`]*)`", text, re.MULTILINE)]


@pytest.mark.parametrize("paper", [str(p.relative_to(ROOT)) for p in PAPERS if commands_of(p)])
def test_commands_have_the_options_that_they_are_shown_with(paper: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands_of(ROOT / paper):
        words = [word for word in shlex.split(command) if not word.startswith(("$", "["))]
        try:
            with suppress(InputError):  # settings that are right or wrong by what lies in a folder
                parse(words)
        except SystemExit:
            said = capsys.readouterr().err
            assert "Value error" in said, f"adu-depth {command}\n{said}"  # such a setting again
