"""The command with settings that take seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adu_depth.cli import main

SMALL = ("--steps", 2, "--teacher-steps", 2, "--batch-size", 2, "--device", "cpu")
SCENES = (*SMALL, "--size", 32, 64, "--scenes.pairs", 4, "--scenes.held-out", 2, "--scenes.max-disparity", 16)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["ablation", *map(str, arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def light(root: Path, *more: object) -> tuple[object, ...]:
    own = ("--light.teacher-network", "light", "--light.truth-share", 0.2, "--size", 38, 50)
    return ("--preset", "light-indoor", "--data.root", root, *SMALL, *own, *more)


def table_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "table.json").read_text())
    return found
