"""What machine code and an operation's formulas let one expect of a kernel: occupancy, and time by the slowest roof.

Predictions, not measurements: no latency, no launch, every cache perfect.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..gpu_specs import COPY_SHARE, GPUS, MATRIX_SHARE, MULTIPROCESSORS
from .cases import Work


@dataclass(frozen=True)
class Occupancy:
    """How many programs of a kernel one multiprocessor holds at a time."""

    programs: int
    """0: not even one fits."""
    share: float
    """Of the warps that the multiprocessor could hold."""
    limit: str
    """What keeps another program out: "registers", "shared memory", "warps" or "programs"."""


def occupancy(target: str, registers: int, shared: int, num_warps: int) -> Occupancy:
    """registers: per thread; shared: bytes per program; num_warps: warps per program."""
    facts = MULTIPROCESSORS[target]
    per_warp = _up(max(registers, 1) * facts.warp, facts.register_unit)
    fit = {
        "warps": facts.warps // num_warps,
        "registers": facts.registers // facts.quarters // per_warp * facts.quarters // num_warps,
        "shared memory": facts.shared // max(_up(shared + facts.shared_reserved, facts.shared_unit), 1),
        "programs": facts.programs,
    }
    limit = min(fit, key=lambda name: fit[name])
    return Occupancy(fit[limit], fit[limit] * num_warps / facts.warps, limit)


@dataclass(frozen=True)
class Prediction:
    """Microseconds that each kind of work takes by itself at the (derated) rate of one GPU."""

    memory: float
    matrix: float
    vector: float
    special: float
    issue: float

    @property
    def microseconds(self) -> float:
        """Of the kernel: kinds of work run beside one another, so the slowest decides."""
        return max(asdict(self).values())

    @property
    def bound(self) -> str:
        """Which kind of work that is."""
        times = asdict(self)
        return max(times, key=lambda name: times[name])


def predict(gpu: str, work: Work) -> Prediction:
    facts = GPUS[gpu]
    return Prediction(
        memory=1e6 * (work.read + work.written) / (facts.bandwidth * COPY_SHARE),
        matrix=1e6 * work.flops * work.matrix / (facts.matrix * MATRIX_SHARE),
        vector=1e6 * work.flops * (not work.matrix) / facts.vector,
        special=1e6 * work.special / facts.special,
        issue=1e6 * work.instructions / facts.issue,
    )


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
