"""Cost volumes: eager reference, compiled reference, ours and a peer by name, side by side in one run on a GPU."""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import triton
from torch import Tensor

import adu_kernels
from adu_kernels import reference

Run = Callable[[list[Tensor]], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class CostVolumeBenchmark:
    """Forward, backward and both: medians with their spread, and the share of the roof of the least bytes."""

    operation: Literal["groupwise", "cosine", "plain", "concatenation", "combined", "disparity"] = "groupwise"
    batch: int = 8
    height: int = 64
    width: int = 128
    channels: int = 320
    groups: int = 40
    disparities: int = 48
    thin_channels: int = 12
    """Channels of each map that is concatenated."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    channels_last: bool = True
    peer: str = ""
    """module:function of another implementation, called with the maps and num_disparities[, num_groups]."""
    repeats: int = 20
    device: str = "cuda"
    as_json: bool = False

    def main(self) -> None:
        if not torch.cuda.is_available() or not self.device.startswith("cuda"):
            raise SystemExit(f"cost-volume: expected a CUDA device, got {self.device}")
        result = self.run()
        if self.as_json:
            print(json.dumps(result, indent=1))
            return
        print(f"roof (device copy): {result['copy_terabytes_per_second']:.2f} TB/s")
        print(f"{'':20} {'forward µs':>24} {'both µs':>24} {'roof fwd':>9} {'roof both':>9} {'peak MB':>8}")
        for name, row in result["rows"].items():
            times = (
                f"{row[key]['median']:9.1f} ({row[key]['low']:.1f}–{row[key]['high']:.1f})"
                for key in ("forward", "both")
            )
            shares = (f"{row['share_of_roof'][key]:9.0%}" for key in ("forward", "both"))
            print(f"{name:20} " + " ".join(f"{t:>24}" for t in times), *shares, f"{row['peak_megabytes']:8.0f}")

    def run(self) -> dict[str, Any]:
        forms = self._forms()
        self._check(forms)
        copy = self._copy_bandwidth()
        forward_bytes, both_bytes = self._least_bytes()
        rows = {}
        for name, times in self._timed(forms).items():
            share = {
                "forward": forward_bytes / copy / statistics.median(times["forward"]) * 1e6,
                "both": both_bytes / copy / statistics.median(times["both"]) * 1e6,
            }
            spread = {k: {"median": statistics.median(t), "low": min(t), "high": max(t)} for k, t in times.items()}
            rows[name] = {**spread, "share_of_roof": share, "peak_megabytes": self._peak(forms[name]) / 2**20}
        return {
            "options": self.__dict__, "rows": rows, "copy_terabytes_per_second": copy / 1e12,
            "device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__,
        }  # fmt: skip

    def _forms(self) -> dict[str, Run]:
        def bound(module: Any, **options: Any) -> Run:
            d, g = self.disparities, self.groups
            return {
                "groupwise": lambda m: module.groupwise_correlation_volume(*m, d, g, **options),
                "cosine": lambda m: module.groupwise_correlation_volume(
                    *m, d, g, normalize="group", reduction="sum", **options
                ),
                "plain": lambda m: module.correlation_volume(*m, d, **options),
                "concatenation": lambda m: module.concatenation_volume(*m, d, **options),
                "combined": lambda m: module.combined_volume(*m, d, g, **options),
                "disparity": lambda m: module.correlation_disparity(*m, d, **options),
            }[self.operation]

        forms: dict[str, Run] = {
            "eager": bound(reference),
            "compiled": torch.compile(bound(reference), dynamic=False),
            "ours": bound(adu_kernels, backend="triton"),
        }
        if self.peer:
            module, function = self.peer.split(":")
            call = getattr(importlib.import_module(module), function)
            counts = [self.disparities]
            if self.operation in ("groupwise", "cosine", "combined"):
                counts.append(self.groups)
            forms["peer"] = lambda m: call(*m, *counts)
        return forms

    def _maps(self) -> list[Tensor]:
        """Fresh random maps that want gradients."""
        wide, thin = self.channels, self.thin_channels
        widths = {"concatenation": [thin] * 2, "combined": [wide, wide, thin, thin]}.get(self.operation, [wide] * 2)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        made = []
        for channels in widths:
            shape = (self.batch, channels, self.height, self.width)
            values = torch.randn(shape, device=self.device, dtype=getattr(torch, self.dtype))
            made.append(values.contiguous(memory_format=layout).requires_grad_())
        return made

    def _least_bytes(self) -> tuple[int, int]:
        """Forward: maps read, output written. Backward: the output's gradient and the maps read, gradients written."""
        maps = self._maps()
        read = sum(m.nbytes for m in maps)
        with torch.no_grad():
            written = sum(o.nbytes for o in _all(self._forms()["ours"](maps)))
        again = 0 if self.operation == "concatenation" else read
        return read + written, (read + written) + (written + again + read)

    def _check(self, forms: dict[str, Run]) -> None:
        """No time is taken of a form that is wrong: values and gradients against the reference on fp32 copies."""
        maps = self._maps()
        exact_maps = [m.detach().float().requires_grad_() for m in maps]
        exact = _all(forms["eager"](exact_maps))
        upstream = [torch.randn_like(o) for o in exact]
        want = [*exact, *torch.autograd.grad(exact, exact_maps, upstream)]
        outputs = _all(forms["ours"](maps))
        weights = [u.to(o.dtype) for u, o in zip(upstream, outputs, strict=True)]
        got = [*outputs, *torch.autograd.grad(outputs, maps, weights)]
        limit = {"bfloat16": 2e-2, "float16": 4e-3, "float32": 1e-5}[self.dtype]
        for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
            error = ((ours.float() - theirs).norm() / theirs.norm()).item()
            if not error <= limit:
                raise SystemExit(f"cost-volume: result {number} is off by {error:.1e} of its norm, at most {limit:.0e}")

    def _timed(self, forms: dict[str, Run]) -> dict[str, dict[str, list[float]]]:
        """µs by form and direction, the forms taking turns, the maps changing so that none is found in a cache."""
        size = sum(m.nbytes for m in self._maps())
        ring = [self._maps() for _ in range(max(2, min(16, -(-256 * 2**20 // size))))]
        times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "both": []} for name in forms}
        for turn, maps in zip(range(self.repeats + 3), _cycle(ring), strict=False):
            for name, run in forms.items():
                forward, both = _microseconds(run, maps)
                if turn >= 3:  # compilation and warm-up before
                    times[name]["forward"].append(forward)
                    times[name]["both"].append(both)
        return times

    def _peak(self, run: Run) -> int:
        maps = self._maps()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        outputs = _all(run(maps))
        torch.autograd.grad(outputs, maps, [torch.ones_like(o) for o in outputs])
        return torch.cuda.max_memory_allocated() - before

    def _copy_bandwidth(self) -> float:
        """Bytes per second, read and written, of a copy on the device."""
        source = torch.randn(2**28, device=self.device)
        target = torch.empty_like(source)
        seconds = triton.testing.do_bench(lambda: target.copy_(source), return_mode="median") / 1e3
        return 2 * source.nbytes / seconds


def _all(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _cycle(ring: list[list[Tensor]]) -> Iterator[list[Tensor]]:
    while True:
        yield from ring


def _microseconds(run: Run, maps: list[Tensor]) -> tuple[float, float]:
    """Of the forward, and of forward and backward. The device sleeps while its work is queued: no gaps are timed."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
    torch.cuda._sleep(40_000_000)
    marks[0].record()
    outputs = _all(run(maps))
    marks[1].record()
    upstream = [torch.randn_like(o) for o in outputs]
    marks[2].record()
    torch.autograd.grad(outputs, maps, upstream)
    marks[3].record()
    torch.cuda.synchronize()
    forward, backward = (marks[k].elapsed_time(marks[k + 1]) * 1e3 for k in (0, 2))
    return forward, forward + backward
