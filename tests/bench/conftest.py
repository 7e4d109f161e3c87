"""The harness is tested on plain PyTorch: without the interpreter a CPU has no kernels to bench."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.bench.scripted import Folder


@pytest.fixture(autouse=True)
def _plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.manual_seed(0)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
