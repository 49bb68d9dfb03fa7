"""Every link and every file of ours that a document names is there."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = sorted([*(ROOT / name for name in NAMED), *(ROOT / "docs").glob("*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))  # they may name files of their day
ROOMS = ("datasites", "orchestrator", "privacy", "models", "tessera", "tests", "benchmarks", "docs", "docker")
MODULES = [path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")]
FOR_EXAMPLE = {"root_yogi.py", "server_step.py"}  # files that readers of adding-a-strategy and server-rules make


def links(text: str) -> list[str]:
    return re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text)


def paths(text: str) -> set[str]:
    """Paths that begin with one of our folders, in code spans and in prose."""
    return {path.rstrip(".") for path in re.findall(rf"(?<![\w/.<-])(?:{'|'.join(ROOMS)})/[\w./*-]*\w/?", text)}


def modules(text: str) -> set[str]:
    """Python files as documents abbreviate them: `rounds/store.py`, `test_ledger*.py`."""
    return set(re.findall(r"`([\w/*.-]+\.py)`", text))


def is_ours(name: str) -> bool:
    return any(fnmatch(module, name) or fnmatch(module, f"*/{name}") for module in MODULES)


def headings(page: Path) -> set[str]:
    """Anchors as hosts of Markdown make them: small letters, words joined by dashes."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    missing = []
    for link in links(page.read_text()):
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_file_of_ours_that_is_named_is_there(page):
    text = page.read_text()
    ours = {
        path for path in paths(text) if Path(path).suffix in (".py", ".md", "") and Path(path).name not in FOR_EXAMPLE
    }
    assert {path for path in ours if not list(ROOT.glob(path))} == set()
    assert {name for name in modules(text) - FOR_EXAMPLE if not is_ours(name)} == set()


def test_every_answer_of_the_contributors_questions_is_right():
    rows = re.findall(r"^\| .+\? \| `([\w/.]+)` \| `(\w+)` \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert len(rows) == 20
    wrong = [row for row in rows if not re.search(rf"\b(def|class) {row[1]}\b", (ROOT / row[0]).read_text())]
    assert wrong == []
