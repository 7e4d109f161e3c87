"""How fast the built-in scenes render: pairs per second."""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from adu_depth.data import SyntheticStereo
from adu_depth.environment import describe_environment


@dataclass(frozen=True)
class RenderBenchmark:
    """Pairs per second of the built-in scenes, median over repeats of different scenes."""

    height: int = 192
    width: int = 384
    batch: int = 8
    """Pairs rendered together; on a CPU its cores share them."""
    repeats: int = 7
    device: str = "cpu"
    threads: int = 0
    """CPU cores to use, 0 = what torch would."""
    as_json: bool = False
    """Print one JSON object instead of a line to read."""

    def run(self) -> dict[str, Any]:
        """Render `repeats` batches of unlike scenes after one to warm up."""
        if self.threads:
            torch.set_num_threads(self.threads)
        scenes = SyntheticStereo(None, self.height, self.width, device=self.device)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        seconds = [self._timed(scenes, repeat) for repeat in range(self.repeats + 1)][1:]
        rates = sorted(self.batch / s for s in seconds)
        return {
            "height": self.height,
            "width": self.width,
            "batch": self.batch,
            "pairs_per_second": round(statistics.median(rates), 2),
            "slowest": round(rates[0], 2),
            "fastest": round(rates[-1], 2),
            "repeats": self.repeats,
            "device": torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else "cpu",
            "threads": torch.get_num_threads(),
            "load_before": round(load, 2),
            "environment": describe_environment(scenes.device),
        }

    def _timed(self, scenes: SyntheticStereo, repeat: int) -> float:
        indices = range(repeat * self.batch, (repeat + 1) * self.batch)
        start = time.perf_counter()
        scenes.render_batch(indices)
        if scenes.device.type == "cuda":
            torch.cuda.synchronize(scenes.device)
        return time.perf_counter() - start

    def main(self) -> None:
        """Run and print."""
        result = self.run()
        if self.as_json:
            print(json.dumps(result))
            return
        print(
            f"{result['pairs_per_second']} pairs/s (from {result['slowest']} to {result['fastest']}) at "
            f"{self.height}×{self.width}, batch {self.batch}, {result['device']}, {result['threads']} threads, "
            f"load before {result['load_before']}"
        )
