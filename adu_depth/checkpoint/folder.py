"""Checkpoints: a folder of safetensors and JSON that appears whole or not at all.

RUN/config.json                      everything the run was asked to do
RUN/checkpoints/step-00000500/
    model.safetensors                the network alone: all that inference needs; with loop.ema its averaged weights
    training.safetensors             optimiser state, parts used in training only (the adapters), and where there are
                                     averages the weights that they are of (trained.NAME)
    config.json                      how to rebuild the network (no hub needed), and the run's configuration
    state.json                       the step; sizes and sums of the two tensor files; how the validation stands
RUN/checkpoints/best                 no folder: names the one that the newest checkpoint's validation calls the best
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.amp import GradScaler

from adu_depth.checkpoint.optimizer_state import expected_forms, faults, optimizer_tensors, restore
from adu_depth.checkpoint.scaler_state import FORMS as SCALER_FORMS
from adu_depth.checkpoint.scaler_state import restore_scaler, scaler_faults, scaler_tensors
from adu_depth.checkpoint.wholeness import STATE, Standing, State, read_standing, require_unchanged, sums
from adu_depth.data.config import DataConfig
from adu_depth.errors import InputError
from adu_depth.files import json_number, remove_folder, replacing, write_json
from adu_depth.models import StereoTeacher, StudentConfig, TeacherConfig, build_student
from adu_depth.models.averages import Averages, trained_names
from adu_depth.models.encoder import backbone_settings, build_encoder, is_built_in
from adu_depth.schema import check, read_json
from adu_depth.tensor_files import Form, differences, non_finite, read_forms, read_tensors, some

Kind = Literal["teacher", "student"]


class Kept(TypedDict, total=False):
    """What config.json says of a transformers encoder; checkpoints from before it was kept do not."""

    backbone: dict[str, Any] | None


class _Sizes(TypedDict):
    size: list[int]
    fit: str


class _Depths(TypedDict):
    min_depth: float
    max_depth: float


class Needed(TypedDict):
    """What no weight would show if it were absent and a default taken."""

    data: _Sizes
    model: _Depths


class _Kinded(TypedDict):
    kind: Kind


class Described(Kept):
    """config.json of a checkpoint: what its network is rebuilt from."""

    kind: Kind
    data: DataConfig
    model: dict[str, Any]


MODEL = "model.safetensors"
TRAINING = "training.safetensors"
BEST = "best"
TRAINED, UPDATES = "trained.", "averages.updates"
"""In training.safetensors, where model.safetensors has averages: the weights, and how often they were averaged."""


@dataclass(frozen=True)
class LoadedModel:
    """A network from a checkpoint, in eval mode.

    config: the run's configuration. size: (height, width) it was trained at. fit: whether whole images were resized to
    that size, windows of it were cut at native resolution (or another, by a factor from crop_scale), or their middle at
    this short side.
    """

    model: nn.Module
    kind: Kind
    config: dict[str, Any]
    size: tuple[int, int]
    path: Path
    fit: Literal["resize", "crop", "centre"] = "resize"
    short_side: int = 0
    crop_scale: tuple[float, float] = (1.0, 1.0)


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
    averages: Averages | None = None,
    scaler: GradScaler | None = None,
    standing: Standing | None = None,
) -> Path:
    """Writes the state after `step` steps and removes old ones (`remove_old`). standing: of the validation.

    `module` is the training module: its `network` goes to model.safetensors, the rest to training.safetensors. With
    averages, those go to model.safetensors, and the network's own weights to training.safetensors. scaler: of the
    loss, with fp16.
    """
    network: dict[str, Tensor] = {}
    training = {f"optimizer.{name}": t for name, t in optimizer_tensors(optimizer, module).items()}
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if name.startswith("network."):
            network[name.removeprefix("network.")] = tensor
        else:
            training[f"module.{name}"] = tensor
    if averages is not None:
        training |= {f"{TRAINED}{name}": network[name] for name in averages.names}
        training[UPDATES] = averages.updates.cpu()
        network = {n: t.detach().cpu().contiguous() for n, t in averages.network().state_dict().items()}
    if scaler is not None:
        training |= scaler_tensors(scaler)
    path = checkpoint_path(run, step)
    with replacing(path) as temporary:
        temporary.mkdir()
        save_file(network, temporary / MODEL)
        save_file(training, temporary / TRAINING)
        backbone = backbone_settings(module.get_submodule("network"))
        write_json(temporary / "config.json", {"kind": kind, **config, "backbone": backbone})
        state = {"step": step, "files": sums(temporary, (MODEL, TRAINING))}
        write_json(temporary / STATE, state if standing is None else {**state, "validation": standing})
    remove_old(run, keep)
    return path


def remove_old(run: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, and the best as each of these knows it: a run that goes on from
    any of them finds its own."""
    found = list_checkpoints(run)
    spared = {_best_of(run, path) for path in found[-keep:]}
    for old in found[:-keep]:
        if old not in spared:
            remove_folder(old)


