"""What all benchmarks of operations share: options, sizes, the way from cases to a result, a table, an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from adu_depth.errors import InputError
from adu_depth.files import make_folder
from adu_kernels._triton import runtime
from bench.harness.case import Case
from bench.harness.environment import measured_environment
from bench.harness.implementations import EAGER, load_peer
from bench.harness.peaks import measure_peaks
from bench.harness.result import CaseResult, Result, comparable, new_result, read_result, save_result
from bench.harness.runner import Effort, ours_is_sound, row_without_times, run_case
from bench.harness.table import case_table, result_table

Size = Literal["auto", "gpu", "small", "tiny", "card"]
Dtype = Literal["float32", "bfloat16", "float16"]
Compile = Literal["default", "max-autotune", "none"]
Planned = tuple[str, Callable[[], CaseResult]]

ON_CPU = (
    "CPU ONLY: no CUDA device here, so the plain PyTorch references ran, eager and compiled. No kernel was measured; "
    "nothing here says how fast anything is on a GPU."
)
DRY_RUN = "DRY RUN: the kernels ran in Triton's interpreter on a CPU. The times mean nothing; only that it runs."


@dataclass(frozen=True)
class Suite:
    """Options that every benchmark of an operation takes."""

    size: Size = "auto"
    """"gpu" (what a GPU is filled by), "small" (a CPU), "tiny" (seconds); "auto" is gpu on CUDA, small elsewhere.
    "card" is the old name of "gpu"."""
    dtype: tuple[Dtype, ...] = ()
    """Only these types; repeat for several. None given: those of the size."""
    case: tuple[str, ...] = ()
    """Only cases whose name contains one of these; repeat for several."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    compile: tuple[Compile, ...] = ()
    """Modes of torch.compile for the reference; repeat for several. None given: default, and max-autotune on a GPU for
    the cases that matter most."""
    peer: tuple[str, ...] = ()
    """module:function of another implementation, called with the tensors and options of ours; repeat for several."""
    torch_peers: bool = True
    """Whether torch's own implementations of the same (SDPA, FlexAttention) stand in the table."""
    repeats: int = 50
    """Rounds in which the implementations take turns, at most."""
    seconds: float = 4.0
    """Of timing per case, all implementations together; never fewer than five rounds."""
    compile_seconds: float = 240.0
    """The longest that one compilation with its first run may take; 0 sets no limit."""
    output: Path | None = None
    """JSON file to write, after every case. One from the same code, machine and size is added to, not redone."""

    @property
    def name(self) -> str:
        raise NotImplementedError

    def cases(self, size: str, device: torch.device) -> list[Case]:
        """Every case of a size, the most telling first."""
        raise NotImplementedError

    def run(self, say: Callable[[str], None] = lambda text: None) -> Result:
        """Measures every case; `say` hears each case's table as it is done."""
        device = self.chosen_device()
        size = self.chosen_size(device)
        if self.output is not None:
            make_folder(self.output.parent)
        result = new_result(self.name, size, measured_environment(device), notice(device))
        done = self._done_before(result)
        result["roofs"] = measure_peaks(device)
        say(result_table(result))
        for name, measure in self.plan(size, device, result["roofs"]):
            found = done.get(name) or self.measured(name, measure)
            result["cases"].append(found)
            say(case_table(found))
            self._save(result)
        result["complete"] = True
        self._save(result)
        return result

    def measured(self, name: str, measure: Callable[[], CaseResult]) -> CaseResult:
        """What `measure` gives; where not even the reference ran (no memory for it), a case that says so: the others
        are still wanted."""
        try:
            with self.products():
                return measure()
        except InputError:
            raise
        except Exception as error:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            row = row_without_times(EAGER, error)
            return {"name": name, "dtype": "", "shape": {}, "work": {}, "rows": [row]}

    def products(self) -> AbstractContextManager[Any]:
        """Which products the cases run with: a float32 row of an operation means float32 ones."""
        return float32_products()

    def plan(self, size: str, device: torch.device, peaks: dict[str, float] | None) -> list[Planned]:
        """Every case that was asked for, by name, and how it is measured."""
        peers = {text: load_peer(text) for text in self.peer}
        effort = Effort(self.repeats, self.seconds, self.compile_seconds)

        def measure(case: Case) -> CaseResult:
            modes = self.compile_modes(device, case.headline, case.variant)
            case = case if self.torch_peers else replace(case, peers={})
            return run_case(case, device, compile_modes=modes, peers=peers, peaks=peaks, effort=effort)

        return [(case.name, partial(measure, case)) for case in self.chosen_cases(size, device)]

    def main(self) -> None:
        """Run, print, and exit: 0, or 1 where an implementation is wrong or ours failed."""
        result = self.run(lambda table: print(table, flush=True))
        if self.output is not None:
            print(f"wrote {self.output}; tables and plots: python -m bench report {self.output}")
        if not ours_is_sound(result["cases"]):
            print("some rows are refused or failed: see there", file=sys.stderr)
            sys.exit(1)

    def chosen_device(self) -> torch.device:
        return choose_device(self.device)

    def chosen_size(self, device: torch.device) -> str:
        return choose_size(self.size, device)

    def chosen_cases(self, size: str, device: torch.device) -> list[Case]:
        found = self.cases(size, device)
        chosen = [
            case
            for case in found
            if (not self.dtype or str(case.dtype).removeprefix("torch.") in self.dtype)
            and (not self.case or any(part in case.name for part in self.case))
        ]
        if not chosen:
            names = "; ".join(case.name for case in found)
            raise InputError(f"no case is named so (--case {self.case}, --dtype {self.dtype}); there are: {names}")
        return chosen

    def compile_modes(self, device: torch.device, headline: bool, variant: bool = False) -> tuple[str, ...]:
        """Modes of torch.compile for a case."""
        if self.compile:
            return tuple(mode for mode in self.compile if mode != "none")
        if runtime.interpreting() or variant:
            return ()
        return ("default", "max-autotune") if device.type == "cuda" and headline else ("default",)

    def _done_before(self, result: Result) -> dict[str, CaseResult]:
        """Cases that a run before this one, which was cut short, has finished."""
        if self.output is None or not self.output.exists():
            return {}
        earlier = read_result(self.output)
        if not comparable(earlier, result):
            raise InputError(
                f"--output {self.output} holds a result of other code, another machine or size: name another file"
            )
        return {case["name"]: case for case in earlier["cases"]}

    def _save(self, result: Result) -> None:
        if self.output is not None:
            save_result(self.output, result)


@contextmanager
def float32_products() -> Iterator[None]:
    """Convolutions of float32 without TF32, as matrix products are unless a user allows it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def choose_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError('--device cuda: torch sees no CUDA device; use "cpu" or "auto"')
    on_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available() and not runtime.interpreting())
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def choose_size(size: str, device: torch.device) -> str:
    if size != "auto":
        return "gpu" if size == "card" else size
    if runtime.interpreting():
        return "tiny"
    return "gpu" if device.type == "cuda" else "small"


def notice(device: torch.device) -> str:
    if runtime.interpreting():
        return DRY_RUN
    return ON_CPU if device.type != "cuda" else ""


def dtype_name(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]


def labelled(**parts: Any) -> str:
    """B 8, C 320, …: how shapes are written in names."""
    return ", ".join(f"{name} {value}" for name, value in parts.items())


def normal(
    shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, channels_last: bool = False
) -> Callable[[torch.device], list[torch.Tensor]]:
    """A drawer of standard normal tensors."""
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def draw(device: torch.device) -> list[torch.Tensor]:
        return [torch.randn(s, device=device).to(dtype).contiguous(memory_format=layout) for s in shapes]

    return draw
