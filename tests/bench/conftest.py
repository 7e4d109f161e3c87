"""The harness is tested on plain PyTorch: without the interpreter a CPU has no kernels to bench."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.manual_seed(0)
