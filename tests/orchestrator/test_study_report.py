from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from datasites.contract import (
    Approval,
    Block,
    Custody,
    DatasetReference,
    Environment,
    Participant,
    Party,
    Plan,
    Proposal,
    ReviewerSignature,
    Training,
    dump,
)
from models.config import ModelConfig
from orchestrator.study_report import study_facts, study_schema, write_study_report
from privacy.encryption_parameters import EncryptionParameters
from privacy.errors import InvalidInput
from privacy.mechanism import LossRelease, Mechanism

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "study-report.schema.json"
NAMES = ("alba", "bruna", "corva", "dora")
KEY = "ab" * 32


def proposal(**changes: Any) -> Proposal:
    fields: dict[str, Any] = {
        "study": "pilot",
        "purpose": "Tell early from late stages <b>of cancer</b>.",
        "legal_basis": "DPIA 2026-017",
        "custody": Custody(downloaders=("dr-lang",), licence="research", retention_days=90),
        "plan": Plan(kind="declarative", code={"plan.toml": "1" * 64}),
        "task": "early-late",
        "model": ModelConfig(architecture="linear", features={"mrna": 6}, cohorts=("LUSC",), classes=2),
        "training": Training(
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=0.0,
            update_bound=1.0,
            server_optimizer="sgd",
            server_learning_rate=1.0,
            aggregation="fedavg",
        ),
        "mechanism": Mechanism(
            max_grad_norm=1.0,
            noise_multiplier=2.0,
            sampling_rate=0.2,
            steps_per_round=2,
            rounds=6,
            target_delta=1e-4,
            losses=LossRelease(every_rounds=2, bound=2.0, noise_multiplier=20.0),
        ),
        "noise": "local",
        "rounds": 6,
        "min_sites": 3,
        "colluders": 1,
        "blocks": (Block(name="mrna", modality="mrna", length=12, parameters=("weight",)),),
        "encryption": EncryptionParameters(
            poly_modulus_degree=4096, coeff_mod_bits=(60, 49), scale_bits=18, sites=8, levels=63, fields_per_slot=2
        ),
        "deadline_seconds": 60,
        "participants": tuple(
            Participant(
                name=name,
                institution=f"Hospital {name.title()}",
                public_key=KEY,
                modalities=("mrna",),
                cohort="LUSC",
                dataset=DatasetReference(
                    name=f"{name}-lung",
                    version=1,
                    fingerprint="2" * 64,
                    schema_hash="3" * 64,
                    patients=150 + 10 * index,
                ),
            )
            for index, name in enumerate(NAMES)
        ),
        "orchestrator": Party(name="dr-lang", institution="University", public_key=KEY),
        "keyholder": Party(name="notary", institution="Notary office", public_key=KEY),
        "environment": Environment(lock_hash="4" * 64, code_hash="5" * 64, packages={"torch": "2.13.0"}),
        "seed": None,
        "created": "2026-03-01T12:00:00+00:00",
        "expires": "2026-04-01T12:00:00+00:00",
        "nonce": "0" * 32,
    }
    return Proposal(**{**fields, **changes})


def checkpoint(number: int) -> dict[str, Any]:
    here = [name for name in NAMES if not (name == "dora" and number == 3)]
    losses = {name: {"loss.training.fused": 90.0 - 5 * number} for name in here} if number % 2 == 0 else {}
    return {
        "model_hash": f"{number:064x}",
        "sites": here,
        "uplink_bytes": 250_000 * len(here),
        "seconds": 2.5,
        "releases": losses,
        "weights": {"mrna": {name: 1.0 - 0.1 * index for index, name in enumerate(NAMES)}},
    }


def status(study: Proposal, rounds: int = 6) -> dict[str, Any]:
    signature = ReviewerSignature(reviewer="anna", role="steward", public_key=KEY, signature="x")
    approvals = {
        name: {
            "payload": dump(
                Approval(
                    study="pilot",
                    proposal_hash=study.proposal_hash,
                    site=name,
                    reviewers=(signature,),
                    approved="2026-03-02T10:00:00+00:00",
                    expires="2026-04-01T12:00:00+00:00",
                )
            )
        }
        for name in NAMES
    }
    return {
        "study": "pilot",
        "state": "finished",
        "reason": "",
        "rounds": 6,
        "rounds_completed": rounds,
        "proposal": {"payload": dump(study)},
        "approvals": approvals,
        "checkpoints": [checkpoint(n) for n in range(1, rounds + 1)],
        "refusals": {"3": {"dora": {"payload": {"reason": "the approval was revoked"}}}},
    }


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
    for text in ("0.701", "Hospital Dora", "Missing in round 3", "the approval was revoked", "outside the protocol"):
        assert text in page
    assert "<b>of cancer</b>" not in page
    assert not re.search(r"""<script|(?:src|href)=["']?(?:https?:)?//""", page)
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
