"""A small study of four hospitals after some rounds, as the orchestrator knows it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from harness.proposals import make_mechanism, make_participant, make_proposal

from datasites.study.messages import Approval, ReviewerSignature
from datasites.study.proposal import Block, Custody, Party, Plan, Proposal
from datasites.study.signing import dump
from models.config import ModelConfig
from privacy.dp.mechanism import LossRelease

NAMES = ("alba", "bruna", "corva", "dora")
KEY = "ab" * 32


def proposal(**changes: Any) -> Proposal:
    hospitals = [Party(name=name, institution=f"Hospital {name.title()}", public_key=KEY) for name in NAMES]
    fields: dict[str, Any] = {
        "participants": tuple(
            make_participant(hospital, modalities=("mrna",), patients=150 + 10 * index)
            for index, hospital in enumerate(hospitals)
        ),
        "orchestrator": Party(name="dr-lang", institution="University", public_key=KEY),
        "keyholder": Party(name="notary", institution="Notary office", public_key=KEY),
        "purpose": "Tell early from late stages <b>of cancer</b>.",
        "custody": Custody(downloaders=("dr-lang",), licence="research", retention_days=90),
        "plan": Plan(kind="declarative", code={"plan.toml": "1" * 64}),
        "model": ModelConfig(architecture="linear", features={"mrna": 6}, cohorts=("LUSC",), classes=2),
        "mechanism": make_mechanism(
            rounds=6,
            noise_multiplier=2.0,
            sampling_rate=0.2,
            steps_per_round=2,
            target_delta=1e-4,
            losses=LossRelease(every_rounds=2, bound=2.0, noise_multiplier=20.0),
        ),
        "rounds": 6,
        "blocks": (Block(name="mrna", modality="mrna", length=12, parameters=("weight",)),),
        "created": dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC),
    }
    return make_proposal(**(fields | changes))


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
