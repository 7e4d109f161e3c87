"""ONNX: written by torch.onnx from the captured graph, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
                program, dynamo=True, opset_version=OPSET, output_names=list(note.outputs), verbose=False
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
