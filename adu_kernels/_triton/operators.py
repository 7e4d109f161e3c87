"""PyTorch operators of kernels. `torch.library.custom_op` guards at every call against results that share memory with
what was given; these kernels write into memory of their own, and the guards cost the host more than a launch does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch


class Operator:
    """What `custom_op` gives, as far as it is used here: callable, with registrations beside it."""

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        """name: "namespace::name". run: what it does on every device; its annotations are the schema."""
        self._qualname = name
        self._init_fn = run
        namespace, _, opname = name.partition("::")
        defined = library(namespace)
        schema = torch.library.infer_schema(run, mutates_args=())
        defined.define(f"{opname}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
        defined.impl(opname, run, "CompositeExplicitAutograd")
        self._opoverload = getattr(getattr(torch.ops, namespace), opname).default

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._opoverload(*arguments, **options)

    def register_fake(self, fake: Callable[..., Any]) -> Callable[..., Any]:
        return torch.library.register_fake(self._qualname, fake)

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Callable[..., None]) -> None:
        torch.library.register_autograd(self._qualname, backward, setup_context=setup_context)

    def register_vmap(self, rule: Callable[..., Any]) -> Any:
        return torch.library.register_vmap(self._qualname, rule)


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Decorates what an operator does."""
    return lambda run: Operator(name, run)


@cache
def library(namespace: str) -> torch.library.Library:
    """Registrations hold as long as it lives."""
    return torch.library.Library(namespace, "FRAGMENT")
