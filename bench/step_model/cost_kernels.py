"""Launches of the operations of adu_kernels: bytes of the tensors, and instructions counted in the executed PTX."""

from __future__ import annotations

from adu_kernels.testing.fake_cuda.recorder import Row, TensorInfo
from bench.step_model.launch import Launch, Unit, full, size

SHARE = 0.85
"""Of a copy's rate that the kernels' accesses reach. An assumption."""
CORRELATION, CORRELATION_BACKWARD = 25.0, 50.0
"""Instructions of a thread for a cell of the correlation volume, channels-last bf16."""
REGRESSION, REGRESSION_BACKWARD = 53.0, 47.0
"""The same for a pixel and disparity of the regression at four times the size."""
CONVOLUTION_SHARE = 0.65
"""Of a copy's rate: barriers stand between a product and the sum of its neighbours. An assumption."""
REGRESSION_REACHES, ATTENTION_REACHES = 0.75, 0.4
"""Of the issue rate, and of the matrix rate. Assumptions."""


def ours(row: Row) -> list[Launch]:
    name = row.name.partition("::")[2]
    moved = size(row.inputs) + size(row.outputs)
    if name == "cost_volume":
        return _cost_volume(row)
    if name == "cost_volume_backward":
        thin = row.inputs[3:4] if len(row.inputs) >= 5 else ()  # a fourth alone is the gradient of the scores
        return [_issuing(moved, CORRELATION_BACKWARD * _correlated(row.inputs[0], thin))]
    if name == "disparity_regression":
        cells = full(row.outputs[0]) * row.inputs[0].shape[1]
        return [_issuing(moved, REGRESSION * cells, REGRESSION_REACHES)]
    if name == "disparity_regression_backward":
        logits = row.inputs[0]
        cells = full(row.inputs[1]) * logits.shape[1]
        moved += 32.0 * full(logits)  # partial sums, written by one kernel and read by the next
        return [_issuing(moved / 2, REGRESSION_BACKWARD * cells, REGRESSION_REACHES), _moving(moved / 2)]
    if name.startswith("attention_adaptation"):
        return _attention(row, moved, backward=name.endswith("backward"))
    if name == "group_norm":
        return _group_norm(row)
    if name == "group_norm_backward":
        return _group_norm_backward(row)
    if name == "depth_losses":
        return [_moving(moved), _moving(size(row.inputs))]  # sums over the valid pixels, then values
    if name == "depth_gradient_normal":
        return [_moving(moved), _moving(0.0)]  # the sums, then their means
    if name == "feature_distillation":
        return [_moving(moved / 2), _moving(moved / 2)]
    if name == "single_output_conv3d":
        return [Launch("ours", moved, share=CONVOLUTION_SHARE)]
    if name == "single_output_conv3d_backward":
        return [Launch("ours", moved, share=CONVOLUTION_SHARE), Launch("ours", 0.0)]
    if name == "cosine_features":
        x, parts = size(row.inputs[:1]), size(row.outputs[1:])
        return [_moving(x + parts), Launch("ours", parts), _moving(moved)]
    if name == "cosine_features_backward":
        x = size(row.inputs[1:2])
        return [_moving(2 * x), Launch("ours", 0.0), _moving(3 * x)]
    return [_moving(moved)]


def _cost_volume(row: Row) -> list[Launch]:
    """The volume; then, where they are asked for, the scores, from the maps or in wide types from the volume."""
    volume, scores = row.outputs
    issued = CORRELATION * _correlated(volume, row.inputs[2:3])
    launches = [_issuing(size(row.inputs) + size([volume]), issued)]
    if scores.bytes:
        read = volume.bytes if volume.dtype in ("float32", "float64") else size(row.inputs[:2])
        launches.append(_moving(read + scores.bytes))
    return launches


def _moving(moved: float) -> Launch:
    return Launch("ours", moved, share=SHARE)


def _issuing(moved: float, instructions: float, reached: float = 1.0) -> Launch:
    return Launch("ours", moved, instructions, "issue", share=SHARE, reached=reached)


def _correlated(volume: TensorInfo, thin: tuple[TensorInfo, ...]) -> float:
    """Cells of a volume without its concatenated channels."""
    channels = volume.shape[1] - (2 * thin[0].shape[1] if thin else 0)
    return full(volume) / volume.shape[1] * channels


def _attention(row: Row, moved: float, backward: bool) -> list[Launch]:
    query, key = (row.inputs[0], row.inputs[2]) if backward else row.inputs[:2]
    batch, heads, queries, width = query.shape
    products = 4.0 * batch * heads * queries * key.shape[2] * width
    unit: Unit = "vector" if query.dtype == "float32" else "matrix"
    flops = products * (3.5 if backward else 1.0)
    count = 3 if backward else 1
    return [Launch("ours", moved / count, flops / count, unit, share=SHARE, reached=ATTENTION_REACHES)] * count


def _group_norm(row: Row) -> list[Launch]:
    """Statistics, which read x, then the normalised map, which takes x and a residual and leaves the signs' bits."""
    maps = [t for t in row.inputs if len(t.shape) >= 4]
    y, mean, rstd, signs = row.outputs
    return [_moving(maps[0].bytes), _moving(size([*maps, y, mean, rstd, signs]))]


def _group_norm_backward(row: Row) -> list[Launch]:
    """Sums over x and the gradient, their totals, and x's gradient from the same two. Where there are a residual and
    ReLU, the sums also read the signs and write the gradient behind ReLU, which then takes the other's place."""
    gradient, x = row.inputs[:2]
    signs = [t for t in row.inputs if t.dtype == "uint8"]
    grad_x, grad_weight, grad_bias, behind = row.outputs
    return [
        _moving(size([gradient, x, *signs, behind])),
        _moving(size([grad_weight, grad_bias])),
        _moving(size([behind if behind.bytes else gradient, x, grad_x])),
    ]
