"""Where a training step's time goes on the GPU, how much of it the GPU idles, and which lines wait for it."""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from adu_depth.data import SyntheticStereo
from adu_depth.files import write_json
from adu_kernels._triton import runtime
from adu_kernels.backend import use_backend
from bench.gpu_check.arguments import stage_arguments
from bench.gpu_check.peaks import wait
from bench.harness.environment import measured_environment
from bench.harness.timing import no_mark
from bench.training_steps import SCALES, Build, distillation_step, teacher_step

WAITS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "Memcpy DtoH (Device -> Pageable)",
    "Memcpy HtoD (Pageable -> Device)",
)
"""Calls and copies at which the host waits. The one cudaDeviceSynchronize that ends a profiled step is its own."""
STARTS = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
TOP = 40
STEPS: dict[str, tuple[Build, torch.dtype | None]] = {
    "teacher_step, bf16": (teacher_step, torch.bfloat16),
    "distillation_step, bf16": (distillation_step, torch.bfloat16),
    "teacher_step, fp32": (teacher_step, None),
    "distillation_step, fp32": (distillation_step, None),
}
Row = tuple[str, int, float]
"""Name, how often, microseconds of its own."""


def profiled(build: Build, autocast: torch.dtype | None, size: str, device: torch.device) -> dict[str, Any]:
    """One step with the kernels: its costliest GPU kernels and operators, launches, waits, and idle time."""
    scale = SCALES[size][0]
    torch.manual_seed(0)
    with use_backend("triton"):
        work = build(scale, device, autocast, None).work
        sample = SyntheticStereo(None, scale.height, scale.width, device=device).render_batch(range(scale.batch))
        for _ in range(0 if runtime.interpreting() else 3):
            work(sample, no_mark, True)
        waiting = waiting_lines(lambda: work(sample, no_mark, True), device)
        wait(device)
        start = time.perf_counter()
        work(sample, no_mark, True)
        wait(device)
        seconds = time.perf_counter() - start
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        with profile(activities=activities, acc_events=True) as profiler:
            work(sample, no_mark, True)
            wait(device)
    return {"step_seconds": seconds, "waiting_lines": waiting, **told(profiler.key_averages(), seconds)}


def told(events: Sequence[Any], seconds: float) -> dict[str, Any]:
    """What the profiler's averages say of a step that takes `seconds` without it."""
    # What a record_function spans on the GPU is no kernel: its kernels are there beside it.
    on_gpu = [e for e in events if e.device_type != DeviceType.CPU and not e.is_user_annotation]
    on_host = [e for e in events if e.device_type == DeviceType.CPU]
    kernels = [(e.key, e.count, float(e.self_device_time_total)) for e in on_gpu]
    busy = sum(spent for _, _, spent in kernels)
    found = {
        "waits": {e.key: e.count for e in events if e.key in WAITS},
        "launches": sum(e.count for e in on_host if e.key in STARTS),
        "operators": _largest([(e.key, e.count, float(e.self_cpu_time_total)) for e in on_host]),
    }
    if on_gpu:
        found |= {
            "gpu_microseconds": busy,
            "idle_share": max(0.0, 1 - busy / (seconds * 1e6)),
            "kernels": _largest(kernels),
            "operators_on_gpu": _largest([(e.key, e.count, float(e.self_device_time_total)) for e in on_host]),
        }
    return found


def _largest(rows: list[Row]) -> list[dict[str, Any]]:
    total = sum(spent for _, _, spent in rows) or 1.0
    rows = sorted(rows, key=lambda row: -row[2])[:TOP]
    return [{"name": n[:160], "count": c, "microseconds": t, "share": t / total} for n, c, t in rows if t > 0]


def waiting_lines(step: Callable[[], object], device: torch.device) -> dict[str, int] | None:
    """Lines of Python at which a step waits for the GPU, with how often, by torch's own watch. None without a GPU."""
    if device.type != "cuda":
        return None
    found: dict[str, int] = {}

    def note(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        if "called a synchronizing" in str(message):  # not the one which says that this watch is a prototype
            ours = [f for f in traceback.extract_stack() if "/adu_" in f.filename or "/bench/" in f.filename]
            at = ours[-2] if len(ours) > 1 else None  # the last is this function
            place = f"{filename}:{lineno}" if at is None else f"{at.filename}:{at.lineno} {at.line}"
            found[place] = found.get(place, 0) + 1

    with warnings.catch_warnings(), _told_of_waits():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        step()
    return found


@contextmanager
def _told_of_waits() -> Any:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def main() -> None:
    chosen = stage_arguments(__doc__)
    device = torch.device("cpu" if chosen.dry_run else "cuda")
    size = "tiny" if chosen.dry_run else "gpu"
    result: dict[str, Any] = {"environment": measured_environment(device), "complete": False, "steps": {}}
    failed = False
    for name, (build, autocast) in STEPS.items():
        try:
            result["steps"][name] = profiled(build, autocast, size, device)
        except Exception:  # the other steps are still wanted
            failed = True
            result["steps"][name] = {"failure": traceback.format_exc()[-4000:]}
        write_json(chosen.output, result)
        found = result["steps"][name]
        print(name, {key: found[key] for key in found if not isinstance(found[key], list)}, flush=True)
    result["complete"] = True
    write_json(chosen.output, result)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
