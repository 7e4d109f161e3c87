"""From a folder of your own pairs to a depth map: what the commands do, called from Python.

    python scripts/examples/own_pairs.py [FOLDER]

FOLDER: images in left/ and right/ under the same names, camera.toml, and depth/ where there is ground truth. Without
one, built-in scenes are written to a temporary folder. Trains far too little to be of use: raise STEPS.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from adu_depth.cli import command

STEPS = 4
SMALL = ["--loop.batch-size", "2", "--data.size", "64", "128"]


def adu_depth(*arguments: str | Path) -> None:
    """One command, as in a terminal."""
    print("adu-depth", *arguments)
    code = command([str(argument) for argument in arguments])
    assert code == 0, code


def main(folder: Path | None = None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if folder is None:
            folder = work / "pairs"
            adu_depth("render", "--output", folder, "--count", "4", "--size", "64", "128")
        adu_depth("doctor", folder)  # swapped views, a wrong unit or a broken file would be named here
        teacher, student = work / "teacher", work / "student"
        data = ["--data.root", str(folder)]
        adu_depth("train-teacher", *data, *SMALL, "--loop.steps", STEPS, "--run", teacher)
        adu_depth("distill", "--teacher", teacher, *data, *SMALL, "--loop.steps", STEPS, "--run", student)
        image = sorted((folder / "left").rglob("*.png"))[0]
        adu_depth("predict", student, image, "--output", work / "predictions")
        (found,) = (work / "predictions").rglob("*_depth.png")
        depth = cv2.imread(str(found), cv2.IMREAD_UNCHANGED) / 256  # KITTI's form: 16 bits, metres × 256
        print(f"{image.name}: {depth.shape[0]}×{depth.shape[1]} pixels, {np.median(depth):.1f} m in the middle")
        assert (depth > 0).all(), "a pixel without depth"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
