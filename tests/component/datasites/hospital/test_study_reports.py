"""The study report reaches a hospital: what is kept, what is refused, what the portal lists."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typst
from support.pilot_study import proposal

from datasites.hospital.facts import reports
from datasites.hospital.study_reports import fetch_study_report
from datasites.language import speaking
from datasites.node.credentials.signed_pdf import check_pdf, sign_pdf
from datasites.study.proposal import Party
from privacy.errors import Refused
from privacy.identity import Identity
from privacy.ledger.journal import Journal

ORCHESTRATOR = Identity.from_seed(b"o" * 32)
STUDY = proposal(orchestrator=Party(name="dr-lang", institution="University", public_key=ORCHESTRATOR.public_key))
SHORT = STUDY.proposal_hash[:16]


def signed(identity: Identity = ORCHESTRATOR) -> bytes:
    document = typst.compile(b'#set document(title: "Study report")\n= A report')
    return sign_pdf(document, identity, name="dr-lang", institution="University", reason="Study report pilot-R6")


@dataclasses.dataclass
class Answers:
    """Stands for the client of a hospital: answers from two functions."""

    pdf: Callable[[], bytes]
    facts: Callable[[], bytes] = lambda: json.dumps({"proposal_hash": STUDY.proposal_hash}).encode()

    def get_bytes(self, path: str, *, params: Mapping[str, Any], max_bytes: int) -> bytes:
        assert path == "/studies/pilot/report" and max_bytes
        return self.pdf() if params["kind"] == "pdf" else self.facts()


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal(tmp_path / "journal.sqlite", Identity.from_seed(b"h" * 32))
    yield opened
    opened.close()


def fetch(answers: Answers, folder: Path, journal: Journal) -> bool:
    return fetch_study_report(answers, STUDY, folder, journal)  # type: ignore[arg-type]


def test_the_report_is_kept_journaled_and_listed_in_the_readers_language(tmp_path: Path, journal: Journal) -> None:
    assert fetch(Answers(signed), tmp_path / "reports", journal)
    entry = next(iter(journal.entries(kind="study-report")))
    assert set(entry.body["files"]) == {
        *(f"study-report.{SHORT}.{language}.pdf" for language in ("en", "de", "fr")),
        f"study-report.{SHORT}.json",
    }
    listed = reports(tmp_path / "reports", {SHORT: "pilot"})
    assert len(listed) == 4 and all("pilot" in file.title for file in listed)
    assert check_pdf(listed[0].path.read_bytes()).public_key == ORCHESTRATOR.public_key
    with speaking("fr"):
        assert reports(tmp_path / "reports", {SHORT: "pilot"})[0].name == f"study-report.{SHORT}.fr.pdf"


def away() -> bytes:
    raise Refused("the orchestrator is away")


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        (Answers(lambda: signed(Identity.from_seed(b"x" * 32))), "somebody else"),
        (Answers(lambda: signed()[:-1]), "ask its author"),
        (Answers(lambda: b"<html>"), "expected a PDF"),
        (Answers(away), "away"),
        (Answers(signed, lambda: b"{"), "no JSON"),
        (Answers(signed, lambda: b'{"proposal_hash": "other"}'), "another proposal"),
    ],
)
def test_nothing_is_kept_of_a_report_that_is_not_as_it_should_be(
    tmp_path: Path, journal: Journal, answers: Answers, problem: str
) -> None:
    assert not fetch(answers, tmp_path / "reports", journal)
    assert problem in next(iter(journal.entries(kind="study-report"))).body["problem"]
    assert reports(tmp_path / "reports", {SHORT: "pilot"}) == ()
