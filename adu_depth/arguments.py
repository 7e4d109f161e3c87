"""What a dataclass of settings says of a field's place on the command line, for `adu_depth.parsing` to read.

    root: Positional[Path]
    run: Annotated[Path, Argument(aliases=("--run-folder",))]

Nothing here needs the library that parses: settings are also made where there is no command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol, Self, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Argument:
    """In `Annotated[T, Argument(...)]`: the field is an argument of another name, of more names, or of none."""

    name: str | None = None
    """Instead of the field's, without dashes."""
    aliases: tuple[str, ...] = ()
    """Further names, with their dashes."""
    positional: bool = False
    """Given by its place, without a name."""
    repeated: bool = False
    """Of a tuple: the name is given once for each member."""


class Worded(Protocol):
    """A dataclass that stands on the command line as one argument of several words, not as an argument a field."""

    WORDS: ClassVar[str]
    """What they are, for the help."""

    @classmethod
    def from_words(cls, words: list[str]) -> Self:
        """Raises InputError for words that say nothing."""

    def words(self) -> list[str]:
        """Those that `from_words` makes an equal one of."""


Positional = Annotated[T, Argument(positional=True)]
