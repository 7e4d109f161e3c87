"""A case: one operation at one size, what must come out of it, and the least work that any implementation must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Call = Callable[..., Any]
"""tensors, **options → a tensor or several."""


@dataclass(frozen=True)
class Work:
    """The least bytes through device memory (every input read once, every output written once), and the arithmetic."""

    forward_bytes: int
    backward_bytes: int
    forward_flops: int = 0
    backward_flops: int = 0
    matrix: bool = False
    """Whether matrix units can do the arithmetic: then their measured rate is a roof too."""

    def __post_init__(self) -> None:
        for name in ("forward_bytes", "backward_bytes", "forward_flops", "backward_flops"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")

    def bytes(self, direction: str) -> int:
        """direction: "forward", "backward" or "total"."""
        return {"forward": self.forward_bytes, "backward": self.backward_bytes}.get(
            direction, self.forward_bytes + self.backward_bytes
        )

    def flops(self, direction: str) -> int:
        return {"forward": self.forward_flops, "backward": self.backward_flops}.get(
            direction, self.forward_flops + self.backward_flops
        )


@dataclass(frozen=True)
class Case:
    """One operation at one size and type.

    kernel: the public operation; it takes backend=… unless `one_form`. reference: its plain PyTorch twin.
    draw: fresh random inputs on a device, in the case's type and layout, the differentiable ones first.
    gradients: how many of them want a gradient.
    options: keywords that kernel, reference and peers are all called with.
    peers: other implementations that come with torch, called like the reference.
    """

    name: str
    dtype: torch.dtype
    shape: Mapping[str, int]
    kernel: Call
    reference: Call
    draw: Callable[[torch.device], Sequence[Tensor]]
    gradients: int
    work: Work
    options: Mapping[str, Any] = field(default_factory=dict)
    peers: Mapping[str, Call] = field(default_factory=dict)
    one_form: bool = False
    """The operation has no backends: it is another way of doing what the reference does, on any device."""
    pre_activation: Call | None = None
    """Called like the reference: of each output the values at whose sign its derivative jumps, as ReLU's. The gradient
    that comes in at such a jump is 0 (`leave_out_kinks`)."""
    epsilon: float | None = None
    """ε of the error budget where it is not the usual one."""
    headline: bool = False
    """Worth the minutes of a max-autotune compilation."""
    variant: bool = False
    """A layout or size more of a case that stands beside the compiled reference: not compiled unless asked for."""
    overhead: bool = False
    """So small that the host's share is all there is: host time per call is measured in place of device time."""


@dataclass(frozen=True)
class Item:
    """One set of inputs of the ring that is rotated through."""

    tensors: tuple[Tensor, ...]
    leaves: tuple[Tensor, ...]
    """Those of the tensors that want a gradient."""

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.tensors)


def draw_item(case: Case, device: torch.device) -> Item:
    """Fresh inputs as leaves."""
    tensors = tuple(t.detach() for t in case.draw(device))
    leaves = tuple(t.requires_grad_() for t in tensors[: case.gradients])
    return Item(tensors, leaves)


def outputs_of(result: Any) -> tuple[Tensor, ...]:
    """What an operation returned, as a tuple."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def differentiable(outputs: Sequence[Tensor]) -> list[Tensor]:
    return [o for o in outputs if o.requires_grad]
