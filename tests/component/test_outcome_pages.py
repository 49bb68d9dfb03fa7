"""What people read about a study of another outcome: the portal's request, the study report, the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import jsonschema
import pytest
from support.outcome_schemas import SEVEN

from datasites.portal.shown.words import summary
from datasites.study.signing import dump
from orchestrator.demo.view import _estimate, _figures
from orchestrator.rounds.scoring.dp_evaluation import dp_evaluation
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.runs import SimulationRequest, scores_of_round, study_of
from orchestrator.studies.evaluation import PUBLIC_LABEL, headline
from orchestrator.studies.facts import study_facts
from orchestrator.studies.report import write_study_report
from privacy.canonical import sha256_hex

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "study-report.schema.json"
WORDS = {
    "os": (
        "os (survival)",
        ("Brier score at 6 months", "Concordance (mean over cohorts)", "Concordance, b"),
    ),
    "nodes": ("nodes (a count)", ("Mean absolute error, nodes", "Mean deviance")),
    "sub-type (WHO)": ("sub-type (WHO) (classes without an order)", ("AUROC (mean over cohorts)", "AUROC, b")),
}


@pytest.mark.parametrize("outcome", WORDS)
def test_a_study_of_another_outcome_is_told_in_its_own_words(tmp_path: Path, outcome: str) -> None:
    (tmp_path / "seven.toml").write_text(SEVEN, encoding="utf-8")
    request = SimulationRequest(
        data=None, federation="tri-modal", sites=3, task="early-late", methods=("fedavg",), architecture="linear",
        rounds=2, epsilon=8.0, delta=1e-4, noise="local", synthetic_patients=240, evaluation_share=1.0,
        schema=tmp_path / "seven.toml", outcome=outcome,
    )  # fmt: skip
    study = study_of(request, "fedavg", 1)
    name, figures = WORDS[outcome]
    assert f"predicts {name}" in summary(study.proposal, "site-1", None)[0]
    rounds = list(run_study(study.proposal, study.model, Shard(study.proposal, study.sites)))
    metrics = {**asdict(scores_of_round(study, rounds[-1])), "label": PUBLIC_LABEL, "test_patients": 48}
    checkpoints = []
    for done in rounds:
        released = dp_evaluation(study.proposal, done.plan.round, done.finished.releases)
        checkpoints.append(
            {
                "sites": list(done.finished.sites),
                "uplink_bytes": 1000,
                "model_hash": sha256_hex(done.model),
                "evaluation": json.loads(json.dumps(dump(released))) if released else None,
            }
        )
    status = {"proposal": {"payload": dump(study.proposal)}, "state": "finished", "checkpoints": checkpoints}
    curve = [(number, headline(asdict(scores_of_round(study, done)))) for number, done in enumerate(rounds, start=1)]
    facts = study_facts(status, metrics=metrics, curve=curve)
    assert facts.task == name
    assert len(facts.evaluations) == 1
    html, data = write_study_report(facts, tmp_path)
    page = html.read_text()
    for text in (*figures, name):
        assert text in page
    assert ("AUROC" in page) == (outcome == "sub-type (WHO)")
    jsonschema.validate(json.loads(data.read_text()), json.loads(SCHEMA.read_text()))
    told = _estimate({**checkpoints[-1]["evaluation"], "exact": metrics})
    assert _figures(metrics) in told or outcome == "sub-type (WHO)"
    german = study_facts(status, metrics=metrics, curve=curve, language="de")
    assert german.task != facts.task
