"""The examples run, and prove what they claim: each ends with an error where it does not hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.name for path in (ROOT / "scripts" / "examples").glob("*.py"))


@pytest.mark.cpu
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"}
    path = ROOT / "scripts" / "examples" / name
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


def test_there_are_three() -> None:
    assert EXAMPLES == ["new_operation.py", "own_network.py", "own_pairs.py"]
