"""The harness is tested on plain PyTorch: without the interpreter a CPU has no kernels to bench."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
import torch

import adu_kernels
from adu_kernels._triton import runtime
from tests.bench.scripted import Folder


@pytest.fixture(scope="session")
def _kernels_as_they_were() -> None:
    """Triton decides where a kernel is defined how it runs: what is imported late must not find the variable gone."""
    if runtime.interpreting():
        for module in walk_packages(adu_kernels.__path__, "adu_kernels."):
            if not module.name.startswith("adu_kernels.testing"):
                import_module(module.name)


@pytest.fixture(autouse=True)
def _plain_cpu(monkeypatch: pytest.MonkeyPatch, _kernels_as_they_were: None) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.manual_seed(0)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
