"""python -m tests.stub_driver.host_time LIBRARY [NAME …]: what a call of each operation costs the host, layer by layer.

On the stub of a driver, so that launches end where a real driver's would begin (there some 2 to 3 µs more for each).
The tensors are small and lie on the CPU, whose memory is as quick to get as a GPU's from torch's cache. Microseconds of
one thread, each the smallest tenth of many repeats: what else runs on the machine makes single ones longer.

    check      the public function: arguments, the choice of an implementation
    operator   torch's dispatcher and its way back into Python
    body       memory for results, layouts, the choice of a launch row
    launch     from `runtime.run` to the driver
    all        these four: the call where no gradient is asked for
    autograd   what it takes more where one is
    forward    the call with it
    backward   from torch.autograd.grad on: engine, operator, body, launches
    both       forward and backward
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import adu_kernels as ops
from adu_kernels._triton import runtime
from adu_kernels._triton.operators import Operator
from tests.stub_driver.gpu import StubGpu

OFTEN = 25
"""Between two looks at the stub, which keeps 256 launches."""

Call = Callable[..., Any]


def maps(channels: int, height: int = 8, width: int = 16, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.rand(2, channels, height, width).to(dtype, memory_format=torch.channels_last)


def volume(channels: int) -> Tensor:
    return torch.rand(2, channels, 4, 8, 16).to(torch.bfloat16, memory_format=torch.channels_last_3d)


def depths(count: int) -> list[Tensor]:
    return [torch.rand(2, 1, 16, 32) + 1 for _ in range(count)]


def calls() -> dict[str, tuple[Call, list[Tensor], list[Tensor]]]:
    """By name: the call, tensors that get a gradient, tensors that do not."""
    pair, thin = [maps(32), maps(32)], [maps(4), maps(4)]
    tokens = [torch.rand(2, 2, 32, 32).bfloat16() for _ in range(3)]
    levels = [maps(c, 16 // s, 32 // s) for c, s in ((16, 1), (24, 2), (32, 4))]
    weights = [torch.rand(2, 1, 16 // s, 32 // s) for s in (1, 2, 4)]
    scale, shift = torch.rand(32), torch.rand(32)

    def objective(depth: Tensor, log_scale: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        return ops.depth_objective(depth, log_scale, teacher, target, weights=(1.0, 1.0, 1.0), backend="triton").total

    def distances(a: Tensor, b: Tensor, c: Tensor, *others: Tensor) -> Tensor:
        return ops.feature_distillation_losses((a, b, c), others[:3], others[3:], backend="triton")

    def norm(x: Tensor, weight: Tensor, bias: Tensor, *residual: Tensor) -> Tensor:
        left = residual[0] if residual else None
        return ops.group_norm(x, 8, weight, bias, activation="relu", residual=left, backend="triton")

    def plain(function: Call, *arguments: Any) -> Call:
        return lambda *tensors: function(*tensors, *arguments, backend="triton")

    return {
        "groupwise_correlation_volume": (plain(ops.groupwise_correlation_volume, 8, 8), pair, []),
        "correlation_volume": (plain(ops.correlation_volume, 8), pair, []),
        "concatenation_volume": (plain(ops.concatenation_volume, 8), thin, []),
        "combined_volume": (plain(ops.combined_volume, 8, 8), pair + thin, []),
        "volume_with_scores": (plain(ops.volume_with_scores, 8, 8), pair + thin, []),
        "correlation_disparity": (plain(ops.correlation_disparity, 8), pair, []),
        "disparity_regression": (plain(ops.disparity_regression, 4), [torch.rand(2, 8, 8, 16)], []),
        "attention_adaptation": (plain(ops.attention_adaptation), tokens, [torch.rand(2, 32)]),
        "group_norm": (norm, [volume(32), scale, shift], []),
        "group_norm, residual": (norm, [volume(32), scale, shift, volume(32)], []),
        "cosine_features": (plain(ops.cosine_features), [maps(32)], []),
        "single_output_conv3d": (
            plain(ops.single_output_conv3d),
            [volume(16), torch.rand(1, 16, 3, 3, 3).bfloat16()],
            [],
        ),
        "feature_distillation_losses": (distances, levels, [torch.rand_like(level) for level in levels] + weights),
        "pooled_guide": (lambda w: ops.pooled_guide(w, [(8, 16), (4, 8), (2, 4)], backend="triton"), [], depths(1)),
        "silog_loss": (plain(ops.silog_loss), depths(1), depths(1)),
        "laplace_nll": (plain(ops.laplace_nll), depths(2), depths(1)),
        "focal_response_loss": (plain(ops.focal_response_loss), depths(1), depths(1)),
        "depth_objective": (objective, depths(2), depths(2)),
        "uncertainty_guide": (plain(ops.uncertainty_guide), [], [*depths(1), torch.ones(2, 1, 16, 32).bool()]),
        "teacher_gate": (plain(ops.teacher_gate), [], depths(2)),
        "torch: x * x": (lambda x: x * x, depths(1), []),
    }


class Asked(TorchDispatchMode):
    """The operators of adu_kernels that a call asks for, with what it gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "adu_kernels":
            self.found.append((func, args))
        return func(*args, **(kwargs or {}))


