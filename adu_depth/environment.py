"""What a result was computed with, to be kept beside it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

PACKAGES = ("torch", "triton", "transformers", "accelerate", "opencv-python", "opencv-python-headless", "numpy")


def describe_environment(device: torch.device) -> dict[str, str | int]:
    """Versions, device and, where the code runs from a git checkout, its commit ("+" = with local changes)."""
    found: dict[str, str | int] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    found["threads"] = torch.get_num_threads()
    found["cores"] = os.cpu_count() or 0
    commit = _commit()
    if commit:
        found["commit"] = commit
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"CPU {platform.machine()}"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"CPU {names[0]}" if names else f"CPU {platform.machine()}"


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    return output_of(["git", "describe", "--always", "--dirty=+", "--exclude=*"], seconds=10, folder=root)


def output_of(command: Sequence[str], seconds: float, folder: Path | None = None) -> str | None:
    """What a command prints; None where there is no such command, or it fails or takes longer."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=seconds)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
