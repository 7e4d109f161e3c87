"""Every operation that fake CUDA tensors go through: what it reads and writes, in which layout, and where."""

from __future__ import annotations

import bisect
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
HOST_FRAMES = 60
"""Of Python, looked through for the line that an operation belongs to."""


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a fake tensor. storage: which memory it lies in, a number that no other memory has had."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    device: str
    storage: int
    pinned: bool = False

    @property
    def count(self) -> int:
        """Elements, each repeated one once."""
        return math.prod(n for n, stride in zip(self.shape, self.stride, strict=True) if stride or n == 0)

    @property
    def bytes(self) -> int:
        return self.count * getattr(torch, self.dtype).itemsize

    @property
    def contiguous(self) -> bool:
        return self._dense(range(len(self.shape) - 1, -1, -1))

    @property
    def channels_last(self) -> bool:
        """Channels innermost, batch outermost; only of four or five dimensions."""
        dims = len(self.shape)
        return dims in (4, 5) and self._dense([1, *range(dims - 1, 1, -1), 0])

    @property
    def dense(self) -> bool:
        """Each element once and no gap between them, in whatever order of its dimensions."""
        return self._dense(sorted(range(len(self.shape)), key=lambda axis: self.stride[axis]))

    @property
    def layout(self) -> str:
        """ "any" is dense in both senses: one channel, or one pixel."""
        if self.contiguous:
            return "any" if self.channels_last else "contiguous"
        return "channels-last" if self.channels_last else "strided"

    def _dense(self, inner_first: Sequence[int]) -> bool:
        run = 1
        for axis in inner_first:
            if self.shape[axis] != 1 and self.stride[axis] != run:
                return False
            run *= self.shape[axis]
        return True

    def __str__(self) -> str:
        return f"{self.dtype} {'×'.join(map(str, self.shape))} {self.layout}"


@dataclass(frozen=True)
class Row:
    """One operation. name: with its namespace unless that is aten's. region: modules from the outermost in, with "/".

    where: the innermost line of a caller that is neither torch nor this package, for forward operations.
    """

    name: str
    phase: str
    region: str
    where: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = ", ".join(map(str, self.inputs[:4]))
        return f"{self.name}({given}) in {self.phase}, {self.region or 'no module'}{self.where and ', ' + self.where}"


class Recorder(TorchDispatchMode):
    """Records operations while it is entered, inside `fake_cuda()`. `rows` is what was seen.

    Views cost nothing and are left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.saved: dict[int, int] = {}
        """Bytes by storage of what autograd kept for the backward, parameters left out."""
        self.phase = "forward"
        self._regions = _Regions()
        self._storages: dict[int, Any] = {}

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def watch(self, module: nn.Module, name: str) -> None:
        """From now on operations inside its parts are attributed to them, backward ones too."""
        for path, part in module.named_modules():
            label = f"{name}.{path}".rstrip(".")
            part.register_forward_pre_hook(lambda *_, label=label: self._regions.push(label))
            part.register_forward_hook(lambda *_: self._regions.pop(), always_call=True)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Within it `saved` is filled, from empty."""
        self.saved.clear()

        def keep(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, nn.Parameter):
                self.saved[self._number(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if _is_work(func):
            self._record(func, args, kwargs, result)
        return result

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        namespace, _, name = func._schema.name.partition("::")
        name = name if namespace == "aten" else f"{namespace}::{name}"
        region, where = self._place()
        inputs = self._describe((args, kwargs))
        self.rows.append(
            Row(name, self.phase, region, where, inputs, self._describe(result), _facts(name, args, kwargs))
        )

    def _place(self) -> tuple[str, str]:
        node = torch._C._current_autograd_node()
        if node is None:
            return self._regions.path(), _caller()
        return self._regions.of(node._sequence_nr()), ""

    def _describe(self, values: Any) -> tuple[TensorInfo, ...]:
        return tuple(self._info(t) for t in tree_leaves(values) if isinstance(t, Tensor))

    def _info(self, tensor: Tensor) -> TensorInfo:
        shape, stride, dtype = tuple(tensor.shape), tuple(tensor.stride()), str(tensor.dtype).removeprefix("torch.")
        pinned = tensor.device.type == "cpu" and tensor.is_pinned()
        return TensorInfo(shape, stride, dtype, tensor.device.type, self._number(tensor), pinned)

    def _number(self, tensor: Tensor) -> int:
        """Of its storage, which is held so that no other gets the number."""
        storage = tensor.untyped_storage()
        self._storages.setdefault(storage._cdata, storage)
        return storage._cdata


class _Regions:
    """Which modules are running, and which were when autograd's node of a given number was made."""

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._starts, self._paths = [0], [""]

    def path(self) -> str:
        return "/".join(self._stack)

    def push(self, name: str) -> None:
        self._stack.append(name)
        self._mark()

    def pop(self) -> None:
        self._stack.pop()
        self._mark()

    def of(self, number: int) -> str:
        if number >= 2**62:  # AccumulateGrad
            return "accumulate"
        return self._paths[bisect.bisect_right(self._starts, number) - 1]

    def _mark(self) -> None:
        self._starts.append(torch.autograd._get_sequence_nr())
        self._paths.append(self.path())


def _is_work(func: Any) -> bool:
    """Whether the operation reads or writes memory: neither a view nor an allocation nor a question."""
    name, returns = func._schema.name, func._schema.returns
    if not name.startswith("aten::"):
        return not name.startswith(("prim::", "profiler::"))
    if name.removeprefix("aten::").startswith(
        ("empty", "new_empty", "detach", "_unsafe_view", "lift_fresh", "set_", "is_")
    ):
        return False
    first = returns[0].alias_info if returns else None
    return first is None or first.is_write


def _facts(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What tensors do not say of an operation and its cost depends on."""
    if name == "convolution":
        return {"transposed": args[6], "groups": args[8]}
    if name == "convolution_backward":
        return {"transposed": args[7], "groups": args[9], "wanted": tuple(args[10])}
    facts: dict[str, Any] = {}
    if name.startswith(("_foreach", "_fused")):
        facts["tensors"] = len(args[0])
    if name in ("_to_copy", "copy_", "_foreach_copy_"):  # of a positional one only the copies in place have it
        facts["non_blocking"] = bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))
    if name in ("scatter_reduce", "scatter_reduce_"):
        facts["reduce"] = args[4]
    return facts


def _caller() -> str:
    """file:line of the innermost frame outside torch and this folder."""
    frame = sys._getframe(1)
    for _ in range(HOST_FRAMES):
        path = frame.f_code.co_filename
        if "/torch/" not in path and "/fake_cuda/" not in path and not path.startswith("<"):
            return f"{'/'.join(path.split('/')[-2:])}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return ""
