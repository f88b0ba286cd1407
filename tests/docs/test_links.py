"""Links between the pages lead somewhere, and each decision is in the index of the decisions."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
OF_PLUGIN = pytest.param(ROOT / "checkpoint_plugin" / "README.md", marks=pytest.mark.plugin)
DECISIONS = ROOT / "docs" / "decisions"
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    return LINK.findall(CODE.sub("code", prose(page)))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Of the headings of a page, as the tool that builds the pages and the hosts of repositories make them."""
    found = (re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()).strip() for heading in HEADING.findall(prose(page)))
    return frozenset(re.sub(r"\s", "-", heading) for heading in found)


@pytest.mark.parametrize("page", [*PAGES, OF_PLUGIN], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    lost = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_each_decision_is_in_the_index() -> None:
    index = set(links(DECISIONS / "index.md"))
    pages = [page for page in DECISIONS.glob("*.md") if page.name != "index.md"]
    assert len(pages) > 5
    told = {f"{page.name}#{anchor}" for page in pages for anchor in anchors(page) if not anchor.startswith("decisions-")}
    assert told - index == set()
