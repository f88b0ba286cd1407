"""The figures as a table of text."""

from __future__ import annotations

from benchmarks.case import Figure
from benchmarks.measuring import Found

__all__ = ["rows", "shown"]


def shown(found: Found, figure: Figure, value: float) -> float:
    """A metric in the unit of a figure."""
    return value * figure.scale / (found.size if figure.each else 1)


def rows(found: list[Found]) -> list[str]:
    """Lines of one case: who, the median, least to most, and how many times ours that is."""
    lines = [f"{found[0].case.name}, {found[0].case.size}"]
    ours = next((item for item in found if item.entry.label == "ours" and not item.problem), None)
    for item in found:
        if item.problem:
            lines.append(f"  {item.entry.label:16} {item.problem[:110]}")
            continue
        for figure in item.case.figures:
            if figure.metric not in item.values:
                continue
            values = [shown(item, figure, value) for value in item.values[figure.metric]]
            middle = shown(item, figure, item.median(figure.metric))
            line = f"  {item.entry.label:16} {middle:12,.2f} {figure.unit:10} ({min(values):,.2f} to {max(values):,.2f})"
            if ours is not None and item is not ours and figure is item.case.figures[0]:
                mine = shown(ours, figure, ours.median(figure.metric))
                line += f"  ours / this: {mine / middle:.2f}"
            lines.append(line)
    return lines
