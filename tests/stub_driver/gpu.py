"""A GPU for Triton to launch on that is not there: `driver.c` compiled, loaded and made Triton's active driver.

Triton's own parts run as on a machine with a GPU: the binder that specialises arguments, ptxas, the C launcher. For a
process that does nothing else: Triton keeps its driver, and a library stays loaded.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("driver.c")
STREAM = 0x5712EA
"""What Triton is told that the current stream is."""


def compiler() -> str | None:
    """The C compiler that Triton would take for its launcher; None if there is none, or not the one that $CC names."""
    named = os.environ.get("CC")
    return shutil.which("gcc") or shutil.which("clang") if named is None else shutil.which(named)


def build(folder: Path) -> Path:
    """`driver.c` as folder/libcuda.so.1, with the declarations of cuda.h in Triton's wheel."""
    import triton

    include = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    library = folder / "libcuda.so.1"
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".so", delete=False) as partial:
        command = [str(compiler()), "-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", f"-I{include}"]
        subprocess.run([*command, str(SOURCE), "-o", partial.name], check=True)
    os.replace(partial.name, library)
    return library


@dataclass(frozen=True)
class Parameter:
    """One parameter of a launch, as the kernel would find it."""

    size: int
    value: bytes


@dataclass(frozen=True)
class Launched:
    """What the driver was given for one launch."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    registers: int
    """Of one thread, as the cubin says."""
    stream: int
    parameters: tuple[Parameter, ...]


class StubGpu:
    """The loaded library. One per process."""

    def __init__(self, library: Path, capability: int) -> None:
        # Loaded first: whoever opens "libcuda.so.1" later gets it. Triton links its launcher with the folder's.
        self._library = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        os.environ["TRITON_LIBCUDA_PATH"] = str(library.parent)
        for name in ("grid", "block"):
            getattr(self._library, f"stub_{name}").restype = ctypes.POINTER(ctypes.c_uint * 3)
        self._library.stub_name.restype = ctypes.c_char_p
        self._library.stub_stream.restype = ctypes.c_ulonglong
        self._library.stub_value.restype = ctypes.POINTER(ctypes.c_ubyte)
        self.capability = capability
        self.pretend(capability)

    def pretend(self, capability: int) -> None:
        """The driver takes cubins of this capability alone from now on; Triton goes on compiling for its own."""
        self._library.stub_gpu(capability)

    def activate(self) -> None:
        """Triton launches on it from now on, wherever the tensors lie."""
        from triton.backends.nvidia.driver import CudaDriver
        from triton.runtime import driver

        from adu_kernels._triton import runtime

        active = CudaDriver()
        active.get_current_device = lambda: 0
        active.get_current_stream = lambda device: STREAM
        active.get_device_capability = lambda device: divmod(self.capability, 10)
        driver.set_active(active)
        runtime.check_device = lambda tensor: None

    def launched(self) -> list[Launched]:
        """All launches since the last call."""
        found = [self._one(number) for number in range(self._library.stub_count())]
        self._library.stub_forget()
        return found

    def _one(self, number: int) -> Launched:
        library = self._library
        parameters = []
        for index in range(library.stub_parameters(number)):
            size = library.stub_size(number, index)
            parameters.append(Parameter(size, bytes(library.stub_value(number, index)[:size])))
        return Launched(
            library.stub_name(number).decode(),
            tuple(library.stub_grid(number).contents),
            tuple(library.stub_block(number).contents),
            library.stub_shared(number),
            library.stub_registers(number),
            library.stub_stream(number),
            tuple(parameters),
        )
