"""Whether this machine can run the check: packages, GPU, memory. Says what is missing and who needs it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from bench.gpu_check.arguments import stage_arguments
from bench.gpu_check.packed import replace_text

FREE_MEMORY = 24 * 2**30
NEEDED = ("torch", "triton", "numpy", "safetensors", "cv2", "transformers")
SOME_STAGES = {
    "pytest": "parity",
    "xdist": "parity (several tests at once)",
    "hypothesis": "parity (the tests with drawn shapes)",
    "accelerate": "training, convergence",
    "tensorboard": "training, convergence",
    "rich": "training, convergence",
}
NO_STAGE = {"tyro": "`python -m bench` and `adu-depth` alone; every stage of this check runs without"}


@dataclass(frozen=True)
class Finding:
    name: str
    ok: bool
    needed: bool
    """Without it nothing is worth starting."""
    detail: str


def findings(dry_run: bool) -> list[Finding]:
    found = [_python(), *(_package(name, True, "everything") for name in NEEDED)]
    found += [_package(name, False, stages) for name, stages in (SOME_STAGES | NO_STAGE).items()]
    if importlib.util.find_spec("torch") is not None:
        found += _interpreter() if dry_run else _gpu()
    return found


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", (3, 11) <= sys.version_info[:2] < (3, 14), True, f"{version}, expected 3.11 to 3.13")


def _package(name: str, needed: bool, stages: str) -> Finding:
    """Imported, not looked for: OpenCV for one is often there and does not load."""
    try:
        module = importlib.import_module(name)
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "no message"
        return Finding(name, False, needed, f"{reason}; needed by {stages}")
    return Finding(name, True, needed, str(getattr(module, "__version__", "there")))


def _gpu() -> list[Finding]:
    import torch

    from adu_kernels._triton import runtime

    if not torch.cuda.is_available():
        return [Finding("GPU", False, True, "torch sees no CUDA device; --dry-run runs everything small on a CPU")]
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return [
        Finding("GPU", True, True, f"{name}, {total / 2**30:.0f} GiB"),
        Finding("free GPU memory", free >= FREE_MEMORY, False, f"{free / 2**30:.1f} GiB, expected 24 for every case"),
        Finding("no interpreter", not runtime.interpreting(), True, "TRITON_INTERPRET must not be set"),
        _first_launch(),
    ]


def _first_launch() -> Finding:
    """A kernel compiles and runs at all: the driver, ptxas and the compiler that Triton calls are there."""
    import torch

    from adu_kernels import disparity_regression

    try:
        disparity_regression(torch.randn(1, 4, 4, 4, device="cuda"), backend="triton")
        torch.cuda.synchronize()
    except Exception as error:
        return Finding("first kernel", False, True, f"{type(error).__name__}: {str(error)[:300]}")
    return Finding("first kernel", True, True, "compiled and ran")


def _interpreter() -> list[Finding]:
    from adu_kernels._triton import runtime

    return [Finding("interpreter", runtime.interpreting(), True, "TRITON_INTERPRET=1 before Python starts")]


def identity() -> dict[str, Any]:
    """What a result must have been made from to stand in a later call: sources, machine, versions."""
    import torch
    import triton

    from bench.gpu_check.parity import SOURCES
    from bench.harness.environment import source_digest

    return {
        "sources": source_digest(),
        "tests": source_digest(SOURCES),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "triton": triton.__version__,
    }


def document(found: list[Finding]) -> dict[str, Any]:
    lacking = any(f.needed and not f.ok for f in found)
    told: dict[str, Any] = {"complete": not lacking, "findings": [asdict(f) for f in found]}
    return told if lacking else {**told, "identity": identity()}


def main() -> None:
    chosen = stage_arguments(__doc__)
    found = findings(chosen.dry_run)
    for finding in found:
        state = "ok" if finding.ok else "MISSING" if finding.needed else "missing"
        print(f"{state:8} {finding.name:16} {finding.detail}")
    replace_text(chosen.output, json.dumps(document(found), indent=2) + "\n")  # by nothing but the standard library
    lacking = [f.name for f in found if f.needed and not f.ok]
    if lacking:
        print(f"cannot go on without: {', '.join(lacking)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
