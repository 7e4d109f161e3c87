"""safetensors files, which may be anybody's: the header is looked at before a tensor is made of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from adu_depth.errors import InputError
from adu_depth.files import open_regular

MOST_HEADER = 16_000_000
"""Bytes: names and shapes of 100,000 tensors."""
SHOWN = 3
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

DTYPES = {name: dtype for dtype, name in NAMES.items()}


@dataclass(frozen=True)
class Form:
    """Shape and dtype (safetensors' name) of a stored tensor."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor) -> Form:
        return cls(tuple(tensor.shape), NAMES.get(tensor.dtype, str(tensor.dtype)))

    def __str__(self) -> str:
        return f"{self.dtype} of {list(self.shape)}"


def read_forms(path: Path) -> dict[str, Form]:
    """What the file says it holds, by name; its tensors are not read. InputError if it is no such file."""
    require_header(path)
    try:
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {name: Form(tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def require_header(path: Path) -> None:
    """InputError unless the file is a regular one whose header is no longer than a header may be: that length is a
    number in the file."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise InputError(f"{path} cannot be read: its header has {length:,} bytes, expected at most {MOST_HEADER:,}")


def read_tensors(path: Path, expected: Mapping[str, Form] | None = None) -> dict[str, Tensor]:
    """The file's tensors on the CPU. Look at `read_forms` first. InputError if it cannot be read.

    expected: the dtypes to bring them to, so that what is finite in the file and not in its place shows.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if expected is None:
        return tensors
    return {name: tensor.to(DTYPES.get(expected[name].dtype, tensor.dtype)) for name, tensor in tensors.items()}


def differences(found: Mapping[str, Form], expected: Mapping[str, Form], optional: Collection[str] = ()) -> str:
    """How what a file holds differs from what must be in it, in words; "" if it does not.

    One kind of float may stand for another, they are converted. optional: what may be absent.
    """
    told = []
    missing = [name for name in expected if name not in found and name not in optional]
    if missing:
        told.append(f"lacks {len(missing)} tensors ({some(missing)})")
    strange = [name for name in found if name not in expected]
    if strange:
        told.append(f"has {len(strange)} tensors that do not belong there ({some(strange)})")
    unlike = [
        f"{name}: expected {expected[name]}, got {form}"
        for name, form in found.items()
        if name in expected and not _alike(form, expected[name])
    ]
    if unlike:
        told.append(some(unlike, "; "))
    return "; ".join(told)


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors in which a value is NaN or infinite. Waits for their device once."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    if not floats:
        return []
    whole = torch.stack([torch.isfinite(tensor).all() for tensor in floats.values()]).tolist()
    return [name for name, finite in zip(floats, whole, strict=True) if not finite]


def some(names: Collection[str], between: str = ", ") -> str:
    """A few of the names, and how many more there are."""
    shown = [name if len(name) <= 120 else f"{name[:120]}…" for name in list(names)[:SHOWN]]
    more = f"{between}… {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(shown) + more


def _alike(found: Form, expected: Form) -> bool:
    kinds = found.dtype == expected.dtype or {found.dtype, expected.dtype} <= FLOATS
    return kinds and found.shape == expected.shape
