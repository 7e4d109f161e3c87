"""Inside the child: fake tensors on "cuda:0", and a torch.cuda that answers as if there were one H100.

Shapes, dtypes, strides and autocast are CUDA's; no element exists. What would need one raises, as under any
FakeTensorMode: `.item()`, `nonzero`, a boolean index.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim.optimizer import _foreach_supported_types as of_optimizers
from torch.utils._foreach_utils import _foreach_supported_types as of_clipping
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)


class WaitForDevice(RuntimeError):
    """The host would wait for the device here."""


class NotCapturable(RuntimeError):
    """The host does something that a CUDA graph's capture does not hold, or forbids."""


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.in_kernel = False
        self.entered: list[Any] = []


class _FakeCudaMode(FakeTensorMode):
    """Puts no constant on the device, although torch.cuda says that there is one; knows which host memory is pinned.

    Autograd runs the device's operations in a thread of its own, and the host's beside it in the thread that asked.
    What torch keeps of the operation that is running, each thread has for itself here.
    """

    def __init__(self) -> None:
        self._thread = _OfThread()
        super().__init__(allow_non_fake_inputs=True)
        self._pinned: dict[int, torch.UntypedStorage] = {}

    in_kernel_invocation = property(
        lambda self: self._thread.in_kernel,
        lambda self, inside: setattr(self._thread, "in_kernel", inside),
    )
    enter_stack = property(
        lambda self: self._thread.entered,
        lambda self, entered: setattr(self._thread, "entered", entered),
    )

    @property
    def avoid_device_init(self) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.is_pinned.default:
            return args[0].untyped_storage()._cdata in self._pinned
        if func is aten._fused_adamw_.tensor_lr:  # torch has no fake kernel for it: it writes in place, returns nothing
            return None
        pin = func is aten._pin_memory.default
        if not pin and _on_real_host_tensors(args, kwargs):
            return func(*args, **kwargs)
        result: Any = super().__torch_dispatch__(
            *((aten.clone.default, types, args[:1]) if pin else (func, types, args, kwargs))
        )
        if pin or kwargs.get("pin_memory"):
            storage = result.untyped_storage()
            self._pinned[storage._cdata] = storage  # held, so that no other memory gets its number
        return result


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Within it every new tensor is fake, on the CPU as on "cuda:0". RuntimeError outside of a FakeCudaProcess.

    Host tensors made before keep their values, and what is computed of them alone is computed.
    """
    if torch.accelerator.current_accelerator() != torch.device("cuda"):
        raise RuntimeError("fake_cuda: expected to run in a FakeCudaProcess, where the guard is loaded before torch")
    with _FakeCudaMode():
        yield


def _on_real_host_tensors(args: Any, kwargs: dict[str, Any]) -> bool:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    target = kwargs.get("device") or torch.device("cpu")
    return (
        bool(tensors)
        and target.type == "cpu"
        and not any(isinstance(t, FakeTensor) or t.device.type != "cpu" for t in tensors)
    )


def to_fake(module: nn.Module) -> nn.Module:
    """Every parameter and buffer of the module in place by a fake one on "cuda:0", from whatever device, meta too."""
    return module._apply(lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=DEVICE))


def pretend_cuda() -> None:
    """From now on torch.cuda of this process has one device, and modules whose tensors are fake can be moved."""
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "fake CUDA device",
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "synchronize": _refuse_to_wait,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    nn.Module._apply = _apply  # type: ignore[method-assign, assignment]
    # Optimizers and clipping take their multi-tensor forms for plain tensors alone; on a GPU these would be such.
    for supported in (of_optimizers, of_clipping):
        supported.append(FakeTensor)


@contextmanager
def capturing() -> Iterator[None]:
    """As while a CUDA graph is captured: seeding, and looking at streams and events, raise NotCapturable.

    What is copied or made on the host shows in a Recorder's rows, see `rules.touches_host`.
    """

    def refused(name: str) -> Callable[..., Any]:
        def refuse(*args: object, **options: object) -> None:
            raise NotCapturable(f"{name} while a CUDA graph is captured")

        return refuse

    places = [
        (torch, "manual_seed"), (torch, "seed"), (torch.random, "manual_seed"),
        *((torch.cuda, name) for name in ("manual_seed", "manual_seed_all", "seed", "seed_all", "synchronize")),
        *((kind, name) for kind in (torch.cuda.Event, torch.cuda.Stream) for name in ("synchronize", "query")),
    ]  # fmt: skip
    before: list[tuple[Any, str, Any]] = []
    try:
        for owner, name in places:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, refused(f"{getattr(owner, '__name__', owner)}.{name}()"))
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _refuse_to_wait(device: object = None) -> None:
    raise WaitForDevice("torch.cuda.synchronize() waits for the device")


def _apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """nn.Module._apply for fake tensors, which can neither be swapped nor set; what is shared stays shared."""
    changed: dict[int, Tensor] = {}

    def change(tensor: Tensor) -> Tensor:
        if id(tensor) not in changed:
            with torch.no_grad():
                new = fn(tensor)
            if isinstance(tensor, nn.Parameter) and new is not tensor:
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            changed[id(tensor)] = new
        return changed[id(tensor)]

    for module in self.modules() if recurse else [self]:
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = change(tensor)  # type: ignore[assignment]
    return self