def best_checkpoint(run: Path) -> Path | None:
    """The best checkpoint of a run as its newest one knows it; None where nothing was validated. It may be gone."""
    found = list_checkpoints(run)
    return _best_of(run, found[-1]) if found else None


def _best_of(run: Path, checkpoint: Path) -> Path | None:
    try:
        standing = read_standing(checkpoint)
    except InputError:  # whoever goes on from it, or loads it, will say so
        return None
    return checkpoint_path(run, standing["best_step"]) if standing and standing["best_step"] else None


def restore_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: Averages | None = None,
    scaler: GradScaler | None = None,
) -> int:
    """Puts a checkpoint back into the training module and its optimiser; returns the number of steps done.

    averages: put back too; where the checkpoint has none, they begin at its weights. scaler: put back too; a checkpoint
    without one is refused.
    Raises InputError, before anything is changed, if a part of the checkpoint is missing, does not belong, is of
    another step than the rest, or is not finite.
    """
    steps: int = read_json(path / STATE, State)["step"]
    own = {name: Form.of(tensor) for name, tensor in module.state_dict().items()}
    network = {n.removeprefix("network."): form for n, form in own.items() if n.startswith("network.")}
    beside = {f"module.{n}": form for n, form in own.items() if not n.startswith("network.")}
    moments = {f"optimizer.{n}": form for n, form in expected_forms(module).items()}
    _require(path / MODEL, network)
    expected = beside | moments
    if averaged := UPDATES in read_forms(path / TRAINING):
        expected |= {f"{TRAINED}{name}": network[name] for name in trained_names(module.get_submodule("network"))}
        expected[UPDATES] = Form((), "I64")
    if scaler is not None:
        expected |= SCALER_FORMS
    _require(path / TRAINING, expected)
    weights, training = _read_finite(path / MODEL, network), read_tensors(path / TRAINING, expected)
    saved = {n.removeprefix("optimizer."): t for n, t in training.items() if n.startswith("optimizer.")}
    parts = {n.removeprefix("module."): t for n, t in training.items() if n.startswith("module.")}
    trained = {n.removeprefix(TRAINED): t for n, t in training.items() if n.startswith(TRAINED)}
    wrong = faults(saved, steps, module, skips=scaler is not None) or _not_finite(parts | trained)
    wrong = wrong or (scaler_faults(training) if scaler is not None else "")
    if averaged and not 0 <= training[UPDATES] <= steps:
        wrong = f"{UPDATES}: expected from 0 to {steps}, got {int(training[UPDATES])}"
    if wrong:
        raise InputError(f"checkpoint {path / TRAINING} cannot be gone on from: {wrong}")
    for name in (MODEL, TRAINING):
        require_unchanged(path, name)
    module.load_state_dict({f"network.{n}": t for n, t in (weights | trained).items()} | parts)
    restore(optimizer, saved, module)
    if scaler is not None:
        restore_scaler(scaler, training)
    if averages is not None and averaged:
        averages.restore(weights, training[UPDATES])
    elif averages is not None:
        averages.begin()
    return steps


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that a path names: its own folder; RUN/checkpoints/best; of a run the best one where there was a
    validation, which is what a metric was chosen for, else the newest. InputError where there is none."""
    if (path / MODEL).is_file():
        return path
    by_name = path.name == BEST and path.parent.name == "checkpoints" and not path.exists()
    run = path.parent.parent if by_name else path
    if not run.exists():
        raise InputError(
            f"checkpoint {path} does not exist: expected a run folder or one of its checkpoints/step-… folders"
        )
    found = list_checkpoints(run)
    if not found:
        raise InputError(f"{run} holds no checkpoint: expected {MODEL} in it, or checkpoints/step-… folders")
    best = best_checkpoint(run)
    if best is not None and not best.is_dir():
        raise InputError(f"{best}, the best checkpoint of {run}, is not there any more: name another, as {found[-1]}")
    if by_name and best is None:
        raise InputError(f"{path}: nothing was validated in this run, no checkpoint of it is known as the best")
    return best or found[-1]


def load_model(path: str | Path, device: torch.device | str = "cpu") -> LoadedModel:
    """The network of a run folder or of one checkpoint folder, in eval mode on `device`.

    Of a run it is the best checkpoint where there was a validation, else the newest (`checkpoint_of`).
    All that it needs is in the folder: InputError where it keeps no configuration of an encoder that is not built in.
    """
    path = checkpoint_of(Path(path))
    config: dict[str, Any] = read_json(path / "config.json")
    source = f"{path / 'config.json'} does not describe a teacher or a student"
    check(Needed, config, source)
    described: Described = check(Described, config, source)
    kind, backbone = described["kind"], described.get("backbone")
    settings = {**described["model"], "pretrained": False}
    if settings.get("network", "adu") == "adu":
        described["data"].require_cells(f"{path / 'config.json'}: ")
    if backbone is None and not is_built_in(str(settings.get("encoder", "small"))):
        raise InputError(
            f"{path / 'config.json'}: backbone: expected the configuration of the encoder {settings['encoder']!r:.80}, "
            "got nothing: it is not looked for on a hub or in a folder; for an older checkpoint "
            "of yours, put the encoder's own config.json there"
        )
    with torch.device("meta"):  # shapes without memory: those that the numbers ask for must be those that are there
        skeleton = build_model(kind, settings, backbone, path / "config.json")
    expected = {name: Form.of(tensor) for name, tensor in skeleton.state_dict().items()}
    _require(path / MODEL, expected)
    weights = _read_finite(path / MODEL, expected)
    require_unchanged(path, MODEL)
    model = build_model(kind, settings, backbone, path / "config.json")
    model.load_state_dict(weights)
    data = described["data"]
    model = model.to(device).eval()
    return LoadedModel(model, kind, config, data.size, path, data.fit, data.short_side, data.crop_scale)


def build_model(
    kind: Kind, settings: dict[str, Any], backbone: dict[str, Any] | None = None, source: str | Path = "configuration"
) -> nn.Module:
    """A teacher or a student from its configuration as read from JSON (lists become tuples again).

    backbone: its encoder's configuration, see `build_encoder`; without it the encoder's name must be found again.
    Raises InputError, naming `source`, for a setting that is none, of another type, or out of range.
    """
    if kind == "teacher":
        return StereoTeacher(check(TeacherConfig, settings, source, "model"), backbone)
    if kind == "student":
        return build_student(check(StudentConfig, settings, source, "model"), backbone)
    raise InputError(f"a checkpoint's kind must be 'teacher' or 'student', got {kind!r}")


def kind_of(path: str | Path) -> Kind:
    """Whether a run or a checkpoint is of a stereo teacher or of a network for single images, without its weights."""
    source = checkpoint_of(Path(path)) / "config.json"
    return read_json(source, _Kinded)["kind"]  # type: ignore[no-any-return]


def kept_backbone(path: Path, encoder: str) -> dict[str, Any] | None:
    """The configuration of a checkpoint's encoder, for a run that goes on; None where it has the built-in one.

    Raises InputError where it is not that of the weights beside it.
    """
    config = read_json(path / "config.json", Kept)
    backbone: dict[str, Any] | None = config.get("backbone")
    if backbone is not None and encoder != "small":
        with torch.device("meta"):
            skeleton = build_encoder(encoder, backbone=backbone)
        expected = {f"encoder.{name}": Form.of(tensor) for name, tensor in skeleton.state_dict().items()}
        _require(path / MODEL, expected, part="encoder.")
    return backbone


def config_dict(config: Any) -> dict[str, Any]:
    """A configuration dataclass as plain JSON values (paths become strings, tuples lists)."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config), default=_json_value))
    return plain


def _json_value(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else json_number(value)


def _require(path: Path, expected: dict[str, Form], part: str = "") -> None:
    """InputError unless the file holds these tensors and no others; of those alone whose names begin with `part`."""
    found = {name: form for name, form in read_forms(path).items() if name.startswith(part)}
    wrong = differences(found, expected)
    if wrong:
        raise InputError(f"checkpoint {path} does not fit the model it is loaded into: {wrong}")


def _read_finite(path: Path, expected: dict[str, Form]) -> dict[str, Tensor]:
    tensors = read_tensors(path, expected)
    wrong = _not_finite(tensors)
    if wrong:
        raise InputError(
            f"checkpoint {path} cannot be used: {wrong}; its training had blown up, or the file is damaged"
        )
    return tensors


def _not_finite(tensors: dict[str, Tensor]) -> str:
    bad = non_finite(tensors)
    return f"weights are NaN or infinite in {len(bad)} of {len(tensors)} tensors ({some(bad)})" if bad else ""
