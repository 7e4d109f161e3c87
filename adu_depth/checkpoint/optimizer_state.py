"""An optimiser's state as named tensors, and back: whole, or refused by name.

Without it AdamW starts from moments of zero and nothing is said: the run goes on, and is another run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adu_depth.tensor_files import Form, some

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The state by name, `<number of the parameter>.<slot>`, on the CPU. The number is that among the parameters of the
    module, which the optimizer's groups do not change."""
    return {
        f"{i}.{k}": torch.as_tensor(v).detach().cpu().contiguous()
        for i, parameter in enumerate(module.parameters())
        for k, v in optimizer.state.get(parameter, {}).items()
    }


def expected_forms(module: nn.Module) -> dict[str, Form]:
    """What `optimizer_tensors` gives once each parameter that is trained has had a gradient."""
    found: dict[str, Form] = {}
    for i, parameter in enumerate(module.parameters()):
        if parameter.requires_grad:
            found |= {f"{i}.{slot}": Form.of(parameter) for slot in MOMENTS} | {f"{i}.{STEP}": Form((), "F32")}
    return found


def faults(saved: Mapping[str, Tensor], steps: int, module: nn.Module, skips: bool = False) -> str:
    """What is wrong with a state of the right forms that was kept after `steps` steps, in words; "" if nothing is.
    skips: some of the steps may have been skipped, by all parameters."""
    counts = {tensor.item() for name, tensor in saved.items() if name.endswith(f".{STEP}")}
    fewer = skips and len(counts) == 1 and 0 <= max(counts) <= steps
    if counts and counts != {steps} and not fewer:
        return f"the optimiser's state is of step {some(sorted(f'{count:g}' for count in counts))}, expected {steps}"
    names = [name for name, _ in module.named_parameters()]
    bad = [name for name, tensor in saved.items() if _is_bad(name, tensor)]
    if bad:
        of = [f"{slot} of {names[int(i)]}" for i, slot in (n.split(".", 1) for n in bad)]
        told = "the optimiser's state is NaN or infinite, or a mean of squares below 0"
        return f"{told}, in {len(bad)} tensors ({some(of)})"
    return ""


def restore(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor], module: nn.Module) -> None:
    """Puts back what `optimizer_tensors` gave; ask `expected_forms` and `faults` first."""
    places = {id(parameter): place for place, parameter in enumerate(_parameters(optimizer))}
    numbered = [places[id(parameter)] for parameter in module.parameters()]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in saved.items():
        index, slot = name.split(".", 1)
        state.setdefault(numbered[int(index)], {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, slots in optimizer.state.items():
        # Files are contiguous; moments must lie as their (channels-last) parameters do: the fused step of a CPU walks
        # through both alike, whatever their strides.
        slots |= {
            name: torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            for name, value in slots.items()
            if isinstance(value, Tensor) and value.shape == parameter.shape
        }


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _is_bad(name: str, tensor: Tensor) -> bool:
    """A mean of squares that became infinite is left: its parameter stands still, and a run saved it so."""
    if name.endswith(MOMENTS[1]):
        return bool(tensor.isnan().any() or (tensor < 0).any())
    return not bool(tensor.isfinite().all())
