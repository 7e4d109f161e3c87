"""What the tests of exported files share: the libraries that are here, a command, the maps that it wrote."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from adu_depth.cli import main

HAS = {
    ".onnx": all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    ".xml": find_spec("openvino") is not None,
    ".pt2": True,
}
"""By a file's suffix: whether what writes and runs it is installed."""
needs_onnx = pytest.mark.skipif(not HAS[".onnx"], reason="pip install 'adu-depth[onnx]'")
needs_openvino = pytest.mark.skipif(not HAS[".xml"], reason="pip install 'adu-depth[openvino]'")
_NEEDS = {".onnx": (needs_onnx,), ".xml": (needs_openvino,), ".pt2": ()}


def of_file(name: str, *more: object) -> object:
    """A case of `parametrize` whose first value is a file's name: skipped where that file cannot be written."""
    return pytest.param(name, *more, marks=_NEEDS[Path(name).suffix])


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


def maps(folder: Path) -> dict[str, np.ndarray]:
    found = {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.glob("*_depth.png"))}
    assert found
    return found
