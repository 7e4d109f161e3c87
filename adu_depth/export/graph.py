"""A network as other programs want it: tensors in, tensors out, captured by torch.export."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from adu_depth.errors import InputError
from adu_depth.export.extras import first_line
from adu_depth.export.note import LARGEST_SIDE, Note
from adu_depth.geometry import Camera
from adu_depth.images import from_levels
from adu_depth.models.inference_copy import inference_copy
from adu_depth.models.padding import CELL
from adu_depth.models.prediction import DepthPrediction

LEAST = CELL + 1
"""Pixels along each side of an image of any size: of one cell torch.export would keep that it is one."""
EXAMPLE = {True: (3 * CELL + 13, 5 * CELL + 7), False: (3 * CELL, 5 * CELL)}
"""The image that a graph for any size is captured with, padded inside or not: sides unlike each other."""


class TensorGraph(nn.Module):
    """What the graphs of both kinds of network have in common."""

    def __init__(self, network: nn.Module, note: Note) -> None:
        super().__init__()
        self.fp16 = note.precision == "fp16"
        self.network = inference_copy(network, torch.float16) if self.fp16 else network
        self.uint8, self.names = note.uint8, tuple(note.outputs)
        self.pads = note.size is None and note.pads

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.float16) if self.fp16 else nullcontext()

    def image(self, given: Tensor) -> Tensor:
        """B×H×W×3 bytes as B×3×H×W floats in [0, 1], floats as they are; of any size, padded to whole cells.

        `pad_to_cells` asks whether there is anything to pad; a graph for any size may not ask.
        """
        image = from_levels(given).permute(0, 3, 1, 2) if self.uint8 else given
        if self.pads:
            for side in (2, 3):
                length = image.shape[side]
                whole = torch.arange((length + CELL - 1) // CELL * CELL, device=image.device)
                image = image.index_select(side, whole.clamp(max=length - 1))
        return image

    def results(self, prediction: DepthPrediction, given: Tensor) -> tuple[Tensor, ...]:
        height, width = given.shape[1:3] if self.uint8 else given.shape[2:4]
        maps = (getattr(prediction, name).float() for name in self.names)
        if not self.pads:
            return tuple(maps)
        # Not by slices: whether one leaves anything out torch.export keeps as it is of the image that it captures with,
        # and a file then refused every side that is a multiple of a cell.
        rows, columns = (torch.arange(side, device=given.device) for side in (height, width))
        return tuple(found.index_select(2, rows).index_select(3, columns) for found in maps)


class StudentGraph(TensorGraph):
    """image, and focal (B pixels) where depth is scaled by it → depth, and log_scale where the network says one."""

    def forward(self, image: Tensor, focal: Tensor | None = None) -> tuple[Tensor, ...]:
        camera = None if focal is None else Camera(focal, focal, 0.0, 0.0, 0.0)
        with self.precision():
            return self.results(self.network(self.image(image), camera), image)


class TeacherGraph(TensorGraph):
    """left, right, and focal (pixels), baseline (metres), disparity_offset (pixels), B each → depth, log_scale,
    disparity."""

    def forward(
        self, left: Tensor, right: Tensor, focal: Tensor, baseline: Tensor, disparity_offset: Tensor
    ) -> tuple[Tensor, ...]:
        camera = Camera(focal, focal, 0.0, 0.0, baseline, disparity_offset)
        with self.precision():
            return self.results(self.network(self.image(left), self.image(right), camera), left)


def tensor_graph(network: nn.Module, note: Note) -> TensorGraph:
    """The network in eval mode, on the CPU, as a module from tensors to tensors."""
    return (TeacherGraph if note.kind == "teacher" else StudentGraph)(network, note).eval()


def capture(graph: TensorGraph, note: Note) -> ExportedProgram:
    """The graph as torch.export has it, without a kernel of ours: what is exported is the plain PyTorch references.

    Raises InputError where torch.export refuses: an encoder of `transformers` may branch on the size of its image.
    """
    height, width = note.size or EXAMPLE[note.pads]
    shape = (note.batch, height, width, 3) if note.uint8 else (note.batch, 3, height, width)
    image = torch.zeros(shape, dtype=torch.uint8 if note.uint8 else torch.float32)
    examples = {"left": image, "right": image.clone(), "image": image}
    given = tuple(examples.get(name, torch.ones(note.batch)) for name in note.inputs)
    sides: list[dict[int, Any]] | None = None
    if note.size is None:
        if note.pads:
            dims = [Dim(name, min=LEAST, max=LARGEST_SIDE) for name in ("height", "width")]
        else:
            dims = [CELL * Dim(name, min=2, max=LARGEST_SIDE // CELL) for name in ("rows", "columns")]
        first = 1 if note.uint8 else 2
        any_size = dict(zip((first, first + 1), dims, strict=True))
        sides = [any_size if name in examples else {} for name in note.inputs]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own deprecated calls
        try:
            program = torch.export.export(
                graph,
                given,
                dynamic_shapes=None if sides is None else tuple(sides),
                strict=False,
                # Of two lengths that are one whatever the image's size it asks when the graph is run: it cannot see it.
                prefer_deferred_runtime_asserts_over_guards=note.size is None,
            )
        except InputError:
            raise
        except Exception as error:  # whatever it is, the user hears which network, and what may help
            advice = "; a fixed --size may be" if note.size is None else ""
            raise InputError(
                f"{note.checkpoint}: this network cannot be exported{advice}: {first_line(error)}"
            ) from error
    _forget_lines(program)
    return program


def _forget_lines(program: ExportedProgram) -> None:
    """Takes the lines of code off that each node came from: they name folders of this machine, and files are passed
    on."""
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)
