"""A CUDA graph's stand-in on the CPU: work is recorded operation by operation, and replayed on the same memory.

As on CUDA a capture changes nothing (what it wrote is put back), and a replay runs no Python of the work: numbers that
the host put in are those of the capture for ever. What needs a value (`.item()`) cannot be captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adu_depth.training.graph import Captured

aten = torch.ops.aten


class NeedsAValue(RuntimeError):
    """The work looked at a number that a replay would not look at again."""


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.before: list[tuple[Tensor, Tensor]] = []
        """What was written to, and what it held."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (aten._local_scalar_dense.default, aten.nonzero.default):
            raise NeedsAValue(f"{func} while work is captured")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            # A batch norm writes its running statistics and does not say so.
            unsaid = "batch_norm" in func._schema.name and argument.name in ("running_mean", "running_var")
            if unsaid or (argument.alias_info is not None and argument.alias_info.is_write):
                self.before += [(t, t.clone()) for t in tree_leaves(value) if isinstance(t, Tensor)]
        result = func(*args, **kwargs)
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        made = [t if t.untyped_storage()._cdata not in given else None for t in made]  # type: ignore[misc]
        self.calls.append((func, args, kwargs, made))
        return result


class Tape:
    """`Graphs` for tests. captures, replays: how many there were. fail: raised at the end of captures, by number."""

    def __init__(self) -> None:
        self.captures = self.replays = 0
        self.fail: dict[int, Exception] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    def capture(self, work: Callable[[], Tensor | None]) -> Captured:
        state = torch.get_rng_state()
        recording = _Recording()
        try:
            with recording:
                result = work()
                if self.captures in self.fail:
                    raise self.fail[self.captures]
        finally:
            for tensor, held in reversed(recording.before):
                with torch.no_grad():
                    tensor.copy_(held)
            torch.set_rng_state(state)
        self.captures += 1
        if result is not None:
            result.fill_(torch.nan)  # nothing has been computed yet

        @torch.no_grad()
        def replay() -> None:
            self.replays += 1
            for func, args, kwargs, made in recording.calls:
                found = [t for t in tree_leaves(func(*args, **kwargs)) if isinstance(t, Tensor)]
                for into, of in zip(made, found, strict=True):
                    if into is not None:
                        into.copy_(of)

        return Captured(replay, result)
