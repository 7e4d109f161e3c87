"""Fixtures every test room may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_stereo() -> Path:
    """The folder of real stereo pairs; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "real_stereo"
    folder = Path(os.environ.get("ADU_REAL_STEREO", beside))
    if not folder.is_dir():
        pytest.skip(f"no real stereo pairs at {folder} (set ADU_REAL_STEREO)")
    return folder
