"""The normalisation of the reference: on a CPU PyTorch's own where its sums are exact enough, else the definition.

torch's group norm (2.13) of channels-last maps on a CPU takes E[x²] − E[x]² and adds up in fp32, one position after the
other: of values with mean 1000 and spread 1 nothing is left, and a volume of a million positions is off by 1e-3
whatever the mean. Its contiguous form is better, but copies to that layout and back take longer than what stands here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
FEW = 2048
"""So many positions of a channels-last map torch may add up. Sums are off by some 2e-6 of what they would be without
signs; those of 1024 positions or more it parts between threads, so that their last bits depend on the batch."""
PIECE = 1 << 16
"""Values of an image that are multiplied at once. Of each image, so that its bits do not depend on its batch."""
FARTHEST = 1.5
"""Of |mean| / √(variance + eps): a mean farther from 0 is taken away first. There torch's sums make y and gradients
wrong by up to 7e-6 of the largest. At 1 it is 5e-6, but a quarter of a trained student's norms are computed twice."""


def normalised(x: Tensor, groups: int, scale: Tensor | None, shift: Tensor | None, eps: float) -> Tensor:
    """scale · (x − mean) / √(variance + eps) + shift."""
    if scale is None and shift is not None:  # torch refuses to be asked for the gradient of a bias without a weight
        scale = torch.ones_like(shift)
    if x.device.type != "cpu":
        return torch.group_norm(x, groups, scale, shift, eps)
    last = not x.is_contiguous() and x.is_contiguous(memory_format=LAST[x.ndim])
    if last and not torch.compiler.is_compiling():
        apply = _ChannelsLast.apply if torch._C._are_functorch_transforms_active() else _APPLY
        found: Tensor = apply(x, scale, shift, groups, eps)[0]
        return found
    if torch.compiler.is_compiling():
        x = x.contiguous()
    else:
        # Contiguous in every stride, also those of axes of one element: torch would take its channels-last sums by
        # them, and asked there for the parameters' gradients alone it ends the program. What is added to a whole group
        # changes nothing, but torch's sums, of the weight's gradient above all, lose by it: at mean 1000 and spread 1
        # that is off by 5e-3 of itself.
        x = _less_middle(x.flatten().view(x.shape), groups)
    y = torch.group_norm(x, groups, scale, shift, eps)
    return y.contiguous(memory_format=LAST[x.ndim]) if last else y


