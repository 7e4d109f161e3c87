"""How long one image (or pair) takes a trained network's forward on this CPU, by what runs it."""

from __future__ import annotations

import importlib.metadata
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adu_depth.checkpoint import LoadedModel
from adu_depth.errors import InputError
from adu_depth.export.command import note_of
from adu_depth.export.config import ExportConfig
from adu_depth.export.extras import first_line
from adu_depth.export.graph import capture, tensor_graph
from adu_depth.export.note import Note
from adu_depth.export.opened import FORMATS, SUFFIXES
from adu_depth.files import write_json
from adu_depth.models import LightStudent, MonoStudent, StereoTeacher
from adu_depth.models.blocks import set_backend
from adu_depth.models.padding import CELL
from bench.harness.environment import measured_environment
from bench.harness.result import Row
from bench.harness.statistics import summary

Network = Literal["student", "light student", "teacher"]
Runtime = Literal["eager", "compiled", "onnx", "openvino"]
Run = Callable[[], Tensor]
"""One call on an input that is there: the depth."""

BUILT: dict[Network, Callable[[], nn.Module]] = {
    "student": MonoStudent,
    "light student": LightStudent,
    "teacher": StereoTeacher,
}
SHOWN = {"eager": "PyTorch", "compiled": "`torch.compile`", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino")
FOCAL, BASELINE = 700.0, 0.5  # pixels, metres: a street camera's
LARGEST_DIFFERENCE = 1e-3
"""Relative, of any pixel's depth, from PyTorch: a row beyond it is refused, and has no time."""


@dataclass(frozen=True)
class InferenceBenchmark:
    """Latency of one call with one image (a pair, of the teacher) in fp32 on the CPU: PyTorch as it is, compiled by
    inductor, and the exported file in ONNX Runtime and in OpenVINO.

    Networks are the defaults with random weights, which take as long as trained ones. Every row is held to PyTorch's
    depth first. Runtimes take turns, call by call, after their warm-up; a time is the median with its 10 % and 90 %
    quantiles. What is not installed here has a row that says so.
    """

    network: tuple[Network, ...] = ("student", "light student", "teacher")
    runtime: tuple[Runtime, ...] = ("eager", "compiled", "onnx", "openvino")
    sizes: tuple[tuple[int, int], ...] = ((228, 304), (352, 1216), (480, 640))
    """Height and width of the images."""
    threads: int = 1
    """Threads of every runtime alike."""
    warm_up: int = 3
    """Calls of each runtime before any is timed."""
    repeats: int = 20
    """Timed calls of each."""
    output: Path | None = None
    """File for the result as JSON; the table is printed in any case."""

    def run(self, progress: Callable[[str], None] = print) -> dict[str, Any]:
        """Measures case by case. InputError for numbers that cannot be; what fails by itself is a row that says so."""
        if min(self.threads, self.repeats) < 1 or self.warm_up < 0:
            raise InputError("threads and repeats must be at least 1, and warm_up at least 0")
        if any(side < CELL for size in self.sizes for side in size):
            raise InputError(f"sizes must be at least {CELL} pixels along each side, got {self.sizes}")
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            result: dict[str, Any] = {
                "benchmark": "inference",
                "environment": measured_environment(torch.device("cpu")),
                "versions": versions(),
                "precision": "fp32",
                "batch": 1,
                "threads": self.threads,
                "warm_up": self.warm_up,
                "repeats": self.repeats,
                "complete": False,
                "cases": [],
            }
            for name in self.network:
                for height, width in self.sizes:
                    progress(f"{name} at {height}×{width} ...")
                    result["cases"].append(self._case(name, (height, width)))
                    if self.output is not None:
                        write_json(self.output, result)
            result["complete"] = True
            return result
        finally:
            torch.set_num_threads(before)

    def _case(self, name: Network, size: tuple[int, int]) -> dict[str, Any]:
        network = built(name, size)
        rows: dict[Runtime, Row] = {}
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            prepared = _Prepared(network, "teacher" if name == "teacher" else "student", size, Path(folder))
            runs: dict[Runtime, Run] = {}
            expected = prepared.eager()
            for runtime in self.runtime:
                rows[runtime], run = _held_to(expected, runtime, prepared)
                if run is not None:
                    runs[runtime] = run
            for run in runs.values():
                for _ in range(self.warm_up):
                    run()
            seconds: dict[Runtime, list[float]] = {runtime: [] for runtime in runs}
            for turn in range(self.repeats):
                names = list(runs)
                for runtime in names[turn % len(names) :] + names[: turn % len(names)]:  # each first in turn
                    began = time.perf_counter()
                    runs[runtime]()
                    seconds[runtime].append(time.perf_counter() - began)
        for runtime, found in seconds.items():
            rows[runtime]["times"] = summary(found)
        return {
            "network": name,
            "size": list(size),
            "computed_at": [_cells(side) for side in size] if name != "light student" else list(size),
            "parameters": sum(p.numel() for p in network.parameters()),
            "rows": list(rows.values()),
        }

    def main(self) -> None:
        """Run, print the table, and write the JSON."""
        result = self.run()
        print(table(result))
        if self.output is not None:
            write_json(self.output, result)
            print(f"wrote {self.output}")


def built(name: Network, size: tuple[int, int]) -> nn.Module:
    """The network as it is by default, of random weights, whose depths differ from pixel to pixel.

    A light one of random weights says next to nothing, of which the nearest depth is made: any runtime would agree with
    that. Its last layer is scaled to depths of 20 ± 5 m of the image that is timed.
    """
    torch.manual_seed(0)
    network = BUILT[name]().eval().requires_grad_(False)
    set_backend(network, "torch")
    if isinstance(network, LightStudent):
        head = network.decoder.head
        assert head.bias is not None
        head.bias.fill_(20.0)
        head.weight *= 5.0 / float(network(_picture(size)).depth.std())
    return network


class _Prepared:
    """One network at one size: its input, and a call by each runtime; made when it is first asked for."""

    def __init__(self, network: nn.Module, kind: Literal["student", "teacher"], size: tuple[int, int], folder: Path):
        self.folder, self.kind = folder, kind
        loaded = LoadedModel(network, kind, {}, size, Path(kind))
        self.note: Note = note_of(ExportConfig(Path(kind), size=size), loaded)
        self.graph = tensor_graph(network, self.note)
        numbers = {"focal": FOCAL, "baseline": BASELINE, "disparity_offset": 0.0}
        self.inputs = {
            name: torch.full((1,), numbers[name]) if name in numbers else _picture(size) for name in self.note.inputs
        }
        self.program: Any = None

    def eager(self) -> Tensor:
        depth: Tensor = self.graph(*self.inputs.values())[0]
        return depth

    def by(self, runtime: str) -> Run:
        """A call by this runtime. InputError, or what a compiler raises, where there is none."""
        if runtime == "eager":
            return self.eager
        if runtime == "compiled":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()  # raises where there is none
            torch.compiler.reset()  # of the case before, too: a frame is compiled for a few sizes at most
            compiled = torch.compile(self.graph, dynamic=False)
            return lambda: compiled(*self.inputs.values())[0]  # type: ignore[no-any-return]
        kind, path = FORMATS[runtime], self.folder / f"network{SUFFIXES[runtime]}"
        kind.require_writer()
        if self.program is None:
            self.program = capture(self.graph, self.note)
        kind.write(self.program, self.note, path)
        _, run = kind.open_file(path)
        return partial(_depth, run, self.inputs)


def _held_to(expected: Tensor, runtime: str, prepared: _Prepared) -> tuple[Row, Run | None]:
    """A runtime's row before it is timed, and its call, None where there is no time to take."""
    row: Row = {"name": runtime, "status": "measured"}
    absent = "InvalidCxxCompiler"
    try:
        run = prepared.by(runtime)
        difference = float(((run() - expected).abs() / expected.abs()).nan_to_num(torch.inf).max())
    except Exception as error:  # a converter, a compiler or a runtime of somebody else: the other rows stand
        lacking = isinstance(error.__cause__ or error.__context__, ImportError) or type(error).__name__ == absent
        reason = str(error) if isinstance(error, InputError) else first_line(error)
        return row | {"status": "absent" if lacking else "failed", "reason": reason}, None
    row["largest_difference"] = difference
    if not difference <= LARGEST_DIFFERENCE:
        reason = f"depth differs from PyTorch's by {difference:.1e}, more than {LARGEST_DIFFERENCE:g}"
        return row | {"status": "refused", "reason": reason}, None
    return row, run


def table(result: dict[str, Any]) -> str:
    """Markdown: a line for each network and size, a column for each runtime, milliseconds."""
    environment = result["environment"]
    runtimes = list(dict.fromkeys(row["name"] for case in result["cases"] for row in case["rows"]))
    told = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"{environment['device']}, {result['threads']} thread(s), fp32, one image or pair a call; median of "
        f"{result['repeats']} calls after {result['warm_up']}, in milliseconds (10 to 90 %); torch "
        f"{environment['torch']}{', ' if told else ''}{told}; commit {environment.get('commit', 'unknown')}, load "
        f"before {environment['load']}.",
        "",
        f"| network | size | {' | '.join(SHOWN[name] for name in runtimes)} |",
        "|-|-|" + "-|" * len(runtimes),
    ]
    reasons: list[str] = []
    for case in result["cases"]:
        size = "×".join(map(str, case["size"]))
        if case["computed_at"] != case["size"]:
            size += f" (padded inside to {'×'.join(map(str, case['computed_at']))})"
        rows = {row["name"]: row for row in case["rows"]}
        lines.append(f"| {case['network']} | {size} | {' | '.join(_cell(rows[name], reasons) for name in runtimes)} |")
    return "\n".join([*lines, *(f"\n{reason}" for reason in reasons)]) + "\n"


def versions() -> dict[str, str]:
    """Of what runs exported files here, by package."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cell(row: Row, reasons: list[str]) -> str:
    if row["status"] != "measured":
        reason = f"{SHOWN[row['name']]}: {row['reason']}"
        if reason not in reasons:
            reasons.append(reason)
        return str(row["status"])
    times = {name: 1e3 * row["times"][name] for name in ("median", "q10", "q90")}
    return f"{times['median']:.1f} ({times['q10']:.1f}–{times['q90']:.1f})"


def _picture(size: tuple[int, int]) -> Tensor:
    """Smooth random colours: 1×3×H×W in [0, 1]."""
    height, width = size
    coarse = torch.rand(1, 3, -(-height // 8), -(-width // 8))
    return nn.functional.interpolate(coarse, size, mode="bilinear")


def _depth(run: Callable[[dict[str, Tensor]], dict[str, Tensor]], inputs: dict[str, Tensor]) -> Tensor:
    return run(inputs)["depth"]


def _cells(side: int) -> int:
    return -(-side // CELL) * CELL
