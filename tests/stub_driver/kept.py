"""python -m tests.stub_driver.kept LIBRARY: a kernel with other arguments each time, each twice; JSON on the last line.

The second of two alike starts the kernel that the first had compiled. Whatever Triton chooses a kernel by must be told
apart, and everything else must not be.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from triton import knobs

from adu_kernels._triton import runtime
from tests.stub_driver.expected import Call, faults
from tests.stub_driver.gpu import StubGpu


class Config(NamedTuple):
    BLOCK: int


class Pair(NamedTuple):
    tensor: torch.Tensor
    number: int


@triton.jit(do_not_specialize=["size"])
def scaled(x, y, size, step, factor, pair, OFFSET: tl.constexpr, config: Config):
    lane = tl.program_id(0) * config.BLOCK + tl.arange(0, config.BLOCK)
    value = tl.load(x + lane * step, mask=lane < size, other=0.0).to(tl.float32) * factor
    value += tl.load(pair[0] + pair[1]).to(tl.float32)
    tl.store(y + lane + OFFSET, value.to(y.dtype.element_ty), mask=lane < size)


def arguments() -> dict[str, tuple[list[Any], dict[str, Any]]]:
    """By name; each must have a kernel of its own but those whose names begin with "same"."""
    x, y = torch.zeros(64), torch.zeros(64)
    pair = Pair(torch.zeros(64), 3)
    options: dict[str, Any] = {"OFFSET": 0, "config": Config(64), "num_warps": 4}
    return {
        "first": ([x, y, 50, 2, 0.5, pair], options),
        "same: another tensor, size and factor": ([torch.ones(64), y, 1, 2, 2.0, pair], options),
        "same: a parameter": ([torch.nn.Parameter(x), y, 50, 2, 0.5, pair], options),
        "same: another size": ([x, y, 48, 2, 0.5, pair], options),
        "a size beyond 2³¹": ([x, y, 2**31, 2, 0.5, pair], options),
        "same: a negative step": ([x, y, 50, -6, 0.5, pair], options),
        "a step of 1": ([x, y, 50, 1, 0.5, pair], options),
        "a step of 16": ([x, y, 50, 16, 0.5, pair], options),
        "a step beyond 2³¹": ([x, y, 50, 2**31 + 1, 0.5, pair], options),
        "another type": ([x.half(), y, 50, 2, 0.5, pair], options),
        "a start that is not aligned": ([x[1:], y, 50, 2, 0.5, pair], options),
        "a tuple's tensor not aligned": ([x, y, 50, 2, 0.5, Pair(pair.tensor[1:], 3)], options),
        "a tuple's 1": ([x, y, 50, 2, 0.5, Pair(pair.tensor, 1)], options),
        "another constant": ([x, y, 50, 2, 0.5, pair], options | {"OFFSET": 8}),
        "another config": ([x, y, 50, 2, 0.5, pair], options | {"config": Config(128)}),
        "other warps": ([x, y, 50, 2, 0.5, pair], options | {"num_warps": 8}),
    }


@contextmanager
def debugging() -> Iterator[None]:
    """Triton compiles assertions in."""
    knobs.runtime.debug = True
    try:
        yield
    finally:
        knobs.runtime.debug = False


def kept() -> int:
    return sum(len(kernels) for (kernel, *_), kernels in runtime._kept_kernels.items() if kernel is scaled)


def main() -> None:
    gpu = StubGpu(Path(sys.argv[1]), 90)
    gpu.activate()
    found: dict[str, Any] = {}
    cases = arguments()
    for name in [*cases, "first, while Triton debugs"]:
        given, options = cases[name.partition(",")[0] if name not in cases else name]
        before, wrong = kept(), []
        for _ in range(2):
            with nullcontext() if name in cases else debugging():
                runtime.run(scaled, 3, *given, **options)
            (launched,) = gpu.launched()
            wrong += faults(Call(scaled, 3, tuple(given), options), launched)
        found[name] = {"faults": wrong, "new kernels": kept() - before}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
