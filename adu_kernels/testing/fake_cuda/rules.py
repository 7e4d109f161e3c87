"""What a training step must not do on a GPU, read from recorded rows. Each rule returns the rows that break it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .recorder import Row, TensorInfo

WAITS = (
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
    "_linalg_check_errors",
)  # fmt: skip
"""Operations whose result the host needs before it can go on. Under fake tensors most of them raise as well."""
FILLS = ("masked_fill", "masked_fill_", "index_fill", "index_fill_")
"""Where they fill with a tensor, they ask for its value."""
COPIES = ("_to_copy", "copy_", "clone")
MANY_COPIES = "_foreach_copy_"
UPLOADS = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put", "where")
"""Operations that bring what they find on the host to the device themselves: indices, a number to be stored or chosen.
Others take a number of the host as an argument of their kernel, or refuse tensors of two devices."""
ANY_ORDER = {
    "index_add", "index_add_", "index_copy", "index_copy_", "index_reduce", "index_reduce_", "put", "put_", "scatter",
    "scatter_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_", "histc", "bincount", "median",
    "kthvalue", "cumsum", "nll_loss_forward", "nll_loss2d_forward", "max_unpool2d", "max_unpool3d",
    "adaptive_max_pool2d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
    "avg_pool3d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward",
    "max_pool3d_with_indices_backward", "grid_sampler_2d_backward", "grid_sampler_3d_backward",
    "reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward",
    "replication_pad1d_backward", "replication_pad2d_backward", "replication_pad3d_backward",
    "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward", "_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward",
    "_ctc_loss_backward", "_embedding_bag_dense_backward",
}  # fmt: skip
"""Operations that CUDA adds or writes in any order, of those that `torch.use_deterministic_algorithms` names. Not among
them are convolutions, where cuDNN decides, and index_put, which sorts its indices there when it accumulates."""
VOLUME_DIMENSIONS = 5

STORED = {
    "cost_volume", "attention_adaptation", "feature_distillation", "disparity_regression", "group_norm",
    "single_output_conv3d", "cosine_features",
}  # fmt: skip
"""Operations of adu_kernels whose maps come in the step's storage type; those of the others are fp32 in any case."""
FP32 = {"depth_losses", "depth_gradient_normal", "pooled_guide", "response_weights"}


def on_device(tensors: Iterable[TensorInfo]) -> bool:
    return any(t.device == "cuda" for t in tensors)


def waits_for_device(rows: Sequence[Row]) -> list[Row]:
    """The host waits: it asks for a value, or copies one from the device (asynchronous copies need pinned memory)."""
    return [
        row for row in rows
        if (row.name in WAITS and on_device(row.inputs))
        or (row.name in FILLS and on_device(row.inputs[2:]))
        or (_crosses(row, "cuda", "cpu") and not _asynchronous(row))
    ]  # fmt: skip


def pageable_copies(rows: Sequence[Row]) -> list[Row]:
    """Copies to the device for which the host waits: from memory that is not pinned, or not with `non_blocking`; those
    inside of an operation are so always."""
    return [
        row for row in rows
        if (row.name in UPLOADS and on_device(row.inputs) and any(t.device == "cpu" for t in row.inputs))
        or (_crosses(row, "cpu", "cuda") and not _asynchronous(row))
    ]  # fmt: skip


def touches_host(rows: Sequence[Row]) -> list[Row]:
    """What a captured CUDA graph must not hold: it would keep the host's memory or number of that one step for ever, or
    cannot hold it at all. Stricter than the two rules before: pinned memory and numbers without dimensions count."""
    return [row for row in rows if any(t.device == "cpu" for t in row.inputs + row.outputs)]


def fp64_on_device(rows: Sequence[Row]) -> list[Row]:
    """Double precision, which runs at a 32nd or less of single precision's rate on most GPUs. Single numbers may have
    it: an fp16 scaler's inverse does."""
    return [
        row for row in rows
        if any(t.dtype == "float64" and t.device == "cuda" and t.shape for t in row.inputs + row.outputs)
    ]  # fmt: skip


def adds_in_any_order(rows: Sequence[Row]) -> list[Row]:
    """What has other bits each time: a run that is resumed would not be the one that was never stopped. The largest or
    smallest of several numbers is the same in any order."""
    return [
        row for row in rows
        if row.name in ANY_ORDER and on_device(row.inputs) and row.facts.get("reduce") not in ("amin", "amax")
    ]  # fmt: skip


