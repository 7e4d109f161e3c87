"""Weights that autocast rounds, rounded together: a launch for many of them, not one for each, and so back.

Under autocast each convolution and each linear layer rounds its own fp32 weight and bias to bf16 or fp16, and the
backward casts each of their gradients back: hundreds of launches of a step that take a moment each. Here one operation
over all of them gives the rounded copies, which the layers find where they look for the weights, and one gives the
gradients back. The same numbers are rounded and summed in the same type, so that no bit of a step changes, unless a
network looks at a weight's type itself and goes by it: backbones do, of the layer that their images enter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import Node

from adu_depth.models.encoder import BackboneEncoder

HALVES = (torch.bfloat16, torch.float16)
CAST = "ToCopyBackward0"
"""What autograd calls a cast, autocast's and `Tensor.to`."""
TURN = "TBackward0"
"""What a linear layer does with its weight first."""
GATHERS = "torch::autograd::AccumulateGrad"
"""And what takes a parameter's gradient."""


class RoundedWeights:
    """The weights of `task` of which a loss has nothing but one rounded copy each.

    Which these are is not known from the modules (a backbone that others wrote may turn autocast off around a layer,
    use its weight elsewhere too, or not use it), but seen in the graph of the first loss: see `find`. Until then, and
    without autocast, nothing is done. The modules' parameters, their names and gradients stay what they are.
    """

    def __init__(self, task: nn.Module) -> None:
        self.task = task
        self.kinds: list[_Kind] | None = None
        """By the type that they are rounded to; None as long as no loss was seen."""

    def find(self, loss: Tensor) -> None:
        """Looks at the graph of a loss, the first time that it is called with one; before the loss's backward.

        Taken is an fp32 parameter that goes into one operation alone, a cast to half the width. Two casts of it have
        gradients that are rounded one by one, and what is compiled has its casts in its own kernels; both are left. So
        is the layer of a backbone that images enter: some give their images the type of its weight, and calculate
        positions in that (DINOv3).
        """
        if self.kinds is not None or loss.grad_fn is None:
            return
        found: dict[torch.dtype, _Kind] = {}
        places, backbones = _places(self.task), _of_backbones(self.task)
        for parameter, dtype, enters in _cast_once(loss.grad_fn):
            where = places.get(parameter)
            if where is not None and not (enters and parameter in backbones):
                kind = found.setdefault(dtype, _Kind(dtype, [], []))
                kind.parameters.append(parameter)
                kind.places.append(where)
        self.kinds = list(found.values())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the modules have the rounded copies, made here, where they have these parameters. Around a forward
        and its backward: what is recomputed there must read the same copies."""
        kinds = self.kinds or []
        try:
            for kind in kinds:
                copies = _Rounded.apply(kind.dtype, *kind.parameters)
                for copy, places in zip(copies, kind.places, strict=True):
                    for module, name in places:
                        module.__dict__[name] = copy  # found before the parameter, which only `__getattr__` finds
            yield
        finally:
            for kind in kinds:
                for module, name in (place for places in kind.places for place in places):
                    module.__dict__.pop(name, None)


Place = tuple[nn.Module, str]


class _Kind(NamedTuple):
    """Parameters that are rounded to one type, and the modules that have each of them, by what name."""

    dtype: torch.dtype
    parameters: list[Tensor]
    places: list[list[Place]]


class _Rounded(torch.autograd.Function):
    """Copies of weights in another type; gradients go back as those of a cast do, all at once."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_copies(weights, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        copies = iter(_copies([g for g in gradients if g is not None], torch.float32))
        return None, *(None if g is None else next(copies) for g in gradients)


def _copies(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Each tensor in another type, laid as it is: what lies differently CUDA copies one by one, all of the list."""
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    alike: tuple[list[Tensor], list[Tensor]] = [], []
    for pair in zip(copies, tensors, strict=True):
        if pair[0].stride() != pair[1].stride():  # of one with gaps, or that repeats itself
            pair[0].copy_(pair[1])
            continue
        for side, tensor in zip(alike, pair, strict=True):
            side.append(tensor)
    if alike[0]:
        torch._foreach_copy_(*alike)
    return copies


def _places(task: nn.Module) -> dict[Tensor, list[Place]]:
    """The modules that have each fp32 parameter; not those that any compiled module has, itself or in its parts."""
    compiled = {
        parameter for part in task.modules() if part._compiled_call_impl is not None for parameter in part.parameters()
    }
    found: dict[Tensor, list[Place]] = {}
    for module in task.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.dtype == torch.float32 and parameter not in compiled:
                found.setdefault(parameter, []).append((module, name))
    return found


def _of_backbones(task: nn.Module) -> set[Tensor]:
    encoders = (part for part in task.modules() if isinstance(part, BackboneEncoder))
    return {parameter for encoder in encoders for parameter in encoder.backbone.parameters()}


def _cast_once(root: Node) -> list[tuple[Tensor, torch.dtype, bool]]:
    """The parameters in the graph that are given to one operation alone, which casts them to half the width; to which
    type; and whether a layer has them that is given nothing else with a gradient, images say. In the order in which
    they are met."""
    users: dict[Tensor, list[Node]] = {}
    takers: dict[Node, list[Node]] = {}
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        for following, _ in node.next_functions:
            if following is None:
                continue
            takers.setdefault(following, []).append(node)
            if following.name() == GATHERS:
                users.setdefault(following.variable, []).append(node)  # type: ignore[attr-defined]
            elif following not in seen:
                seen.add(following)
                waiting.append(following)
    return [
        (parameter, node._input_metadata[0].dtype, _enters(node, takers))
        for parameter, (node, *others) in users.items()
        if not others and node.name() == CAST and node._input_metadata[0].dtype in HALVES
    ]


def _enters(cast: Node, takers: dict[Node, list[Node]]) -> bool:
    """Whether a layer that takes the cast parameter is given nothing else with a gradient but its parameters."""
    return any(
        all(_of_parameter(given) for given, _ in layer.next_functions if given is not None)
        for taker in takers[cast]
        for layer in (takers.get(taker, []) if taker.name() == TURN else [taker])
    )


def _of_parameter(node: Node) -> bool:
    while node.name() in (CAST, TURN) and node.next_functions[0][0] is not None:
        node = node.next_functions[0][0]
    return node.name() == GATHERS
