"""What the configuration of a transformers backbone may say, wherever it came from: a hub, a folder, a checkpoint.

transformers follows some names in a configuration to code outside of it: classes kept beside the weights, kernels of
the hub, other libraries. None of that is ever run here. The rest becomes shapes and counts of layers, and those are
built without memory (torch's meta device) and counted before they are built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from adu_depth.errors import InputError
from adu_depth.models.ranges import MOST_PARAMETERS
from adu_depth.schema import shown

MOST_LAYERS = 10_000
"""Modules within modules; a Swin-L has some six hundred."""
MOST_NUMBER = 100_000
MOST_TOGETHER = 200_000
"""Sum of a list's whole numbers: of depths, each layer's own share of a schedule is worked out first."""
MOST_BUFFERED = 50_000_000
"""Numbers in tables that are no parameters (which window's pixel sees which): the largest on the hub has 8 million."""
MOST_MEMBERS = 256
LABELS = ("id2label", "label2id")
"""A classifier's thousands of class names: no backbone reads them."""
CODE = {
    "auto_map": "classes of its own",
    "custom_pipelines": "pipelines of its own",
    "quantization_config": "a quantisation library",
    "transformers_weights": "other weights than its own",
    "use_timm_backbone": "another library",
    "backbone": "another backbone",
    "backbone_config": "another backbone",
}
ATTENTION = (None, "eager", "sdpa")


def check_settings(settings: Mapping[str, Any], name: str) -> None:
    """InputError, with the encoder's name, for a configuration that names code or numbers that no backbone has."""
    for key, what in CODE.items():
        if settings.get(key):
            raise InputError(f"encoder {name!r}: its configuration names {what} ({key}), which is never loaded or run")
    for key in ("attn_implementation", "_attn_implementation"):
        if settings.get(key) not in ATTENTION:
            found = shown(settings[key])
            raise InputError(f"encoder {name!r}: {key} names outside code, expected 'eager' or 'sdpa', got {found}")
    for key, value in settings.items():
        if key not in LABELS:
            _check_numbers(value, key, name, 0)


@contextmanager
def counting(name: str) -> Iterator[None]:
    """Within it modules are built: InputError as soon as they are more, or larger, than any backbone."""
    layers = parameters = buffers = 0

    def count_layer(module: nn.Module, part: str, submodule: nn.Module | None) -> None:
        nonlocal layers
        layers += 1
        if layers > MOST_LAYERS:
            raise InputError(f"encoder {name!r}: expected at most {MOST_LAYERS:,} layers, got more")

    def count_parameter(module: nn.Module, part: str, parameter: nn.Parameter | None) -> None:
        nonlocal parameters
        parameters += 0 if parameter is None else parameter.numel()
        if parameters > MOST_PARAMETERS:
            raise InputError(f"encoder {name!r}: expected at most {MOST_PARAMETERS:,} parameters, got more")

    def count_buffer(module: nn.Module, part: str, buffer: Tensor | None) -> None:
        nonlocal buffers
        buffers += 0 if buffer is None else buffer.numel()
        if buffers > MOST_BUFFERED:
            raise InputError(f"encoder {name!r}: expected at most {MOST_BUFFERED:,} numbers in tables, got more")

    hooks = (
        register_module_module_registration_hook(count_layer),
        register_module_parameter_registration_hook(count_parameter),
        register_module_buffer_registration_hook(count_buffer),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_numbers(value: Any, key: str, name: str, depth: int) -> None:
    if isinstance(value, int | float) and not abs(value) <= MOST_NUMBER:
        raise InputError(f"encoder {name!r}: {key}: expected at most {MOST_NUMBER:,}, got {shown(value)}")
    if isinstance(value, Mapping | list | tuple):
        if len(value) > MOST_MEMBERS or depth > 4:
            raise InputError(f"encoder {name!r}: {key}: expected at most {MOST_MEMBERS} members, got {len(value):,}")
        parts = list(value.values() if isinstance(value, Mapping) else value)
        for part in parts:
            _check_numbers(part, key, name, depth + 1)
        if sum(abs(part) for part in parts if isinstance(part, int | float)) > MOST_TOGETHER:
            raise InputError(f"encoder {name!r}: {key}: expected at most {MOST_TOGETHER:,} together, got more")
