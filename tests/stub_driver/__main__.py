"""python -m tests.stub_driver --gpu 90 LIBRARY [--first]: every operation launched on the stub; JSON on the last line.

The calls are those of the machine-code gate, forward and backward; --first: of every operation the first alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from adu_kernels._triton import runtime
from adu_kernels.testing.machine_code.cases import Case, all_operations
from tests.stub_driver.expected import Call, faults
from tests.stub_driver.gpu import StubGpu


def run(gpu: StubGpu, case: Case) -> dict[str, Any]:
    """What a case's launches were, and what was wrong with them."""
    calls: list[Call] = []
    started = runtime.run

    def noted(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        calls.append(Call(kernel, programs, arguments, options))
        started(kernel, programs, *arguments, **options)

    runtime.run = noted
    try:
        case.call()
    finally:
        runtime.run = started
    launched = gpu.launched()
    wrong = [] if len(calls) == len(launched) else [f"{len(calls)} calls, {len(launched)} launches"]
    for call, found in zip(calls, launched, strict=False):
        wrong += faults(call, found)
    kernels = [{"kernel": one.kernel, "registers": one.registers, "shared": one.shared} for one in launched]
    return {"case": case.name, "kernels": kernels, "faults": wrong}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("library", type=Path)
    options.add_argument("--gpu", type=int, required=True, help="compute capability without its point: 90")
    options.add_argument("--operation")
    options.add_argument("--first", action="store_true")
    chosen = options.parse_args()
    gpu = StubGpu(chosen.library, chosen.gpu)
    gpu.activate()
    found = {}
    for operation in all_operations():
        if chosen.operation in (None, operation.name):
            cases = operation.cases[:1] if chosen.first else operation.cases
            found[operation.name] = [run(gpu, case) for case in cases]
            for first, case in zip(found[operation.name], cases, strict=True):
                again = run(gpu, case)  # now from the kernels that were kept
                first["faults"] += again["faults"]
                if again["kernels"] != first["kernels"]:
                    first["faults"].append(f"launched again: {again['kernels']}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
