"""What a step needs beside its inputs: the peak of its allocations, and what autograd keeps until the backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most that was allocated at once while `run` ran, above what was allocated before.

    On a GPU by the caching allocator's own count; on a CPU by the profiler's list of allocations.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    recorded = profiler.profiler.kineto_results.events()  # events() attributes allocations to operators and nets them
    changes = [(event.start_ns(), event.nbytes()) for event in recorded if event.name() == "[memory]"]
    held = most = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        held += change
        most = max(most, held)
    return most


def kept_bytes(run: Callable[[], object], inputs: Sequence[Tensor]) -> int:
    """Bytes that autograd keeps between forward and backward, the inputs left out, each storage once."""
    kept: dict[int, int] = {}
    given = {value.untyped_storage().data_ptr() for value in inputs}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        result = run()  # held until the sum is taken, so that no address is used twice
    total = sum(kept.values())
    del result
    return total
