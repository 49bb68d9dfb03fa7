from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import jsonschema
import pytest
from support.pilot_study import NAMES, proposal, status

from orchestrator.studies.facts import proximities_by_round, study_facts
from orchestrator.studies.figures import pictures
from orchestrator.studies.report import study_schema, write_study_pdf, write_study_report
from privacy.errors import InvalidInput

SCHEMA = Path(__file__).parents[4] / "docs" / "schemas" / "study-report.schema.json"
METRICS = {
    "auroc": 0.701,
    "balanced_accuracy": 0.66,
    "auroc_by_cohort": {"LUSC": 0.701},
    "label": "exact, on public or synthetic data, outside the protocol",
}
SITES = [{"name": n, "epsilon_spent": 3.0 + i, "epsilon_cap": 8.0, "delta": 1e-4} for i, n in enumerate(NAMES)]


def test_the_facts_are_those_of_the_study() -> None:
    study = proposal()
    facts = study_facts(status(study), metrics=METRICS, sites=SITES, curve=[(1, 0.6), (6, 0.701)])
    assert facts.epsilon_study == pytest.approx(study.mechanism.epsilon())
    dora = facts.sites[3]
    assert (dora.rounds, dora.missed_rounds, dora.patients) == (5, (3,), 180)
    assert dora.refusals == ("round 3: the approval was revoked",)
    assert facts.sites[0].approved_by == ("anna (steward)",)
    assert facts.rounds[2].missing == ("dora",)
    assert facts.metrics[0].value == 0.701 and facts.watermarks == ()


def test_the_page_shows_them_and_the_json_follows_its_schema(tmp_path: Path) -> None:
    facts = study_facts(status(proposal()), metrics=METRICS, sites=SITES, curve=[(1, 0.6), (6, 0.701)])
    html, data = write_study_report(facts, tmp_path)
    page = html.read_text()
    assert page.count("<img ") == 5 and page.count(' alt="') == 5
    for text in ("0.701", "Hospital Dora", "missing in round 3", "the approval was revoked", "outside the protocol"):
        assert text in page
    assert "<b>of cancer</b>" not in page
    assert not re.search(r"""<script|(?:src|href)=["']?(?:https?:)?//""", page)
    jsonschema.validate(json.loads(data.read_text()), json.loads(SCHEMA.read_text()))


def test_the_pdf_is_accessible_and_has_the_pages_pictures(tmp_path: Path) -> None:
    facts = study_facts(status(proposal()), metrics=METRICS, sites=SITES, curve=[(1, 0.6), (6, 0.701)])
    path = write_study_pdf(facts, tmp_path)
    data = path.read_bytes()
    assert path.name == "study-report.pdf" and data.startswith(b"%PDF") and b"pdfuaid" in data
    empty = study_facts({**status(proposal()), "checkpoints": [], "rounds_completed": 0})
    assert write_study_pdf(empty, tmp_path).read_bytes().startswith(b"%PDF")


def test_blending_and_proximity_are_shown_over_the_rounds(tmp_path: Path) -> None:
    known = status(proposal(training=dataclasses.replace(proposal().training, aggregation="dgb+pcw")))
    for number, done in enumerate(known["checkpoints"], start=1):
        done["scales"] = {"mrna": 1.0 - 0.1 * number, "shared": 1.0}
        if number > 2:
            done["releases"] = {n: {"proximity.cosine": -0.2 if n == "dora" else 0.4} for n in done["sites"]}
    facts = study_facts(known)
    assert proximities_by_round(facts)["alba"] == [(2, 0.4), (3, 0.4), (4, 0.4), (5, 0.4)]
    assert [p.name for p in pictures(facts)] == ["losses", "weights", "blending", "proximity", "presence"]
    html, data = write_study_report(facts, tmp_path)
    assert "dora -0.20" in html.read_text() and "mrna 0.40" in html.read_text()
    jsonschema.validate(json.loads(data.read_text()), json.loads(SCHEMA.read_text()))


def test_plain_json_gives_the_same_report_and_a_wrong_field_is_refused(tmp_path: Path) -> None:
    facts = study_facts(status(proposal()))
    plain = json.loads(json.dumps(dataclasses.asdict(facts)))
    first, _ = write_study_report(facts, tmp_path / "a")
    second, _ = write_study_report(plain, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(InvalidInput, match="StudyFacts"):
        write_study_report({**plain, "colour": "green"}, tmp_path / "c")


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == study_schema()


def test_a_study_before_its_first_round_and_one_without_privacy_have_a_report(tmp_path: Path) -> None:
    naked = dataclasses.replace(proposal().mechanism, noise_multiplier=0.0)
    early = study_facts({**status(proposal(), rounds=0), "refusals": {}})
    assert early.epsilon_study == 0
    assert "No round has finished" in write_study_report(early, tmp_path / "early")[0].read_text()
    public = study_facts(status(proposal(mechanism=naked, seed=5)), sites=[{**SITES[0], "epsilon_spent": "inf"}])
    page = write_study_report(public, tmp_path / "public")[0].read_text()
    assert page.count("NO PRIVACY") == 2 and "unbounded" in page and "nobody" in page
