"""Group normalisation with what follows it, in plain PyTorch. The kernels beside this file are held to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import accumulation_dtype, without_autocast

SHORTEST = 1e-12
"""A position whose channels are shorter is not made longer than √C / SHORTEST times what it was."""
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
PIECE = 1 << 17
"""Values of a map that are multiplied at once on a CPU."""


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """act(weight · (x − mean) / √(variance + eps) + bias + residual), in the dtype and the layout of x."""
    with without_autocast(x):
        dtype = accumulation_dtype(x)
        scale, shift = (None if one is None else one.to(dtype) for one in (weight, bias))
        values = x.to(dtype)
        y = _normalised(values, num_groups, scale, shift, eps)
        if residual is not None:
            y = y + residual.to(dtype)
        if activation == "relu":
            # Where there is a backward, what it was given is kept: the result may be changed in place.
            y = F.threshold(y, 0.0, 0.0) if y.requires_grad else torch.relu_(y)
        y = y.to(x.dtype)
        if y.stride() != x.stride() and y.is_contiguous():  # as torch leaves it on CUDA
            y = torch.empty_like(x).copy_(y)
        return y


def _normalised(x: Tensor, groups: int, scale: Tensor | None, shift: Tensor | None, eps: float) -> Tensor:
    """scale · (x − mean) / √(variance + eps) + shift."""
    if x.device.type != "cpu":
        return _torch_s(x, groups, scale, shift, eps)
    last = _is_channels_last(x)
    if torch.compiler.is_compiling():
        # Of channels-last maps torch's sums are what `_ChannelsLast` says, and asked for the parameters' gradients
        # alone it crashes.
        y = _torch_s(x.contiguous(), groups, scale, shift, eps)
        return y.contiguous(memory_format=LAST[x.ndim]) if last else y
    if last:
        found: Tensor = _ChannelsLast.apply(x, scale, shift, groups, eps)[0]  # type: ignore[no-untyped-call]
        return found
    # What is added to a whole group changes nothing, but torch's sums, of the weight's gradient above all, lose by it:
    # at mean 1000 and spread 1 that is off by 5e-3 of itself.
    return _torch_s(_less_middle(x.contiguous(), groups), groups, scale, shift, eps)


def _torch_s(x: Tensor, groups: int, scale: Tensor | None, shift: Tensor | None, eps: float) -> Tensor:
    # Not F.group_norm: it refuses a group of one value, whose normalised value is 0.
    if scale is None and shift is not None:  # torch refuses to be asked for the gradient of a bias without a weight
        return torch.group_norm(x, groups, None, None, eps) + _wide(shift, x)
    return torch.group_norm(x, groups, scale, shift, eps)


def _is_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=LAST[x.ndim])


class _ChannelsLast(torch.autograd.Function):
    """The definition, for channels-last maps on a CPU.

    torch's own (2.13) takes E[x²] − E[x]² there and sums up in fp32, one position after the other: of values with mean
    1000 and spread 1 nothing is left, and in a volume of a million positions it is off by 1e-3 whatever the mean. Its
    contiguous form is better, but copies to that layout and back take longer than what stands here.
    """

    @staticmethod
    def forward(
        x: Tensor, scale: Tensor | None, shift: Tensor | None, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        middle = _group_mean(x.mean(tuple(range(2, x.ndim))), groups)
        rest, squares = (sums / x[0, 0].numel() for sums in _sums(x, x, middle))
        rest = _group_mean(rest, groups)  # what the mean still differs from the middle, which is rounded
        rstd = torch.rsqrt(_group_mean(squares, groups) - rest.square() + eps)
        factor = rstd if scale is None else rstd * scale
        offset = -rest * factor if shift is None else shift - rest * factor
        y = torch.empty_like(x)
        for values, into in _pieces(x, y):
            torch.addcmul(_wide(offset, x), values - _wide(middle, x), _wide(factor, x), out=into)
        return y, middle, rest, rstd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, scale, _, ctx.groups, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, scale, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        x, scale, middle, rest, rstd = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # this gradient is differentiated in its turn
            return (*_gradients(grad, x, scale, ctx.groups, ctx.eps, wanted), None, None)
        d_shift, products = _sums(grad, x, middle)
        d_scale = (products - rest * d_shift) * rstd
        d_x = None
        if wanted[0]:
            factor = rstd if scale is None else rstd * scale
            along, beside = (
                _group_mean(d if scale is None else d * scale, ctx.groups) / x[0, 0].numel() * rstd
                for d in (d_scale, d_shift)
            )
            along = -along * rstd
            level = -rest * along - beside
            d_x = torch.empty_like(x)
            for upstream, values, into in _pieces(grad, x, d_x):
                torch.addcmul(_wide(level, x), upstream, _wide(factor, x), out=into)
                into.addcmul_(values - _wide(middle, x), _wide(along, x))
        return d_x, d_scale.sum(0) if wanted[1] else None, d_shift.sum(0) if wanted[2] else None, None, None


def _gradients(
    grad: Tensor, x: Tensor, scale: Tensor | None, groups: int, eps: float, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Of x, scale and shift, by the formula, through which autograd can go in its turn."""
    positions = tuple(range(2, x.ndim))
    x = _less_middle(x, groups)
    centred = x - _wide(_group_mean(x.mean(positions), groups), x)
    rstd = _wide(torch.rsqrt(_group_mean(centred.square().mean(positions), groups) + eps), x)
    normal = centred * rstd
    weighted = grad if scale is None else grad * _wide(scale, x)
    along, beside = (_wide(_group_mean(of.mean(positions), groups), x) for of in (weighted * normal, weighted))
    d_x = (weighted - beside - normal * along) * rstd
    apart = (0, *positions)
    found = (d_x, (grad * normal).sum(apart), grad.sum(apart))
    return tuple(one if wants else None for one, wants in zip(found, wanted, strict=True))


