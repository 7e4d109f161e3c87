"""Rooms to learn from, small enough for a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adu_depth.data import SyntheticStereo
from adu_depth.data.image_files import write_png16
from tests.data.trees import save_image

SIZE = (48, 64)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists as ../shared/data/indoor_rgbd has them: five frames to train on, two of test, four pictures of which two
    show the place of the test."""
    root = tmp_path_factory.mktemp("rooms")
    scenes = SyntheticStereo(11, *SIZE, seed=4)
    lists: dict[str, list[str]] = {"train.csv": [], "test.csv": [], "unlabelled.csv": []}
    for index in range(11):
        kind = "train" if index < 5 else "test" if index < 7 else "unlabelled"
        folder = {"train": "a/train", "test": "b/test"}.get(kind, "unlabelled/nyu" if index < 9 else "unlabelled/holo")
        image, depth = f"{folder}/color/{index}.png", f"{folder}/depth/{index}.png"
        save_image(root / image, scenes[index].left)
        if kind == "unlabelled":
            lists["unlabelled.csv"].append(f"{image},")
            continue
        (root / depth).parent.mkdir(exist_ok=True)
        metres = np.where(scenes[index].valid[0], scenes[index].depth[0] / 10, 0)
        write_png16(root / depth, metres, 1000)
        lists[f"{kind}.csv"].append(f"{image},{depth}")
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root
