"""How fast pairs are read: from the data set's own files, and from a pack of them."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adu_depth.data import FileDataset, SyntheticStereo, open_dataset
from adu_depth.data.packed.command import PackConfig, run_pack
from adu_depth.distributed import ProcessGroup
from adu_depth.environment import describe_environment
from adu_depth.errors import InputError
from adu_depth.files import write_json
from adu_depth.inference.render import write_samples
from adu_depth.training.batches import batches
from adu_depth.training.config import DataConfig, LoopConfig


@dataclass(frozen=True)
class PackBenchmark:
    """Pairs per second of whole frames and of training batches of windows, raw files beside their pack.

    Medians over repeats that take turns. All files are read once before: the operating system holds them in memory, so
    this compares decoding with mapping, not disks.
    """

    root: Path | None = None
    """A data set's folder; without it built-in scenes are rendered and written as PNG."""
    pairs: int = 24
    """Pairs to read: the data set's first, or so many rendered ones."""
    size: tuple[int, int] = (375, 1242)
    """Height and width of rendered pairs, KITTI's."""
    window: tuple[int, int] = (352, 704)
    """Height and width of the windows, multiples of 32."""
    batch: int = 8
    workers: int = 0
    """Processes of the loader, for the windows; 0 reads in the calling one."""
    repeats: int = 5
    threads: int = 0
    """Threads of torch in the calling process, 0 = what it would use."""
    output: Path | None = None
    """File for the result as JSON; it is printed in any case."""

    def run(self) -> dict[str, Any]:
        """Reads both ways in turns and returns the rates. InputError where the data set cannot be read."""
        if min(self.pairs, self.batch, self.repeats) < 1:
            raise InputError("pairs, batch and repeats must be at least 1")
        if self.threads:
            torch.set_num_threads(self.threads)
        with tempfile.TemporaryDirectory() as folder:
            root = self.root or self._rendered(Path(folder) / "raw")
            raw = open_dataset(root)
            split = Path(folder) / "names.txt"
            split.write_text("\n".join(raw.names[: self.pairs]), encoding="utf-8")
            raw = open_dataset(root, split=split)
            start = time.perf_counter()
            run_pack(PackConfig(root=root, split=split, output=Path(folder) / "pack"), lambda _: None)
            packing = time.perf_counter() - start
            packed = open_dataset(Path(folder) / "pack")
            raw_bytes = sum({path: path.stat().st_size for n in raw.names for path in raw.files(n).values()}.values())
            return {
                "pairs": len(raw),
                "frame": list(raw[0].left.shape[-2:]),
                "source": "rendered scenes, PNG" if self.root is None else self.root.name,
                "megabytes": {"raw": _megabytes(raw_bytes), "packed": _megabytes(_size(Path(folder) / "pack"))},
                "packing_pairs_per_second": round(len(raw) / packing, 2),
                "frames_per_second": self._compared(raw, packed, _read_frames),
                "window": list(self.window),
                "batch": self.batch,
                "workers": self.workers,
                "windows_per_second": self._compared(raw, packed, self._read_windows),
                "repeats": self.repeats,
                "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
                "environment": describe_environment(torch.device("cpu")),
            }

    def _rendered(self, folder: Path) -> Path:
        write_samples(SyntheticStereo(self.pairs, *self.size, seed=0), folder, self.pairs, lambda _: None)
        return folder

    def _compared(
        self, raw: FileDataset, packed: FileDataset, rate: Callable[[FileDataset], float]
    ) -> dict[str, dict[str, float]]:
        rates: dict[str, list[float]] = {"raw": [], "packed": []}
        for _ in range(self.repeats + 1):
            rates["raw"].append(rate(raw))
            rates["packed"].append(rate(packed))
        summary = {}
        for name, found in rates.items():
            kept = sorted(found[1:])  # the first round warms up
            summary[name] = {
                "median": round(statistics.median(kept), 2),
                "slowest": round(kept[0], 2),
                "fastest": round(kept[-1], 2),
            }
        return summary

    def _read_windows(self, dataset: FileDataset) -> float:
        """Windows per second of training batches; the clock starts at the first one, when the workers are there."""
        steps = 1 + max(1, -(-len(dataset) // self.batch))
        loop = LoopConfig(steps=steps, batch_size=self.batch, workers=self.workers, device="cpu")
        stream = batches(
            dataset, DataConfig(size=self.window, fit="crop"), loop, 0, ProcessGroup(), torch.device("cpu")
        )
        next(stream)
        start = time.perf_counter()
        read = sum(batch.sample.left.shape[0] for batch in stream)
        return read / (time.perf_counter() - start)

    def main(self) -> None:
        """Run, print and, where asked, write."""
        result = self.run()
        print(json.dumps(result, indent=2))
        if self.output is not None:
            write_json(self.output, result)


def _read_frames(dataset: FileDataset) -> float:
    start = time.perf_counter()
    for index in range(len(dataset)):
        dataset[index]
    return len(dataset) / (time.perf_counter() - start)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _megabytes(count: int) -> float:
    return round(count / 1e6, 1)