def volumes_copied(rows: Sequence[Row]) -> list[Row]:
    """Operations that write a whole volume anew: casts, copies, and convolutions that want another layout.

    A volume is the five-dimensional result of an operation of adu_kernels, and its gradient.
    """
    volumes: dict[int, int] = {}
    found = []
    for row in rows:
        if row.name.startswith("adu_kernels::"):
            volumes.update((t.storage, t.count) for t in row.outputs if _is_volume(t))
            gradients = [t for t in row.inputs if row.phase == "backward" and _is_volume(t)]
            found += [r for t in gradients for r in rows if r.name in COPIES and _writes(r, t)]
            continue
        read = row.inputs if row.name in COPIES else layout_conversions(row)
        if any(volumes.get(t.storage) == t.count for t in read):
            found.append(row)
    return found


def _is_volume(tensor: TensorInfo) -> bool:
    return len(tensor.shape) == VOLUME_DIMENSIONS and not _is_logits_or_taps(tensor)


def _is_logits_or_taps(tensor: TensorInfo) -> bool:
    """A convolution's one channel, B×1×D×H×W, or its weight, 1×C×3×3×3."""
    return tensor.shape[1] == 1 or tensor.shape[2:] == (3, 3, 3)


def off_the_fast_path(rows: Sequence[Row], storage: str) -> list[Row]:
    """Operations of adu_kernels that read or write maps in another type or layout than the one they are fast in.

    storage: the type that the step keeps maps in. Maps and volumes are channels-last, tokens and what is normalised
    have their channels innermost, logits their columns. ValueError for an operation that this rule does not know.
    """
    found = []
    for row in rows:
        namespace, _, name = row.name.partition("::")
        if namespace != "adu_kernels":
            continue
        name = name.removesuffix("_backward")
        if name not in STORED | FP32:
            raise ValueError(f"off_the_fast_path: unknown operation {row.name}; add it to STORED or FP32")
        maps = [t for t in row.inputs + row.outputs if len(t.shape) >= 4 and not _is_scores(t, name, row)]
        if not all(_fits(t, name, storage) for t in maps):
            found.append(row)
    return found


def _is_scores(tensor: TensorInfo, operation: str, row: Row) -> bool:
    """A volume's mean over its groups, or the gradient of one, which lies as who made it had it."""
    if operation != "cost_volume":
        return False
    volume = (row.outputs if row.phase != "backward" else row.inputs)[0].shape
    return tensor.shape == (volume[0], *volume[2:])


def _fits(tensor: TensorInfo, operation: str, storage: str) -> bool:
    if operation == "single_output_conv3d":
        return tensor.dtype == storage and (tensor.channels_last or _is_logits_or_taps(tensor))
    single = tensor.shape[1] == 1 and operation != "attention_adaptation"  # a weight, a depth: fp32, no channels
    if single or operation in FP32:
        return tensor.dtype in ("float32", "uint8", "bool") and tensor.layout == "any"
    if operation == "attention_adaptation":
        return tensor.dtype == storage and tensor.stride[-1] == 1
    if operation == "disparity_regression":
        return tensor.dtype == storage and tensor.contiguous
    if operation == "group_norm":  # a gradient may be part of a larger map's channels
        return tensor.dtype == storage and (tensor.stride[1] == 1 or tensor.channels_last)
    return tensor.dtype == storage and tensor.channels_last


def layout_conversions(row: Row) -> list[TensorInfo]:
    """What cuDNN copies to another layout before a convolution: it runs in the layout that it gives its result."""
    if row.name == "convolution":
        wanted, given = row.outputs[0], row.inputs[:2]
    elif row.name == "convolution_backward":
        of_input, of_weight, _ = row.facts["wanted"]
        if not (of_input or of_weight):
            return []
        wanted = row.outputs[0] if of_input else row.inputs[1]
        given = row.inputs[:3]
        given = (given[0], *((given[1],) if of_weight else ()), *((given[2],) if of_input else ()))
    else:
        return []
    if wanted.channels_last:
        return [t for t in given if not t.channels_last]
    return [t for t in given if not t.contiguous]


def _crosses(row: Row, source: str, target: str) -> bool:
    """Whether the operation is a copy of a tensor from one kind of device to the other."""
    if row.name == MANY_COPIES:
        count = row.facts["tensors"]
        copies = list(zip(row.inputs[:count], row.inputs[count:], strict=True))
    elif row.name in COPIES:
        copies = [(row.outputs[0] if row.name != "copy_" else row.inputs[0], row.inputs[-1])]
    else:
        return False
    return any(into.device == target and of.device == source for into, of in copies)


def _asynchronous(row: Row) -> bool:
    host = [t for t in row.inputs + row.outputs if t.device == "cpu"]
    return bool(row.facts["non_blocking"]) and all(t.pinned for t in host)


def _writes(row: Row, tensor: TensorInfo) -> bool:
    return any(t.storage == tensor.storage and t.count == tensor.count for t in row.outputs)
