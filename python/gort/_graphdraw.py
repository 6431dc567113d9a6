"""Small directed graphs as Mermaid text and as SVG pictures, without other tools.

A `Drawing` has boxes and arrows. Whatever their texts hold, they stay texts: in Mermaid as
character codes in quotes, in SVG escaped. Mermaid's own limits (500 arrows, 50,000 characters) are
kept: what there is least of goes first, and a comment says how much it was.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from gort._graphlayout import HIGH, Layout

__all__ = ["MOST_ARROWS", "Arrow", "Box", "Drawing"]

#: What Mermaid draws with its defaults.
MOST_ARROWS, _MOST_CHARACTERS = 500, 50_000
#: Characters of a text that are shown.
_MOST_TEXT = 60
#: Texts that need no quotes: none of Mermaid's words and signs is in them.
_SIMPLE = re.compile(
    r"(?!.*\b(?:end|graph|subgraph|style|class|click)\b)[A-Za-z0-9][A-Za-z0-9 #.]*"
)
_SHAPES = {"box": "[]", "round": "()", "channel": "[()]", "lock": "{{}}", "group": "(())"}
_COLOURS = {
    "box": "#e8f1fa", "round": "#fdf3e0", "channel": "#e5f5ee", "lock": "#fbe9f3",
    "group": "#f0f0f0",
}  # fmt: skip
_ROUND = {"round": 17, "group": 17, "channel": 8}
#: Of the picture, in pixels: how wide a letter is, in boxes and at arrows.
_LETTER, _SMALL_LETTER = 7.4, 6.2


class Box(NamedTuple):
    """A node: its text, and a shape of _SHAPES."""

    text: str
    shape: str = "box"


class Arrow(NamedTuple):
    """An arrow from one box to another, by index; `weight` says which ones go first."""

    start: int
    end: int
    text: str = ""
    dotted: bool = False
    weight: int = 0


class Drawing:
    """A graph to draw."""

    def __init__(self) -> None:
        """Begin without anything."""
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []

    def add(self, text: str, shape: str = "box") -> int:
        """Add a box; gives its index."""
        self.boxes.append(Box(text, shape))
        return len(self.boxes) - 1

    def join(
        self, start: int, end: int, text: str = "", *, dotted: bool = False, weight: int = 0
    ) -> None:
        """Add an arrow."""
        self.arrows.append(Arrow(start, end, text, dotted, weight))

    def limited(self, most: int) -> tuple[Drawing, int]:
        """Give it with so many arrows, those that weigh most, and how many were left out."""
        if len(self.arrows) <= most:
            return self, 0
        ranked = sorted(range(len(self.arrows)), key=lambda i: (-self.arrows[i].weight, i))
        kept = [self.arrows[i] for i in sorted(ranked[:most])]
        used = sorted({0} | {a.start for a in kept} | {a.end for a in kept})
        numbers = {old: new for new, old in enumerate(used)}
        found = Drawing()
        found.boxes = [self.boxes[i] for i in used]
        found.arrows = [a._replace(start=numbers[a.start], end=numbers[a.end]) for a in kept]
        return found, len(self.arrows) - most

    def mermaid(self) -> str:
        """Give it as Mermaid's text."""
        most = MOST_ARROWS
        while True:
            drawing, left = self.limited(most)
            lines = ["graph TD"]
            if left:
                lines.append(f"    %% {left} more arrows are left out")
            for i, box in enumerate(drawing.boxes):
                half = len(_SHAPES[box.shape]) // 2
                begin, end = _SHAPES[box.shape][:half], _SHAPES[box.shape][half:]
                lines.append(f"    {_letters(i)}{begin}{_quoted(box.text)}{end}")
            for arrow in drawing.arrows:
                line = "-.->" if arrow.dotted else "-->"
                text = f"|{_quoted(arrow.text)}|" if arrow.text else ""
                lines.append(f"    {_letters(arrow.start)} {line}{text} {_letters(arrow.end)}")
            found = "\n".join(lines) + "\n"
            if len(found) < _MOST_CHARACTERS or not most:
                return found
            most = most * 3 // 4

    def svg(self) -> str:
        """Give it as a picture: boxes in rows, each below those that lead to it."""
        drawing, left = self.limited(MOST_ARROWS)
        wide = [len(_short(box.text)) * _LETTER + 24 for box in drawing.boxes]
        pairs: dict[tuple[int, int], list[Arrow]] = {}
        for arrow in drawing.arrows:
            pairs.setdefault((arrow.start, arrow.end), []).append(arrow)
        texts = {pair: [_short(a.text) for a in pairs[pair] if a.text] for pair in pairs}
        lines = max((len(found) for found in texts.values()), default=0)
        layout = Layout(wide, list(pairs), lines)
        height = layout.height + (18 if left else 0)
        places = {
            pair: layout.words(pair, [len(text) * _SMALL_LETTER for text in found])
            for pair, found in texts.items()
            if found
        }
        least, width = math.floor(layout.least), math.ceil(layout.most - layout.least)
        parts = [_HEAD.format(least=least, width=width, height=height)]
        for pair, arrows in pairs.items():
            dash = ' stroke-dasharray="5 4"' if all(a.dotted for a in arrows) else ""
            parts.append(
                f'<path d="{layout.way(pair)}" fill="none" stroke="#4a4a4a"{dash} '
                'marker-end="url(#head)"/>'
            )
        for i, box in enumerate(drawing.boxes):
            x, y = layout.left[i], float(layout.top[i])
            middle = x + wide[i] / 2
            parts.append(
                f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide[i]:.0f}" height="{HIGH}" '
                f'rx="{_ROUND.get(box.shape, 3)}" fill="{_COLOURS[box.shape]}" stroke="#4a4a4a"/>'
                f'<text x="{middle:.0f}" y="{y + 22:.0f}">{_escaped(_short(box.text))}</text>'
            )
        for pair, found in places.items():
            for text, (x, y) in zip(texts[pair], found, strict=True):
                parts.append(
                    f'<text x="{x:.0f}" y="{y:.0f}" font-size="11" stroke="#fff" stroke-width="4" '
                    f'paint-order="stroke">{_escaped(text)}</text>'
                )
        if left:
            parts.append(
                f'<text x="{least + width / 2:.0f}" y="{height - 8}">{left} more arrows</text>'
            )
        return "".join(parts) + "</svg>\n"


_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    'viewBox="{least} 0 {width} {height}" role="img" aria-label="Who starts, sends to, waits for '
    'and locks whom" font-family="sans-serif" font-size="13" text-anchor="middle" fill="#1b1b1b">'
    '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path d="M0 0L8 4L0 8z" fill="#4a4a4a"/></marker></defs>'
    '<rect x="{least}" width="{width}" height="{height}" fill="#fff"/>'
)


def _letters(number: int) -> str:
    """Name a box: A to Z, AA and so on."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(65 + rest) + text
    return text


def _short(text: str) -> str:
    """Give a text as one line of at most so many characters."""
    line = "".join([c if c.isprintable() else " " for c in text])
    return line if len(line) <= _MOST_TEXT else line[: _MOST_TEXT - 1] + "…"


def _quoted(text: str) -> str:
    """Give a text as Mermaid takes it."""
    line = _short(text)
    if _SIMPLE.fullmatch(line):
        return line
    plain = "".join([c if c.isalnum() or c in " ._,:()/+-*…" else f"#{ord(c)};" for c in line])
    return f'"{plain}"'


def _escaped(text: str) -> str:
    """Give a text as XML takes it."""
    replaced = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join([c if ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE else "?" for c in replaced])
