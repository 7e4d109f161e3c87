"""OpenVINO: a model (.xml) and its weights (.bin) of the same name, converted from the captured graph."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from adu_depth.errors import InputError
from adu_depth.export.extras import MOST_BYTES, last_line, needed, quiet
from adu_depth.export.note import KEY, LARGEST_SIDE, Note, read_note
from adu_depth.export.onnx_file import Run
from adu_depth.files import checksum, read_bytes, read_text, require_text_name, writing
from adu_depth.models.padding import CELL

EXTRA = "openvino"
WEIGHTS = ".bin"
WEIGHTS_KEY = f"{KEY}_weights"
"""In the model's metadata: SHA-256 of the weights beside it, so that those of another export are known."""
TELEMETRY = "openvino_telemetry"


def require_writer() -> None:
    """InputError where OpenVINO is not installed."""
    _openvino("--format openvino")


def files(path: Path) -> tuple[Path, ...]:
    """What a model is: itself, and the weights that OpenVINO looks for beside it."""
    return path, path.with_suffix(WEIGHTS)


def is_ours(path: Path) -> bool:
    """Whether there is a model that was written here, by its text alone: without OpenVINO, and whatever its weights."""
    try:
        return _has_note(read_text(path))
    except InputError:  # not there, no text, larger than any of ours
        return False


def write(program: ExportedProgram, note: Note, path: Path) -> None:
    """Writes the program as a model with the note in its metadata (rt_info) and its weights beside it. InputError where
    OpenVINO cannot convert it."""
    openvino = _openvino("--format openvino")
    require_text_name(path)  # which OpenVINO opens by itself
    try:
        with quiet():
            model = openvino.convert_model(program)
            # The converter leaves every side open; the network was captured for these.
            model.reshape({name: _shape(name, note) for name in note.inputs})
            _without_group_norm(openvino, model)
            for output, name in zip(model.outputs, note.outputs, strict=True):
                output.get_tensor().set_names({name})
            for key, text in note.metadata().items():
                model.set_rt_info(text, [key])
            unknown = "0" * 64
            model.set_rt_info(unknown, [WEIGHTS_KEY])
    except Exception as error:  # of OpenVINO, or of torch's decompositions on the way
        raise InputError(f"{note.checkpoint}: OpenVINO cannot convert this network: {last_line(error)}") from error
    with writing(path):
        try:
            openvino.save_model(model, str(path), compress_to_fp16=False)  # its own default halves all weights
        except RuntimeError as error:  # what the system refuses, too
            raise InputError(f"cannot write {path}: {last_line(error)}") from error
        text = path.read_text("utf-8")
        assert text.count(unknown) == 1
        path.write_text(text.replace(unknown, checksum(path.with_suffix(WEIGHTS))), "utf-8")


def open_file(path: Path) -> tuple[Note, Run]:
    """The note of a model, and what runs it. InputError where it is none of ours, where the weights beside it are not
    its own, or OpenVINO refuses it."""
    openvino = _openvino(path)
    text, weights_file = read_text(path), path.with_suffix(WEIGHTS)
    if not _has_note(text):
        read_note(None, path)  # its other readers, of other formats, are not tried
    weights = read_bytes(weights_file, limit=MOST_BYTES)
    core = openvino.Core()
    try:
        model = core.read_model(model=text.encode(), weights=weights)
        record, expected = (_info(model, key) for key in (KEY, WEIGHTS_KEY))
    except RuntimeError as error:
        raise InputError(f"{path}: expected an OpenVINO model, OpenVINO refuses it: {last_line(error)}") from None
    note = read_note(record, path)
    found = hashlib.sha256(weights).hexdigest()
    if found != expected:
        raise InputError(
            f"{weights_file}: expected the weights that belong to {path.name} (SHA-256 {expected}), got others or "
            f"damaged ones ({found})"
        )
    given = tuple([name for one in side for name in sorted(one.get_names())] for side in (model.inputs, model.outputs))
    if given != (list(note.inputs), list(note.outputs)):
        raise InputError(
            f"{path}: expected inputs {', '.join(note.inputs)} and outputs {', '.join(note.outputs)}, as its record "
            f"says, got {', '.join(given[0])} and {', '.join(given[1])}"
        )
    try:
        compiled = core.compile_model(model, "CPU", settings())
    except RuntimeError as error:
        raise InputError(f"{path}: OpenVINO cannot run it: {last_line(error)}") from error

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        given = {name: np.ascontiguousarray(value.numpy()) for name, value in inputs.items()}
        try:
            found = compiled(given)
        except RuntimeError as error:
            raise InputError(f"{path}: OpenVINO cannot run it: {last_line(error)}") from error
        return {name: torch.from_numpy(found[index]) for index, name in enumerate(note.outputs)}

    return note, run


def settings() -> dict[str, Any]:
    """How a file is run here: in fp32, where OpenVINO by itself takes bf16 on a CPU that has it (a hundredth off); on
    as many threads as torch, not tied to cores that other processes may be at."""
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
    }


def _shape(name: str, note: Note) -> list[Any]:
    """The shape of an input, of sides that are open with their bounds."""
    if name not in ("image", "left", "right"):
        return [note.batch]
    least = CELL + 1 if note.pads else 2 * CELL
    sides: list[Any] = list(note.size) if note.size is not None else [(least, LARGEST_SIDE)] * 2
    return [note.batch, *sides, 3] if note.uint8 else [note.batch, 3, *sides]


def _without_group_norm(openvino: Any, model: Any) -> None:
    """Each group norm as a mean–variance norm of the groups, scaled and shifted.

    The CPU plugin (2026.4) fuses a group norm of a fixed size in fp32 with what follows, and on some residual blocks of
    ours ends the process with a segmentation fault; of any size, or in bf16, it does what is done here.
    """
    ops = openvino.opset13
    for node in model.get_ops():
        if node.get_type_name() != "GroupNormalization":
            continue
        data, scale, shift = (node.input_value(index) for index in range(3))
        settings = node.get_attributes()
        one_a_channel = [1, -1] + [1] * (data.get_partial_shape().rank.get_length() - 2)
        groups = ops.reshape(data, [0, settings["num_groups"], -1], special_zero=True)
        normed = ops.mvn(groups, [2], True, settings["epsilon"], "inside_sqrt")
        normed = ops.reshape(normed, ops.shape_of(data), special_zero=False)
        scaled = ops.multiply(normed, ops.reshape(scale, one_a_channel, special_zero=False))
        shifted = ops.add(scaled, ops.reshape(shift, one_a_channel, special_zero=False))
        node.output(0).replace(shifted.output(0))


def _has_note(text: str) -> bool:
    return text.startswith("<?xml") and f"<{KEY} " in text


def _info(model: Any, key: str) -> str | None:
    return str(model.get_rt_info(key).value) if model.has_rt_info(key) else None


def _openvino(purpose: object) -> Any:
    """The library, without its telemetry: when it is imported it would tell its makers so, over the network."""
    absent = object()
    before: Any = sys.modules.get(TELEMETRY, absent)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # "not installed": it has a stub for that
    try:
        return needed("openvino", EXTRA, purpose)
    finally:
        if before is absent:
            del sys.modules[TELEMETRY]
        else:
            sys.modules[TELEMETRY] = before
