"""Weights to start from: those of a trained network, for other data, another size or other disparities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from adu_depth.checkpoint import LoadedModel, load_model
from adu_depth.errors import InputError
from adu_depth.files import checksum
from adu_depth.models.light_weights import load_encoder, weights_file
from adu_depth.tensor_files import some
from adu_depth.training.config import StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.resuming import chosen_checkpoint
from adu_depth.training.teacher_outputs import weights_digest


def network_to_start_from(config: TeacherTrainingConfig | StudentTrainingConfig) -> LoadedModel | None:
    """The network that `--init` names; None where it names none, or the run goes on: then it is not looked for."""
    if config.init is None or chosen_checkpoint(config.run, config.loop) is not None:
        return None
    try:
        return load_model(config.init)
    except InputError as error:
        raise InputError(f"--init: {error}") from error


def start_from(network: nn.Module, source: LoadedModel, say: Callable[[str], None]) -> dict[str, str]:
    """Puts what fits by name and shape into `network`, and says what does not. InputError, and nothing changed, where a
    part of the encoder is not among it. Returns what config.json keeps of it: the digest of the source's weights."""
    own, found = network.state_dict(), source.model.state_dict()
    fitting = {name: found[name] for name, tensor in own.items() if name in found and _same_form(found[name], tensor)}
    missing = [name for name in own if name.startswith("encoder.") and name not in fitting]
    if missing or not fitting:
        raise InputError(
            f"--init {source.path}: its encoder does not fit: {len(missing)} tensors of this one have no counterpart "
            f"of their shape there ({some(missing)}); start with the source's --model.network "
            f"({source.config['model'].get('network', 'adu')}), --model.encoder "
            f"({source.config['model'].get('encoder', 'small')}) and --model.norm "
            f"({source.config['model'].get('norm', 'group')})"
        )
    network.load_state_dict({**own, **fitting})
    for line in _told(source.path, own, found, fitting):
        say(line)
    return {"init_weights": weights_digest(source.model)}


def begin_encoder(network: nn.Module, source: str) -> dict[str, str]:
    """Takes a light network's first weights from `model.encoder_weights`. Returns what config.json keeps of them, so
    that a run that goes on knows the file where it lies elsewhere."""
    load_encoder(network, source)  # type: ignore[type-var]  # the configuration is looked at
    return {"encoder_weights_content": checksum(weights_file(source))}


def _told(
    path: Path, own: Mapping[str, Tensor], found: Mapping[str, Tensor], fitting: Mapping[str, Tensor]
) -> list[str]:
    lines = [f"init: {len(fitting)} of {len(own)} tensors are those of {path}"]
    kinds = {
        "of another shape there, left as drawn": [name for name in own if name in found and name not in fitting],
        "new, left as drawn": [name for name in own if name not in found],
        "there and not here": [name for name in found if name not in own],
    }
    return lines + [f"init: {len(names)} {kind}: {some(names)}" for kind, names in kinds.items() if names]


def _same_form(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype
