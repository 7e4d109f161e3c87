"""mul + add → fma, as ptxas may make of instructions that carry no rounding of their own."""

from __future__ import annotations

import re
from collections import Counter

from ..ptx.blocks import Block
from ..ptx.instructions import Instruction


def contract(blocks: list[Block]) -> None:
    """Fuses, in each block, a product with the one sum that uses it. A sum that subtracts negates an operand."""
    uses = Counter(name for block in blocks for i in block.instructions for name in re.findall(r"%r[ds]?\d+", i.text))
    for block in blocks:
        block.instructions = _fused(block.instructions, uses)


def _fused(instructions: list[Instruction], uses: Counter[str]) -> list[Instruction]:
    products: dict[str, Instruction] = {}
    kept: list[Instruction] = []
    for i in instructions:
        if i.base in ("add", "sub") and _free(i):
            for side in (1, 2):
                product = products.get(i.name(side))
                if product and uses[i.name(side)] == 2 and product.words[1:] == i.words[1:]:
                    kept = [k for k in kept if k is not product]
                    i = _fma(i, product, side)
                    break
        for written in i.several(0) if i.operands and not isinstance(i.operands[0], tuple) else []:
            for name in [n for n, p in products.items() if n == written or written in p.operands[1:]]:
                del products[name]
        if i.base == "mul" and _free(i):
            products[i.name(0)] = i
        kept.append(i)
    return kept


def _free(i: Instruction) -> bool:
    """Without a rounding, a flush or a predicate."""
    return len(i.words) == 2 and i.type in ("f32", "f64") and not i.predicate


def _fma(i: Instruction, product: Instruction, side: int) -> Instruction:
    """a·b + c, c − a·b ("fnma") or a·b − c ("fms"): names of our own, PTX negates an operand in their place."""
    base = "fma" if i.base == "add" else "fms" if side == 1 else "fnma"
    a, b = product.operands[1:]
    return Instruction(i.text, [base, "rn", i.type], [i.operands[0], a, b, i.operands[3 - side]])
