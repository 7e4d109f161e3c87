"""How the volumes are made: two PyTorch operators, of which compilation, export and autograd see one node each way, and
the launches within. `table.py` plans each launch whole before it is started; nothing is tuned at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.layout import empty_like_map, is_channels_last
from .._triton.operators import operator
from ..derivatives import differentiable_once, keep, kept
from .table import Grads, Pair, VolumeOptions, band_plan, slide_plan, stood_in

Maps = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""left, right, left_thin, right_thin."""


# --- forward


@operator("adu_kernels::cost_volume")
def cost_volume(
    left: Tensor | None,
    right: Tensor | None,
    left_thin: Tensor | None,
    right_thin: Tensor | None,
    num_disparities: int,
    num_groups: int,
    plain: bool,
    normalize: str,
    reduction: str,
    mask_left: bool,
    view: str,
    eps: float,
    eps_rule: str,
    scores: bool,
) -> tuple[Tensor, Tensor]:
    """Correlation of the first pair, then concatenation of the second; either pair may be absent. And the mean over
    the groups, empty where it is not asked for."""
    options = VolumeOptions(
        num_disparities, num_groups, plain, normalize, reduction, mask_left, view, eps, eps_rule, scores
    )
    return run_forward((left, right, left_thin, right_thin), options)


@cost_volume.register_fake
def _(left, right, left_thin, right_thin, *options):  # type: ignore[no-untyped-def]
    return new_outputs(left, left_thin, VolumeOptions(*options))


def run_forward(maps: Maps, options: VolumeOptions) -> tuple[Tensor, Tensor]:
    """The volume, in one launch; the scores, where they are asked for, in another."""
    volume, scores = new_outputs(maps[0], maps[2], options)
    grouped = volume.unsqueeze(1) if options.plain else volume
    correlated, concatenated = _base_first(*maps[:2], options), _base_first(*maps[2:], options)
    if correlated and not concatenated and options.num_groups == 1:
        _band_forward(correlated, grouped, options)
    else:
        _slide_forward(correlated, concatenated, grouped, options)
    if options.scores:
        assert correlated is not None
        _mean_over_groups(correlated, volume, scores, options)
    return volume, scores


def new_outputs(left: Tensor | None, left_thin: Tensor | None, options: VolumeOptions) -> tuple[Tensor, Tensor]:
    """Volume and scores, unwritten."""
    first = left if left is not None else left_thin
    assert first is not None
    batch, _, height, width = first.shape
    shape = (batch, options.num_disparities, height, width) if options.scores else (0,)
    return new_volume(left, left_thin, options), first.new_empty(shape)


def new_volume(left: Tensor | None, left_thin: Tensor | None, options: VolumeOptions) -> Tensor:
    """The volume, unwritten: channels-last where the (first) left map is, else contiguous."""
    first = left if left is not None else left_thin
    assert first is not None
    batch, _, height, width = first.shape
    slab = (options.num_disparities, height, width)
    if options.plain:  # its disparities take the place of channels
        if is_channels_last(first):
            return first.new_empty(batch, height, width, options.num_disparities).permute(0, 3, 1, 2)
        return first.new_empty(batch, *slab)
    channels = (0 if left is None else options.num_groups) + (0 if left_thin is None else 2 * left_thin.shape[1])
    if is_channels_last(first):
        return first.new_empty(batch, *slab, channels).permute(0, 4, 1, 2, 3)
    return first.new_empty(batch, channels, *slab)


def _base_first(left: Tensor | None, right: Tensor | None, options: VolumeOptions) -> Pair | None:
    if left is None or right is None:
        return None
    return (left, right) if options.view == "left" else (right, left)


def _slide_forward(correlated: Pair | None, concatenated: Pair | None, volume: Tensor, options: VolumeOptions) -> None:
    from . import kernels  # here and below: Triton is needed only where a kernel runs

    plan = slide_plan(correlated, concatenated, volume, options)
    maps, concat_maps = correlated or concatenated, concatenated or correlated  # what is absent is stood in for, unread
    assert maps is not None
    assert concat_maps is not None
    runtime.run(
        kernels.volume_forward, plan.programs, *maps, *concat_maps, volume, *plan.numbers,
        config=plan.config, **plan.options,
    )  # fmt: skip


def _band_forward(maps: Pair, volume: Tensor, options: VolumeOptions) -> None:
    """The correlation of all channels; of several groups their mean."""
    from . import banded

    plan = band_plan(maps, volume, options)
    runtime.run(banded.band_forward, plan.programs, *maps, volume, *plan.numbers, config=plan.config, **plan.options)


def _mean_over_groups(correlated: Pair, volume: Tensor, scores: Tensor, options: VolumeOptions) -> None:
    """Of maps of 2 bytes the mean is the correlation of all channels, which matrix units make from the maps in less
    time than the volume takes to be read. Without them, in wider types, it takes longer; and groups that are
    normalised each by itself have no such sum."""
    if volume.dtype.itemsize > 2 or options.normalize == "group":
        torch.mean(volume[:, : options.num_groups], 1, out=scores)
        return
    _band_forward(correlated, scores.unsqueeze(1), options)


# --- backward


