"""These tests compile kernels, which a process that interprets them cannot: they run in one with TRITON_INTERPRET=0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

COMPILED = os.environ.get("TRITON_INTERPRET") == "0"


class _Elsewhere(pytest.Module):
    def collect(self) -> Any:
        pytest.skip("kernels are compiled here: TRITON_INTERPRET=0 pytest tests/executed_ptx", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    return None if COMPILED else _Elsewhere.from_parent(parent, path=module_path)


@pytest.fixture(autouse=True)
def _the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers, and tensors on the CPU even where there is a GPU."""
    from adu_kernels.testing import parity

    monkeypatch.setattr(parity, "DEVICE", "cpu")
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def _executing() -> Iterator[Any]:
    from adu_kernels.testing.executed_ptx import executed_ptx

    with executed_ptx(80) as gpu:
        yield gpu


@pytest.fixture
def gpu(_executing: Any) -> Iterator[Any]:
    """The sm_80 that kernels run on, as it is at first."""
    from adu_kernels.testing.executed_ptx import Options, Record

    _executing.options, _executing.record, _executing.edit = Options(), Record(), None
    yield _executing
    _executing.edit = None
