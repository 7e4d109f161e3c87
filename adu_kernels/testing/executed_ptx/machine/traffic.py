"""How well warps use memory: 32-byte sectors of device memory, banks of shared memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from .counts import Counts

SECTOR, BANKS, BANK_BYTES = 32, 32, 4


class Traffic:
    """Counts of one launch. "load floor" and "store floor": bytes that were touched at all, each once."""

    def __init__(self, counts: Counts, memory_bytes: int) -> None:
        self._memory = counts.memory
        self._touched = {"load": np.zeros(memory_bytes, "?"), "store": np.zeros(memory_bytes, "?")}

    def device(self, kind: str, index: Any, size: int, lanes: Any) -> None:
        """One instruction: `size` bytes from each index on. A sector that several lanes of a warp touch counts once,
        and so does a byte."""
        for byte in range(size):
            self._touched[kind][index + byte] = True
        warp = lanes // 32 << 40
        sectors = np.unique(np.concatenate([warp | index // SECTOR, warp | (index + size - 1) // SECTOR]))
        unit = min(size, 2)
        pieces = np.unique(np.concatenate([warp | (index + offset) // unit for offset in range(0, size, unit)]))
        requests = len(np.unique(warp))
        self._memory[f"{kind} requests"] += requests
        self._memory[f"{kind} requests of {size} bytes a lane"] += requests
        self._memory[f"{kind} sectors"] += len(sectors)
        self._memory[f"{kind} bytes"] += unit * len(pieces)

    def shared(self, index: Any, size: int, lanes: Any) -> None:
        """Wavefronts: the most words that a warp wants of one bank; at the least, its words over the banks."""
        warp = lanes // 32 << 24
        words = np.unique(np.concatenate([warp | (index + k) // BANK_BYTES for k in range(0, size, BANK_BYTES)]))
        banks, depth = np.unique((words >> 24 << 24) | words % BANKS, return_counts=True)
        warps, first = np.unique(banks >> 24, return_index=True)
        wanted = np.unique(words >> 24, return_counts=True)[1]
        self._memory["shared requests"] += len(warps)
        self._memory["shared wavefronts"] += int(np.maximum.reduceat(depth, first).sum())
        self._memory["shared wavefronts at least"] += int((-(-wanted // BANKS)).sum())

    def finish(self) -> None:
        for kind, touched in self._touched.items():
            self._memory[f"{kind} floor"] += int(touched.sum())
