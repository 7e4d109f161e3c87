"""The Triton losses as PyTorch operators, so that compilation and autograd see one node, and the calls that use them.

The gradients are made in the forward, where everything they need is at hand; the backward scales them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from . import reference
from .reference import ObjectiveTerms, ObjectiveWeights, objective_weights


class Numbers(NamedTuple):
    """What may change from call to call without another compilation."""

    min_depth: float = 1e-3
    max_depth: float = 80.0
    variance_focus: float = 0.0
    beta_nll: float = 0.0
    beta: float = 1.0
    gamma: float = 1.0
    sharpness: float = 5.0
    strength: float = 0.0
    silog: float = 0.0
    uncertainty: float = 0.0
    response: float = 0.0


GUIDES = {"emphasise": 1, "none": 0, "attenuate": -1}


@torch.library.custom_op("adu_kernels::depth_losses", mutates_args=())
def depth_losses(
    depth: Tensor,
    log_scale: Tensor | None,
    teacher_depth: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    strength: Tensor | None,
    numbers: Sequence[float],
    silog: bool,
    laplace: bool,
    guide: int,
    gate: bool,
    joint: bool,
    detach_focal: bool,
    per_image: bool,
    need_depth: bool,
    need_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Total, (silog, uncertainty, response), the total's gradients in depth and log_scale, empty where not needed, and
    a tensor without elements that depends on the inputs as the total does.

    numbers: those of `Numbers`, in order. The response is computed where teacher_depth is given.
    """
    from . import launching  # Triton is needed only where a kernel runs

    maps = launching.Maps(depth, log_scale, teacher_depth, target, weight)
    outputs = _new_outputs(*maps, strength, numbers, need_depth=need_depth, need_scale=need_scale)
    launching.losses(
        maps, strength, Numbers(*numbers), outputs[:4], silog=silog, laplace=laplace, guide=guide, gate=gate,
        joint=joint, detach_focal=detach_focal, per_image=per_image, need_depth=need_depth, need_scale=need_scale,
    )  # fmt: skip
    return outputs


