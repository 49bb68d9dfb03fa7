"""What the orchestrator answers when a participant asks for the study report."""

from __future__ import annotations

import json

import pytest
from support.pilot_study import NAMES, checkpoint, proposal, status

from datasites.node.credentials.signed_pdf import check_pdf
from datasites.study.signing import Signed, dump
from orchestrator.api.study_reports import StudyReports
from privacy.errors import InvalidInput, Refused


@pytest.fixture
def service(new_service):
    made = new_service("dr-lang", "notary", *NAMES)
    study = proposal()
    made.store.add_study(study.study, Signed(kind="proposal", payload=dump(study), public_key="ab" * 32, signature="x"))
    for name, approval in status(study)["approvals"].items():
        made.store.put_document(study.study, 0, "approval", approval, author=name)
    for number in range(1, 4):
        body = {**checkpoint(number), "evaluation": None, "at": f"2026-03-0{number}T10:00:00+00:00"}
        made.store.put_document(study.study, number, "checkpoint", body)
    return made


def test_a_participant_gets_the_report_once_the_study_is_over_and_nobody_else_does(service) -> None:
    reports = StudyReports(service)
    service.store.set_state("pilot", "running")
    with pytest.raises(Refused, match="when it is over"):
        reports.read("pilot", "alba", "pdf", "en")
    service.store.set_state("pilot", "finished")
    with pytest.raises(Refused, match="no part"):
        reports.read("pilot", "stranger", "pdf", "en")
    with pytest.raises(InvalidInput, match="language"):
        reports.read("pilot", "alba", "pdf", "xx")
    found = check_pdf(reports.read("pilot", "alba", "pdf", "de"))
    assert found.public_key == service.identity.public_key
    assert reports.read("pilot", "bruna", "pdf", "de") is reports.read("pilot", "alba", "pdf", "de")
    facts = json.loads(reports.read("pilot", "alba", "json", "en"))
    assert (facts["number"], facts["rounds"][-1]["at"]) == ("pilot-R3", "2026-03-03T10:00:00+00:00")
    assert facts["proposal_hash"] == proposal().proposal_hash and facts["made"]
