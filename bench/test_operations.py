"""The same cases under pytest-benchmark: `pytest bench`, with its options (--benchmark-group-by, --benchmark-json …).

Ours and the eager reference of every operation, forward and backward. Parity comes first here too: a wrong
implementation fails and has no time. `python -m bench` measures more (inputs past the caches, graphs, memory, peaks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.gpu_check.benchmarks import suite_of
from bench.harness.case import Case, differentiable, draw_item, outputs_of
from bench.harness.implementations import EAGER, OURS, implementations
from bench.harness.parity import Refused, check_parity, exact_results
from bench.harness.suite import choose_device, choose_size
from bench.operations import OPERATIONS

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark: pip install 'adu-depth[bench]'")

DEVICE = choose_device("auto")
CASES = [
    case for name in OPERATIONS for case in suite_of(name, dry_run=True).cases(choose_size("auto", DEVICE), DEVICE)
]


@pytest.mark.parametrize("who", [OURS, EAGER])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_forward_and_backward(benchmark: Any, case: Case, who: str) -> None:
    benchmark.group = case.name
    candidates = implementations(case, DEVICE, (), {})
    if who not in candidates:
        pytest.skip("no kernel runs on this CPU: the eager reference is what runs")
    call = candidates[who]()
    item = draw_item(case, DEVICE)
    try:
        benchmark.extra_info["error"] = check_parity(case, call, exact_results(case, item), poison=who == OURS)
    except NotImplementedError as missing:
        pytest.skip(str(missing))
    except Refused as wrong:
        pytest.fail(f"{case.name}, {who}: no time, since parity failed: {wrong}")
    benchmark(_step(call, item))


def _step(call: Callable[..., Any], item: Any) -> Callable[[], None]:
    grad_outputs = [torch.randn_like(o) for o in differentiable(outputs_of(call(*item.tensors)))]

    def step() -> None:
        torch.autograd.grad(differentiable(outputs_of(call(*item.tensors))), item.leaves, grad_outputs)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return step
