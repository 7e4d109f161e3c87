"""How many training windows a second a core prepares, and which part of it takes how long."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import cv2
import torch

from adu_depth.data import FileDataset, StereoSample, SyntheticStereo, collate, open_dataset
from adu_depth.data.packed import PackedStereo
from adu_depth.data.packed.command import PackConfig, run_pack
from adu_depth.data.png_decoding import decoder
from adu_depth.data.transforms import resize_sample
from adu_depth.distributed import ProcessGroup
from adu_depth.environment import describe_environment
from adu_depth.errors import InputError
from adu_depth.files import folder_name, write_json
from adu_depth.inference.render import write_samples
from adu_depth.training.batches import TrainingBatch, batches
from adu_depth.training.config import DataConfig, LoopConfig

Clock = dict[str, float]
LEAST = 48  # windows that "everything" reads at least: of a pack they take a tenth of a second


@dataclass(frozen=True)
class DataBenchmark:
    """Windows a second and core, from files as they come, from the same pairs with JPEG views, and from a pack.

    Decoding, cutting or resizing, collating and copying to the device, each by itself, and all of it as a training
    does it. CPU time is what one core spends (other processes do not count), wall time is beside it; medians over
    repeats. All files are read once before: the operating system holds them in memory, so disks are not measured.
    """

    root: Path | None = None
    """A data set's folder; without it built-in scenes are rendered and written as PNG, their maps as 16-bit PNG."""
    pairs: int = 24
    """Pairs to read: the data set's first, or so many rendered ones."""
    size: tuple[int, int] = (375, 1242)
    """Height and width of rendered pairs, KITTI's."""
    window: tuple[int, int] = (352, 704)
    """Height and width of the windows, multiples of 32."""
    batch: int = 8
    workers: int = 0
    """Processes of the loader for the whole way; then its CPU time is theirs too, and the rate is still one core's."""
    repeats: int = 5
    device: Literal["cpu", "cuda"] = "cpu"
    """Where batches go: "cuda" measures pinning and the copy to it too, which waits for the copy to end."""
    threads: int = 1
    """Threads of torch and OpenCV in the calling process."""
    output: Path | None = None
    """File for the result as JSON; it is printed in any case, below a table."""

    def run(self) -> dict[str, Any]:
        """Reads every source in turns and returns the rates. InputError where the data set cannot be read."""
        if min(self.pairs, self.batch, self.repeats, self.threads) < 1:
            raise InputError("pairs, batch, repeats and threads must be at least 1")
        if any(side < 1 or side % 32 for side in self.window):
            raise InputError(f"window must be two positive multiples of 32 (height, width), got {self.window}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError('device is "cuda", but torch sees no CUDA device')
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(self.threads)
        with tempfile.TemporaryDirectory() as folder:
            sources = self._sources(Path(folder))
            found: dict[str, list[dict[str, Clock]]] = {name: [] for name in sources}
            for _ in range(self.repeats + 1):
                for name, dataset in sources.items():
                    found[name].append(self._parts(dataset))
            return {
                "pairs": {name: len(dataset) for name, dataset in sources.items()},
                "frame": list(sources["files"][0].left.shape[-2:]),
                "source": "rendered scenes, PNG" if self.root is None else folder_name(self.root),
                "png": decoder(),
                "megabytes": {name: _megabytes(dataset) for name, dataset in sources.items()},
                "window": list(self.window),
                "batch": self.batch,
                "workers": self.workers,
                "repeats": self.repeats,
                # The first round warms up.
                "milliseconds_per_window": {name: _medians(rounds[1:]) for name, rounds in found.items()},
                "windows_per_cpu_second": {name: _rates(rounds[1:], "cpu") for name, rounds in found.items()},
                "windows_per_second": {name: _rates(rounds[1:], "wall") for name, rounds in found.items()},
                "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
                "environment": describe_environment(torch.device(self.device)),
            }

    def _sources(self, folder: Path) -> dict[str, FileDataset]:
        root = self.root
        if root is None:
            root = folder / "raw"
            write_samples(SyntheticStereo(self.pairs, *self.size, seed=0), root, self.pairs, lambda _: None)
        files = open_dataset(root)
        split = folder / "names.txt"
        split.write_text("\n".join(files.names[: self.pairs]), encoding="utf-8")
        files = open_dataset(root, split=split)
        run_pack(PackConfig(root=root, split=split, output=folder / "pack"), lambda _: None)
        return {
            "files": files,
            "JPEG": open_dataset(jpeg_copy(files, folder / "jpeg")),
            "pack": open_dataset(folder / "pack"),
        }

    def _parts(self, dataset: FileDataset) -> dict[str, Clock]:
        """CPU and wall seconds per window of each part; samples of the one before are there when a part begins."""
        device, (height, width) = torch.device(self.device), self.window
        indices = list(islice(cycle(range(len(dataset))), max(self.batch, len(dataset) // self.batch * self.batch)))

        def whole() -> list[StereoSample]:
            return [dataset.stored(i) for i in indices]

        def cut() -> list[StereoSample]:
            return [
                s.crop((s.left.shape[-2] - height) // 2, (s.left.shape[-1] - width) // 2, *self.window) for s in read
            ]

        def window(packed: PackedStereo) -> list[StereoSample]:
            places = [(packed.image_size(i), i) for i in indices]
            return [packed.stored_window(i, (h - height) // 2, (w - width) // 2, height, width) for (h, w), i in places]

        def resized() -> None:
            for sample in floats:
                resize_sample(sample, height, width)

        def collated() -> list[TrainingBatch]:
            return [TrainingBatch(collate(cuts[i : i + self.batch])) for i in range(0, len(cuts), self.batch)]

        def moved() -> None:
            for batch in made:
                batch.to(device)
            if device.type == "cuda":
                torch.cuda.synchronize()

        times: dict[str, Clock] = {}

        def timed(name: str, part: Callable[[], Any]) -> Any:
            before = _now()
            result = part()
            times[name] = {clock: (end - before[clock]) / len(indices) for clock, end in _now().items()}
            return result

        if isinstance(dataset, PackedStereo):
            cuts = timed("decode and crop", partial(window, dataset))
            read = whole()
        else:
            read = timed("decode", whole)
            cuts = timed("crop", cut)
        floats = [s.floats() for s in read[:: max(1, len(read) // 4)]]
        timed("resize instead", resized)
        times["resize instead"] = {c: t * len(indices) / len(floats) for c, t in times["resize instead"].items()}
        made = timed("collate", collated)
        if device.type == "cuda":
            made = timed("pin", lambda: [batch.pin_memory() for batch in made])
        timed("to the device" if device.type == "cuda" else "levels to floats", moved)
        times["everything"] = self._everything(dataset)
        return times

    def _everything(self, dataset: FileDataset) -> Clock:
        """As a training reads: the clock starts at the first batch, when the workers are there."""
        steps = 1 + max(1, -(-max(len(dataset), LEAST) // self.batch))
        loop = LoopConfig(steps=steps, batch_size=self.batch, workers=self.workers, device="cpu")
        data = DataConfig(size=self.window, fit="crop")
        start = _now(children=True)
        stream = batches(dataset, data, loop, 0, ProcessGroup(), torch.device(self.device))
        next(stream)
        if not self.workers:
            start = _now(children=True)
        first = time.perf_counter()
        count = sum(batch.sample.left.shape[0] for batch in stream)
        if self.device == "cuda":
            torch.cuda.synchronize()
        wall = time.perf_counter() - first
        stream.close()
        # Workers are counted when they have ended: from their first batch on.
        cpu = _now(children=True)["cpu"] - start["cpu"]
        return {"cpu": cpu / (count + (self.batch if self.workers else 0)), "wall": wall / count}

    def main(self) -> None:
        """Run, print and, where asked, write."""
        result = self.run()
        print(table(result))
        print(json.dumps(result, indent=2))
        if self.output is not None:
            write_json(self.output, result)


def jpeg_copy(dataset: FileDataset, folder: Path) -> Path:
    """The pairs with views as JPEG (quality 95) and depth and disparity as 16-bit PNG, as DrivingStereo keeps them."""
    write_samples(dataset, folder, len(dataset), lambda _: None)
    for side in ("left", "right"):
        for path in (folder / side).glob("*.png"):
            cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 95])
            path.unlink()
    for other in ("occluded", "sparse_depth", "preview"):
        shutil.rmtree(folder / other, ignore_errors=True)
    return folder


def table(result: dict[str, Any]) -> str:
    """The parts as lines: milliseconds of CPU and, in brackets, of wall time, and what one core does in a second."""
    height, width = result["window"]
    lines = [f"{height}×{width} windows: milliseconds of CPU (wall) each; everything together as windows/s and core"]
    for name, parts in result["milliseconds_per_window"].items():
        told = ", ".join(f"{part} {times['cpu']:.2f} ({times['wall']:.2f})" for part, times in parts.items())
        lines.append(f"{name:>6}  {result['windows_per_cpu_second'][name]['median']:7.1f}  {told}")
    return "\n".join(lines)


def _now(children: bool = False) -> Clock:
    spent = os.times()
    theirs = spent.children_user + spent.children_system if children else 0.0  # in hundredths of a second
    return {"cpu": time.process_time() + theirs, "wall": time.perf_counter()}


def _medians(rounds: list[dict[str, Clock]]) -> dict[str, Clock]:
    return {
        part: {
            clock: round(1e3 * statistics.median(one[part][clock] for one in rounds), 3) for clock in ("cpu", "wall")
        }
        for part in rounds[0]
    }


def _rates(rounds: list[dict[str, Clock]], clock: str) -> dict[str, float]:
    rates = sorted(1 / max(one["everything"][clock], 1e-9) for one in rounds)
    return {
        "median": round(statistics.median(rates), 1), "slowest": round(rates[0], 1), "fastest": round(rates[-1], 1)
    }  # fmt: skip


def _megabytes(dataset: FileDataset) -> float:
    return round(sum(p.stat().st_size for p in {p for n in dataset.names for p in dataset.files(n).values()}) / 1e6, 1)
