"""Attention at the size of an adapter: keys pooled to 1024, tokens as a channels-last map has them."""

from __future__ import annotations

import torch
from torch import Tensor

from .... import attention_adaptation
from ..cases import Case, OperationCases, Work, in_parts

HEADS, TOKENS, KEYS = 4, 3872, 1024


def both_ways(
    dtype: torch.dtype, width: int, bias: bool = True, tokens: int = TOKENS, keys: int = KEYS, last: bool = True
) -> None:
    def maps(count: int) -> Tensor:
        if last:
            return torch.empty(1, count, HEADS, width, dtype=dtype).transpose(1, 2).requires_grad_()
        return torch.empty(1, HEADS, width, count, dtype=dtype).transpose(2, 3).requires_grad_()

    inputs = [maps(tokens), maps(keys), maps(keys)]
    if bias:
        inputs.append(torch.empty(1, keys, requires_grad=True))
    out = attention_adaptation(*inputs, backend="triton")
    torch.autograd.grad(out, inputs, torch.empty_like(out))


def at_size(height: int, width: int) -> None:
    both_ways(torch.bfloat16, 32, tokens=height * width, keys=min(height * width, 1024) - height % 3)


def work(itemsize: int, width: int, splits: int, bias: bool = True) -> dict[str, Work]:
    """Products of the operation's README by pass, one exponential per score and pass. splits: parts that the keys' pass
    leaves in fp32 for `add_parts`; their number is that of the launch table."""
    queries, keys, rows = (HEADS * n for n in (TOKENS * width, KEYS * width, TOKENS))
    products, scores, matrix = HEADS * TOKENS * KEYS * width, HEADS * TOKENS * KEYS, itemsize == 2
    biases, bias_parts = 4 * KEYS * bias, 4 * HEADS * KEYS * splits * bias
    parts = 2 * keys * (4 * splits if splits > 1 else itemsize)
    found = {
        "forward": Work(
            itemsize * (queries + 2 * keys) + biases, itemsize * queries + 8 * rows, 4 * products, matrix, scores
        ),
        "backward_queries": Work(
            itemsize * (3 * queries + 2 * keys) + 8 * rows + biases, itemsize * queries + 4 * rows,
            6 * products, matrix, scores,
        ),
        "backward_keys": Work(
            itemsize * (2 * queries + 2 * keys) + 12 * rows + biases, parts + bias_parts, 8 * products, matrix, scores
        ),
    }  # fmt: skip
    if splits > 1:
        found["add_parts"] = Work(parts, 2 * keys * itemsize)
    return found


def on_amd(work: dict[str, Work]) -> dict[str, Work]:
    """Where fp32 is multiplied as it is, in tiles of their own."""
    return {f"{kernel} gfx942": one for kernel, one in work.items()}


HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64
OPERATION = OperationCases(
    "attention_adaptation",
    (
        Case("bfloat16 d 32", lambda: both_ways(HALF, 32), work=work(2, 32, 7)),
        Case(
            "bfloat16 d 32 no bias",
            lambda: both_ways(HALF, 32, bias=False),
            work=work(2, 32, 7, bias=False),
        ),
        Case("bfloat16 d 64", lambda: both_ways(HALF, 64), work=work(2, 64, 7)),
        Case(
            "bfloat16 d 64 no bias",
            lambda: both_ways(HALF, 64, bias=False),
            work=work(2, 64, 7, bias=False),
        ),
        Case("float16 d 32 contiguous", lambda: both_ways(torch.float16, 32, last=False), work=work(2, 32, 7)),
        Case(
            "float16 d 32 contiguous no bias",
            lambda: both_ways(torch.float16, 32, bias=False, last=False),
            work=work(2, 32, 7, bias=False),
        ),
        Case("bfloat16 d 128", lambda: both_ways(HALF, 128), work=work(2, 128, 7)),
        Case(
            "bfloat16 d 128 no bias",
            lambda: both_ways(HALF, 128, bias=False),
            work=work(2, 128, 7, bias=False),
        ),
        Case(
            "float32 d 32",
            lambda: both_ways(SINGLE, 32),
            work=in_parts(work(4, 32, 3)) | on_amd(work(4, 32, 5)),
        ),
        Case(
            "float32 d 64",
            lambda: both_ways(SINGLE, 64),
            may_spill="smaller tiles of fp32's parts spill no less on sm_100 (40 bytes); on sm_80 and sm_90 none",
            work=in_parts(work(4, 64, 3)) | on_amd(work(4, 64, 3)),
        ),
        Case(
            "float32 d 128",
            lambda: both_ways(SINGLE, 128),
            may_spill="no smaller tile exists for a product, and true fp32 keeps whole rows in registers",
            work=work(4, 128, 3),
        ),
        Case("float64 d 16", lambda: both_ways(DOUBLE, 16), double=True),
    ),
    at_size,
    size=f"{HEADS} heads, {TOKENS} queries, {KEYS} keys",
)