@operator("adu_kernels::cost_volume_backward")
def cost_volume_backward(
    grad_output: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    left_thin: Tensor | None,
    right_thin: Tensor | None,
    grad_scores: Tensor | None,
    needed: list[bool],
    num_disparities: int,
    num_groups: int,
    plain: bool,
    normalize: str,
    reduction: str,
    mask_left: bool,
    view: str,
    eps: float,
    eps_rule: str,
    scores: bool,
) -> list[Tensor]:
    """Gradients of those of the four maps that are there and needed, in order."""
    options = VolumeOptions(
        num_disparities, num_groups, plain, normalize, reduction, mask_left, view, eps, eps_rule, scores
    )
    return run_backward(grad_output, (left, right, left_thin, right_thin), needed, options, grad_scores)


@cost_volume_backward.register_fake
def _(grad_output, left, right, left_thin, right_thin, grad_scores, needed, *options):  # type: ignore[no-untyped-def]
    maps = (left, right, left_thin, right_thin)
    return [empty_like_map(m) for m, need in zip(maps, needed, strict=True) if m is not None and need]


def run_backward(
    grad_output: Tensor,
    maps: Maps,
    needed: Sequence[bool],
    options: VolumeOptions,
    grad_scores: Tensor | None = None,
) -> list[Tensor]:
    """The gradients of the maps that are there and need one, in one launch."""
    grads = [empty_like_map(m) if m is not None and need else None for m, need in zip(maps, needed, strict=True)]
    present = [g for g in grads if g is not None]
    if not present:
        return present
    grouped = grad_output.unsqueeze(1) if options.plain else grad_output
    correlated, concatenated = _base_first(*maps[:2], options), _base_first(*maps[2:], options)
    turn = slice(None) if options.view == "left" else slice(None, None, -1)
    base_first = [*grads[:2][turn], *grads[2:][turn]]
    if correlated and not concatenated and options.num_groups == 1 and options.normalize == "none":
        if grad_scores is not None:  # of the only group
            grouped = grouped + grad_scores.unsqueeze(1)
        _band_backward(correlated, grouped, base_first[:2], options)
    else:
        _slide_backward(correlated, concatenated, grouped, grad_scores, base_first, options)
    return present


def _slide_backward(
    correlated: Pair | None,
    concatenated: Pair | None,
    grad_output: Tensor,
    grad_scores: Tensor | None,
    grads: Grads,
    options: VolumeOptions,
) -> None:
    from . import kernels

    plan = slide_plan(correlated, concatenated, grad_output, options, grads, grad_scores)
    maps = correlated or concatenated
    assert maps is not None
    scores = grad_output if grad_scores is None else grad_scores  # without them not read
    runtime.run(
        kernels.volume_backward, plan.programs, *maps, grad_output, scores, *stood_in(grads), *plan.numbers,
        config=plan.config, **plan.options,
    )  # fmt: skip


def _band_backward(maps: Pair, grad_output: Tensor, grads: Grads, options: VolumeOptions) -> None:
    from . import banded

    plan = band_plan(maps, grad_output, options, grads)
    runtime.run(
        banded.band_backward, plan.programs, *maps, grad_output, *stood_in(grads), *plan.numbers,
        config=plan.config, **plan.options,
    )  # fmt: skip


# --- autograd


def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    # Of the concatenated pair the backward asks how it lies in memory, and no value.
    keep(ctx, _operation(None, *inputs[:4], None, None, *inputs[4:]), inputs[:2])
    ctx.concatenated = [None if one is None else (one.shape, one.stride()) for one in inputs[2:4]]
    ctx.options = inputs[4:]
    ctx.set_materialize_grads(False)
    ctx.volume_shape = output[0].shape


def backward(ctx: Any, grad_output: Tensor | None, grad_scores: Tensor | None) -> tuple:
    needed = list(ctx.needs_input_grad[:4])
    correlated, _ = kept(ctx)
    given = grad_output if grad_output is not None else grad_scores
    if given is None:
        return (None,) * (4 + len(ctx.options))
    if grad_output is None:  # a zero that is read again and again, in place of a volume of them
        grad_output = given.new_zeros(()).expand(ctx.volume_shape)
    concatenated = [None if one is None else given.new_empty_strided(*one) for one in ctx.concatenated]
    if not VolumeOptions(*ctx.options).scores:
        grad_scores = None  # of an output that is empty
    grads = iter(cost_volume_backward(grad_output, *correlated, *concatenated, grad_scores, needed, *ctx.options))
    return *(next(grads) if need else None for need in needed), *(None for _ in ctx.options)


def _operation(
    grad_output: Any, left: Any, right: Any, left_thin: Any, right_thin: Any, grad_scores: Any, needed: Any,
    *options: Any,
) -> str:  # fmt: skip
    """The public name, from what `cost_volume_backward` takes."""
    if VolumeOptions(*options).scores:
        return "volume_with_scores"
    if left is None:
        return "concatenation_volume"
    if left_thin is not None:
        return "combined_volume"
    return "correlation_volume" if VolumeOptions(*options).plain else "groupwise_correlation_volume"


differentiable_once(
    cost_volume, cost_volume_backward, setup_context=setup_context, backward=backward, operation=_operation
)