class Clock:
    """Times calls. One per process, as the stub is."""

    def __init__(self, gpu: StubGpu, repeats: int) -> None:
        self._gpu, self._repeats = gpu, repeats

    def launches(self, call: Call, *given: Any) -> int:
        self._gpu.launched()
        call(*given)
        return len(self._gpu.launched())

    def microseconds(self, call: Call, prepare: Call = tuple) -> float:
        """The largest of the smallest tenth. What `prepare` returns is given to `call` and not timed."""
        taken = []
        gc.disable()
        for turn in range(self._repeats):
            given = prepare()
            began = time.perf_counter()
            call(*given)
            taken.append(time.perf_counter() - began)
            if turn % OFTEN == 0:
                self._gpu.launched()
        gc.enable()
        self._gpu.launched()
        return 1e6 * sorted(taken)[self._repeats // 10]


def layers(
    clock: Clock, bodies: dict[Any, Call], call: Call, differentiated: list[Tensor], rest: list[Tensor]
) -> dict[str, Any]:
    """Microseconds by layer, and launches."""
    call(*differentiated, *rest)
    with Asked() as asked:
        call(*differentiated, *rest)
    launches = clock.launches(call, *differentiated, *rest)
    public = clock.microseconds(lambda: call(*differentiated, *rest))
    operator = sum(clock.microseconds(lambda f=f, a=a: f(*a)) for f, a in asked.found)
    body = sum(clock.microseconds(lambda f=f, a=a: bodies[f](*a)) for f, a in asked.found)
    started, runtime.run = runtime.run, lambda *arguments, **options: None
    memory = sum(clock.microseconds(lambda f=f, a=a: bodies[f](*a)) for f, a in asked.found)
    runtime.run = started
    found: dict[str, Any] = {
        "launches": str(launches), "check": public - operator, "operator": operator - body, "body": memory,
        "launch": body - memory, "all": public,
    }  # fmt: skip
    if differentiated:
        leaves = [t.detach().requires_grad_() for t in differentiated]

        def forward() -> list[Tensor]:
            outputs = call(*leaves, *rest)
            return [o for o in (outputs if isinstance(outputs, tuple | list) else [outputs]) if o.requires_grad]

        upstream = [torch.ones_like(o) for o in forward()]

        def backward(*outputs: Tensor) -> None:
            torch.autograd.grad(outputs, leaves, upstream, allow_unused=True)

        backward(*forward())  # compiled now
        forth = clock.microseconds(lambda: call(*leaves, *rest))
        back = clock.microseconds(backward, forward)
        found |= {
            "launches": f"{launches} + {clock.launches(backward, *forward())}", "autograd": forth - public,
            "forward": forth, "backward": back, "both": forth + back,
        }  # fmt: skip
    return found


COLUMNS = ("launches", "check", "operator", "body", "launch", "all", "autograd", "forward", "backward", "both")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("library", type=Path, help="what `gpu.build` made")
    options.add_argument("names", nargs="*", help="operations, of those in `calls`; all of them where none is named")
    options.add_argument("--repeats", type=int, default=1500)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    gpu = StubGpu(chosen.library, 90)
    gpu.activate()
    clock, every, found = Clock(gpu, chosen.repeats), calls(), {}
    operators = [one for one in gc.get_objects() if type(one) is Operator]
    bodies = {one._opoverload: one._init_fn for one in operators}
    print("| | " + " | ".join(COLUMNS) + " |\n|-|" + "-|" * len(COLUMNS))
    for name in chosen.names or every:
        found[name] = layers(clock, bodies, *every[name])
        cells = [found[name].get(column, "") for column in COLUMNS]
        print("|", name, "|", " | ".join(c if isinstance(c, str) else f"{c:.0f}" for c in cells), "|", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
