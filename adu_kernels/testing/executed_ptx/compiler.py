"""Triton's compiler for NVIDIA GPUs, told to stop at PTX: the "binary" of a kernel is its PTX as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from triton.backends.nvidia.compiler import CUDABackend

LOAD_WITHOUT_OTHER = re.compile(r"tt\.load %[^,\s]+, %[^,\s]+ (?!,)[^,\n]*:")
"""In Triton's IR: a pointer and a mask, and nothing that the mask hides."""


@contextmanager
def stopping_at_ptx() -> Iterator[None]:
    """Within it no ptxas runs. What is compiled gets another key in Triton's cache than a real kernel."""
    stages_before, hash_before = CUDABackend.add_stages, CUDABackend.hash

    def add_stages(backend: Any, stages: dict[str, Any], options: Any, language: Any) -> None:
        stages_before(backend, stages, options, language)
        lower = stages["ttir"]

        def noted(source: Any, metadata: dict[str, Any]) -> Any:
            module = lower(source, metadata)
            metadata["loads_without_other"] = LOAD_WITHOUT_OTHER.findall(str(module))
            return module

        stages["ttir"] = noted
        stages["cubin"] = lambda ptx, metadata: ptx.encode()

    CUDABackend.add_stages = add_stages
    CUDABackend.hash = lambda backend: f"executed PTX, {backend.target.arch}"
    try:
        yield
    finally:
        CUDABackend.add_stages, CUDABackend.hash = stages_before, hash_before
