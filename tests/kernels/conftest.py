"""What the kernel tests share: which device they run on, and the same random numbers every time.

Without a GPU, and wherever TRITON_INTERPRET=1, kernels are interpreted on the CPU. On a machine with a GPU the same
tests run on the card: every tensor they make without naming a device lies there, and each carries the marker `gpu`, so
that `TRITON_INTERPRET=0 pytest -m gpu` selects them and what only a card can show.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before anything imports Triton: it decides then how kernels are run
    os.environ.setdefault("TRITON_INTERPRET", "1")

from tests.kernels import parity

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        if parity.DEVICE == "cuda":
            item.add_marker("gpu")
        elif item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and TRITON_INTERPRET unset or 0"))


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _tensors_lie_where_kernels_run() -> Iterator[None]:
    torch.set_default_device(parity.DEVICE)
    yield
    torch.set_default_device(None)
