"""How the kernels are started: what a call carries, the calls, PyTorch's operators and their backward, the launches.

The gradients are made in the forward, where everything they need is at hand; the backward scales them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator
from .._triton.layout import by_layout
from .._triton.operators import operator
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from . import reference, table
from .reference import ObjectiveOptions, ObjectiveTerms
from .table import Division, Layout

GUIDES = {"emphasise": 1, "none": 0, "attenuate": -1}


# --- what a call carries


class Maps(NamedTuple):
    """B×1×H×W each, in the order of the kernels' arguments."""

    depth: Tensor | None = None
    log_scale: Tensor | None = None
    teacher_depth: Tensor | None = None
    target: Tensor | None = None
    weight: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """What is calculated in: that of the maps, but for a weight."""
        return accumulation_dtype(*self[:4])

    @property
    def given(self) -> list[Tensor]:
        return [m for m in self if m is not None]

    @property
    def first(self) -> Tensor:
        """Of those given: depth, wherever a loss is meant."""
        return self.given[0]


class Numbers(NamedTuple):
    """What may change from call to call without another compilation."""

    min_depth: float = 1e-3
    max_depth: float = 80.0
    variance_focus: float = 0.0
    beta_nll: float = 0.0
    beta: float = 1.0
    gamma: float = 1.0
    sharpness: float = 5.0
    strength: float = 0.0
    silog: float = 0.0
    uncertainty: float = 0.0
    response: float = 0.0


class LossOptions(NamedTuple):
    """Which losses, and how; another combination is another compilation. The response is computed where a
    teacher_depth is given."""

    silog: bool = False
    laplace: bool = False
    guide: int = 0
    """1: uncertain pixels weigh more, -1: less, 0: all the same."""
    gate: bool = False
    joint: bool = False
    detach_focal: bool = False
    per_image: bool = False
    """Each mean is an image's and not the batch's."""
    need_depth: bool = False
    need_scale: bool = False


# --- the calls: as in reference.py


def silog_loss(
    depth: Tensor, target: Tensor, variance_focus: float = 0.85, min_depth: float = 1e-3, max_depth: float = 80.0, *,
    normalize: str = "batch",
) -> Tensor:  # fmt: skip
    numbers = Numbers(min_depth, max_depth, variance_focus=variance_focus, silog=1.0)
    options = LossOptions(silog=True, per_image=normalize == "image")
    return _losses(Maps(depth, target=target), None, numbers, options)[0]


def laplace_nll(
    depth: Tensor, log_scale: Tensor, target: Tensor, joint: bool = False, min_depth: float = 1e-3,
    max_depth: float = 80.0, beta_nll: float = 0.0, *, normalize: str = "batch",
) -> Tensor:  # fmt: skip
    maps = Maps(depth if joint else depth.detach(), log_scale, target=target)
    numbers = Numbers(min_depth, max_depth, beta_nll=beta_nll, uncertainty=1.0)
    options = LossOptions(laplace=True, joint=joint, per_image=normalize == "image")
    return _losses(maps, None, numbers, options)[0]


def focal_response_loss(
    depth: Tensor, teacher_depth: Tensor, weight: Tensor | None = None, beta: float = 10.0, gamma: float = 1.0,
    detach_focal: bool = False, min_depth: float = 1e-3, max_depth: float = 80.0, *, normalize: str = "batch",
) -> Tensor:  # fmt: skip
    maps = Maps(depth, teacher_depth=teacher_depth, weight=weight)
    numbers = Numbers(min_depth, max_depth, beta=beta, gamma=gamma, response=1.0)
    options = LossOptions(detach_focal=detach_focal, per_image=normalize == "image")
    return _losses(maps, None, numbers, options)[0]


def objective(
    depth: Tensor, log_scale: Tensor, teacher_depth: Tensor | None, target: Tensor, options: ObjectiveOptions
) -> ObjectiveTerms:
    o, taught = options, teacher_depth is not None
    strength, number = _strength(o.guide_strength, depth)
    numbers = Numbers(
        o.min_depth, o.max_depth, o.variance_focus, o.beta_nll, o.beta, o.gamma, strength=number, **o.weights._asdict()
    )
    switches = LossOptions(
        silog=True, laplace=True, guide=GUIDES[o.guide] if taught else 0, gate=o.gate and taught, joint=o.joint,
        detach_focal=o.detach_focal, per_image=o.normalize == "image",
    )  # fmt: skip
    maps = Maps(depth, log_scale, teacher_depth, target)
    total, terms = _losses(maps, strength if taught else None, numbers, switches)
    return ObjectiveTerms(total, *terms.unbind())


