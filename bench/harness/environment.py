"""What a result was measured on and with: machine, versions, commit, and a digest of the sources themselves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from adu_depth.environment import describe_environment, output_of
from adu_kernels._triton import runtime

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ("adu_kernels", "adu_depth", "bench")
"""The packages whose sources decide a result."""


def measured_environment(device: torch.device) -> dict[str, Any]:
    """JSON values. The commit is what ADU_COMMIT says, if anything: copied sources may lie in another checkout."""
    found: dict[str, Any] = dict(describe_environment(device))
    if os.environ.get("ADU_COMMIT"):
        found["commit"] = os.environ["ADU_COMMIT"]
    found["dirty"] = str(found.get("commit", "")).endswith("+")
    found["sources"] = source_digest()
    found["interpreter"] = runtime.interpreting()
    found["load"] = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    if device.type == "cuda":
        found |= gpu_facts(device)
    return found


def gpu_facts(device: torch.device) -> dict[str, Any]:
    """What torch and the driver say of the GPU; nothing is set or changed."""
    facts = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "gpu": facts.name,
        "capability": f"{facts.major}.{facts.minor}",
        "multiprocessors": facts.multi_processor_count,
        "l2_bytes": getattr(facts, "L2_cache_size", None),
        "memory_bytes": total,
        "free_memory_bytes": free,
        "cuda": torch.version.cuda or torch.version.hip,
        "driver": _driver(),
        "clocks_and_power": _smi("clocks.sm,clocks.mem,power.draw,temperature.gpu"),
    }


def _driver() -> str | None:
    return _smi("driver_version")


def _smi(query: str) -> str | None:
    return output_of(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"], seconds=20) or None


@cache
def source_digest(folders: Sequence[str] = MEASURED) -> str:
    """Sixteen hex digits over every Python file of the folders: equal digests, equal code, with or without git."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
