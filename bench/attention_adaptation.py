"""The adapters' attention beside torch's own. Least work: adu_kernels/attention_adaptation/README.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import adu_kernels
from adu_kernels import reference
from bench.harness.case import Case, Work
from bench.harness.implementations import Absent
from bench.harness.suite import Suite, dtype_name, labelled

HALF, SINGLE = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Shape:
    """Of one level's tokens."""

    batch: int
    heads: int
    queries: int
    keys: int
    width: int


# The levels at 1/8, 1/16 and 1/32 of 384×1248, keys pooled to at most 1024 (adu_depth.models.adapter.pool_keys).
EIGHTH = Shape(8, 2, 48 * 156, 16 * 52, 32)
SIXTEENTH = Shape(8, 2, 24 * 78, 12 * 39, 32)
WIDE = Shape(8, 4, 48 * 156, 16 * 52, 64)
SMALL = Shape(1, 2, 12 * 40, 12 * 40, 32)
TINY = Shape(1, 1, 12, 5, 16)
OVERHEAD = Shape(1, 2, 16, 16, 16)


@dataclass(frozen=True)
class AttentionAdaptationBenchmark(Suite):
    """Attention of many queries over few keys, with a bias per key and without, beside torch's SDPA, FlexAttention."""

    @property
    def name(self) -> str:
        return "attention-adaptation"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        if size == "gpu":
            found = [
                attention_case(EIGHTH, HALF, biased=True, headline=True),
                attention_case(EIGHTH, HALF, biased=False),
                attention_case(SIXTEENTH, HALF, biased=True),
                attention_case(WIDE, HALF, biased=True),
                attention_case(EIGHTH, SINGLE, biased=True),
            ]
        else:
            shape = SMALL if size == "small" else TINY
            found = [attention_case(shape, SINGLE, biased=biased) for biased in (True, False)]
        return [*found, attention_case(OVERHEAD, SINGLE, biased=True, overhead=True)]


def attention_case(
    shape: Shape, dtype: torch.dtype, *, biased: bool, headline: bool = False, overhead: bool = False
) -> Case:
    rows = shape.batch * shape.heads
    products = rows * shape.queries * shape.keys * shape.width
    tokens = dtype.itemsize * rows * shape.width * (shape.queries + shape.keys)
    bias_bytes = 4 * shape.batch * shape.keys if biased else 0
    label = labelled(B=shape.batch, heads=shape.heads, N=shape.queries, M=shape.keys, d=shape.width)
    what = f"attention {'with' if biased else 'without'} bias{' (call overhead)' if overhead else ''}"
    return Case(
        name=f"{what}, {dtype_name(dtype)}, {label}",
        dtype=dtype,
        shape={**shape.__dict__},
        kernel=adu_kernels.attention_adaptation,
        reference=reference.attention_adaptation,
        draw=_tokens(shape, dtype, biased),
        gradients=4 if biased else 3,
        work=Work(2 * tokens + bias_bytes, 4 * tokens + 2 * bias_bytes, 4 * products, 10 * products, matrix=True),
        peers=PEERS_WITH_BIAS if biased else {"torch SDPA": sdpa},
        headline=headline,
        overhead=overhead,
    )


def sdpa(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """torch's attention; a bias per key becomes its mask, spread over heads and queries by strides of 0."""
    mask = None if key_bias is None else key_bias[:, None, None, :].to(query.dtype)
    if mask is not None:
        mask = mask.expand(-1, query.shape[1], query.shape[2], -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def flex(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor) -> Tensor:
    """torch's FlexAttention, compiled, the bias added by its score function."""
    if not query.is_cuda:
        raise Absent("torch's FlexAttention has no backward on a CPU")
    return _compiled_flex()(query, key, value, key_bias)  # type: ignore[no-any-return]


PEERS_WITH_BIAS: Mapping[str, Callable[..., Tensor]] = {"torch SDPA + mask": sdpa, "torch FlexAttention": flex}
_flex: list[Callable[..., Any]] = []


def _compiled_flex() -> Callable[..., Any]:
    """Compiled once a process: another compilation at each call would be timed with it."""
    if not _flex:
        from torch.nn.attention.flex_attention import flex_attention

        def attend(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor) -> Any:
            def biased(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
                return score + key_bias[batch, column]

            return flex_attention(query, key, value, score_mod=biased)

        _flex.append(torch.compile(attend, dynamic=False))
    return _flex[0]


def _tokens(shape: Shape, dtype: torch.dtype, biased: bool) -> Callable[[torch.device], list[Tensor]]:
    def draw(device: torch.device) -> list[Tensor]:
        sizes = [(shape.batch, shape.heads, count, shape.width) for count in (shape.queries, shape.keys, shape.keys)]
        tokens = [torch.randn(size, device=device).to(dtype) for size in sizes]
        return [*tokens, torch.randn(shape.batch, shape.keys, device=device)] if biased else tokens

    return draw
