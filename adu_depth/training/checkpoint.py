"""Checkpoints: a folder of safetensors and JSON that appears whole or not at all.

RUN/config.json                      everything the run was asked to do
RUN/checkpoints/step-00000500/
    model.safetensors                the network alone: all that inference needs
    training.safetensors             optimiser state, and parts used in training only (the adapters)
    config.json                      how to rebuild the network (no hub needed), and the run's configuration
    state.json                       the step
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adu_depth.errors import InputError
from adu_depth.files import remove_folder, replacing, write_json
from adu_depth.models import MonoStudent, StereoTeacher, StudentConfig, TeacherConfig
from adu_depth.models.encoder import backbone_settings

Kind = Literal["teacher", "student"]
MODEL = "model.safetensors"
TRAINING = "training.safetensors"


@dataclass(frozen=True)
class LoadedModel:
    """A network from a checkpoint, in eval mode.

    config: the run's configuration. size: (height, width) it was trained at. fit: whether whole images were resized to
    that size, or windows of it were cut at native resolution.
    """

    model: nn.Module
    kind: Kind
    config: dict[str, Any]
    size: tuple[int, int]
    path: Path
    fit: Literal["resize", "crop"] = "resize"


def checkpoint_path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first (a half-written one has a temporary name and is not listed)."""
    return sorted(path for path in (run / "checkpoints").glob(f"step-{'[0-9]' * 8}") if path.is_dir())


def save_checkpoint(
    run: Path,
    step: int,
    *,
    kind: Kind,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
    keep: int,
) -> Path:
    """Writes the state after `step` steps and removes all but the newest `keep` checkpoints.

    `module` is the training module: its `network` goes to model.safetensors, the rest to training.safetensors.
    """
    network: dict[str, Tensor] = {}
    training = {f"optimizer.{name}": t for name, t in _optimizer_tensors(optimizer).items()}
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if name.startswith("network."):
            network[name.removeprefix("network.")] = tensor
        else:
            training[f"module.{name}"] = tensor
    path = checkpoint_path(run, step)
    with replacing(path) as temporary:
        temporary.mkdir()
        save_file(network, temporary / MODEL)
        save_file(training, temporary / TRAINING)
        backbone = backbone_settings(module.get_submodule("network"))
        write_json(temporary / "config.json", {"kind": kind, **config, "backbone": backbone})
        write_json(temporary / "state.json", {"step": step})
    for old in list_checkpoints(run)[:-keep]:
        remove_folder(old)
    return path


def restore_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Puts a checkpoint back into the training module and its optimiser; returns the number of steps done."""
    network, training = _read_tensors(path / MODEL), _read_tensors(path / TRAINING)
    state = {f"network.{n}": t for n, t in network.items()}
    state |= {n.removeprefix("module."): t for n, t in training.items() if n.startswith("module.")}
    _load_state(module, state, path)
    saved = {n.removeprefix("optimizer."): t for n, t in training.items() if n.startswith("optimizer.")}
    _restore_optimizer(optimizer, saved, path)
    return int(read_json(path / "state.json")["step"])


def load_model(path: str | Path, device: torch.device | str = "cpu") -> LoadedModel:
    """The network of a run folder (its newest checkpoint) or of one checkpoint folder, in eval mode on `device`."""
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"checkpoint {path} does not exist: expected a run folder or one of its checkpoints/step-… folders"
        )
    if not (path / MODEL).is_file():
        found = list_checkpoints(path)
        if not found:
            raise InputError(f"{path} holds no checkpoint: expected {MODEL} in it, or checkpoints/step-… folders")
        path = found[-1]
    config = read_json(path / "config.json")
    try:
        kind: Kind = config["kind"]
        size = (int(config["data"]["size"][0]), int(config["data"]["size"][1]))
        fit = config["data"]["fit"]
        model = build_model(kind, config["model"] | {"pretrained": False}, config.get("backbone"))
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path / 'config.json'} does not describe a teacher or a student: {error!r}") from error
    _load_state(model, _read_tensors(path / MODEL), path)
    return LoadedModel(model.to(device).eval(), kind, config, size, path, fit)


def build_model(kind: Kind, settings: dict[str, Any], backbone: dict[str, Any] | None = None) -> nn.Module:
    """A teacher or a student from its configuration as read from JSON (lists become tuples again).

    backbone: its encoder's configuration, see `build_encoder`; without it the encoder's name must be found again.
    """
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    if kind == "teacher":
        return StereoTeacher(TeacherConfig(**settings), backbone)
    if kind == "student":
        return MonoStudent(StudentConfig(**settings), backbone)
    raise InputError(f"a checkpoint's kind must be 'teacher' or 'student', got {kind!r}")


def config_dict(config: Any) -> dict[str, Any]:
    """A configuration dataclass as plain JSON values (paths become strings, tuples lists)."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return plain


def _load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"checkpoint {path} does not fit the model it is loaded into: {error}") from error


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{i}.{k}": torch.as_tensor(v).detach().cpu().contiguous()
        for i, slots in state.items()
        for k, v in slots.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Tensor], path: Path) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in saved.items():
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = tensor
    try:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except ValueError as error:
        raise InputError(f"checkpoint {path} does not fit the optimiser: {error}") from error
    for parameter, slots in optimizer.state.items():
        # Files are contiguous; the multi-tensor step wants moments laid out as their (channels-last) parameters are.
        slots |= {
            name: torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            for name, value in slots.items()
            if isinstance(value, Tensor) and value.shape == parameter.shape
        }


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"checkpoint file {path} is missing") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"checkpoint file {path} cannot be read: {error}") from error
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a run. InputError where there is none, or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"file {path} is missing") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"file {path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"file {path} must hold a JSON object, got {type(value).__name__}")
    return value
