"""Barriers of programs and of warps: how many each has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import Fault

if TYPE_CHECKING:
    from .batch import Batch


class Barriers:
    """Of one launch."""

    def __init__(self, programs: int, threads: int) -> None:
        self.passed = np.zeros(programs, "i4")
        self.passed_by_warp = np.zeros(programs * threads // 32, "i4")


class BatchBarriers:
    """What the programs of a batch do with them."""

    def __init__(self, batch: Batch, barriers: Barriers) -> None:
        self._batch = batch
        self.passed, self.passed_by_warp = barriers.passed, barriers.passed_by_warp

    def of_programs(self, mask: Any, text: str) -> None:
        """`bar.sync 0`: every thread of a program that comes here must come, and one that has ended never does."""
        batch = self._batch
        if mask is None:
            self.passed[batch.programs] += 1
            return
        here = mask.reshape(-1, batch.threads).sum(1)
        if ((here > 0) & (here < batch.threads)).any():
            raise Fault(f"a barrier that only some threads of a program reach: {text}")
        self.passed[batch.programs[here > 0]] += 1

    def of_warps(self, mask: Any, text: str) -> None:
        warps = self._batch.whole_warps(mask, text)
        self.passed_by_warp[self._batch.thread.reshape(-1, 32)[warps, 0] // 32] += 1
