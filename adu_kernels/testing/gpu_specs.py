"""What is known of the GPUs the kernels are judged for: vendors' figures, apart from what we take off them.

Vendors' figures are peaks, dense, without sparsity. Sources: NVIDIA A100, H100 and H200 Tensor Core GPU datasheets
(SXM) and their architecture white papers; the HGX B200 datasheet, one GPU of eight; the RTX Blackwell architecture
white paper (GeForce RTX 5090; its matrix peak is that with fp32 sums, half of that with fp16 sums); AMD's Instinct
MI300X data sheet and CDNA 3 ISA guide; the compute-capability and throughput tables of the CUDA C++ programming guide.
Where a vendor names no clock (H200, B200) it is the one that its fp32 peak implies.

Looked up again in public tables of others on 2026-11-20: for A100, H100, H200 and B200 bandwidths, bf16 and fp32 peaks
and the numbers of multiprocessors agree, but that some give the B200 80 TFLOP/s in fp32 or 7.7 TB/s; the MI300X's
compute units and bandwidth agree; so do the RTX 5090's multiprocessors, clock, bandwidth and peaks (2026-11-26). Not
found in a second place, so not confirmed: the MI300X's clock and matrix peak, special functions and instructions to
issue of all six, what the system takes of shared memory. Matrix peaks are at a lower clock than `clock` (H100 1.83 GHz,
B200 1.86 GHz in those tables).
"""

from __future__ import annotations

from dataclasses import dataclass

COPY_SHARE = 0.90
"""A derate, not a vendor's figure: what a device copy reaches of the peak. Seen on an H200 (4.3 of 4.8 TB/s), taken for
all."""
MATRIX_SHARE = 0.80
"""A derate: what a large matrix product reaches of the peak. Seen on an H200 in bf16 (790 of 989 TFLOP/s), taken for
all."""


@dataclass(frozen=True)
class Multiprocessor:
    """What the programs that share one multiprocessor (NVIDIA) or compute unit (AMD) divide between them."""

    warp: int
    """Threads of a warp, a wavefront on AMD."""
    warps: int
    programs: int
    registers: int
    """32-bit registers of all its threads."""
    register_unit: int
    """Registers are given to a warp in multiples of this."""
    quarters: int
    """Warps stand in so many equal parts with a register file each."""
    shared: int
    """Bytes of shared memory (LDS) for all programs."""
    shared_unit: int
    shared_reserved: int
    """Bytes the system takes of it for each program."""


_CUDA = {"warp": 32, "warps": 64, "programs": 32, "registers": 65536, "register_unit": 256, "quarters": 4}
_CUDA_SHARED = {"shared_unit": 128, "shared_reserved": 1024}
MULTIPROCESSORS = {
    "sm_80": Multiprocessor(**_CUDA, shared=164 * 1024, **_CUDA_SHARED),
    "sm_90": Multiprocessor(**_CUDA, shared=228 * 1024, **_CUDA_SHARED),
    "sm_100": Multiprocessor(**_CUDA, shared=228 * 1024, **_CUDA_SHARED),
    # Consumer Blackwell holds fewer warps, and 99 KiB of shared memory for one program.
    "sm_120": Multiprocessor(**_CUDA | {"warps": 48, "programs": 24}, shared=100 * 1024, **_CUDA_SHARED),
    # 512 vector registers a lane and SIMD, given in eights; 16 programs of several wavefronts (one barrier each).
    "gfx942": Multiprocessor(
        warp=64, warps=32, programs=16, registers=4 * 512 * 64, register_unit=8 * 64, quarters=4,
        shared=64 * 1024, shared_unit=512, shared_reserved=0,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """Vendor's peaks of one GPU. Per second, in bytes and floating-point operations (a multiply-add counts two)."""

    target: str
    bandwidth: float
    matrix: float
    """Matrix units, bf16 and fp16 with fp32 sums."""
    vector: float
    """fp32 without matrix units."""
    multiprocessors: int
    clock: float
    special_per_clock: int = 16
    """Exponentials, logarithms, reciprocals and roots per clock and multiprocessor."""
    issue_per_clock: int = 128
    """Instructions of single threads that start per clock and multiprocessor: four warps' of 32; AMD: 64."""

    @property
    def special(self) -> float:
        return self.special_per_clock * self.multiprocessors * self.clock

    @property
    def issue(self) -> float:
        return self.issue_per_clock * self.multiprocessors * self.clock


GPUS = {
    "A100": Gpu("sm_80", 2.039e12, 312e12, 19.5e12, multiprocessors=108, clock=1.41e9),  # 80 GB
    "H100": Gpu("sm_90", 3.35e12, 989e12, 67e12, multiprocessors=132, clock=1.98e9),
    "H200": Gpu("sm_90", 4.8e12, 989e12, 67e12, multiprocessors=132, clock=1.98e9),
    "B200": Gpu("sm_100", 8.0e12, 2250e12, 75e12, multiprocessors=148, clock=1.98e9),
    "RTX 5090": Gpu("sm_120", 1.792e12, 209.5e12, 104.8e12, multiprocessors=170, clock=2.407e9),
    "MI300X": Gpu("gfx942", 5.3e12, 1307e12, 163.4e12, multiprocessors=304, clock=2.1e9, issue_per_clock=64),
}
