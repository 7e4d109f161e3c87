"""A new operation, from its reference to a kernel that is proven: y = relu(x · scale_c + shift_c) over B×C×H×W.

    TRITON_INTERPRET=1 python scripts/examples/new_operation.py      # without the variable on a GPU

The order is that of every operation here. 1: the reference, plain PyTorch, which decides what is right. 2: the kernel.
3: one operator each way, so that torch.compile and autograd see one node. 4: the proof. In the package each part is a
file: reference.py, kernels.py, launch.py and op.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from adu_kernels._triton import runtime
from adu_kernels._triton.device import dtype_of
from adu_kernels._triton.dtypes import accumulator
from adu_kernels._triton.layout import ceil_div
from adu_kernels.backend import dispatch
from adu_kernels.derivatives import differentiable_once, keep, kept
from adu_kernels.precision import accumulation_dtype
from adu_kernels.testing import parity


# 1. The mathematics. Sums and products in fp32 (fp64 for fp64), whatever the storage type.
def reference(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    dtype = accumulation_dtype(x)
    scale, shift = (one.to(dtype)[:, None, None] for one in (scale, shift))
    return (x.to(dtype) * scale + shift).relu().to(x.dtype)


# 2. The kernels. What they are compiled for arrives as one `config`, strides as they are: any layout, no copy.
class Config(NamedTuple):
    BLOCK: int
    ACC: str


class Map(NamedTuple):
    """A tensor in a kernel: where it starts, and its strides."""

    p: Any
    stride_b: Any
    stride_c: Any
    stride_h: Any
    stride_w: Any


SIZES = ["channels", "height", "width", *(f"{tensor}_{axis}" for tensor in "xy" for axis in "bchw")]


@triton.jit
def pointers(tensor, plane, channels, row, column):  # type: ignore[no-untyped-def]
    """int64 before the first product that can pass 2³¹."""
    o_plane = (plane // channels).to(tl.int64) * tensor.stride_b + (plane % channels).to(tl.int64) * tensor.stride_c
    return tensor.p + o_plane + row * tensor.stride_h + column * tensor.stride_w


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(  # type: ignore[no-untyped-def]
    x, scale, shift, y, channels, height, width, x_b, x_c, x_h, x_w, y_b, y_c, y_h, y_w, config: Config
):
    """One program: BLOCK pixels of one channel of one image."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    source, target = Map(x, x_b, x_c, x_h, x_w), Map(y, y_b, y_c, y_h, y_w)
    tiles = tl.cdiv(height * width, config.BLOCK)
    plane, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    pixel = tile * config.BLOCK + tl.arange(0, config.BLOCK)
    inside = pixel < height * width
    row, column = pixel // width, pixel % width
    values = tl.load(pointers(source, plane, channels, row, column), mask=inside, other=0.0).to(ACC)
    channel = plane % channels
    values = values * tl.load(scale + channel).to(ACC) + tl.load(shift + channel).to(ACC)
    values = tl.where(values < 0, 0.0, values).to(y.dtype.element_ty)
    tl.store(pointers(target, plane, channels, row, column), values, mask=inside)


# 3. The operator, what it returns before it ran (for torch.compile), its gradient, and the choice of implementation.
@torch.library.custom_op("adu_examples::scaled_relu", mutates_args=())
def operator(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    y = torch.empty_like(x)
    batch, channels, height, width = x.shape
    programs = batch * channels * ceil_div(height * width, 256)
    config = Config(BLOCK=256, ACC=str(accumulator(x)))
    sizes = (channels, height, width)
    runtime.run(forward_kernel, programs, x, scale, shift, y, *sizes, *x.stride(), *y.stride(), config=config)
    return y


@operator.register_fake
def _(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("adu_examples::scaled_relu_backward", mutates_args=())
def backward_operator(grad_output: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> list[Tensor]:
    """A first version may be plain PyTorch: it is right, and the forward is fused already."""
    dtype = accumulation_dtype(x)
    wide, factor = x.to(dtype), scale.to(dtype)[:, None, None]
    passed = torch.where(wide * factor + shift.to(dtype)[:, None, None] > 0, grad_output.to(dtype), 0)
    grad_scale, grad_shift = (one.sum((0, 2, 3)) for one in (passed * wide, passed))
    return [(passed * factor).to(x.dtype), grad_scale.to(scale.dtype), grad_shift.to(shift.dtype)]


@backward_operator.register_fake
def _(grad_output: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> list[Tensor]:
    return [torch.empty_like(one) for one in (x, scale, shift)]


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    keep(ctx, "scaled_relu", inputs)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, ...]:
    inputs, _ = kept(ctx)
    return tuple(backward_operator(grad_output, *inputs))


differentiable_once(
    operator, backward_operator, setup_context=_setup_context, backward=_backward, operation=lambda *_: "scaled_relu"
)


def scaled_relu(x: Tensor, scale: Tensor, shift: Tensor, *, backend: str = "auto") -> Tensor:
    """relu(x · scale_c + shift_c). x: B×C×H×W, floating, any strides; scale, shift: C. Returns x's dtype."""
    return dispatch("scaled_relu", backend, x, torch_twin=reference, triton_twin=operator)(x, scale, shift)


# 4. The proof, at odd sizes, in every dtype, over memory full of NaN and in any order of programs.
def main() -> None:
    if not runtime.interpreting() and not torch.cuda.is_available():
        raise SystemExit("no GPU here: set TRITON_INTERPRET=1")
    device = "cpu" if runtime.interpreting() else "cuda"
    operation = parity.Operation(scaled_relu, reference)
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        x = torch.randn(2, 3, 7, 13, device=device).to(dtype)
        scale, shift = (torch.randn(3, device=device).to(dtype) for _ in range(2))
        for layout in [x, *parity.layouts(x).values()]:
            parity.check_parity(operation, [layout, scale, shift])
        print(f"{dtype}, in any layout: values and gradients within the error budget")
    parity.same_bits_in_any_order(operation, [x, scale, shift])
    torch.library.opcheck(operator, tuple(parity.leaves([x, scale, shift])))
    print("the same bits in any order of programs; PyTorch's own checks of the operators pass")


if __name__ == "__main__":
    main()
