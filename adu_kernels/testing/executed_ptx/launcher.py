"""What Triton finds in place of a GPU's driver: kernels load as PTX text and launch on this CPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from .machine.counts import Counts
from .machine.device_memory import DeviceMemory, Placed
from .machine.faults import Fault
from .machine.launch import Launch
from .machine.options import Options
from .translation.program import Program

MOST_SHARED = {80: 166912, 90: 232448}
"""Bytes of shared memory that a program may have, by compute capability."""
MOST_BYTES = 48_000_000
"""Of a launch's storages: what is watched takes ten times as much."""


class TooBig(Exception):
    """A launch on more memory than this is meant for."""


class Record:
    """What was launched: sums per kernel, as "cost_volume.volume_forward"."""

    def __init__(self) -> None:
        self.counts: dict[str, Counts] = defaultdict(Counts)
        self.launches: dict[str, int] = defaultdict(int)


class ExecutingDriver:
    """Triton's driver interface, as much of it as a launch needs.

    edit: given a kernel's name and PTX, the PTX to run: to plant faults.
    """

    def __init__(self, capability: int, options: Options, record: Record) -> None:
        if capability not in MOST_SHARED:
            raise ValueError(f"capability: expected one of {sorted(MOST_SHARED)}, got {capability}")
        self.capability, self.options, self.record = capability, options, record
        self.edit: Callable[[str, str], str] | None = None
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> str:
        return f"executed PTX of sm_{self.capability}"  # the key of Triton's caches in memory

    def get_current_stream(self, device: object) -> int:
        return 0

    def get_device_properties(self, device: object) -> dict[str, int]:
        return {"max_shared_mem": MOST_SHARED[self.capability]}

    def load_binary(self, name: str, binary: bytes, shared: int, device: object) -> tuple[Any, ...]:
        """Module, function, registers, spills, most threads."""
        return object(), binary.decode(), 0, 0, 1024

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        """Triton keeps it with the kernel, longer than this driver may be there."""

        def launch(x: int, y: int, z: int, stream: int, ptx: str, packed: Any, *rest: Any) -> None:
            if (y, z) != (1, 1):
                raise ValueError(f"expected a grid of one dimension, got {(x, y, z)}")
            arguments = rest[3:]  # after the metadata of this launch and two hooks
            driver.active._execute(source, metadata, ptx, x, arguments)

        return launch

    def _execute(self, source: Any, metadata: Any, ptx: str, programs: int, arguments: tuple[Any, ...]) -> None:
        kernel = f"{source.fn.fn.__module__.split('.')[-2]}.{source.fn.__name__}"
        if metadata.loads_without_other:
            raise Fault(f"{kernel}: a masked load does not say what the mask hides: {metadata.loads_without_other[0]}")
        if self.edit:
            ptx = self.edit(kernel, ptx)
        program = _program(ptx, self.options.contracted)
        given = [
            a for type_, value in zip(source.signature.values(), arguments, strict=True) for a in _flat(type_, value)
        ]
        memory, values = _placed(given, kernel)
        values += [0] * (len(program.parameters) - len(values))  # Triton's own scratch memory, of which there is none
        try:
            counts = Launch(program, memory, values, metadata.shared, programs, self.options).run()
        except Fault as fault:
            raise Fault(f"{kernel} (sm_{self.capability}): {fault}") from None
        memory.copy_back()
        self.record.counts[kernel].add(counts)
        self.record.launches[kernel] += 1


@lru_cache(maxsize=256)
def _program(ptx: str, contracted: bool) -> Program:
    return Program(ptx, contracted=contracted)


def _flat(type_: Any, value: Any) -> Iterator[Any]:
    """The arguments that reach the kernel: tuples taken apart, constants left out."""
    if isinstance(type_, tuple):
        for inner, given in zip(type_, value, strict=True):
            yield from _flat(inner, given)
    elif type_ != "constexpr":
        yield value


def _placed(arguments: Iterable[Any], kernel: str) -> tuple[DeviceMemory, list[Any]]:
    """The memory of a launch, and its arguments with addresses in place of tensors."""
    numbers: dict[int, int] = {}
    storages: list[np.ndarray] = []
    tensors: list[Placed] = []
    values: list[Any] = []
    for value in arguments:
        if not isinstance(value, torch.Tensor):
            values.append(value)
            continue
        storage = value.untyped_storage()
        start = storage.data_ptr()
        if start not in numbers:
            numbers[start] = len(storages)
            storages.append(_bytes(storage))
        size = value.element_size()
        offset = value.data_ptr() - start if value.numel() else 0
        strides = tuple(stride * size for stride in value.stride())
        tensors.append(Placed(numbers[start], offset, tuple(value.shape), strides, size))
        values.append(tensors[-1])
    total = sum(storage.nbytes for storage in storages)
    if total > MOST_BYTES:
        raise TooBig(f"{kernel}: expected at most {MOST_BYTES / 1e6:.0f} MB of tensors, got {total / 1e6:.0f} MB")
    memory = DeviceMemory(storages, tensors)
    return memory, [memory.address(v.storage, v.offset) if isinstance(v, Placed) else v for v in values]


def _bytes(storage: torch.UntypedStorage) -> np.ndarray:
    if not storage.nbytes():
        return np.zeros(0, "u1")
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
