"""A study is filed completely or not proposed: from a file, from options, or from both."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.filing import FILING
from orchestrator.studies.proposing.filings import filed
from privacy.errors import InvalidInput

DOCKER = Path(__file__).parents[4] / "docker" / "filing.toml"


def test_the_composed_consortium_files_what_the_demo_files() -> None:
    found = filed(DOCKER, {})
    assert found.filing == FILING
    assert (found.retention_days, found.licence) == (365, "research only")


def test_everything_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as error:
        filed(None, {"purpose": "Stage lung cancer."})
    for option in (
        "legal-basis",
        "principal-investigator",
        "ethics-vote or --no-ethics-vote",
        "recipient",
        "retention-days",
    ):
        assert f"--{option}" in str(error.value)
    assert "--purpose" not in str(error.value)


def test_an_option_comes_before_the_file_and_one_ethics_statement_replaces_the_other() -> None:
    given: dict[str, Any] = {"ethics_vote": "2026-1", "recipients": ["Charite Berlin: DE"], "retention_days": 30}
    found = filed(DOCKER, given)
    assert (found.filing.ethics_vote, found.filing.no_ethics_vote) == ("2026-1", "")
    assert [(r.name, r.country) for r in found.filing.recipients] == [("Charite Berlin", "DE")]
    assert found.retention_days == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('colour = "red"\n', "unknown field 'colour'"),
        ("retention_days = 0.5\n", "retention_days"),
        ("sponsor = 3\n", "expected a text for sponsor"),
        ("data_use = [\n", "could not read"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, change: str, message: str) -> None:
    key = change.partition(" ")[0]
    kept = "".join(line for line in DOCKER.read_text().splitlines(keepends=True) if not line.startswith(f"{key} ="))
    path = tmp_path / "filing.toml"
    path.write_text(change + kept)
    with pytest.raises(InvalidInput, match=message):
        filed(path, {})
    with pytest.raises(InvalidInput, match="NAME:COUNTRY"):
        filed(DOCKER, {"recipients": ["Charite"]})
    with pytest.raises(InvalidInput, match="could not read"):
        filed(tmp_path / "none.toml", {})


def test_the_files_fields_are_all_used() -> None:
    assert set(tomllib.loads(DOCKER.read_text())) >= {"purpose", "legal_basis", "data_use", "recipients", "licence"}
