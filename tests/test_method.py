"""Every section of METHOD.md that a docstring cites is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_cited_sections_exist():
    sections = set(re.findall(r"^## (\d+)\.", (ROOT / "adu_depth" / "METHOD.md").read_text(), re.MULTILINE))
    cited: dict[str, set[str]] = {}
    for folder in ("adu_kernels", "adu_depth", "bench", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for first, last in re.findall(r"METHOD(?:\.md)? §(\d+)(?:–§(\d+))?", path.read_text()):
                cited.setdefault(str(path.relative_to(ROOT)), set()).update({first, last or first})
    assert len(cited) >= 8, f"the pattern finds too little: {sorted(cited)}"
    missing = {path: found - sections for path, found in cited.items() if found - sections}
    assert not missing, f"sections {sorted(sections)}, cited and not there: {missing}"