def uncertainty_guide(
    log_scale: Tensor, valid: Tensor, guide: str = "emphasise", strength: float | Tensor = 0.5, *,
    normalize: str = "batch",
) -> Tensor:  # fmt: skip
    if guide == "none":
        return reference.uncertainty_guide(log_scale, valid, guide)
    ramp, number = _strength(strength, log_scale)
    numbers = _floats(Numbers(strength=number))
    return torch.ops.adu_kernels.response_weights(
        log_scale.detach(), valid.view(torch.uint8), None, ramp, numbers, GUIDES[guide], normalize == "image"
    )


def teacher_gate(
    teacher_depth: Tensor, target: Tensor, sharpness: float = 5.0, min_depth: float = 1e-3, max_depth: float = 80.0
) -> Tensor:
    numbers = _floats(Numbers(min_depth, max_depth, sharpness=sharpness))
    return torch.ops.adu_kernels.response_weights(
        None, teacher_depth.detach(), target.detach(), None, numbers, 0, False
    )


def _losses(maps: Maps, strength: Tensor | None, numbers: Numbers, options: LossOptions) -> tuple[Tensor, Tensor]:
    """Total, and the three terms."""
    wanted = torch.is_grad_enabled()
    options = options._replace(
        need_depth=wanted and maps.first.requires_grad,
        need_scale=wanted and maps.log_scale is not None and maps.log_scale.requires_grad,
    )
    constant = (value.detach() if value is not None and value.requires_grad else value for value in maps[2:])
    total, terms, *_ = torch.ops.adu_kernels.depth_losses(*maps[:2], *constant, strength, _floats(numbers), *options)
    return total, terms


def _strength(strength: float | Tensor, like: Tensor) -> tuple[Tensor | None, float]:
    """The guide's strength where the kernels read it from memory, else as a number."""
    if isinstance(strength, Tensor):
        return strength.detach().to(like.device, non_blocking=True), 0.0
    if torch.compiler.is_compiling():  # as one of `numbers` a ramp would be compiled anew at every step
        return like.new_zeros((), dtype=accumulation_dtype(like)) + strength, 0.0
    return None, float(strength)


def _floats(numbers: Numbers) -> list[float]:
    return [float(number) for number in numbers]


# --- the operators: compilation and autograd see one node each


