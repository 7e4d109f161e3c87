"""An exported file as a network: what `predict` and `evaluate` take in place of a run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from adu_depth.errors import InputError
from adu_depth.export import onnx_file, openvino_file, torch_export_file
from adu_depth.export.note import Note
from adu_depth.export.onnx_file import Run
from adu_depth.geometry import Camera
from adu_depth.models.padding import CELL
from adu_depth.models.prediction import DepthPrediction

FORMATS: dict[str, ModuleType] = {"onnx": onnx_file, "openvino": openvino_file, "torch-export": torch_export_file}
"""By the name that the command line has for it: `require_writer`, `files`, `write`, `open_file`; `is_ours`
where `files` are several."""
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
LEVELS = 255.0
ROUNDING = 1e-3
"""Of a level of 255: farther from a whole one than float32 brings it, an image did not come as bytes."""


def format_of(path: str | Path) -> str | None:
    """Which format a path is of by its suffix, None of a run or a checkpoint."""
    path = Path(path)
    found = next((name for name, suffix in SUFFIXES.items() if path.suffix.lower() == suffix), None)
    return None if path.is_dir() else found


class ExportedNetwork(nn.Module):
    """A file's network, called as the one that it was made from, on the CPU.

    Images of any number: the file's batch after batch, the last one filled up with its last image.
    """

    def __init__(self, path: Path, note: Note, run: Run) -> None:
        super().__init__()
        self.path, self.config, self._run = path, note, run

    def forward(self, *given: Any) -> DepthPrediction:
        """left and right of a pair, or image, B×3×H×W floats in [0, 1]; then the camera (batched) or None.

        Raises InputError for images of a size that the file is not for, and for a camera that is missing.
        """
        *views, camera = given
        height, width = views[0].shape[-2:]
        self._require_size(height, width)
        inputs = dict(zip(self.config.inputs, (self._as_taken(view) for view in views), strict=False))
        inputs |= self._numbers(camera, len(views[0]))
        maps = self._batches(inputs)
        return DepthPrediction(maps["depth"], maps.get("log_scale"), (), maps.get("disparity"))

    def _require_size(self, height: int, width: int) -> None:
        note = self.config
        if note.size is not None and (height, width) != note.size:
            raise InputError(
                f"{self.path}: expected images of {note.size[0]}×{note.size[1]}, which the file is for, got "
                f"{height}×{width}; export with --dynamic for any size"
            )
        if note.size is None and not note.pads and (height % CELL or width % CELL):
            raise InputError(
                f"{self.path}: expected images whose sides are multiples of {CELL} pixels, got {height}×{width}; "
                f"export with --size {height} {width}"
            )
        if note.size is None and min(height, width) <= CELL:
            raise InputError(
                f"{self.path}: expected images larger than one cell of {CELL}×{CELL} along both sides, got "
                f"{height}×{width}; export with --size {height} {width}"
            )

    def _as_taken(self, view: Tensor) -> Tensor:
        """The images as the file takes them: as they are, or as bytes."""
        if not self.config.uint8:
            return view.float()
        levels = view.float() * LEVELS
        whole = levels.round()
        if bool(((levels - whole).abs() > ROUNDING).any()) or bool((whole < 0).any()) or bool((whole > LEVELS).any()):
            raise InputError(
                f"{self.path}: it takes images of 8 bits, and these are none, or were resized: expected images of the "
                "file's own size, or a file that was exported without --uint8"
            )
        return whole.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _numbers(self, camera: Camera | None, count: int) -> dict[str, Tensor]:
        names = {"focal": "fx", "baseline": "baseline", "disparity_offset": "disparity_offset"}
        wanted = {name: of for name, of in names.items() if name in self.config.inputs}
        if not wanted:
            return {}
        if camera is None:
            raise InputError(f"camera: {self.path} needs {', '.join(wanted)} of the images' camera, got None")
        return {
            name: torch.as_tensor(getattr(camera, of), dtype=torch.float32).reshape(-1).expand(count).contiguous()
            for name, of in wanted.items()
        }

    def _batches(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        batch, count = self.config.batch, len(next(iter(inputs.values())))
        found: list[dict[str, Tensor]] = []
        for first in range(0, count, batch):
            part = {name: value[first : first + batch] for name, value in inputs.items()}
            lacking = batch - len(next(iter(part.values())))
            if lacking:
                part = {n: torch.cat([v, v[-1:].expand(lacking, *v.shape[1:])]) for n, v in part.items()}
            found.append({name: value[: batch - lacking] for name, value in self._run(part).items()})
        return {name: torch.cat([part[name] for part in found]) for name in self.config.outputs}


def open_exported(path: str | Path) -> ExportedNetwork:
    """The network of an exported file. InputError where it is not there, damaged, none of ours, or needs a library that
    is not installed."""
    path, name = Path(path), format_of(path)
    if name is None:
        raise InputError(f"{path}: expected a file ending in {' or '.join(SUFFIXES.values())}")
    note, run = FORMATS[name].open_file(path)
    return ExportedNetwork(path, note, run)