class _ChannelsLast(torch.autograd.Function):
    """For channels-last maps on a CPU.

    Also where torch's own is called: its autograd ends the program where the parameters' gradients are asked for alone.
    """

    @staticmethod
    def forward(
        x: Tensor, scale: Tensor | None, shift: Tensor | None, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """y; of each group the mean (less what is taken away first) and 1 / √(variance + eps), and what that is."""
        few = _has_few(x)
        if few:
            y, mean, rstd = _torch_s(x, groups, scale, shift, eps)
        else:
            mean, rstd = _statistics(x, None, groups, eps)
        middle = None
        distance = mean * rstd  # NaN where rounding left a variance below 0
        if _is_traced(x) or not torch.linalg.vector_norm(distance, torch.inf).item() <= FARTHEST:
            # Not the mean that was just found, which is as inexact as where it lies is far.
            middle = torch.where(distance.abs() <= FARTHEST, 0.0, _means(x, groups))
            if few:
                y, mean, rstd = _torch_s(_less(x, middle), groups, scale, shift, eps)
            else:
                mean, rstd = _statistics(x, middle, groups, eps)
        if not few:
            factor = _by_channel(rstd, x, scale)
            offset = -_by_channel(mean, x) * factor
            y = _written(x, middle, factor, offset if shift is None else offset + shift)
        return y, mean, rstd, middle

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        x, scale, _, ctx.groups, ctx.eps = inputs
        ctx.mark_non_differentiable(*(one for one in output[1:] if one is not None))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, scale, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        x, scale, mean, rstd, middle = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # this gradient is differentiated in its turn
            found = _gradients(grad, x, scale, ctx.groups, ctx.eps)
        elif _has_few(x):
            found = _torch_s_gradients(grad, _less(x, middle), scale, mean, rstd)
        else:
            found = _gradients_in_pieces(grad, x, scale, mean, rstd, middle, wanted[0])
        return (*(one if wants else None for one, wants in zip(found, wanted, strict=True)), None, None)


_APPLY = super(torch.autograd.Function, _ChannelsLast).apply
"""What Function.apply calls outside torch.func's transforms, once it has bound the arguments: that alone takes longer
than a small norm."""


def _has_few(x: Tensor) -> bool:
    return _positions(x) <= FEW


def _positions(x: Tensor) -> int:
    return math.prod(x.shape[2:])


def _is_traced(x: Tensor) -> bool:
    """Whether another call may be made of this one's operations: then none may be left out for what x holds."""
    modes = torch._C._len_torch_dispatch_stack() + torch._ops._len_torch_dispatch_stack_pre_dispatch()
    return type(x) not in (Tensor, torch.nn.Parameter) or torch.jit.is_tracing() or modes > 0


def _torch_s(
    x: Tensor, groups: int, scale: Tensor | None, shift: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_group_norm.default(
        _in_order(x), scale, shift, *x.shape[:2], _positions(x), groups, eps
    )
    return found


def _torch_s_gradients(
    grad: Tensor, x: Tensor, scale: Tensor | None, mean: Tensor, rstd: Tensor
) -> tuple[Tensor | None, ...]:
    # x too: what autograd kept may have come back in another layout, through hooks.
    grad, x = (_in_order(one.contiguous(memory_format=LAST[x.ndim])) for one in (grad, x))
    size = (*x.shape[:2], _positions(x), mean.shape[1])
    wanted = [True, scale is not None, scale is not None]  # x's always: without it torch ends the program
    found: tuple[Tensor | None, ...] = torch.ops.aten.native_group_norm_backward.default(
        grad, x, mean, rstd, scale, *size, wanted
    )
    return found


def _in_order(x: Tensor) -> Tensor:
    """A channels-last map with the strides of one in axes of one element too: by those torch tells what it is."""
    if 1 not in x.shape:
        return x
    last = x.movedim(1, -1)
    return last.flatten().view(last.shape).movedim(-1, 1)


def _statistics(x: Tensor, middle: Tensor | None, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Of x − middle, N×G: the mean, and 1 / √(variance + eps)."""
    mean, squares = (_by_group(sums / _positions(x), groups) for sums in _sums(None, x, middle))
    return mean, torch.rsqrt(squares - mean.square() + eps)


def _gradients_in_pieces(
    grad: Tensor,
    x: Tensor,
    scale: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    middle: Tensor | None,
    of_x: bool,
) -> tuple[Tensor | None, ...]:
    d_shift, products = _sums(grad, x, middle)
    means, rates = _by_channel(mean, x), _by_channel(rstd, x)
    d_scale = (products - means * d_shift) * rates
    d_x = None
    if of_x:
        along, beside = (
            _by_channel(_by_group(d if scale is None else d * scale, mean.shape[1]), x) * rates
            for d in (d_scale / _positions(x), d_shift / _positions(x))
        )
        along = -along * rates
        d_x = _written(x, middle, along, -means * along - beside, grad, rates if scale is None else rates * scale)
    return d_x, d_scale.sum(0), d_shift.sum(0)


def _gradients(
    grad: Tensor, x: Tensor, scale: Tensor | None, groups: int, eps: float
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Of x, scale and shift, by the formula, through which autograd can go in its turn."""
    positions = tuple(range(2, x.ndim))
    x = _less_middle(x, groups)
    centred = x - _group_mean(x, groups)
    rstd = torch.rsqrt(_group_mean(centred.square(), groups) + eps)
    normal = centred * rstd
    weighted = grad if scale is None else grad * _wide(scale, x)
    d_x = (weighted - _group_mean(weighted, groups) - normal * _group_mean(weighted * normal, groups)) * rstd
    return d_x, (grad * normal).sum((0, *positions)), grad.sum((0, *positions))


def _sums(one: Tensor | None, x: Tensor, middle: Tensor | None) -> tuple[Tensor, Tensor]:
    """Over all positions, N×C: Σ one and Σ one · (x − middle). Without one it is x − middle too."""
    positions = tuple(range(2, x.ndim))
    sums, products = [], []
    for values, of in _pieces(x, x if one is None else one):
        values = _less(values, middle)
        of = values if one is None else of
        sums.append(of.sum(positions))
        products.append((of * values).sum(positions))
    return torch.stack(sums).sum(0), torch.stack(products).sum(0)


def _written(
    x: Tensor,
    middle: Tensor | None,
    factor: Tensor,
    offset: Tensor,
    other: Tensor | None = None,
    by: Tensor | None = None,
) -> Tensor:
    """factor · (x − middle) + offset, and by · other, all of them N×C."""
    y = torch.empty_like(x)
    for values, into, of in _pieces(x, y, y if other is None else other):
        torch.addcmul(_wide(offset, x), _less(values, middle), _wide(factor, x), out=into)
        if by is not None:
            into.addcmul_(of, _wide(by, x))
    return y


def _pieces(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each: what fits into a core's cache is read from memory once."""
    rows = max(1, PIECE // maps[0][0, :, 0].numel())
    return zip(*(one.split(rows, 2) for one in maps), strict=True)


def _less(x: Tensor, middle: Tensor | None) -> Tensor:
    return x if middle is None else x - _wide(_by_channel(middle, x), x)


def _less_middle(x: Tensor, groups: int) -> Tensor:
    """x without its groups' means as they are rounded; no gradient goes through them."""
    return x - _group_mean(x.detach(), groups)


def _group_mean(x: Tensor, groups: int) -> Tensor:
    """N×C×1×1: the mean of each channel's group."""
    return _wide(_by_channel(_means(x, groups), x), x)


def _means(x: Tensor, groups: int) -> Tensor:
    """Of each group, N×G."""
    return _by_group(x.mean(tuple(range(2, x.ndim))), groups)


def _by_group(values: Tensor, groups: int) -> Tensor:
    """N×C → N×G, the mean over a group's channels."""
    return values.unflatten(1, (groups, -1)).mean(2)


def _by_channel(values: Tensor, x: Tensor, scale: Tensor | None = None) -> Tensor:
    """N×G → N×C, times what each channel has."""
    found = values.repeat_interleave(x.shape[1] // values.shape[1], 1)
    return found if scale is None else found * scale


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """C or N×C values beside a map's positions."""
    return values.reshape(*values.shape, *(1,) * (x.ndim - 2))
