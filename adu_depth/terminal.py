"""What goes to a terminal: names of files are anybody's, and a terminal obeys what it is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# Control characters but tab and newline; those that turn the direction of the text, which hide a name's ending; and
# surrogates, which stand for bytes of a name that are no text.
_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with what a terminal would obey, or could not show, written out: ESC as \\x1b, a byte that is no text as
    \\xe9. Tab and newline stay."""
    return _ACTIVE.sub(lambda found: _written_out(ord(found[0])), text)


def printable_name(name: object) -> str:
    """A file's or a frame's name as `printable` text on one line."""
    return printable(str(name)).replace("\n", "\\n").replace("\t", "\\t")


def _written_out(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a file's name through
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class SafeConsole(Console):
    """A rich console that shows all text it is given as `printable`; its own colours are its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not _ACTIVE.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)

    def render_str(self, text: str, **options: object) -> Text:  # type: ignore[override]
        return super().render_str(printable(text), **options)  # type: ignore[arg-type]
