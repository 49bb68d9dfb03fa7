"""A small study of four hospitals after some rounds, as the orchestrator knows it."""

from __future__ import annotations

from typing import Any

from datasites.study.messages import Approval, ReviewerSignature
from datasites.study.proposal import (
    Block,
    Custody,
    DatasetReference,
    Environment,
    Participant,
    Party,
    Plan,
    Proposal,
    Training,
)
from datasites.study.signing import dump
from models.config import ModelConfig
from privacy.dp.mechanism import LossRelease, Mechanism
from privacy.encryption.parameters import EncryptionParameters

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
