"""What a recorded operation launches on a GPU, and how long that would take: a roofline, not a measurement.

Two times for every launch. `least`: its bytes at the rate of a device copy, or its operations at the rate of a large
matrix product, whichever is longer. `likely`: with what is known to be lost on the way: tiles of a convolution that its
channels do not fill, copies between layouts, norms that occupy a part of the GPU. The least certain numbers are marked.
"""

from __future__ import annotations

from collections.abc import Sequence

from adu_kernels.testing.fake_cuda.recorder import Row, TensorInfo
from adu_kernels.testing.fake_cuda.rules import COPIES, MANY_COPIES, on_device
from bench.step_model.cost_kernels import ours
from bench.step_model.cost_layers import LAYERS
from bench.step_model.launch import LAYOUT_SHARE, Launch, full, size

POINTWISE_ROW = 1 << 16
"""Elements from which on an elementwise operation's layouts count."""


def launches_of(row: Row) -> list[Launch]:
    """What the operation starts on the GPU; nothing for one on the host."""
    if not on_device(row.inputs + row.outputs):
        return []
    if row.name.startswith("adu_kernels::"):
        return ours(row)
    if row.name in LAYERS:
        return LAYERS[row.name](row)
    if row.name in COPIES:
        return [copy(row)]
    if row.name.startswith(("_foreach", "_fused")):
        return multi_tensor(row)
    return elementwise(row)


def copy(row: Row) -> Launch:
    return copied(row.inputs[0] if row.name == "copy_" else row.outputs[0], row.inputs[-1])


def copied(target: TensorInfo, source: TensorInfo) -> Launch:
    """A copy by what changes: "from host", the layout, the type, or nothing."""
    moved = float(source.bytes + target.bytes)
    if source.device != target.device:
        return Launch("from host" if target.device == "cuda" else "to host", float(target.bytes))
    dense = (source.contiguous and target.contiguous) or (source.channels_last and target.channels_last)
    if dense or source.stride == target.stride or 0 in source.stride:
        return Launch("cast" if source.dtype != target.dtype else "copy", moved)
    return Launch("layout", moved, share=LAYOUT_SHARE)


TENSORS_A_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36}
"""By how many lists a multi-tensor kernel walks through (ATen's multi_tensor_apply); 320 blocks of 65,536 elements."""


def multi_tensor(row: Row) -> list[Launch]:
    tensors = row.facts["tensors"]
    lists = max(1, min(4, round(len(row.inputs) / max(tensors, 1))))
    first = row.inputs[:tensors]
    if row.name == MANY_COPIES:
        return copies(first, row.inputs[tensors:])
    in_place = row.name.endswith("_") or row.name.startswith("_fused")
    moved = size(row.inputs) + size(first if in_place else row.outputs)
    return [Launch("multi-tensor", moved, count=_walks(first, lists))]


def copies(targets: Sequence[TensorInfo], sources: Sequence[TensorInfo]) -> list[Launch]:
    """A list of tensors into another. Where any pair differs in size or strides, has gaps, or the tensors of a list
    differ in type or device, ATen copies all of them one by one; from type to type it can copy them together."""
    pairs = list(zip(targets, sources, strict=True))
    one_kind = all(len({(t.dtype, t.device) for t in side}) == 1 for side in (targets, sources))
    alike = all(t.device == s.device and t.shape == s.shape and t.stride == s.stride and t.dense for t, s in pairs)
    if not (one_kind and alike):
        return [copied(target, source) for target, source in pairs]
    kind = "multi-tensor" if targets[0].dtype == sources[0].dtype else "cast"
    return [Launch(kind, size(targets) + size(sources), count=_walks(targets, 2))]


def _walks(tensors: Sequence[TensorInfo], lists: int) -> int:
    """Launches of a multi-tensor kernel over so many lists like this one."""
    blocks = sum(-(-t.count // 65536) for t in tensors)
    return max(-(-len(tensors) // TENSORS_A_LAUNCH[lists]), -(-blocks // 320))


WRITERS = {
    "zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "arange", "scalar_tensor", "zero_", "fill_",
    "new_zeros", "new_full", "bernoulli_", "uniform_", "rand",
}  # fmt: skip
"""Operations that read nothing."""
KINDS = {
    "reduction": ("sum", "mean", "linalg_vector_norm", "amax", "amin", "var_mean", "max", "any", "all", "norm"),
    "concatenation": ("cat", "stack"),
    "gather": ("gather", "scatter_add", "index", "index_put", "_index_put_impl_", "index_select", "scatter_reduce"),
}
RESAMPLING = ("pool", "upsample", "pad", "shuffle", "grid_sampler")


def elementwise(row: Row) -> list[Launch]:
    """Everything else: each input read once, each output written once."""
    name = row.name
    if name in WRITERS:
        return [Launch("elementwise", size(row.outputs or row.inputs[:1]))]
    if name in ("slice_backward", "select_backward"):
        return [Launch("elementwise", size(row.outputs)), Launch("elementwise", 2 * size(row.inputs))]
    kind = next((kind for kind, names in KINDS.items() if name in names), "elementwise")
    if any(part in name for part in RESAMPLING):
        kind = "resampling"
    elif "softmax" in name:
        kind = "softmax"
    read = {(t.storage, t.stride, t.shape): t for t in row.inputs}
    written = row.outputs if row.outputs or not name.endswith("_") else row.inputs[:1]
    share = LAYOUT_SHARE if kind == "elementwise" and _mixed_layouts(row) else 1.0
    return [Launch(kind, size(list(read.values())) + size(written), share=share)]


def _mixed_layouts(row: Row) -> bool:
    largest = max((full(t) for t in row.inputs), default=0)
    layouts = {t.layout for t in row.inputs + row.outputs if full(t) == largest} - {"any"}
    return largest > POINTWISE_ROW and len(layouts) > 1
