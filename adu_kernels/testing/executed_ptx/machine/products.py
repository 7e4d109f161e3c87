"""`mma.sync`: products of small matrices whose elements lie spread over the registers of a warp (PTX ISA, "Matrix
Fragments"). Calculated in double precision and rounded once, which a GPU need not do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..translation.numbers import from_bf16

if TYPE_CHECKING:
    from .batch import Batch


def as_numbers(bits: Any, kind: str) -> Any:
    """fp16 or bfloat16 from their bits, in double precision."""
    return (from_bf16(bits) if kind == "bf16" else bits.view("f2")).astype("f8")


class Products:
    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def halves(self, kind: str, a: Any, b: Any, c: Any, mask: Any, text: str) -> list[Any]:
        """m16n8k16 in fp16 or bfloat16, sums in fp32. Lane 4g + t holds of a, by register and half: row g (+ 8 in odd
        registers), column 2t + half (+ 8 from the third register on); of b row and column the other way round."""
        warps = self._whole(mask, text)
        x, y = (as_numbers(np.stack(r, -1).view("u2").reshape(warps, 8, 4, len(r), 2), kind) for r in (a, b))
        left = x.reshape(warps, 8, 4, 2, 2, 2).transpose(0, 4, 1, 3, 2, 5).reshape(warps, 16, 16)
        right = y.transpose(0, 3, 2, 4, 1).reshape(warps, 16, 8)
        old = self._sums(c, "f4")
        return self._spread((old + left @ right).astype("f4"), "u4")

    def doubles(self, kind: str, a: Any, b: Any, c: Any, mask: Any, text: str) -> list[Any]:
        """m16n8k16 in fp64. Register 2k + half of a: row g + 8 · half, column 4k + t; register k of b: row 4k + t,
        column g."""
        warps = self._whole(mask, text)
        x, y = (np.stack(r, -1).view("f8") for r in (a, b))
        left = x.reshape(warps, 8, 4, 4, 2).transpose(0, 4, 1, 3, 2).reshape(warps, 16, 16)
        right = y.reshape(warps, 8, 4, 4).transpose(0, 3, 2, 1).reshape(warps, 16, 8)
        return self._spread(self._sums(c, "f8") + left @ right, "u8")

    def small_doubles(self, kind: str, a: Any, b: Any, c: Any, mask: Any, text: str) -> list[Any]:
        """m8n8k4 in fp64: lane 4g + t holds a[g, t], b[t, g], and c[g, 2t] and c[g, 2t + 1]."""
        warps = self._whole(mask, text)
        left, right = a[0].view("f8").reshape(warps, 8, 4), b[0].view("f8").reshape(warps, 8, 4).swapaxes(1, 2)
        old = np.stack([register.view("f8") for register in c], -1).reshape(warps, 8, 8)
        new = (old + left @ right).reshape(warps * 32, 2)
        return [np.ascontiguousarray(new[:, number]).view("u8") for number in range(2)]

    def _whole(self, mask: Any, text: str) -> int:
        """How many warps there are; those that stand elsewhere take part, and nobody takes what comes of it."""
        self._batch.whole_warps(mask, text)
        return self._batch.size // 32

    def _sums(self, registers: list[Any], kind: str) -> Any:
        """16 × 8 sums: register 2k + half holds row g + 8k, column 2t + half."""
        warps = self._batch.size // 32
        held = np.stack([register.view(kind) for register in registers], -1).reshape(warps, 8, 4, 2, 2)
        return held.transpose(0, 3, 1, 2, 4).reshape(warps, 16, 8)

    def _spread(self, sums: Any, bits: str) -> list[Any]:
        warps = self._batch.size // 32
        held = sums.reshape(warps, 2, 8, 4, 2).transpose(0, 2, 3, 1, 4).reshape(warps * 32, 4)
        return [np.ascontiguousarray(held[:, number]).view(bits) for number in range(4)]
