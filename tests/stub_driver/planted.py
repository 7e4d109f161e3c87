"""python -m tests.stub_driver.planted LIBRARY: faults that must be seen, each by its name, as JSON on the last line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

from tests.stub_driver.expected import Call, faults
from tests.stub_driver.gpu import StubGpu


@triton.jit
def kernel(first, second, numbers, factor, SIZE: tl.constexpr):
    places = tl.arange(0, SIZE)
    known = places < numbers[0]
    values = tl.load(first + places * numbers[1], mask=known, other=0.0)
    tl.store(second + places, values * factor, mask=known)


def refusal(start: Callable[[], object]) -> str:
    """What the driver said, through Triton."""
    try:
        start()
    except RuntimeError as error:
        return str(error)
    return ""


def main() -> None:
    gpu = StubGpu(Path(sys.argv[1]), 90)
    gpu.activate()
    first, second = torch.zeros(64), torch.zeros(64)
    options: dict[str, Any] = {"SIZE": 64, "num_warps": 2}
    arguments = (first, second, (57, 2), 0.1)
    kernel[(5,)](*arguments, **options)
    (launched,) = gpu.launched()
    right = Call(kernel, 5, arguments, options)
    found = {
        "as called": faults(right, launched),
        "programs": faults(replace(right, programs=6), launched),
        "warps": faults(replace(right, options={**options, "num_warps": 4}), launched),
        "tensors swapped": faults(replace(right, arguments=(second, first, *arguments[2:])), launched),
        "number in a tuple": faults(replace(right, arguments=(first, second, (57, 3), 0.1)), launched),
        "factor": faults(replace(right, arguments=(*arguments[:3], 0.3)), launched),
        "a constant": faults(replace(right, arguments=(first, second, (57, 1), 0.1)), launched),
        "a grid too high": refusal(lambda: kernel[(1, 65536)](*arguments, **options)),
        "launched all the same": [one.kernel for one in gpu.launched()],
    }
    gpu.pretend(80)
    found["another GPU's cubin"] = refusal(lambda: kernel[(5,)](*arguments, SIZE=128, num_warps=2))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
