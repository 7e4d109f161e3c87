"""A traced step in numbers: launches, copies and bytes, which are counted, and times, which are modelled."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from adu_kernels.testing.fake_cuda import rules
from adu_kernels.testing.fake_cuda.recorder import Row
from adu_kernels.testing.gpu_specs import Gpu
from bench.step_model.cost import launches_of
from bench.step_model.launch import Launch
from bench.step_model.steps import StepTrace

OURS = {
    "cost_volume": "cost volume",
    "disparity_regression": "disparity regression",
    "attention_adaptation": "attention",
    "feature_distillation": "feature distillation",
    "pooled_guide": "guide",
    "depth_losses": "depth losses",
    "response_weights": "depth losses",
    "group_norm": "group norm",
}
"""What an operation of adu_kernels is called in the table."""
ROUNDED = "rounded weights"
"""And what rounds a step's weights together, and their gradients back (`adu_depth.training.rounded_weights`)."""


@dataclass(frozen=True)
class Counts:
    """What a step starts and keeps, whatever the GPU. by_group: launches by part of the step.

    layouts: copies between layouts, those that cuDNN makes for a convolution included. copies: of the rest, within one
    layout and type. casts: copies to another type. saved_bytes: kept between forward and backward.
    """

    launches: int
    layouts: int
    copies: int
    casts: int
    saved_bytes: int
    by_group: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Modelled milliseconds of a part of the step."""

    least: float
    likely: float
    launches: int


REPLAY_US = 170.0
"""Of the host, to start a captured graph: the longest of those seen on an H200 (30 to 170; torch 2.11, bf16, B 8)."""


def host_with_graph_ms(rows: Sequence[Row], host_us: float) -> float:
    """The host's time for a step that is replayed. rows: of `trace_replay`; what the host does with its own tensors
    counts as a launch each, which is more than it takes."""
    launches = sum(launch.count for row in rows for launch in launches_of(row))
    own = sum(not rules.on_device(row.inputs + row.outputs) for row in rows)
    return ((launches + own) * host_us + 2 * REPLAY_US) / 1e3


def counts(trace: StepTrace) -> Counts:
    kinds: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    for row in trace.rows:
        for launch in launches_of(row):
            kinds[launch.kind] += launch.count
            groups[group_of(row)] += launch.count
    return Counts(kinds.total(), kinds["layout"], kinds["copy"], kinds["cast"], trace.saved_bytes, dict(groups))


def groups(trace: StepTrace, gpu: Gpu) -> dict[str, Group]:
    """By part of the step, the longest first."""
    launches: dict[str, list[Launch]] = defaultdict(list)
    for row in trace.rows:
        launches[group_of(row)] += launches_of(row)
    found = {name: _timed(of_group, gpu) for name, of_group in launches.items() if of_group}
    return dict(sorted(found.items(), key=lambda item: -item[1].likely))


def _timed(launches: list[Launch], gpu: Gpu) -> Group:
    return Group(
        1e3 * sum(launch.least(gpu) for launch in launches),
        1e3 * sum(launch.likely(gpu) for launch in launches),
        sum(launch.count for launch in launches),
    )


def ours_ms(trace: StepTrace, gpu: Gpu) -> float:
    """Likely milliseconds of the operations of adu_kernels."""
    return 1e3 * sum(
        launch.likely(gpu) for row in trace.rows for launch in launches_of(row) if row.name.startswith("adu_kernels::")
    )


def group_of(row: Row) -> str:
    """The part of the step that an operation belongs to, a teacher's beside a student's told apart."""
    if row.phase in ("batch", "clip", "optimizer"):
        return row.phase
    owner = "teacher " if row.phase == "teacher" else ""
    operation = row.name.removeprefix("adu_kernels::").removesuffix("_backward")
    if operation in OURS:
        return owner + OURS[operation]
    if row.name == rules.MANY_COPIES:
        return ROUNDED
    innermost = row.region.rpartition("/")[2]
    root, _, inside = innermost.partition(".")
    part = inside.partition(".")[0]
    if root in ("network", "teacher"):
        return owner + (part.replace("_", " ") or "between its modules")
    if root == "loss":
        return part or "losses"
    return "augmentation" if row.phase == "forward" else "gradients into parameters"


def volumes(trace: StepTrace) -> str:
    """Layout and type of the cost volumes that adu_kernels wrote, and how often one is copied; "–": it wrote none."""
    written = {
        f"{row.outputs[0].layout} {row.outputs[0].dtype}"
        for row in trace.rows
        if row.name == "adu_kernels::cost_volume"
    }
    if not written:
        return "–"
    return f"{', '.join(sorted(written))}, copied {len(rules.volumes_copied(trace.rows))} times"
