"""What `adu-depth export` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from adu_depth.arguments import Positional
from adu_depth.data.config import MOST_AREA
from adu_depth.errors import InputError
from adu_depth.export.note import LARGEST_SIDE, MOST_BATCH, Precision
from adu_depth.models.padding import CELL
from adu_depth.schema import Range, check_ranges

FormatName = Literal["onnx", "openvino", "torch-export"]


@dataclass(frozen=True)
class ExportConfig:
    """Write a trained network as one file that other programs run, and run that file against PyTorch.

    Tensors in, tensors out: depth in metres, the uncertainty, of a stereo teacher the disparity; their meaning stands
    in the file's metadata. The file is run on images beside PyTorch before it gets its name: what differs by more than
    the tolerance is not written. `adu-depth predict FILE` and `evaluate FILE` take it in place of a run.
    """

    checkpoint: Positional[Path]
    """A run folder (its best checkpoint where it was validated, else its newest), RUN/checkpoints/best, or a checkpoint
    folder."""
    format: FormatName = "onnx"
    """"onnx" (pip install 'adu-depth[onnx]'; for ONNX Runtime), "openvino" (pip install 'adu-depth[openvino]'; a .xml
    and a .bin), or "torch-export" (.pt2, for torch alone)."""
    output: Path | None = None
    """The file; without it runs/exports/RUN.onnx, RUN.xml or RUN.pt2, if nothing has that name yet."""
    size: tuple[int, int] | None = None
    """Height and width of the images, fixed in the file; without it the size trained at, if whole images were brought
    to it or the network is a light one, else any (--dynamic). A stereo teacher's file is always for one size."""
    dynamic: bool = False
    """Students alone: take images of any size above 32×32; light ones, whose sides are multiples of 32."""
    batch_size: Annotated[int, Range(1, MOST_BATCH)] = 1
    """Images a call."""
    precision: Precision = "fp32"
    """"fp16": convolutions and their weights in half precision, half the file; inputs and outputs stay fp32."""
    uint8: bool = False
    """Take images as bytes, B×H×W×3, 0 to 255, and bring them to [0, 1] inside."""
    images: tuple[Path, ...] = ()
    """What to compare on: data sets, folders of pictures, images. Without any two built-in scenes are rendered."""
    count: Annotated[int, Range(1, 100_000)] = 32
    """Of each data set or folder so many images at most, evenly spread over it."""
    tolerance: Annotated[float, Range(0, 1, above=True)] | None = None
    """The difference above which nothing is written, instead of fp32's 1e-4 (the largest relative difference of depth)
    or fp16's 0.01 (the mean one)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.size is None:
            return
        if self.dynamic:
            raise InputError(f"size: --dynamic is any size, got {self.size[0]}×{self.size[1]} beside it")
        height, width = self.size
        if min(self.size) < CELL or max(self.size) > LARGEST_SIDE or height * width > MOST_AREA:
            raise InputError(
                f"size: expected at least one cell of {CELL}×{CELL} pixels, sides of at most {LARGEST_SIDE:,} and "
                f"{MOST_AREA:,} pixels in all, got {height}×{width}"
            )
