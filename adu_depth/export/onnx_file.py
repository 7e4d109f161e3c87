"""ONNX: written by torch.onnx from the captured graph, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from adu_depth.errors import InputError
from adu_depth.export.extras import MOST_BYTES, first_line, needed, quiet
from adu_depth.export.note import KEY, Note, read_note
from adu_depth.files import read_bytes, writing

Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]
EXTRA = "onnx"
OPSET = 20


def require_writer() -> None:
    """InputError where what writes and runs ONNX is not installed."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        needed(module, EXTRA, "--format onnx")


def files(path: Path) -> tuple[Path, ...]:
    """What is written under the name: one file."""
    return (path,)


def write(program: ExportedProgram, note: Note, path: Path) -> None:
    """Writes the program as one ONNX file with the note in its metadata. InputError where torch.onnx cannot."""
    require_writer()
    try:
        with quiet():
            converted = torch.onnx.export(
                with_staged_norms(program),
                dynamo=True,
                opset_version=OPSET,
                output_names=list(note.outputs),
                verbose=False,
            )
        assert converted is not None
        converted.model.producer_name = "adu-depth"
        converted.model.metadata_props.update(note.metadata())
        weights = sum(value.const_value.nbytes for value in converted.model.graph.initializers.values()
                      if value.const_value is not None)  # fmt: skip
    except Exception as error:  # of torch.onnx, onnxscript or onnx: which step of theirs it is says their message
        raise InputError(f"{note.checkpoint}: torch.onnx cannot convert this network: {first_line(error)}") from error
    if weights > MOST_BYTES:
        raise InputError(
            f"{note.checkpoint}: expected weights of at most {MOST_BYTES:,} bytes, which one ONNX file can hold, got "
            f"{weights:,}; --precision fp16 takes half, --format torch-export has no such limit"
        )
    with writing(path):
        try:
            converted.save(str(path), external_data=False)
        except OSError:
            raise
        except Exception as error:  # of onnx or protobuf: the graph beside weights of nearly so much
            raise InputError(f"{path}: cannot be written as one ONNX file: {first_line(error)}") from error


def with_staged_norms(program: ExportedProgram) -> ExportedProgram:
    """The program with each group norm of a volume as means of means.

    ONNX Runtime (1.32) sums up a group's values one after the other in fp32: of a volume's millions it is off by 1e-3
    of a value, and a teacher's depth by as much at single pixels. A map's few it sums well enough, and faster.
    """
    norms = torch.ops.aten.group_norm.default
    graphs = (getattr(module, "graph", None) for module in program.graph_module.modules())  # of blocks of autocast, too
    nodes = (node for graph in graphs for node in getattr(graph, "nodes", ()))
    volumes = any(node.target is norms and node.args[0].meta["val"].ndim == 5 for node in nodes)
    return program.run_decompositions({norms: _staged_group_norm}) if volumes else program


def _staged_group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    if x.ndim != 5:
        return NotImplemented
    groups = x.reshape(x.shape[0] * num_groups, -1, x.shape[3] * x.shape[4])  # a slice of a channel a row
    centred = groups - _mean_of_means(groups)
    y = (centred * torch.rsqrt(_mean_of_means(centred * centred) + eps)).reshape(x.shape)
    y = y if weight is None else y * weight.view(1, -1, 1, 1, 1)
    return y if bias is None else y + bias.view(1, -1, 1, 1, 1)


def _mean_of_means(groups: Tensor) -> Tensor:
    return groups.mean(2, keepdim=True).mean(1, keepdim=True)


def open_file(path: Path) -> tuple[Note, Run]:
    """The note of an ONNX file, and what runs it. InputError where it is none of ours, or ONNX Runtime refuses it."""
    runtime = needed("onnxruntime", EXTRA, path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    data = read_bytes(path, limit=MOST_BYTES)  # not its name: files beside it that it names are then not opened
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # its exceptions have no common class
        raise InputError(f"{path}: expected an ONNX file, ONNX Runtime refuses it: {first_line(error)}") from None
    note = read_note(metadata.get(KEY), path)
    given = ([one.name for one in session.get_inputs()], [one.name for one in session.get_outputs()])
    if given != (list(note.inputs), list(note.outputs)):
        raise InputError(
            f"{path}: expected inputs {', '.join(note.inputs)} and outputs {', '.join(note.outputs)}, as its record "
            f"says, got {', '.join(given[0])} and {', '.join(given[1])}"
        )

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        given = {name: np.ascontiguousarray(value.numpy()) for name, value in inputs.items()}
        try:
            found = session.run(None, given)
        except Exception as error:
            raise InputError(f"{path}: ONNX Runtime cannot run it: {first_line(error)}") from error
        return {name: torch.from_numpy(value) for name, value in zip(note.outputs, found, strict=True)}

    return note, run