@operator("adu_kernels::depth_losses")
def depth_losses(
    depth: Tensor, log_scale: Tensor | None, teacher_depth: Tensor | None, target: Tensor | None,
    weight: Tensor | None, strength: Tensor | None, numbers: Sequence[float], silog: bool, laplace: bool, guide: int,
    gate: bool, joint: bool, detach_focal: bool, per_image: bool, need_depth: bool, need_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Total, (silog, uncertainty, response), the total's gradients in depth and log_scale, empty where not needed, and
    a tensor without elements that depends on the inputs as the total does.

    The tensors of `Maps`, the numbers of `Numbers` and the values of `LossOptions`, in order.
    """
    maps = Maps(depth, log_scale, teacher_depth, target, weight)
    options = LossOptions(silog, laplace, guide, gate, joint, detach_focal, per_image, need_depth, need_scale)
    outputs = _new_outputs(maps, options)
    losses(maps, strength, Numbers(*numbers), outputs[:4], options)
    return outputs


def _new_outputs(maps: Maps, options: LossOptions) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    size = maps.first.shape
    shapes = ((), (3,), size if options.need_depth else (0,), size if options.need_scale else (0,), (0,))
    total, terms, grad_depth, grad_log_scale, link = (maps.first.new_empty(shape, dtype=maps.dtype) for shape in shapes)
    return total, terms, grad_depth, grad_log_scale, link


@depth_losses.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _new_outputs(Maps(*inputs[:5]), LossOptions(*inputs[7:]))


@operator("adu_kernels::depth_losses_backward")
def depth_losses_backward(gradient: Tensor, grad_total: Tensor, link: Tensor, operation: str) -> Tensor:
    """gradient · grad_total, which depends on the inputs of the losses, through `link`, in a way nobody differentiates.

    Only where a graph of the gradient is made: elsewhere a plain product can be fused with what follows.
    """
    return gradient * grad_total


@depth_losses_backward.register_fake
def _(gradient: Tensor, grad_total: Tensor, link: Tensor, operation: str) -> Tensor:
    return torch.empty_like(gradient)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    maps, options = Maps(*inputs[:5]), LossOptions(*inputs[7:])
    ctx.dtypes = [None if m is None else m.dtype for m in maps[:2]]
    ctx.needed = (options.need_depth, options.need_scale)
    ctx.inputs = len(inputs)
    ctx.mark_non_differentiable(*output[1:4])
    ctx.set_materialize_grads(False)
    keep(ctx, _operation(maps, options), output[2:])


def _backward(ctx: Any, grad_total: Tensor | None, *others: None) -> tuple[Tensor | None, ...]:
    grads: list[Tensor | None] = [None] * ctx.inputs
    if grad_total is not None:
        (*gradients, link), _ = kept(ctx)
        for place, (gradient, dtype) in enumerate(zip(gradients, ctx.dtypes, strict=True)):
            if ctx.needed[place] and ctx.needs_input_grad[place]:
                if torch.is_grad_enabled():  # create_graph
                    grads[place] = depth_losses_backward(gradient, grad_total, link, ctx.operation).to(dtype)
                else:
                    grads[place] = (gradient * grad_total).to(dtype)
    return tuple(grads)


def _operation(maps: Maps, options: LossOptions) -> str:
    """The public name of what was called."""
    if options.silog + options.laplace + (maps.teacher_depth is not None) > 1:
        return "depth_objective"
    return "silog_loss" if options.silog else "laplace_nll" if options.laplace else "focal_response_loss"


differentiable_once(
    depth_losses, depth_losses_backward,
    setup_context=_setup_context, backward=_backward, operation=lambda *inputs: inputs[3],
)  # fmt: skip


@operator("adu_kernels::response_weights")
def response_weights(
    log_scale: Tensor | None, teacher_depth: Tensor, target: Tensor | None, strength: Tensor | None,
    numbers: Sequence[float], guide: int, per_image: bool,
) -> Tensor:  # fmt: skip
    """The guide from log_scale (guide ±1; teacher_depth: uint8, 1 where known), or the gate from target (0)."""
    result = _new_weights(log_scale, teacher_depth, target)
    maps = Maps(None, log_scale, teacher_depth, target)
    weights(result, maps, strength, Numbers(*numbers), LossOptions(guide=guide, per_image=per_image))
    return result


@response_weights.register_fake
def _new_weights(log_scale: Tensor | None, teacher_depth: Tensor, target: Tensor | None, *others: object) -> Tensor:
    dtype = accumulation_dtype(log_scale, teacher_depth, target)
    return teacher_depth.new_empty(teacher_depth.shape, dtype=dtype)


# --- the launches


def losses(
    maps: Maps, strength: Tensor | None, numbers: Numbers, outputs: tuple[Tensor, ...], options: LossOptions
) -> None:
    """Writes total, terms and the gradients that are needed, in two launches."""
    from . import kernels  # here and below: Triton is needed only where a kernel runs

    total, terms, grad_depth, grad_log_scale = outputs
    layout, plan, config = _planned(maps, numbers, options)
    sums, counts, arrived = _statistics(
        maps, numbers, layout, plan, config._replace(SILOG=options.silog, GUIDE=options.guide)
    )
    response = maps.teacher_depth is not None
    wanted = options.need_depth or options.need_scale or options.laplace or response
    chunks = plan.chunks if wanted else 1
    partial_losses, per_segment = total.new_empty(2 * plan.segments * chunks), total.new_empty(3 * plan.segments)
    used = {
        "variance_focus": options.silog, "beta_nll": options.laplace and numbers.beta_nll != 0, "beta": response,
        "gamma": response and numbers.gamma != 1, "sharpness": options.gate,
        "strength": options.guide and strength is None,
        "silog": options.silog, "uncertainty": options.laplace, "response": response,
    }  # fmt: skip
    limit = {"maxnreg": plan.tile.registers} if plan.tile.registers and runtime.WARP_SIZE == 32 else {}
    runtime.run(
        kernels.values, plan.segments * chunks, total, terms, partial_losses, per_segment,
        grad_depth if options.need_depth else None, grad_log_scale if options.need_scale else None,
        sums, counts, arrived, *maps, strength, *layout.strides, plan.length, plan.parts, chunks, plan.segments,
        layout.rows, layout.columns, _passed(layout, numbers, used),
        config=config._replace(
            SILOG=options.silog, LAPLACE=options.laplace, GUIDE=options.guide, GATE=options.gate, JOINT=options.joint,
            DETACH=options.detach_focal, PIXELS=wanted, PARTS=plan.most_parts,
            ROWS=table.FINISHED_AT_ONCE // plan.most_parts,
        ),
        **plan.options, **limit,
    )  # fmt: skip


def weights(
    result: Tensor, maps: Maps, strength: Tensor | None, numbers: Numbers, options: LossOptions,
) -> None:  # fmt: skip
    """Writes the guide (guide ±1; teacher_depth is 1 where known, else 0) or the gate (guide 0)."""
    from . import kernels

    guide = options.guide
    layout, plan, config = _planned(maps, numbers, options)
    config = config._replace(GUIDE=guide)
    sums, counts, _ = _statistics(maps, numbers, layout, plan, config) if guide else (None, None, None)
    passed = _passed(layout, numbers, {"sharpness": not guide, "strength": guide and strength is None})
    runtime.run(
        kernels.weights, plan.segments * plan.parts, result, sums, counts, *maps[1:4], strength, *layout.strides[3:12],
        plan.length, plan.parts, layout.rows, layout.columns, passed,
        config=config._replace(PARTS=plan.most_parts), **plan.options,
    )  # fmt: skip


def _planned(maps: Maps, numbers: Numbers, options: LossOptions) -> tuple[Layout, Division, Any]:
    """How the maps lie, how the work is divided, and what all kernels of a call are compiled for."""
    from .kernels import LossConfig

    layout = layout_of(tuple(maps))
    plain = numbers.beta_nll == 0 and numbers.gamma == 1
    plan = Division.of(layout, plain, options.per_image)
    tile = plan.tile
    return layout, plan, LossConfig(tile.lanes, tile.pixels, plan.length % 16 == 0, layout.flat, layout.acc)


@by_layout
def layout_of(given: tuple[Tensor | None, ...]) -> Layout:
    maps = Maps(*given)
    images, _, rows, columns = maps.first.shape
    flat = all(m.is_contiguous() for m in maps.given)
    strides = (None if m is None or flat else m.stride(axis) for m in maps for axis in (0, 2, 3))
    single = all(m.dtype == torch.float32 for m in maps.given)
    return Layout(images, rows, columns, tuple(strides), flat, maps.dtype, str(accumulator(*maps[:4])), single)


def _statistics(
    maps: Maps, numbers: Numbers, layout: Layout, plan: Division, config: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """What the other kernels need of all pixels: partial sums, partial counts, and a counter at 0."""
    from . import kernels

    first = maps.first
    programs = plan.segments * plan.parts
    sums = first.new_empty(3 * programs, dtype=layout.dtype)
    counts = first.new_empty(2 * programs + 1, dtype=torch.int32)
    counts, arrived = counts[:-1], counts[-1:]
    used = maps._replace(depth=maps.depth if config.SILOG else None, log_scale=maps.log_scale if config.GUIDE else None)
    runtime.run(
        kernels.statistics, programs, sums, counts, arrived, *used[:4], *layout.strides[:12],
        plan.length, plan.parts, layout.rows, layout.columns, _passed(layout, numbers, {}), config=config,
        **plan.options,
    )  # fmt: skip
    return sums, counts, arrived


def _passed(layout: Layout, numbers: Numbers, used: Mapping[str, object]) -> Numbers:
    """The numbers as the kernels take them: fp32, in fp64 constants (Triton passes no fp64), None where not used."""
    used = {"min_depth": True, "max_depth": True, **used}
    given: list[Any] = [value if used.get(name) else None for name, value in numbers._asdict().items()]
    if layout.dtype == torch.float64:
        import triton.language as tl

        given = [None if value is None else tl.constexpr(value) for value in given]
    return Numbers(*given)
