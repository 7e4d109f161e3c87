"""PTX text of one kernel → parameters and basic blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .blocks import END, NOWHERE, Block, meeting_order
from .instructions import Unsupported, parse_instruction

BRANCHES = ("bra", "ret", "brx")


@dataclass
class Kernel:
    """What PTX says of a kernel."""

    name: str
    parameters: dict[str, str]
    """Name → type, in the order in which arguments are given."""
    threads: int
    """Of one program."""
    blocks: list[Block] = field(default_factory=list)


def parse(ptx: str) -> Kernel:
    """The one kernel of a PTX module, its blocks in `meeting_order`. Unsupported for what is not known."""
    entry = re.search(r"\.entry\s+(\w+)\(\s*(.*?)\s*\)\s*(.*)", ptx, re.S)
    if not entry:
        raise Unsupported("PTX without an entry")
    name, head, body = entry.groups()
    parameters = {}
    for declared in head.split(",\n") if head else []:
        words = declared.split()
        parameters[words[-1]] = words[1].removeprefix(".")
    size = re.search(r"\.(?:reqntid|maxntid)\s+(\d+)", body)
    if not size:
        raise Unsupported(f"{name}: no size of a program")
    return Kernel(name, parameters, int(size[1]), _blocks(body[body.index("{") + 1 :]))


def _blocks(body: str) -> list[Block]:
    tables = {
        table: re.findall(r"\$\w+", labels)
        for table, labels in re.findall(r"(\$\w+):\s*\.branchtargets\s*([^;]*);", body)
    }
    body = re.sub(r"\$\w+:\s*\.branchtargets[^;]*;", "", body)
    return _connected(_cut(body, tables), tables)


def _cut(body: str, tables: dict[str, list[str]]) -> list[Block]:
    """The lines, cut where a branch ends a block and where one leads to."""
    targets = set(re.findall(r"\bbra(?:\.uni)?\s+(\$\w+)", body)).union(*tables.values())
    blocks = [Block()]
    for raw in body.split("\n"):
        line = raw.split("//")[0].strip()
        if line == "}":
            break
        # A scope with a register that nobody reads: LLVM's way to name half of a pair.
        line = re.sub(r"^\{ \.reg \.\w+ tmp;(.*)\}$", lambda found: found[1].replace("tmp", "_"), line).strip()
        label = re.fullmatch(r"(\$\w+):", line)
        if label:
            if label[1] in targets:
                blocks.append(Block(label=label[1]))
        elif line and not line.startswith("."):
            for text in filter(None, (part.strip() for part in line.split(";"))):
                instruction = parse_instruction(text)
                blocks[-1].instructions.append(instruction)
                if instruction.base in BRANCHES:
                    blocks.append(Block())
    return [block for block in blocks if block.instructions or block.label]


def _connected(blocks: list[Block], tables: dict[str, list[str]]) -> list[Block]:
    """Targets as numbers, blocks in the order in which threads meet."""
    numbers = {block.label: number for number, block in enumerate(blocks) if block.label}
    for number, block in enumerate(blocks):
        end = block.terminator
        if end is None or end.predicate:
            block.next = number + 1 if number + 1 < len(blocks) else END
        if end is not None and end.base == "bra":
            block.target = numbers[end.name(0)]
        elif end is not None and end.base == "ret":
            block.target = END
        elif end is not None:
            block.table = [numbers[label] for label in tables[end.name(1)]]
    order = meeting_order([block.successors() for block in blocks])
    place = {old: new for new, old in enumerate(order)} | {NOWHERE: NOWHERE, END: END}
    reached = [blocks[number] for number in order]
    for block in reached:
        block.target, block.next = place[block.target], place[block.next]
        block.table = [place[number] for number in block.table]
    return reached
