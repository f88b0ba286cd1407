"""Nodes that measure the source files of Python's own standard library and write a report.

Run them with `workflow run examples/stdlib_report.json --nodes examples/stdlib_nodes.py --enable checkpoint`.
"""

from __future__ import annotations

import ast
import json
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from workflow_runner import Context, Stream, node

BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith, ast.BoolOp, ast.IfExp, ast.Match)
Measure = dict[str, Any]


@node
def source_files(context: Context, limit: int = 0) -> Iterator[str]:
    """The library's source files, sorted by path relative to it; at most `limit`, 0 for all."""
    root = Path(sysconfig.get_path("stdlib"))
    names = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not {"site-packages", "__pycache__"} & set(path.relative_to(root).parts)
    )
    if limit:
        names = names[:limit]
    start = context.state or 0
    for place in range(start, len(names)):
        yield names[place]
        context.commit(place + 1)


@node
def read(name: str) -> dict[str, str]:
    """A file's text; bytes that are not UTF-8 are kept as escapes."""
    path = Path(sysconfig.get_path("stdlib")) / name
    return {"name": name, "text": path.read_bytes().decode("utf-8", "backslashreplace")}


@node
def measure(file: dict[str, str], context: Context, journal: str = "") -> Measure:
    """Count functions, classes, imports and branches; a file that does not parse is a measure too.

    With `journal`, the path of a file, a line is written there for every file measured: what a resumed run did
    again can be counted.
    """
    if journal:
        with open(journal, "a", encoding="utf-8") as lines:
            lines.write(f"{file['name']}\n")
    lines_of_text = file["text"].count("\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file["text"], file["name"])
    except (SyntaxError, ValueError) as error:
        return {"name": file["name"], "lines": lines_of_text, "problem": type(error).__name__}
    counts = {"functions": 0, "classes": 0, "imports": 0, "branches": 0}
    for item in ast.walk(tree):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            counts["functions"] += 1
        elif isinstance(item, ast.ClassDef):
            counts["classes"] += 1
        elif isinstance(item, ast.Import | ast.ImportFrom):
            counts["imports"] += 1
        elif isinstance(item, BRANCHES):
            counts["branches"] += 1
    return {"name": file["name"], "lines": lines_of_text, **counts}


@node
async def by_package(measures: Stream[dict], context: Context) -> dict[str, dict[str, int]]:  # type: ignore[type-arg]
    """Sums for every top-level package; its state is committed now and then, so that little is done again."""
    sums: dict[str, dict[str, int]] = context.state or {}
    taken = 0
    async for item in measures:
        package = item["name"].split("/")[0] if "/" in item["name"] else "(modules)"
        row = sums.setdefault(package, {"files": 0, "lines": 0, "functions": 0, "branches": 0})
        row["files"] += 1
        for key in ("lines", "functions", "branches"):
            row[key] += item.get(key, 0)
        taken += 1
        context.progress(sum(row["files"] for row in sums.values()))
        if taken % 50 == 0:
            context.commit(sums)
    return dict(sorted(sums.items()))


@node
async def most_complex(measures: Stream[dict], context: Context, count: int = 15) -> list[Measure]:  # type: ignore[type-arg]
    """The files with most branches a function, at least ten functions each."""
    best: list[Measure] = context.state or []
    async for item in measures:
        if item.get("functions", 0) >= 10:
            ranked = [*best, {**item, "complexity": round(1 + item["branches"] / item["functions"], 3)}]
            best = sorted(ranked, key=lambda row: (-row["complexity"], row["name"]))[:count]
        context.commit(best)
    return best


@node
async def problems(measures: Stream[dict], context: Context) -> list[str]:  # type: ignore[type-arg]
    """The files that do not parse."""
    found: list[str] = context.state or []
    async for item in measures:
        if "problem" in item:
            found.append(item["name"])
        context.commit(found)
    return found


@node(outputs=("json", "svg"))
def report(packages: dict, complex_files: list, broken: list, folder: str = "report") -> dict[str, str]:  # type: ignore[type-arg]
    """Write `report.json` and `report.svg` into a folder; gives both paths."""
    total = {key: sum(row[key] for row in packages.values()) for key in ("files", "lines", "functions", "branches")}
    document = {"total": total, "packages": packages, "most_complex": complex_files, "not_parsed": broken}
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    texts = {"json": json.dumps(document, indent=2, sort_keys=True) + "\n", "svg": picture(packages, total)}
    for kind, text in texts.items():
        temporary = target / f".report.{kind}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target / f"report.{kind}")
    return {kind: str(target / f"report.{kind}") for kind in texts}


def picture(packages: dict[str, dict[str, int]], total: dict[str, int]) -> str:
    """A bar for each of the largest packages, as SVG."""
    largest = sorted(packages.items(), key=lambda entry: (-entry[1]["lines"], entry[0]))[:20]
    widest = max((row["lines"] for _, row in largest), default=1) or 1
    height = 60 + 24 * len(largest)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="16" y="28" font-size="17">{total["files"]} files, {total["lines"]} lines</text>',
    ]
    for place, (name, row) in enumerate(largest):
        y = 48 + 24 * place
        width = max(1, round(480 * row["lines"] / widest))
        parts.append(f'<text x="150" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="160" y="{y}" width="{width}" height="17" fill="#3f6fb5"/>')
        parts.append(f'<text x="{166 + width}" y="{y + 13}" fill="#444">{row["lines"]}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
