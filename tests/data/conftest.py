"""What the tests of packing share: a small data set, and its pack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.pack_files import pack, write_kitti


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kitti(tmp_path_factory.mktemp("kitti"))


@pytest.fixture(scope="module")
def packed(kitti: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("packed") / "pack"
    pack(kitti, output)
    return output
