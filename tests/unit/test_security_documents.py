"""What SECURITY.md and the threat model name is there."""

from __future__ import annotations

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
