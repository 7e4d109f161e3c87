"""What is left in order where a capture fails, by the calls that reach torch: no GPU is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adu_depth.training import cuda_graphs
from adu_depth.training.cuda_graphs import CudaGraphs


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch is asked for; `capture_begin` fails once the allocator has been told of a capture."""
    calls: list[str] = []

    class Graph:
        def capture_begin(self, **given: Any) -> None:
            calls.append("capture_begin")
            raise RuntimeError("CUDA error: operation not permitted")

        def capture_end(self) -> None:
            calls.append("capture_end")
            raise RuntimeError("CUDA error: no capture is under way")

    def noted(name: str) -> Any:
        return lambda *given: calls.append(name)

    generator = SimpleNamespace(clone_state=lambda: "before", graphsafe_set_state=noted("generator set back"))
    monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *given: None)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", noted("allocation ended"), raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", noted("pool released"), raising=False)
    monkeypatch.setattr(cuda_graphs, "_abandoned", [])
    return calls


def test_a_capture_that_fails_as_it_begins_is_ended_for_the_allocator_too(called: list[str]) -> None:
    graphs: Any = object.__new__(CudaGraphs)
    graphs.index, graphs.pool = 0, (0, 1)
    with pytest.raises(RuntimeError, match="not permitted"):
        graphs.capture(lambda: None)
    assert called == ["capture_begin", "capture_end", "allocation ended", "pool released", "generator set back"]
