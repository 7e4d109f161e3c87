"""What an exported file says of the network in it: a record that stands in the file's own metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from adu_depth.errors import InputError
from adu_depth.models.padding import CELL
from adu_depth.models.ranges import MOST_LETTERS, MOST_PIXELS, Metres
from adu_depth.schema import Length, Range, check, parse_json

Precision = Literal["fp32", "fp16"]
KEY = "adu_depth"
"""The record's name in a file's metadata."""
MOST_BATCH = 256
LARGEST_SIDE = 16_384
Side = Annotated[int, Range(CELL, LARGEST_SIDE)]
Text = Annotated[str, Length(MOST_LETTERS)]

DEPTH = "float32, metres along the camera's axis"
LOG_SCALE = (
    "float32, natural log of the Laplace scale b of ln depth: the expected |ln depth − ln truth| is b, so the expected "
    "relative error of depth is about 100·exp(log_scale) percent"
)
DISPARITY = "float32, pixels: a point at column x of the left image is at x − disparity in the right"


@dataclass(frozen=True)
class Note:
    """A network in a file: what it takes, what it gives, and how its run prepared images.

    Attributes:
        kind: "teacher" takes a rectified pair, "student" one image.
        precision: what convolutions and their weights are in; inputs that are floats, and outputs, are float32.
        size: (height, width) of the images; None: any of more than 32 pixels along each side.
        batch: images a call.
        uint8: images come as bytes, B×H×W×3, and are brought to [0, 1] inside.
        pads: sides need not be multiples of 32: the network pads its images by itself.
        log_scale: whether there is an uncertainty.
        min_depth, max_depth: metres, the depths that the network was trained for.
        reference_focal: pixels; not None: depth is scaled by the camera's focal length, an input.
        trained_size, fit, short_side: of the run's images, see `adu_depth.data.config.DataConfig`.
        checkpoint: where the weights came from; in a file without the folders above the run.
        made_by: versions of what wrote the file.
        format: of this record.
    """

    kind: Literal["teacher", "student"]
    precision: Precision
    size: tuple[Side, Side] | None
    batch: Annotated[int, Range(1, MOST_BATCH)]
    uint8: bool
    pads: bool
    log_scale: bool
    min_depth: Metres
    max_depth: Metres
    reference_focal: Annotated[float, Range(0, MOST_PIXELS, above=True)] | None
    trained_size: tuple[Side, Side]
    fit: Literal["resize", "crop", "centre"]
    short_side: Annotated[int, Range(0, LARGEST_SIDE)]
    checkpoint: Text
    made_by: Text
    format: Literal[1] = 1

    @property
    def inputs(self) -> dict[str, str]:
        """What the file takes, in order: each tensor by name, with its shape and meaning."""
        batch = str(self.batch)
        height, width = ("H", "W") if self.size is None else map(str, self.size)
        cells = "" if self.size is not None else f", H and W above {CELL}"
        cells += "" if self.size is not None or self.pads else f", multiples of {CELL}"
        if self.uint8:
            image = f"{batch}×{height}×{width}×3 uint8, RGB, 0 to 255{cells}"
        else:
            image = f"{batch}×3×{height}×{width} float32, RGB in [0, 1]{cells}"
        focal = f"{batch} float32, the camera's focal length fx in pixels of this image"
        if self.kind == "teacher":
            return {
                "left": image,
                "right": f"as left, rectified: {image}",
                "focal": focal,
                "baseline": f"{batch} float32, metres between the two cameras",
                "disparity_offset": f"{batch} float32, cx of the right view minus cx of the left, pixels; 0 for most",
            }
        return {"image": image} | ({} if self.reference_focal is None else {"focal": focal})

    @property
    def outputs(self) -> dict[str, str]:
        """What the file gives, in order: each map by name, with its meaning. All are B×1×H×W."""
        given = {"depth": DEPTH}
        if self.log_scale:
            given["log_scale"] = LOG_SCALE
        if self.kind == "teacher":
            given["disparity"] = DISPARITY
        return given

    def metadata(self) -> dict[str, str]:
        """For a file's metadata: this record, and the same in words for who looks at the file without us."""
        told = {f"input.{name}": text for name, text in self.inputs.items()}
        told |= {f"output.{name}": f"{self.batch}×1×H×W {text}" for name, text in self.outputs.items()}
        record = asdict(self) | {"checkpoint": _without_folders_above(self.checkpoint)}
        return {KEY: json.dumps(record), **told}


def read_note(text: str | None, path: Path) -> Note:
    """The record of a file, from its metadata. InputError, naming the file, where there is none or a wrong one."""
    if not text:
        raise InputError(f"{path}: expected a file that `adu-depth export` wrote, got one without its record {KEY!r}")
    note: Note = check(Note, parse_json(text, path), path, KEY)
    return note


def _without_folders_above(checkpoint: str) -> str:
    """RUN/checkpoints/STEP, or a folder's own name: what lies above is of one machine, and files are passed on."""
    parts = Path(checkpoint).absolute().parts
    return "/".join(parts[-3:] if parts[-2:-1] == ("checkpoints",) else parts[-1:])
