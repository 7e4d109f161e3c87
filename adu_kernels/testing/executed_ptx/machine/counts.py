"""What an execution counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counts:
    """Sums over launches."""

    instructions: Counter[str] = field(default_factory=Counter)
    """Instructions of whole warps by class (`translation.classes`)."""
    memory: Counter[str] = field(default_factory=Counter)
    """What `Traffic` measures."""
    events: Counter[str] = field(default_factory=Counter)
    """What is no fault and worth knowing."""

    def add(self, other: Counts) -> None:
        self.instructions.update(other.instructions)
        self.memory.update(other.memory)
        self.events.update(other.events)
