"""What SECURITY.md and the threat model name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["SECURITY.md", "docs/threat-model.md"])
def test_every_test_that_a_row_names_exists(document: str) -> None:
    named = set(re.findall(r"[\w/]*test_\w+\*?\.py", (ROOT / document).read_text()))
    assert len(named) > 15
    missing = {name for name in named if not list((ROOT / "tests").rglob(name.removeprefix("tests/").split("/")[-1]))}
    assert not missing


def test_every_row_of_who_can_do_what_names_its_test() -> None:
    text = (ROOT / "docs/threat-model.md").read_text().split("## Who learns what")[0]
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert len(rows) >= 20
    assert [row for row in rows if "test_" not in row and "none can" not in row] == []


def test_the_table_of_attacks_claims_no_more_than_is_there() -> None:
    text = (ROOT / "docs/attacks.md").read_text()
    rows = re.findall(r"`(attacks/\S+/test_\w+\.py)` \| (\d+) \| (\d+) \|", text)
    counted = {file: int(attacks) + int(honest) for file, attacks, honest in rows}
    files = sorted((ROOT / "tests/attacks").rglob("test_*.py"))
    there = {path.relative_to(ROOT / "tests").as_posix(): _tests(path) for path in files}
    assert [file for file in counted if counted[file] > there.get(file, 0)] == [], "docs/attacks.md claims more"
    assert sum(int(attacks) for _, attacks, _ in rows) >= 60
    assert [path.name for path in files if "Played" not in (ast.get_docstring(ast.parse(path.read_text())) or "")] == []


def _tests(path: Path) -> int:
    found = ast.parse(path.read_text()).body
    return sum(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in found)
