"""What the kernel tests share: which device they run on, and the same random numbers every time.

Without a GPU, and wherever TRITON_INTERPRET=1, kernels are interpreted on the CPU. On a machine with a GPU the same
tests run on the card: every tensor they make without naming a device lies there, and each carries the marker `gpu`, so
that `TRITON_INTERPRET=0 pytest -m gpu` selects them and what only a card can show. Tests marked `cpu` start no kernel
(references, checks of what a caller gives, text): they run on the CPU on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before anything imports Triton: it decides then how kernels are run
    os.environ.setdefault("TRITON_INTERPRET", "1")

from adu_kernels._triton import runtime
from adu_kernels.testing import parity
from tests.kernels import draws, masks

HERE = Path(__file__).parent

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # as many workers as cores: threads of their own would wait for one another


def _stays_on_the_cpu(item: pytest.Item) -> bool:
    return item.get_closest_marker("cpu") is not None and item.get_closest_marker("gpu") is None


def _is_long(item: pytest.Item) -> bool:
    given = getattr(getattr(item, "callspec", None), "params", {}).values()
    drawn = getattr(getattr(item, "function", None), "is_hypothesis_test", False)
    return torch.float64 in given or "gradcheck" in item.name or drawn


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents or _stays_on_the_cpu(item):
            continue
        if parity.DEVICE == "cuda":
            item.add_marker("gpu")
            if _is_long(item):
                item.add_marker("long")
        elif item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and TRITON_INTERPRET unset or 0"))
    items.sort(key=lambda item: item.get_closest_marker("long") is not None)


@pytest.fixture(autouse=True, scope="session")
def _masks_are_of_booleans() -> Iterator[None]:
    with masks.boolean_masks() if runtime.interpreting() else nullcontext():
        yield


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _tensors_lie_where_kernels_run(request: pytest.FixtureRequest) -> Iterator[None]:
    on_gpu = parity.DEVICE == "cuda" and not _stays_on_the_cpu(request.node)
    with ExitStack() as within:
        if on_gpu:
            within.enter_context(draws.drawn_on_the_cpu())
            within.enter_context(_full_precision())
        torch.set_default_device("cuda" if on_gpu else "cpu")
        within.callback(torch.set_default_device, None)
        yield


@contextmanager
def _full_precision() -> Iterator[None]:
    """What a kernel is compared with is computed in true fp32, and cuDNN's choice of algorithm repeats."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        patch.setattr(torch.backends.cudnn, "deterministic", True)
        patch.setattr(torch.backends.cudnn, "benchmark", False)
        yield
