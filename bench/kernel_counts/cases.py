"""What is counted: each operation on a strip of a map as a training step has it, forward and backward.

A strip of one row, or a few, has the tiles of a whole map; counts per byte hardly change with more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from adu_kernels import (
    attention_adaptation,
    combined_volume,
    concatenation_volume,
    correlation_disparity,
    correlation_volume,
    depth_gradient_normal_loss,
    depth_objective,
    disparity_regression,
    feature_distillation_losses,
    group_norm,
    groupwise_correlation_volume,
    pooled_guide,
    single_output_conv3d,
    volume_with_scores,
)
from adu_kernels.group_norm import table as norm_table

CHANNELS, GROUPS, DISPARITIES, THIN, CONCATENATED, WIDTH = 320, 40, 48, 12, 32, 128
HALF, SINGLE = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class CountCase:
    operation: str
    """As the command line names it: a folder of adu_kernels."""
    name: str
    """Dtype, options, layout."""
    call: Callable[[], object]

    @property
    def title(self) -> str:
        return f"{self.operation} {self.name}"


def _maps(
    channels: int, dtype: torch.dtype, count: int, last: bool, height: int = 1, width: int = WIDTH
) -> list[Tensor]:
    layout = torch.channels_last if last else torch.contiguous_format
    made = (torch.randn(1, channels, height, width).to(dtype).to(memory_format=layout) for _ in range(count))
    return [value.requires_grad_() for value in made]


def _both_ways(results: Tensor | Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    outputs = [results] if isinstance(results, Tensor) else list(results)
    torch.autograd.grad(outputs, inputs, [torch.randn_like(output) for output in outputs])


def _groupwise(dtype: torch.dtype, last: bool, **options: Any) -> None:
    left, right = _maps(CHANNELS, dtype, 2, last)
    volume = groupwise_correlation_volume(left, right, DISPARITIES, GROUPS, backend="triton", **options)
    _both_ways(volume, [left, right])


def _plain(dtype: torch.dtype, last: bool, **options: Any) -> None:
    left, right = _maps(CHANNELS, dtype, 2, last)
    _both_ways(correlation_volume(left, right, DISPARITIES, backend="triton", **options), [left, right])


def _concatenation(dtype: torch.dtype, last: bool, channels: int = CONCATENATED) -> None:
    left, right = _maps(channels, dtype, 2, last)
    _both_ways(concatenation_volume(left, right, DISPARITIES, backend="triton"), [left, right])


def _combined(dtype: torch.dtype, last: bool) -> None:
    (left, right), thin = _maps(CHANNELS, dtype, 2, last), _maps(THIN, dtype, 2, last)
    volume = combined_volume(left, right, thin[0], thin[1], DISPARITIES, GROUPS, backend="triton")
    _both_ways(volume, [left, right, *thin])


def _with_scores(dtype: torch.dtype, last: bool) -> None:
    left, right = _maps(CHANNELS, dtype, 2, last)
    left_thin, right_thin = _maps(THIN, dtype, 2, last)
    outputs = volume_with_scores(left, right, left_thin, right_thin, DISPARITIES, GROUPS, backend="triton")
    _both_ways(outputs, [left, right, left_thin, right_thin])


def _correlation_disparity(dtype: torch.dtype, last: bool) -> None:
    left, right = _maps(CHANNELS, dtype, 2, last)
    _both_ways(correlation_disparity(left, right, DISPARITIES, backend="triton"), [left, right])


def _disparity(dtype: torch.dtype, scale: int) -> None:
    (logits,) = _maps(DISPARITIES, dtype, 1, last=False, height=4)
    _both_ways(disparity_regression(logits, scale, backend="triton"), [logits])


def _attention(dtype: torch.dtype, width: int, tokens: int = 256) -> None:
    maps = [torch.randn(1, tokens, 1, width).to(dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
    query, key, value = maps
    bias = torch.zeros(1, tokens, requires_grad=True)
    _both_ways(attention_adaptation(query, key, value, bias, backend="triton"), [*maps, bias])


def _features(dtype: torch.dtype, last: bool) -> None:
    sizes = ((64, 8, 152), (96, 4, 76), (128, 2, 38))
    adapted, teacher = ([_maps(c, dtype, 1, last, h, w)[0] for c, h, w in sizes] for _ in range(2))
    weights = [torch.rand(1, 1, h, w) for _, h, w in sizes]
    losses = feature_distillation_losses(adapted, [t.detach() for t in teacher], weights, backend="triton")
    _both_ways(losses, adapted)


def _norm(dtype: torch.dtype, last: bool, residual: bool = False) -> None:
    """Cut into few programs, so that each walks over as many tiles as it does in a training crop."""
    maps = [torch.randn(1, 32, 8, 16, 64).to(dtype) for _ in range(1 + residual)]
    if last:
        maps = [one.contiguous(memory_format=torch.channels_last_3d) for one in maps]
    given = [maps[0], torch.randn(32), torch.randn(32), *maps[1:]]
    x, weight, bias, *more = (one.requires_grad_() for one in given)
    shapes = ("STATISTICS", "NORMALISE", "GRADIENT_SUMS", "INPUT_GRADIENT")
    few = {name: replace(getattr(norm_table, name), programs=4) for name in shapes}
    with patch.multiple(norm_table, **few):
        y = group_norm(x, 8, weight, bias, activation="relu", residual=more[0] if more else None, backend="triton")
        _both_ways(y, [x, weight, bias, *more])


def _guide() -> None:
    pooled_guide(torch.rand(2, 1, 64, 256), [(8, 32), (4, 16), (2, 8)], backend="triton")


def _objective(dtype: torch.dtype, **options: Any) -> None:
    depth, log_scale, teacher, target = ((torch.rand(1, 1, 32, 512) * 20 + 1).to(dtype) for _ in range(4))
    depth, log_scale = depth.requires_grad_(), (log_scale * 0.01).requires_grad_()
    terms = depth_objective(depth, log_scale, teacher, target, backend="triton", **options)
    torch.autograd.grad(terms.total, [depth, log_scale])


def _gradient_normal(dtype: torch.dtype) -> None:
    """Strips of several rows, and tiles that the columns fill and do not."""
    depth, target = ((torch.rand(1, 1, 48, 320) * 20 + 1).to(dtype) for _ in range(2))
    depth = depth.requires_grad_()
    torch.autograd.grad(depth_gradient_normal_loss(depth, target, backend="triton").total, depth)


def _convolution(dtype: torch.dtype, last: bool, channels: int = 32) -> None:
    """Planes, rows and columns of which a tile covers few and many."""
    layout = torch.channels_last_3d if last else torch.contiguous_format
    shapes = ((1, channels, 12, 32, 64), (1, channels, 3, 3, 3))
    inputs = [torch.randn(shape).to(dtype).to(memory_format=layout).requires_grad_() for shape in shapes]
    _both_ways(single_output_conv3d(*inputs, backend="triton"), inputs)


def _layouts(
    operation: str, kind: str, call: Callable[..., None], *dtypes: torch.dtype, **options: Any
) -> list[CountCase]:
    """Channels-last, as training has it, in each dtype; contiguous in the first."""
    names = {HALF: "bf16", SINGLE: "fp32"}
    cases = [(dtype, True, "channels-last") for dtype in dtypes] + [(dtypes[0], False, "contiguous")]
    return [
        CountCase(operation, f"{kind}{names[dtype]} {layout}", partial(call, dtype, last, **options))
        for dtype, last, layout in cases
    ]


CASES = [
    *_layouts("cost_volume", "groupwise ", _groupwise, HALF, SINGLE),
    *_layouts("cost_volume", "groupwise cosine ", _groupwise, HALF, normalize="group"),
    *_layouts("cost_volume", "plain ", _plain, HALF, SINGLE),
    *_layouts("cost_volume", "plain right ", _plain, HALF, view="right"),
    *_layouts("cost_volume", "concatenation ", _concatenation, HALF),
    *_layouts("cost_volume", "concatenation of 12 ", _concatenation, HALF, channels=THIN),
    *_layouts("cost_volume", "combined ", _combined, HALF),
    *_layouts("cost_volume", "combined with scores ", _with_scores, HALF),
    *_layouts("correlation_disparity", "", _correlation_disparity, HALF, SINGLE),
    CountCase("disparity_regression", "fp32 x4", partial(_disparity, SINGLE, 4)),
    CountCase("disparity_regression", "bf16 x4", partial(_disparity, HALF, 4)),
    CountCase("disparity_regression", "fp32 x1", partial(_disparity, SINGLE, 1)),
    CountCase("attention_adaptation", "bf16 d 64", partial(_attention, HALF, 64)),
    CountCase("attention_adaptation", "bf16 d 128", partial(_attention, HALF, 128)),
    CountCase("attention_adaptation", "fp32 d 64", partial(_attention, SINGLE, 64)),
    *_layouts("group_norm", "", _norm, HALF, SINGLE),
    *_layouts("group_norm", "residual ", _norm, HALF, residual=True),
    *_layouts("feature_distillation", "", _features, HALF, SINGLE),
    CountCase("feature_distillation", "guide fp32", _guide),
    *_layouts("single_output_conv3d", "", _convolution, HALF, SINGLE),
    CountCase("single_output_conv3d", "bf16 channels-last, 64 channels", partial(_convolution, HALF, True, 64)),
    CountCase("depth_objective", "fp32", partial(_objective, SINGLE)),
    CountCase("depth_objective", "bf16", partial(_objective, HALF)),
    CountCase("depth_objective", "fp32 every option", partial(_objective, SINGLE, joint=True, beta_nll=0.5, gamma=1.5)),
    CountCase("depth_gradient_normal", "fp32", partial(_gradient_normal, SINGLE)),
    CountCase("depth_gradient_normal", "bf16", partial(_gradient_normal, HALF)),
]