def _new_outputs(  # type: ignore[no-untyped-def]
    depth, log_scale, teacher_depth, target, weight, strength, numbers, *options, need_depth, need_scale
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = accumulation_dtype(depth, log_scale, teacher_depth, target)
    shapes = ((), (3,), depth.shape if need_depth else (0,), depth.shape if need_scale else (0,), (0,))
    total, terms, grad_depth, grad_scale, link = (depth.new_empty(shape, dtype=dtype) for shape in shapes)
    return total, terms, grad_depth, grad_scale, link


@depth_losses.register_fake
def _(*inputs):  # type: ignore[no-untyped-def]
    return _new_outputs(*inputs[:-2], need_depth=inputs[-2], need_scale=inputs[-1])


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.dtypes = [None if m is None else m.dtype for m in inputs[:2]]
    ctx.needed = inputs[-2:]
    ctx.inputs = len(inputs)
    ctx.mark_non_differentiable(*output[1:4])
    ctx.set_materialize_grads(False)
    keep(ctx, _operation(inputs[2] is not None, inputs[7], inputs[8]), output[2:])


@torch.library.custom_op("adu_kernels::depth_losses_backward", mutates_args=())
def depth_losses_backward(gradient: Tensor, for_total: Tensor, link: Tensor, operation: str) -> Tensor:
    """gradient · for_total, which depends on the inputs of the losses, through `link`, in a way nobody differentiates.

    Only where a graph of the gradient is made: elsewhere a plain product can be fused with what follows.
    """
    return gradient * for_total


@depth_losses_backward.register_fake
def _(gradient, for_total, link, operation):  # type: ignore[no-untyped-def]
    return torch.empty_like(gradient)


def _differentiate(ctx, for_total, *for_others):  # type: ignore[no-untyped-def]
    grads: list[Tensor | None] = [None] * ctx.inputs
    if for_total is not None:
        (*gradients, link), _ = kept(ctx)
        for place, (gradient, dtype) in enumerate(zip(gradients, ctx.dtypes, strict=True)):
            if ctx.needed[place] and ctx.needs_input_grad[place]:
                if torch.is_grad_enabled():  # create_graph
                    grads[place] = depth_losses_backward(gradient, for_total, link, ctx.operation).to(dtype)
                else:
                    grads[place] = (gradient * for_total).to(dtype)
    return tuple(grads)


def _operation(response: bool, silog: bool, laplace: bool) -> str:
    if silog + laplace + response > 1:
        return "depth_objective"
    return "silog_loss" if silog else "laplace_nll" if laplace else "focal_response_loss"


differentiable_once(
    depth_losses,
    depth_losses_backward,
    setup_context=_keep,
    backward=_differentiate,
    operation=lambda *inputs: inputs[3],
)


@torch.library.custom_op("adu_kernels::response_weights", mutates_args=())
def response_weights(
    log_scale: Tensor | None,
    teacher_depth: Tensor,
    target: Tensor | None,
    strength: Tensor | None,
    numbers: Sequence[float],
    guide: int,
    per_image: bool,
) -> Tensor:
    """The guide from log_scale (guide ±1; teacher_depth: uint8, 1 where known), or the gate from target (0)."""
    from . import launching

    result = _new_weights(log_scale, teacher_depth, target)
    maps = launching.Maps(None, log_scale, teacher_depth, target)
    launching.response_weights(result, maps, strength, Numbers(*numbers), guide, per_image)
    return result


@response_weights.register_fake
def _new_weights(log_scale, teacher_depth, target, *rest):  # type: ignore[no-untyped-def]
    dtype = accumulation_dtype(log_scale, teacher_depth, target)
    return teacher_depth.new_empty(teacher_depth.shape, dtype=dtype)


def silog_loss(
    depth: Tensor, target: Tensor, variance_focus: float = 0.85, min_depth: float = 1e-3, max_depth: float = 80.0, *,
    normalize: str = "batch",
) -> Tensor:  # fmt: skip
    return _losses(
        depth, None, None, target, silog=True, per_image=normalize == "image",
        numbers={"variance_focus": variance_focus, "min_depth": min_depth, "max_depth": max_depth},
        weights=ObjectiveWeights(1.0, 0.0, 0.0),
    )[0]  # fmt: skip


def laplace_nll(
    depth: Tensor, log_scale: Tensor, target: Tensor, joint: bool = False, min_depth: float = 1e-3,
    max_depth: float = 80.0, beta_nll: float = 0.0, *, normalize: str = "batch",
) -> Tensor:  # fmt: skip
    return _losses(
        depth if joint else depth.detach(), log_scale, None, target, laplace=True, joint=joint,
        per_image=normalize == "image",
        numbers={"beta_nll": beta_nll, "min_depth": min_depth, "max_depth": max_depth},
        weights=ObjectiveWeights(0.0, 1.0, 0.0),
    )[0]  # fmt: skip


def focal_response_loss(
    depth: Tensor, teacher_depth: Tensor, weight: Tensor | None = None, beta: float = 10.0, gamma: float = 1.0,
    detach_focal: bool = False, min_depth: float = 1e-3, max_depth: float = 80.0, *, normalize: str = "batch",
) -> Tensor:  # fmt: skip
    return _losses(
        depth, None, teacher_depth, None, weight, detach_focal=detach_focal, per_image=normalize == "image",
        numbers={"beta": beta, "gamma": gamma, "min_depth": min_depth, "max_depth": max_depth},
        weights=ObjectiveWeights(0.0, 0.0, 1.0),
    )[0]  # fmt: skip


def depth_objective(
    depth: Tensor,
    log_scale: Tensor,
    teacher_depth: Tensor | None,
    target: Tensor,
    *,
    weights: Sequence[float] | Mapping[str, float] = ObjectiveWeights(),
    guide: str = "emphasise",
    guide_strength: float | Tensor = 0.5,
    gate: bool = True,
    beta: float = 10.0,
    gamma: float = 1.0,
    detach_focal: bool = False,
    joint: bool = False,
    beta_nll: float = 0.0,
    variance_focus: float = 0.85,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    normalize: str = "batch",
) -> ObjectiveTerms:
    strength, number = _strength(guide_strength, depth)
    taught = teacher_depth is not None
    total, terms = _losses(
        depth, log_scale, teacher_depth, target, strength=strength if taught else None, silog=True, laplace=True,
        guide=GUIDES[guide] if taught else 0, gate=gate and taught, joint=joint, detach_focal=detach_focal,
        per_image=normalize == "image",
        numbers={
            "variance_focus": variance_focus, "beta_nll": beta_nll, "beta": beta, "gamma": gamma, "strength": number,
            "min_depth": min_depth, "max_depth": max_depth,
        },
        weights=objective_weights(weights),
    )  # fmt: skip
    return ObjectiveTerms(total, *terms.unbind())


def uncertainty_guide(
    log_scale: Tensor, valid: Tensor, guide: str = "emphasise", strength: float | Tensor = 0.5, *,
    normalize: str = "batch",
) -> Tensor:  # fmt: skip
    if guide == "none":
        return reference.uncertainty_guide(log_scale, valid, guide)
    ramp, number = _strength(strength, log_scale)
    return torch.ops.adu_kernels.response_weights(
        log_scale.detach(), valid.view(torch.uint8), None, ramp, _numbers(strength=number), GUIDES[guide],
        normalize == "image",
    )  # fmt: skip


def teacher_gate(
    teacher_depth: Tensor, target: Tensor, sharpness: float = 5.0, min_depth: float = 1e-3, max_depth: float = 80.0
) -> Tensor:
    numbers = _numbers(sharpness=sharpness, min_depth=min_depth, max_depth=max_depth)
    return torch.ops.adu_kernels.response_weights(
        None, teacher_depth.detach(), target.detach(), None, numbers, 0, False
    )


def _losses(
    depth: Tensor,
    log_scale: Tensor | None,
    teacher_depth: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None = None,
    strength: Tensor | None = None,
    *,
    numbers: dict[str, float],
    weights: ObjectiveWeights,
    silog: bool = False,
    laplace: bool = False,
    guide: int = 0,
    gate: bool = False,
    joint: bool = False,
    detach_focal: bool = False,
    per_image: bool,
) -> tuple[Tensor, Tensor]:
    """Total, and the three terms."""
    wanted = torch.is_grad_enabled()
    total, terms, *_ = torch.ops.adu_kernels.depth_losses(
        depth, log_scale, _constant(teacher_depth), _constant(target), _constant(weight), strength,
        _numbers(**numbers, **weights._asdict()), silog, laplace, guide, gate, joint, detach_focal, per_image,
        wanted and depth.requires_grad, wanted and log_scale is not None and log_scale.requires_grad,
    )  # fmt: skip
    return total, terms


def _constant(value: Tensor | None) -> Tensor | None:
    return value.detach() if value is not None and value.requires_grad else value


def _strength(strength: float | Tensor, like: Tensor) -> tuple[Tensor | None, float]:
    """The guide's strength where the kernels read it from memory, else as a number."""
    if isinstance(strength, Tensor):
        return strength.detach().to(like.device, non_blocking=True), 0.0
    if torch.compiler.is_compiling():  # as one of `numbers` a ramp would be compiled anew at every step
        return like.new_zeros((), dtype=accumulation_dtype(like)) + strength, 0.0
    return None, float(strength)


def _numbers(**given: float) -> list[float]:
    return [float(number) for number in Numbers(**given)]
