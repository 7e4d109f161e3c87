"""A drawing as one SVG file.

SVG and not PNG: it needs no plotting library where results are read, a text editor and a diff can see into it, and
repositories show it in Markdown. Colours stand in the file, since no page's style sheet reaches an embedded picture.
"""

from __future__ import annotations

from html import escape

PAPER, INK, SOFT, LINE = "#ffffff", "#1c1b1a", "#6a6762", "#e3dfd8"
COLOURS = ("#a8326b", "#3a6fb0", "#d9822b", "#2f8f6b", "#7a5bb5", "#7d766c", "#b3261e", "#0b7285")
USUAL = ("ours", "eager reference", "compiled reference", "compiled reference, max-autotune")
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif"


class Drawing:
    """Shapes in pixel coordinates, y downwards."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = LINE, width: float = 1.0) -> None:
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'
        )

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str, tip: str = "") -> None:
        body = f"<title>{escape(tip)}</title>" if tip else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" fill="{colour}">'
            f"{body}</rect>"
        )

    def dot(self, x: float, y: float, colour: str, tip: str = "", radius: float = 5.0) -> None:
        body = f"<title>{escape(tip)}</title>" if tip else ""
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="0.85" stroke="{PAPER}">'
            f"{body}</circle>"
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        anchor: str = "start",
        size: int = 13,
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="650"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"{weight}>'
            f"{escape(words)}</text>"
        )

    def legend(self, names: dict[str, str], x: float, y: float, width: float) -> float:
        """Colour by name, in rows no wider than `width`; returns the y below them."""
        left = x
        for name, colour in names.items():
            needed = 24 + text_width(name)
            if left > x and left + needed > x + width:
                left, y = x, y + 20
            self.rectangle(left, y - 10, 12, 12, colour)
            self.text(left + 18, y, name, colour=SOFT)
            left += needed + 14
        return y + 14

    def svg(self) -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {self.height:.0f}" '
            f'width="{self.width:.0f}" height="{self.height:.0f}" font-family="{FONT}" role="img" '
            f'aria-label="{escape(self.title, quote=True)}">'
            f'<rect width="100%" height="100%" fill="{PAPER}"/>{"".join(self.parts)}</svg>\n'
        )


def text_width(words: str, size: int = 13) -> float:
    """About how wide the words are; there is no font to ask."""
    return 0.56 * size * len(words)


def colours_of(names: list[str]) -> dict[str, str]:
    """A colour for each name: the usual ones have the same in every picture, others as they come."""
    own = {name: COLOURS[number] for number, name in enumerate(USUAL)}
    others = COLOURS[len(USUAL) :]
    strangers = [name for name in names if name not in own]
    return {name: own.get(name) or others[strangers.index(name) % len(others)] for name in names}


def shortened(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
