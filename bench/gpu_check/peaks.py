"""Facts of the machine that predictions stand on: copy and product rates, what a launch costs, versions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from adu_depth.files import write_json
from bench.gpu_check.arguments import stage_arguments
from bench.harness.environment import measured_environment
from bench.harness.peaks import measure_peaks
from bench.harness.statistics import quantile

COPY_MEGABYTES = (1, 8, 32, 128, 512, 2048)


def copy_rates(device: torch.device, megabytes: Sequence[int]) -> dict[str, float]:
    """Bytes per second, read + written, of a copy by its size: where L2 ends shows in it."""
    found = {}
    for size in megabytes:
        source = torch.randn(size * 2**18, device=device)
        target = torch.empty_like(source)
        found[f"{size} MB"] = 2 * source.nbytes / _seconds(partial(target.copy_, source), device)
    return found


def launch_microseconds(device: torch.device) -> dict[str, float]:
    """Host time of one small torch operation, and of one small call of ours."""
    from adu_kernels import disparity_regression

    small = torch.randn(1, 4, 4, 4, device=device)
    return {
        "torch.add": _host(lambda: small + 1, device),
        "disparity_regression": _host(lambda: disparity_regression(small, backend="triton"), device),
    }


def settings(device: torch.device) -> dict[str, Any]:
    """What torch does unless told otherwise, and libraries' versions that no package says."""
    return {
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "architectures": torch.cuda.get_arch_list() if device.type == "cuda" else [],
    }


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    times = []
    for turn in range(13):
        wait(device)
        start = time.perf_counter()
        for _ in range(10):
            run()
        wait(device)
        if turn > 2:
            times.append((time.perf_counter() - start) / 10)
    return quantile(times, 0.5)


def _host(run: Callable[[], object], device: torch.device) -> float:
    calls = 200 if device.type == "cuda" else 2
    run()
    wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        run()
    spent = time.perf_counter() - start
    wait(device)
    return spent / calls * 1e6


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    chosen = stage_arguments(__doc__)
    device = torch.device("cpu" if chosen.dry_run else "cuda")
    result: dict[str, Any] = {"environment": measured_environment(device), "complete": False}
    parts: dict[str, Callable[[], Any]] = {
        "settings": partial(settings, device),
        "peaks": partial(measure_peaks, device),
        "launch_microseconds": partial(launch_microseconds, device),
        "copy_bytes_per_second": partial(copy_rates, device, COPY_MEGABYTES[:2] if chosen.dry_run else COPY_MEGABYTES),
    }
    for name, part in parts.items():
        result[name] = part()
        write_json(chosen.output, result)
        print(name, result[name], flush=True)
    result["complete"] = True
    write_json(chosen.output, result)


if __name__ == "__main__":
    main()
