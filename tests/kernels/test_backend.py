"""What "auto" means in threads, tasks and autograd, while somebody else is within `use_backend`."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from adu_kernels import (
    backend,
    combined_volume,
    concatenation_volume,
    disparity_regression,
    groupwise_correlation_volume,
)
from adu_kernels._triton import runtime

pytestmark = pytest.mark.cpu


def _chosen() -> str:
    tensor = torch.zeros(1)
    return backend.dispatch("op", "auto", tensor, torch_twin=lambda: "torch", triton_twin=lambda: "triton")()


def _in_a_thread(run: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join()
    return found[0]


def test_two_threads_that_overlap_leave_nothing_behind() -> None:
    both_in, first_out = threading.Barrier(2), threading.Event()
    seen: dict[str, list[str]] = {"first": [], "second": []}

    def stay(name: str, meant: str, last: bool) -> None:
        with backend.use_backend(meant):
            both_in.wait()
            seen[name].append(_chosen())
            if last:
                first_out.wait()
                seen[name].append(_chosen())
        first_out.set()
        seen[name].append(_chosen())

    threads = [
        threading.Thread(target=stay, args=("first", "triton", False)),
        threading.Thread(target=stay, args=("second", "torch", True)),
    ]
    threads[0].start()
    threads[1].start()
    for thread in threads:
        thread.join()
    assert seen == {"first": ["triton", "torch"], "second": ["torch", "torch", "torch"]}
    assert _chosen() == "torch"
    assert torch.compile(lambda x: x + (backend._newest == "auto"), backend="eager")(torch.zeros(1)) == 1


def test_a_new_thread_begins_with_auto_unless_it_is_given_the_context() -> None:
    with backend.use_backend("triton"):
        assert _in_a_thread(_chosen) == "torch"
        context = contextvars.copy_context()
        assert _in_a_thread(lambda: context.run(_chosen)) == "triton"


def test_tasks_do_not_see_one_another_and_those_they_start_do() -> None:
    async def child() -> str:
        await asyncio.sleep(0)
        return _chosen()

    async def task(meant: str | None) -> list[str]:
        if meant is None:
            await asyncio.sleep(0)
            return [_chosen()]
        with backend.use_backend(meant):
            await asyncio.sleep(0)
            return [_chosen(), await asyncio.create_task(child())]

    async def all_at_once() -> list[list[str]]:
        return await asyncio.gather(task("triton"), task(None), task("torch"))

    assert asyncio.run(all_at_once()) == [["triton", "triton"], ["torch"], ["torch", "torch"]]


class _Deeper(torch.autograd.Function):
    """A backward within a backward, and so on: the 62nd autograd runs in a thread of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, depth: int, seen: list[tuple[int, str]]) -> Tensor:
        ctx.depth, ctx.seen = depth, seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        ctx.seen.append((threading.get_ident(), _chosen()))
        if ctx.depth:
            with torch.enable_grad():
                leaf = torch.ones(1, requires_grad=True)
                _Deeper.apply(leaf, ctx.depth - 1, ctx.seen).backward()
        return upstream[0], None, None


def test_the_earlier_name_does_the_same_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="use_backend"), backend.auto_is("triton"):
        assert _chosen() == "triton"
    assert _chosen() == "torch"


@pytest.mark.parametrize("told", [True, False], ids=["told by torch", "as by torch 2.11"])
def test_autograd_s_threads_see_what_the_caller_of_the_backward_does(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not told:
        monkeypatch.setattr(torch._C, "_is_key_in_tls", lambda name: False)
    seen: list[tuple[int, str]] = []
    leaf = torch.ones(1, requires_grad=True)
    with backend.use_backend("triton"):
        _Deeper.apply(leaf, 61, seen).backward()
    assert len({thread for thread, _ in seen}) > 1
    assert {meant for _, meant in seen} == {"triton"}
    assert _chosen() == "torch"


def test_where_autograd_s_threads_are_not_told_a_python_thread_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backward on the CPU runs in the thread that asks for it."""
    monkeypatch.setattr(torch._C, "_is_key_in_tls", lambda name: False)
    seen: list[tuple[int, str]] = []
    with backend.use_backend("triton"):
        _in_a_thread(lambda: _Deeper.apply(torch.ones(1, requires_grad=True), 0, seen).backward())
    assert [meant for _, meant in seen] == ["torch"]


def test_traced_code_is_compiled_anew_where_auto_changes() -> None:
    operators: list[bool] = []

    def noted(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        operators.append(any("adu_kernels" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    traced = torch.compile(lambda x: disparity_regression(x)[0], fullgraph=True, backend=noted)
    logits = torch.randn(1, 3, 2, 2)
    traced(logits)
    with backend.use_backend("triton"):
        traced(logits)
    traced(logits)
    assert operators == [False, True]


@pytest.mark.parametrize("operation", [groupwise_correlation_volume, combined_volume, concatenation_volume])
def test_tensors_of_the_cpu_are_refused_before_a_gpu_is_asked_what_it_is(
    operation: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(runtime, "interpreting", lambda: False)
    maps = [torch.zeros(1, 8, 2, 4) for _ in range(4 if operation is combined_volume else 2)]
    groups = {} if operation is concatenation_volume else {"num_groups": 4}
    with pytest.raises(RuntimeError, match=r"expected tensors on a GPU, got cpu\. Use backend='torch'"):
        operation(*maps, 3, **groups, backend="triton")
