"""The two ceilings of the device, measured in the run that is compared with them: a copy, and a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from bench.harness.statistics import quantile

COPY_ELEMENTS = 2**28  # of 4 bytes: far more than any L2 holds
MATRIX = 8192
REPEATS = 20


def measure_peaks(device: torch.device) -> dict[str, float] | None:
    """Bytes per second of a device copy (read + written), flops per second of a product on random data by type.

    None on a CPU: what a row could be compared with there depends on cores, caches and neighbours, so nothing is
    claimed.
    """
    if device.type != "cuda":
        return None
    source = torch.randn(COPY_ELEMENTS, device=device)
    target = torch.empty_like(source)
    found = {"copy": 2 * source.nbytes / _seconds(partial(target.copy_, source))}
    del source, target
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16), ("float32", torch.float32)):
        size = MATRIX if dtype != torch.float32 else MATRIX // 2
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        seconds = _seconds(partial(torch.mm, a, b, out=out))
        found[name] = 2 * size**3 / seconds
    return found


def least_microseconds(
    peaks: dict[str, float] | None, work_bytes: int, flops: int, dtype: str, matrix: bool
) -> float | None:
    """The time below which no implementation goes: the larger of bytes at the copy's rate, products at the matrix rate.

    Arithmetic that is no matrix product has no measured roof and is left out.
    """
    if peaks is None:
        return None
    by_bytes = work_bytes / peaks["copy"]
    by_flops = flops / peaks[dtype] if matrix and dtype in peaks else 0.0
    return max(by_bytes, by_flops) * 1e6


def _seconds(run: Callable[[], object]) -> float:
    for _ in range(3):
        run()
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return quantile(times, 0.5)
