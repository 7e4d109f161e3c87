"""Facts of the machine that predictions stand on, and where a training step's time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from adu_depth.data import SyntheticStereo
from adu_depth.files import write_json
from adu_kernels import launch
from adu_kernels.backend import auto_is
from bench.gpu_check.arguments import stage_arguments
from bench.harness.environment import measured_environment
from bench.harness.roofs import measure_roofs
from bench.harness.statistics import quantile
from bench.harness.timing import no_mark
from bench.whole_steps import SCALES, Build, distillation_step, teacher_step

COPY_MEGABYTES = (1, 8, 32, 128, 512, 2048)
WAITS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "aten::item",
    "aten::_local_scalar_dense",
)
TOP = 25


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


def profiled(build: Build, size: str, device: torch.device) -> dict[str, Any]:
    """The costliest operations of one step with the kernels, and how often it waits for the device."""
    scale = SCALES[size][0]
    torch.manual_seed(0)
    with auto_is("triton"):
        work = build(scale, device, None, None).work
        sample = SyntheticStereo(None, scale.height, scale.width, device=device).render_batch(range(scale.batch))
        for _ in range(0 if launch.interpreting() else 3):
            work(sample, no_mark, True)
        _wait(device)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        start = time.perf_counter()
        with profile(activities=activities, acc_events=True) as profiler:
            work(sample, no_mark, True)
            _wait(device)
        seconds = time.perf_counter() - start
    rows = [(event.key, event.count, _own_time(event, device)) for event in profiler.key_averages()]
    total = sum(spent for _, _, spent in rows) or 1.0
    rows.sort(key=lambda row: -row[2])
    return {
        "profiled_seconds": seconds,
        "waits": {name: count for name, count, _ in rows if name in WAITS},
        "largest": [{"name": n[:120], "count": c, "microseconds": t, "share": t / total} for n, c, t in rows[:TOP]],
    }


def _own_time(event: Any, device: torch.device) -> float:
    return float(event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    times = []
    for turn in range(13):
        _wait(device)
        start = time.perf_counter()
        for _ in range(10):
            run()
        _wait(device)
        if turn > 2:
            times.append((time.perf_counter() - start) / 10)
    return quantile(times, 0.5)


def _host(run: Callable[[], object], device: torch.device) -> float:
    calls = 200 if device.type == "cuda" else 2
    run()
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        run()
    spent = time.perf_counter() - start
    _wait(device)
    return spent / calls * 1e6


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    chosen = stage_arguments(__doc__)
    device = torch.device("cpu" if chosen.rehearse else "cuda")
    size = "tiny" if chosen.rehearse else "card"
    result: dict[str, Any] = {"environment": measured_environment(device), "complete": False}
    parts: dict[str, Callable[[], Any]] = {
        "roofs": partial(measure_roofs, device),
        "copy_bytes_per_second": partial(copy_rates, device, COPY_MEGABYTES[:2] if chosen.rehearse else COPY_MEGABYTES),
        "launch_microseconds": partial(launch_microseconds, device),
        "teacher_step": partial(profiled, teacher_step, size, device),
        "distillation_step": partial(profiled, distillation_step, size, device),
    }
    for name, part in parts.items():
        result[name] = part()
        write_json(chosen.output, result)
        print(name, result[name], flush=True)
    result["complete"] = True
    write_json(chosen.output, result)


if __name__ == "__main__":
    main()
