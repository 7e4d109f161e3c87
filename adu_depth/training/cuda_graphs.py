"""CUDA graphs in one pool of memory, on one stream, and what is left in order where one cannot be captured."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from adu_depth.training.graph import Captured

_abandoned: list[torch.cuda.CUDAGraph] = []
"""Captures that CUDA called invalid, kept for good: torch's allocators may refer to them still."""


class CudaGraphs:
    """Captures work on `device`. Graphs must be replayed one at a time, each pair of halves in the order of its
    capture: they share memory, except for what is still referred to."""

    def __init__(self, device: torch.device) -> None:
        self.index = torch.cuda.current_device() if device.index is None else device.index
        self.stream = torch.cuda.Stream(self.index)
        self.pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def running(self) -> Iterator[None]:
        """On the stream that graphs are captured on. Steps before a capture run there too: libraries keep workspaces
        by stream, and autograd remembers the stream of a gradient."""
        around = torch.cuda.current_stream(self.index)
        self.stream.wait_stream(around)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            around.wait_stream(self.stream)

    def capture(self, work: Callable[[], Tensor | None]) -> Captured:
        """Call it within `running`. The random numbers of a replay follow from the default generator's seed and offset
        when it is replayed: both are read by the kernels from memory that a replay fills (CUDAGeneratorState,
        replay_prologue), so that a seed set before it is obeyed."""
        generator = torch.cuda.default_generators[self.index]
        before = generator.clone_state()
        gc.collect()  # what is freed while work is captured can spoil it
        torch.cuda.synchronize(self.index)
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            # By thread: the one that pins batches of a DataLoader may go on meanwhile.
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            result = work()
            graph.capture_end()
        except BaseException:
            self._abandon(graph)
            # A state whose capture did not end refuses to draw.
            generator.graphsafe_set_state(before)
            raise
        return Captured(graph.replay, result)

    def _abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """Ends a capture that failed. torch ends only its stream's where CUDA has called it invalid, not its memory's,
        and neither where it failed as it began: until both are done the allocator takes it to be under way."""
        with suppress(RuntimeError):
            graph.capture_end()
        with suppress(RuntimeError):  # raised by the first of the two where it has ended
            torch._C._cuda_endAllocateToPool(self.index, self.pool)
            torch._C._cuda_releasePool(self.index, self.pool)
            _abandoned.append(graph)
