"""PyTorch operators of kernels. `torch.library.custom_op` guards at every call against results that share memory with
what was given; these kernels write into memory of their own, and the guards cost the host more than a launch does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice
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
        """As `torch.library.register_autograd` does. That one looks for arguments left out at every call, one question
        to the schema each: of a dozen arguments it costs the host three launches. Here none may be left out."""
        schema = self._opoverload._schema
        assert not any(a.has_default_value() or a.kwarg_only for a in schema.arguments), self._qualname
        namespace, _, opname = self._qualname.partition("::")
        kernel = _autograd_kernel(self._opoverload, backward, setup_context)
        library(namespace).impl(opname, kernel, "Autograd", with_keyset=True)

    def register_vmap(self, rule: Callable[..., Any]) -> Any:
        return torch.library.register_vmap(self._qualname, rule)


def _is_list_of_tensors(kind: Any) -> bool:
    return isinstance(kind, torch._C.ListType) and "Tensor" in str(kind.getElementType())


def _flat(values: Sequence[Any], lists: Sequence[bool]) -> list[Any]:
    """With what the lists among them hold in their places."""
    flat: list[Any] = []
    for value, is_list in zip(values, lists, strict=True):
        flat.extend(value) if is_list else flat.append(value)
    return flat


def _nested(flat: Sequence[Any], lengths: Sequence[int | None]) -> list[Any]:
    """What `_flat` was made of. lengths: of the lists, None where there was none."""
    given = iter(flat)
    return [next(given) if length is None else list(islice(given, length)) for length in lengths]


def _autograd_kernel(
    overload: Any, backward: Callable[..., Any], setup_context: Callable[..., None]
) -> Callable[..., Any]:
    """What the dispatcher calls for tensors that autograd looks after. Results are one tensor, a tuple or a list; an
    `autograd.Function` sees tensors among its own arguments alone, so lists of them are handed over one by one."""
    below = torch._C._after_autograd_keyset
    lists = tuple(_is_list_of_tensors(argument.type) for argument in overload._schema.arguments)
    has_lists, is_list = any(lists), _is_list_of_tensors(overload._schema.returns[0].type)

    class Generated(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: Any) -> Any:
            *inputs, (keyset, ctx.lengths) = given
            if has_lists:
                inputs = _nested(inputs, ctx.lengths)
            with torch._C._AutoDispatchBelowAutograd():
                result = overload.redispatch(keyset & below, *inputs)
                setup_context(ctx, inputs=tuple(inputs), output=result)
            return tuple(result) if is_list else result

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            needed = ctx.needs_input_grad
            ctx.needs_input_grad = needed[:-1]  # less the keyset's
            if has_lists:
                ctx.needs_input_grad = tuple(_nested(ctx.needs_input_grad, ctx.lengths))
            try:
                gradients = backward(ctx, *grads)
            finally:
                ctx.needs_input_grad = needed
            gradients = gradients if isinstance(gradients, tuple) else (gradients,)
            return (*(_flat(gradients, lists) if has_lists else gradients), None)

    name = f"GeneratedBackwardFor_{overload._namespace}_{overload._opname}_{overload._overloadname}"  # as torch's
    Generated.__name__ = Generated.__qualname__ = name

    def kernel(keyset: Any, *inputs: Any) -> Any:
        if torch._C.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
            lengths: tuple[int | None, ...] = ()
            if has_lists:
                lengths = tuple(len(one) if is_one else None for one, is_one in zip(inputs, lists, strict=True))
                inputs = tuple(_flat(inputs, lists))
            result = Generated.apply(*inputs, (keyset, lengths))
            return list(result) if is_list else result
        with torch._C._AutoDispatchBelowAutograd():
            return overload.redispatch(keyset & below, *inputs)

    return kernel


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Decorates what an operator does."""
    return lambda run: Operator(name, run)


@cache
def library(namespace: str) -> torch.library.Library:
    """Registrations hold as long as it lives."""
    return torch.library.Library(namespace, "FRAGMENT")
