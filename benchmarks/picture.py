"""The main figures as a picture: an SVG with one bar an entry, on a logarithmic scale a case."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

from benchmarks.measuring import Found
from benchmarks.table import shown

__all__ = ["draw"]

WIDTH, LEFT, BAR, GAP = 900, 250, 15, 22
COLOURS = {"ours": "#1f6feb", "floor": "#8b949e"}


def draw(results: Sequence[Sequence[Found]]) -> str:
    """The picture.

    Args:
        results: what `Measuring.measure` gave, case by case.
    """
    parts: list[str] = []
    y = 24
    for found in results:
        bars = [item for item in found if not item.problem and found[0].case.figures[0].metric in item.values]
        if not bars:
            continue
        figure = found[0].case.figures[0]
        values = {item.entry.label: shown(item, figure, item.median(figure.metric)) for item in bars}
        low = min(values.values()) / 2
        high = max(values.values())
        parts.append(f'<text x="8" y="{y}" font-weight="bold">{escape(found[0].case.name)}, {escape(figure.unit)}</text>')
        y += 8
        for label, value in values.items():
            length = (WIDTH - LEFT - 120) * (log10(value / low) / log10(high / low))
            colour = COLOURS.get(label.split()[0], "#d29922")
            parts.append(f'<text x="{LEFT - 8}" y="{y + BAR - 3}" text-anchor="end">{escape(label)}</text>')
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>')
            parts.append(f'<text x="{LEFT + length + 6:.1f}" y="{y + BAR - 3}">{value:,.2f}</text>')
            y += BAR + 4
        y += GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *parts, "</svg>"]) + "\n"
