"""Which parameters weight decay takes hold of.

The weights of convolutions and linear layers: what is multiplied with, and grows without a bound. Everything else is a
shift, a scale or a position (biases, the affine of norms, layer scales, tables of positions, tokens, the teacher's
sharpness): decay would draw it to zero, which means nothing there.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

MULTIPLYING = (_ConvNd, nn.Linear)


def parameter_groups(module: nn.Module, everything: bool) -> list[dict[str, Any]]:
    """Groups for an optimizer, each parameter in one of them, those that do not decay last. everything: all decay."""
    parameters = list(module.parameters())
    decaying = {id(m.weight) for m in module.modules() if isinstance(m, MULTIPLYING)}
    if everything:
        decaying = {id(parameter) for parameter in parameters}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if id(p) in decaying]},
        {"params": [p for p in parameters if id(p) not in decaying], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
