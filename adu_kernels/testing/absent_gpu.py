"""A GPU that this process does not open: just enough of Triton's driver to specialise and compile launches for it."""

from __future__ import annotations

from triton.backends.compiler import GPUTarget


class AbsentGpu:
    """Made Triton's by `triton.runtime.driver.set_active`; nothing can be started on it."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        """The key of Triton's per-device caches: one cache per target."""
        return str(self.target)

    def get_current_stream(self, device: object) -> int:
        return 0
