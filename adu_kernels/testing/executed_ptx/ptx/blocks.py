"""Basic blocks, and an order of them in which threads that part meet again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .instructions import Instruction

NOWHERE = -1
END = 1 << 30
"""Where `ret` leads."""


@dataclass
class Block:
    """Instructions that run one after the other; the last one may branch."""

    instructions: list[Instruction] = field(default_factory=list)
    label: str = ""
    target: int = NOWHERE
    """Block that its branch leads to."""
    next: int = NOWHERE
    """Block that it falls through to."""
    table: list[int] = field(default_factory=list)
    """Blocks that its `brx.idx` chooses from."""

    @property
    def terminator(self) -> Instruction | None:
        """Its last instruction, where that is a branch."""
        last = self.instructions[-1] if self.instructions else None
        return last if last and last.base in ("bra", "ret", "brx") else None

    def successors(self) -> list[int]:
        return [block for block in (self.target, self.next, *self.table) if NOWHERE < block < END]


def meeting_order(successors: list[list[int]]) -> list[int]:
    """Numbers of the blocks that the first one leads to, such that threads which always run the first of those they
    stand at wait for each other where their ways meet: every block after all that lead to it, a loop in one piece and
    before what follows it.
    """
    return _ordered(set(range(len(successors))), successors, 0, loop=False)


def _ordered(inside: set[int], successors: list[list[int]], entry: int, *, loop: bool) -> list[int]:
    """Strongly connected components, each of which is a loop, in topological order; in a loop the same again without
    the ways that lead back to its entry."""

    def ways(block: int) -> list[int]:
        return [n for n in successors[block] if n in inside and not (loop and n == entry)]

    order: list[int] = []
    for component in reversed(_components(entry, ways)):
        if len(component) == 1:
            order += component
        else:
            entered = [n for block in inside - component for n in successors[block] if n in component]
            order += _ordered(component, successors, min(entered, default=entry), loop=True)
    return order


def _components(entry: int, ways: Callable[[int], list[int]]) -> list[set[int]]:
    """Tarjan's algorithm: strongly connected components, the last one in topological order first."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    found: list[set[int]] = []

    def visit(block: int) -> None:
        index[block] = low[block] = len(index)
        stack.append(block)
        for following in ways(block):
            if following not in index:
                visit(following)
                low[block] = min(low[block], low[following])
            elif following in stack:
                low[block] = min(low[block], index[following])
        if low[block] == index[block]:
            at = stack.index(block)
            found.append(set(stack[at:]))
            del stack[at:]

    visit(entry)
    return found
