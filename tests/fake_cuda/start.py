"""How tests come to a fake CUDA process."""

from __future__ import annotations

import pytest

from adu_kernels.testing.fake_cuda.build import Unavailable
from adu_kernels.testing.fake_cuda.process import FakeCudaProcess


def started_or_skipped() -> FakeCudaProcess:
    """Skips the test where this machine can have none. A guard that does not compile is an error: it would take all of
    these tests away unseen."""
    try:
        return FakeCudaProcess()
    except Unavailable as reason:
        pytest.skip(str(reason))
