"""Fixtures every test may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from adu_kernels.testing.fake_cuda.process import FakeCudaProcess

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in its background has Ctrl-C ignored, which children inherit; tests send it to them.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """A command that was stopped leaves signals ignored, for its process ends; children of tests would inherit it."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(one) for one in signals]
    yield
    for one, handler in zip(signals, before, strict=True):
        if handler is not None and signal.getsignal(one) is not handler:
            signal.signal(one, handler)


@pytest.fixture(scope="session")
def real_stereo() -> Path:
    """The folder of real stereo pairs; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "real_stereo"
    folder = Path(os.environ.get("ADU_REAL_STEREO", beside))
    if not folder.is_dir():
        pytest.skip(f"no real stereo pairs at {folder} (set ADU_REAL_STEREO)")
    return folder


@pytest.fixture(scope="session")
def fake_cuda() -> Iterator[FakeCudaProcess]:
    """A process in which "cuda:0" is a fake device; the test is skipped where there can be none."""
    # Not at the top: this file is read before tests/kernels decides how Triton runs kernels, and this imports Triton.
    from tests.fake_cuda.start import started_or_skipped

    with started_or_skipped() as process:
        yield process
