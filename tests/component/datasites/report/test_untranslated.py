"""No report shows a sentence that a catalogue could not translate: both are asked for in a made-up language."""

from __future__ import annotations

from pathlib import Path

from support.pilot_study import NAMES, proposal, status
from support.pseudo_language import made_up, texts_in, unmarked
from support.report_story import told_story

from datasites import report as reporting
from datasites.review.environment import current_environment
from datasites.study.signing import dump
from orchestrator.studies.facts import study_facts
from orchestrator.studies.report import write_study_report

__all__ = ["made_up"]
DATA = {
    "Hospital Alba", "alba", "alba-lung", "population-1", "Dr. Rossi", "anna", "bela", "lung-staging", "loss/fused",
    "Ethics board, minute 12 of 2026", "No purpose of care.", "the number that scientists see", "journal.sqlite",
    "ledger.sqlite", "tessera-privacy-report/1", "tessera-study-report/1", "loss.training.fused", "torch", "x",
    "the approval was revoked",  # these, people and files have brought
}  # fmt: skip


def test_the_privacy_report(made_up, new_desk, new_proposal, now, tmp_path: Path) -> None:
    story = told_story(new_desk, new_proposal, now)
    reason = "the request is denied here by anna: x"
    story.ledger.release_reservation(story.desk.store.requests()[1].proposal_hash, by="datasite", reason=reason)
    software = current_environment()
    report = story.build(language=made_up, environment=software)
    reporting.write_html(report, tmp_path / "report.html")
    told = (
        {*software.packages, *software.packages.values()}
        | {text for request in story.desk.store.requests() for text in texts_in(dump(request.proposal))}
        | DATA
    )
    assert sorted(set(unmarked((tmp_path / "report.html").read_text(), told))) == []


def test_the_study_report(made_up, tmp_path: Path) -> None:
    sites = [{"name": n, "epsilon_spent": 3.0, "epsilon_cap": 8.0, "delta": 1e-4} for n in NAMES]
    facts = study_facts(status(proposal()), sites=sites, curve=[(1, 0.6), (6, 0.7)], language=made_up)
    page = write_study_report(facts, tmp_path)[0].read_text()
    assert sorted(set(unmarked(page, {*NAMES, *texts_in(dump(proposal())), *DATA}))) == []
