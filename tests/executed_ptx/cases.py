"""Every operation that has kernels × options that choose kernels × dtype × layout × size: what is executed as PTX."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import adu_kernels
from adu_kernels import reference
from adu_kernels.testing.parity import Operation
from tests.kernels.depth_scenes import scene

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


@dataclass(frozen=True)
class Case:
    operation: str
    """Name of the public function."""
    options: str
    dtype: str
    layout: str
    size: str
    pair: Operation
    inputs: Callable[[], list[Tensor]]
    kernels: frozenset[str]
    """All that forward and backward launch, as `Record` names them."""

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.operation, self.options, self.dtype, self.layout, self.size))).replace(
            " ", "_"
        )


def _both(name: str, *positional: Any, only: Callable[..., Any] = lambda result: result, **options: Any) -> Operation:
    """The public function and its reference, called with tensors first and the same arguments after them. only: what
    of their result is compared."""

    def bound(function: Any) -> Callable[..., Any]:
        return lambda *tensors, **more: only(function(*tensors, *positional, **options, **more))

    return Operation(bound(getattr(adu_kernels, name)), bound(getattr(reference, name)))


def _maps(*shape: int, count: int, dtype: str, layout: str) -> list[Tensor]:
    made = (torch.randn(shape).to(DTYPES[dtype]) for _ in range(count))
    return [value.contiguous(memory_format=LAYOUTS[layout]) for value in made]


SLIDE = frozenset({"cost_volume.volume_forward", "cost_volume.volume_backward"})
BAND = frozenset({"cost_volume.band_forward", "cost_volume.band_backward"})
MIXED = frozenset({"cost_volume.band_forward", "cost_volume.volume_backward"})
EXPECTATION = frozenset({"correlation_disparity.expectation", "correlation_disparity.expectation_backward"})
VOLUMES: dict[tuple[str, str], tuple[dict[str, Any], frozenset[str]]] = {
    ("groupwise_correlation_volume", ""): ({}, SLIDE),
    ("groupwise_correlation_volume", "cosine"): ({"normalize": "group"}, SLIDE),
    ("groupwise_correlation_volume", "right"): ({"view": "right", "reduction": "sum"}, SLIDE),
    ("correlation_volume", ""): ({}, BAND),
    ("correlation_volume", "right"): ({"view": "right"}, BAND),
    ("correlation_volume", "cosine"): ({"normalize": "all"}, MIXED),
    ("concatenation_volume", ""): ({}, SLIDE),
    ("combined_volume", ""): ({}, SLIDE),
    ("volume_with_scores", ""): ({}, SLIDE),
    ("volume_with_scores", "cosine"): ({"normalize": "group"}, SLIDE),
    ("correlation_disparity", ""): ({}, EXPECTATION),
    ("correlation_disparity", "zero fill"): ({"zero_fill": True}, EXPECTATION),
}
SIZES = {"odd": (2, 12, 3, 2, 19, 7), "aligned": (1, 64, 8, 1, 64, 16)}
"""Images, channels, groups, height, width, disparities."""


def _volumes() -> Iterator[Case]:
    for (operation, name), (options, kernels) in VOLUMES.items():
        for dtype in DTYPES:
            for layout in LAYOUTS:
                for size, (batch, channels, groups, height, width, disparities) in SIZES.items():
                    if size == "aligned" and (dtype == "fp64" or name):  # wide loads of every dtype once
                        continue
                    positional = [disparities]
                    if operation not in ("correlation_volume", "concatenation_volume", "correlation_disparity"):
                        positional.append(groups)
                    launched = kernels
                    if operation == "volume_with_scores" and not name and dtype in ("fp16", "bf16"):
                        launched = kernels | {"cost_volume.band_forward"}  # the scores

                    def inputs(
                        shape: tuple[int, ...] = (batch, channels, height, width), dtype: str = dtype,
                        layout: str = layout, thin: bool = operation in ("combined_volume", "volume_with_scores"),
                    ) -> list[Tensor]:  # fmt: skip
                        maps = _maps(*shape, count=2, dtype=dtype, layout=layout)
                        b, _, h, w = shape
                        return maps + (_maps(b, 5, h, w, count=2, dtype=dtype, layout=layout) if thin else [])

                    pair = _both(operation, *positional, **options)
                    yield Case(operation, name, dtype, layout, size, pair, inputs, launched)


ATTENTION = frozenset(f"attention_adaptation.{name}" for name in ("forward", "backward_queries", "backward_keys"))
SPLIT = ATTENTION | {"attention_adaptation.add_parts"}
TOKENS = {"odd": (2, 37, 21, 24), "aligned": (1, 64, 96, 64), "many queries": (1, 1031, 21, 16)}
"""Heads, queries, keys, width."""


def _attention() -> Iterator[Case]:
    for size, (heads, queries, keys, width) in TOKENS.items():
        for dtype in DTYPES:
            for layout in LAYOUTS:
                if dtype == "fp64" and size == "aligned":
                    continue
                for masked in (False, True) if size == "odd" else (False,):

                    def inputs(
                        heads: int = heads, queries: int = queries, keys: int = keys, width: int = width,
                        dtype: str = dtype, layout: str = layout, masked: bool = masked,
                    ) -> list[Tensor]:  # fmt: skip
                        """channels-last: the tokens of a map whose channels lie side by side."""

                        def tokens(count: int) -> Tensor:
                            if layout == "channels-last":
                                return torch.randn(1, count, heads, width).to(DTYPES[dtype]).transpose(1, 2)
                            return torch.randn(1, heads, width, count).to(DTYPES[dtype]).transpose(2, 3)

                        bias = torch.randn(1, keys, dtype=torch.float64 if dtype == "fp64" else torch.float32) / 2
                        if masked:
                            bias[:, : keys // 2] = bias[:, ::3] = -torch.inf
                        return [tokens(queries), tokens(keys), tokens(keys), bias]

                    yield Case(
                        "attention_adaptation", "masked keys" if masked else "", dtype, layout, size,
                        _both("attention_adaptation"), inputs, SPLIT if size == "many queries" else ATTENTION,
                    )  # fmt: skip


DISPARITY = frozenset(f"disparity_regression.{name}" for name in ("forward", "backward", "gather"))


def _disparities() -> Iterator[Case]:
    for scale in (1, 2, 3, 4, 8):
        for size, shape in {"odd": (1, 7, 3, 5), "aligned": (1, 16, 4, 16)}.items():
            for dtype in DTYPES:
                for layout in LAYOUTS:
                    if size == "aligned" and (dtype == "fp64" or scale in (2, 3)):
                        continue

                    def inputs(
                        shape: tuple[int, ...] = shape, dtype: str = dtype, layout: str = layout
                    ) -> list[Tensor]:
                        return [3 * value for value in _maps(*shape, count=1, dtype=dtype, layout=layout)]

                    yield Case(
                        "disparity_regression", f"x{scale}", dtype, layout, size,
                        _both("disparity_regression", scale), inputs, DISPARITY,
                    )  # fmt: skip


def _many_candidates() -> Iterator[Case]:
    """As many as a teacher has, the largest at the end of almost equal ones: sums over all of them meet what their
    order costs, and the variance is a quarter of what is summed for it."""

    def inputs() -> list[Tensor]:
        logits = 0.3 * torch.randn(1, 48, 3, 6)
        logits[:, -1] = logits.amax(1) + 0.1
        return [logits]

    pair = _both("disparity_regression", 4)
    yield Case("disparity_regression", "x4 of 48", "fp32", "contiguous", "any", pair, inputs, DISPARITY)


def _several_windows() -> Iterator[Case]:
    """More disparities than one window of the fp32 backward reaches: what it has written it reads again."""
    pair = _both("correlation_disparity", 80)
    made = lambda: _maps(1, 35, 1, 90, count=2, dtype="fp32", layout="channels-last")  # noqa: E731
    yield Case("correlation_disparity", "", "fp32", "channels-last", "several windows", pair, made, EXPECTATION)


def _excluded() -> Iterator[Case]:
    """Candidates that −∞ takes out: padding, a hole in one row, a column with nothing left."""
    for scale in (1, 4):
        for dtype in DTYPES:

            def inputs(dtype: str = dtype) -> list[Tensor]:
                logits = 2 * torch.randn(1, 9, 3, 4)
                logits[:, 6:] = logits[:, 2, 1] = logits[..., 3] = -torch.inf
                return [logits.to(DTYPES[dtype])]

            pair = _both("disparity_regression", scale)
            yield Case(
                "disparity_regression", f"x{scale} excluded", dtype, "contiguous", "odd", pair, inputs, DISPARITY
            )


def _far_apart() -> Iterator[Case]:
    """Logits thousands apart: only here it shows whether the first pass has found the largest, and where it is."""
    for scale in (1, 2, 3, 4, 8):
        for dtype in ("fp32", "fp64"):

            def inputs(dtype: str = dtype) -> list[Tensor]:
                return [(1e4 * torch.randn(1, 9, 3, 4)).to(DTYPES[dtype])]

            pair = _both("disparity_regression", scale)
            yield Case(
                "disparity_regression", f"x{scale} far apart", dtype, "contiguous", "odd", pair, inputs, DISPARITY
            )


NORM = frozenset(
    f"group_norm.{name}" for name in ("statistics", "normalise", "gradient_sums", "totals", "input_gradient")
)
INSTANCE = NORM | {"group_norm.join"}
NORMS: dict[str, dict[str, Any]] = {"": {}, "relu": {"activation": "relu"}, "residual relu": {"activation": "relu"}}


def _norms() -> Iterator[Case]:
    """Odd: three channels to a group, 5-D; aligned: tiles that programs walk over; instance: a group per channel."""
    sizes = {"odd": ((2, 6, 3, 5, 7), 2), "aligned": ((1, 32, 24, 32), 8), "instance": ((1, 256, 20, 18), 256)}
    for size, (shape, groups) in sizes.items():
        for options, named in NORMS.items():
            for dtype in DTYPES:
                for layout in LAYOUTS:
                    if dtype == "fp64" and size == "aligned":
                        continue
                    if size == "instance" and (options or dtype not in ("fp32", "bf16") or layout == "contiguous"):
                        continue

                    def inputs(
                        shape: tuple[int, ...] = shape, dtype: str = dtype, layout: str = layout,
                        residual: bool = "residual" in options,
                    ) -> list[Tensor]:  # fmt: skip
                        maps = [torch.randn(shape).to(DTYPES[dtype]) for _ in range(1 + residual)]
                        if layout == "channels-last":
                            last = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
                            maps = [value.contiguous(memory_format=last) for value in maps]
                        return [maps[0], torch.randn(shape[1]), torch.randn(shape[1]), *maps[1:]]

                    yield Case(
                        "group_norm",
                        options,
                        dtype,
                        layout,
                        size,
                        _norm(groups, **named),
                        inputs,
                        INSTANCE if size == "instance" else NORM,
                    )


COSINE = frozenset(
    {f"group_norm.{name}" for name in ("statistics", "join", "totals")}
    | {f"group_norm.{name}" for name in ("unit_length", "unit_gradient_sums", "unit_input_gradient")}
)


def _cosines() -> Iterator[Case]:
    for size, shape in {"odd": (2, 7, 5, 9), "aligned": (1, 64, 8, 24)}.items():
        for dtype in DTYPES:
            for layout in LAYOUTS:
                if dtype == "fp64" and size == "aligned":
                    continue

                def inputs(shape: tuple[int, ...] = shape, dtype: str = dtype, layout: str = layout) -> list[Tensor]:
                    return _maps(*shape, count=1, dtype=dtype, layout=layout)

                yield Case("cosine_features", "", dtype, layout, size, _both("cosine_features"), inputs, COSINE)


def _norm(groups: int, **options: Any) -> Operation:
    def bound(function: Any) -> Callable[..., Any]:
        return lambda x, weight, bias, *residual, **more: function(
            x, groups, weight, bias, residual=residual[0] if residual else None, **options, **more
        )

    return Operation(bound(adu_kernels.group_norm), bound(reference.group_norm))


FEATURES = frozenset(f"feature_distillation.{name}" for name in ("sums", "finish", "gradients"))


def _features() -> Iterator[Case]:
    for size, (channels, height, width) in {"odd": (7, 5, 9), "aligned": (64, 8, 16)}.items():
        for dtype in DTYPES:
            for layout in LAYOUTS:
                if size == "aligned" and dtype == "fp64":
                    continue

                def inputs(
                    channels: int = channels, height: int = height, width: int = width, dtype: str = dtype,
                    layout: str = layout,
                ) -> list[Tensor]:  # fmt: skip
                    """Three levels, then their teachers."""
                    sizes = [(channels, height, width), (2 * channels, -(-height // 2), -(-width // 2)), (3, 2, 2)]
                    return [
                        _maps(2, *level, count=1, dtype=dtype, layout=layout)[0] for _ in range(2) for level in sizes
                    ]

                yield Case(
                    "feature_distillation_losses", "", dtype, layout, size,
                    Operation(_levels(adu_kernels), _levels(reference)), inputs, FEATURES,
                )  # fmt: skip


def _levels(functions: Any) -> Callable[..., Any]:
    """The losses of adapted maps, weighted; teachers come as further inputs, so that their dtype and layout follow."""

    def losses(*maps: Tensor, **more: Any) -> Any:
        adapted, teachers = maps[: len(maps) // 2], [value.detach() for value in maps[len(maps) // 2 :]]
        weights = [_guide(value) for value in teachers]
        return functions.feature_distillation_losses(adapted, teachers, weights, **more)

    return losses


def _guide(like: Tensor) -> Tensor:
    batch, _, height, width = like.shape
    steps = torch.arange(batch * height * width, dtype=torch.float64).view(batch, 1, height, width)
    kept = torch.float64 if like.dtype == torch.float64 else torch.float32
    return (0.25 + (steps * 0.37) % 1).to(kept)


def _guides() -> Iterator[Case]:
    levels = {
        "nested": ((2, 1, 32, 160), [(4, 20), (2, 10), (1, 5)], "nested"),
        "any": ((2, 1, 7, 11), [(2, 4), (5, 3), (1, 1)], "windows"),
    }
    for size, (shape, sizes, kernel) in levels.items():
        for dtype in DTYPES:

            def inputs(shape: tuple[int, ...] = shape, dtype: str = dtype) -> list[Tensor]:
                return [(0.25 + 4 * torch.rand(shape)).to(DTYPES[dtype])]

            yield Case(
                "pooled_guide", "", dtype, "contiguous", size,
                _both("pooled_guide", sizes), inputs, frozenset({f"feature_distillation.{kernel}"}),
            )  # fmt: skip


OBJECTIVES: dict[str, dict[str, Any]] = {
    "": {},
    "no guide, no gate": {"guide": "none", "gate": False},
    "every option": {"joint": True, "beta_nll": 0.5, "gamma": 1.5, "guide": "attenuate", "normalize": "image"},
    "detached focus": {"detach_focal": True, "variance_focus": 1.0},
}
OBJECTIVE = frozenset({"depth_objective.statistics", "depth_objective.values"})
SCENES = {"odd": (2, 1, 5, 7), "aligned": (1, 1, 32, 64)}


def _scene(which: str, size: str, dtype: str, layout: str) -> Callable[[], list[Tensor]]:
    """Of depth, log scale, teacher and target those whose first letter is named. channels-last: every other number of
    what lies in memory, as a head with two outputs leaves its maps."""

    def inputs() -> list[Tensor]:
        maps = dict(zip("dlts", scene(3, DTYPES[dtype], SCENES[size]), strict=True))
        chosen = [maps[letter].detach() for letter in which]
        return chosen if layout == "contiguous" else [torch.stack([v, v], -1)[..., 0] for v in chosen]

    return inputs


def _objectives() -> Iterator[Case]:
    for name, options in OBJECTIVES.items():
        for dtype in DTYPES:
            for layout in LAYOUTS:
                for size in SCENES:
                    if size == "odd" or (dtype != "fp64" and not name):
                        inputs = _scene("dlts", size, dtype, layout)
                        yield Case("depth_objective", name, dtype, layout, size, _objective(options), inputs, OBJECTIVE)


GRADIENT_NORMAL = frozenset(f"depth_gradient_normal.{name}" for name in ("sums", "finish", "gradient"))
STRIPS = {"odd": (2, 1, 5, 7), "aligned": (1, 1, 18, 144)}


def _gradient_normals() -> Iterator[Case]:
    def bound(function: Any, normalize: str) -> Callable[..., Any]:
        def total(depth: Tensor, target: Tensor, **more: Any) -> Tensor:
            return function(depth, target.detach(), normalize=normalize, **more).total

        return total

    name = "depth_gradient_normal_loss"
    for normalize in ("batch", "image"):
        pair = Operation(*(bound(getattr(module, name), normalize) for module in (adu_kernels, reference)))
        for dtype in DTYPES:
            for layout in LAYOUTS:
                for size, shape in STRIPS.items():
                    if size == "odd" or (dtype != "fp64" and normalize == "batch"):

                        def inputs(
                            shape: tuple[int, ...] = shape, dtype: str = dtype, layout: str = layout
                        ) -> list[Tensor]:
                            depth, target = (1 + 9 * torch.rand(shape) for _ in range(2))
                            target.view(-1)[11::29] = 0  # few holes: most windows are whole
                            maps = [one.to(DTYPES[dtype]) for one in (depth, target)]
                            return maps if layout == "contiguous" else [torch.stack([v, v], -1)[..., 0] for v in maps]

                        yield Case(name, normalize, dtype, layout, size, pair, inputs, GRADIENT_NORMAL)


WEIGHTS = frozenset({"depth_objective.statistics", "depth_objective.weights"})
PARTS: dict[str, tuple[str, tuple[Any, ...], frozenset[str]]] = {
    "silog_loss": ("ds", (), OBJECTIVE),
    "laplace_nll": ("dls", (), OBJECTIVE),
    "focal_response_loss": ("dt", (), OBJECTIVE),
    "teacher_gate": ("ts", (10.0,), frozenset({"depth_objective.weights"})),
}
"""Maps, further arguments, and kernels of the losses that the objective is made of."""


def _parts() -> Iterator[Case]:
    for operation, (which, further, kernels) in PARTS.items():
        for dtype in DTYPES:
            for layout in LAYOUTS:
                for size in SCENES if dtype == "fp32" else ("odd",):
                    pair, inputs = _differentiated(operation, which, further), _scene(which, size, dtype, layout)
                    yield Case(operation, "", dtype, layout, size, pair, inputs, kernels)


def _differentiated(operation: str, which: str, further: tuple[Any, ...]) -> Operation:
    """Depth and log scale want gradients, teacher and target none."""

    def bound(function: Any) -> Callable[..., Any]:
        def run(*maps: Tensor, **more: Any) -> Any:
            given = [v if letter in "dl" else v.detach() for letter, v in zip(which, maps, strict=True)]
            return function(*given, *further, **more)

        return run

    return Operation(bound(getattr(adu_kernels, operation)), bound(getattr(reference, operation)))


def _uncertainty() -> Iterator[Case]:
    def bound(function: Any) -> Callable[..., Any]:
        return lambda log_scale, **more: function(log_scale.detach(), log_scale.detach() < 0.5, **more)

    pair = Operation(bound(adu_kernels.uncertainty_guide), bound(reference.uncertainty_guide))
    for dtype in DTYPES:
        for layout in LAYOUTS:
            for size in SCENES if dtype == "fp32" else ("odd",):
                inputs = _scene("l", size, dtype, layout)
                yield Case("uncertainty_guide", "", dtype, layout, size, pair, inputs, WEIGHTS)


def _objective(options: dict[str, Any]) -> Operation:
    """The total, as a function of all four maps; targets want no gradient."""

    def bound(function: Any) -> Callable[..., Any]:
        def total(depth: Tensor, log_scale: Tensor, teacher: Tensor, target: Tensor, **more: Any) -> Tensor:
            return function(depth, log_scale, teacher.detach(), target.detach(), **options, **more).total

        return total

    return Operation(bound(adu_kernels.depth_objective), bound(reference.depth_objective))


CONVOLUTION = frozenset(f"single_output_conv3d.{name}" for name in ("convolution", "convolution_backward", "add_parts"))
CONVOLVED: dict[str, tuple[tuple[int, ...], bool]] = {
    "odd": ((2, 5, 3, 7, 13), True),
    "aligned": ((1, 32, 4, 16, 32), False),
    "many channels": ((1, 70, 2, 3, 20), True),
}
"""Shape, and whether there is a bias."""


def _convolutions() -> Iterator[Case]:
    layouts = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last_3d}
    for size, (shape, bias) in CONVOLVED.items():
        for dtype in DTYPES:
            for layout, memory_format in layouts.items():
                if dtype == "fp64" and size != "odd":
                    continue

                def inputs(
                    shape: tuple[int, ...] = shape, bias: bool = bias, dtype: str = dtype,
                    memory_format: torch.memory_format = memory_format,
                ) -> list[Tensor]:  # fmt: skip
                    shapes = [shape, (1, shape[1], 3, 3, 3)]
                    made = [torch.randn(one).contiguous(memory_format=memory_format) for one in shapes]
                    return [v.to(DTYPES[dtype]) for v in (*made, *([torch.randn(1)] if bias else []))]

                pair = _both("single_output_conv3d")
                yield Case("single_output_conv3d", "", dtype, layout, size, pair, inputs, CONVOLUTION)


CASES = [
    case
    for group in (
        _volumes,
        _attention,
        _disparities,
        _many_candidates,
        _several_windows,
        _excluded,
        _far_apart,
        _norms,
        _cosines,
        _features,
        _guides,
        _objectives,
        _parts,
        _uncertainty,
        _gradient_normals,
        _convolutions,
    )
    for case in group()
]