def _less_middle(x: Tensor, groups: int) -> Tensor:
    """x without its groups' means as they are rounded; no gradient goes through them."""
    return x - _wide(_group_mean(x.detach().mean(tuple(range(2, x.ndim))), groups), x)


def _sums(one: Tensor, x: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
    """Over all positions, N×C: Σ one and Σ one · (x − middle), or of x itself less the middle, and its square."""
    positions = tuple(range(2, x.ndim))
    sums, products = [], []
    for of, values in _pieces(one, x):
        centred = values - _wide(middle, x)
        of = centred if one is x else of
        sums.append(of.sum(positions))
        products.append((of * centred).sum(positions))
    return torch.stack(sums).sum(0), torch.stack(products).sum(0)


def _pieces(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each: what fits into a core's cache is read from memory once."""
    rows = max(1, PIECE * maps[0].shape[2] // maps[0].numel())
    return zip(*(one.split(rows, 2) for one in maps), strict=True)


def _group_mean(values: Tensor, groups: int) -> Tensor:
    """N×C → N×C, every channel with the mean of its group."""
    each = values.unflatten(1, (groups, -1))
    return each.mean(2, keepdim=True).expand_as(each).flatten(1)


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """C or N×C values beside a map's positions."""
    return values.reshape(*values.shape, *(1,) * (x.ndim - 2))


def cosine_features(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Zero mean and unit variance over each image per channel, then the length √C per position."""
    with without_autocast(x):
        values = x.to(accumulation_dtype(x))
        positions = tuple(range(2, x.ndim))
        centred = values - values.mean(positions, keepdim=True).detach()  # which is rounded
        centred = centred - centred.mean(positions, keepdim=True)
        normal = centred * torch.rsqrt(centred.square().mean(positions, keepdim=True) + eps)
        length = torch.linalg.vector_norm(normal, dim=1, keepdim=True).clamp_min(SHORTEST)
        return (normal * (x.shape[1] ** 0.5 / length)).to(x.dtype)
