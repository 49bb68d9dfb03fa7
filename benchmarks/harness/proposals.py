"""The one proposal of benchmarks and tests: a small declarative study, of which any field can be replaced."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

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
from models.config import ModelConfig
from privacy.canonical import NEWEST, sha256_hex
from privacy.dp.mechanism import Mechanism
from privacy.encryption.parameters import EncryptionParameters

TRAINING = Training(
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=0.0,
    update_bound=1.0,
    server_optimizer="sgd",
    server_learning_rate=1.0,
    aggregation="fedavg",
)
ENCRYPTION = EncryptionParameters(
    poly_modulus_degree=4096, coeff_mod_bits=(60, 49), scale_bits=18, sites=8, levels=63, fields_per_slot=2
)


def make_dataset(site: str, **changes: Any) -> DatasetReference:
    """Return the reference of a dataset that need not exist."""
    fields: dict[str, Any] = {
        "name": f"{site}-lung",
        "version": 1,
        "fingerprint": sha256_hex(site.encode()),
        "schema_hash": "5" * 64,
        "patients": 180,
    }
    return DatasetReference(**(fields | changes))


def make_participant(
    party: Party, *, modalities: tuple[str, ...] = ("mrna", "clinical"), **dataset: Any
) -> Participant:
    """Return a hospital with its dataset; ``dataset`` are changes to :func:`make_dataset`."""
    return Participant(
        **asdict(party), modalities=modalities, cohort="LUSC", dataset=make_dataset(party.name, **dataset)
    )


def make_mechanism(*, rounds: int = 5, noise: str = "local", **changes: Any) -> Mechanism:
    """Return a mechanism for ``rounds`` rounds; under shared noise a round is one step."""
    fields: dict[str, Any] = {
        "max_grad_norm": 1.0,
        "noise_multiplier": 1.2,
        "sampling_rate": 0.25,
        "steps_per_round": 1 if noise == "shared" else 4,
        "target_delta": 1e-5,
    }
    return Mechanism(rounds=rounds, noise=noise, **(fields | changes))


def make_proposal(
    participants: Sequence[Participant],
    *,
    orchestrator: Party,
    keyholder: Party,
    created: dt.datetime,
    days: int = 30,
    **changes: Any,
) -> Proposal:
    """Return a proposal that is valid for some days; ``changes`` replace its fields."""
    rounds, noise = changes.get("rounds", 5), changes.get("noise", "local")
    fields: dict[str, Any] = {
        "study": "pilot",
        "purpose": "Tell early from late lung cancer from gene expression and clinical facts.",
        "legal_basis": "DPIA 2026-017, GDPR Art. 9(2)(j)",
        "custody": Custody(downloaders=("dr-weber",), licence="research only", retention_days=365),
        "plan": Plan(kind="declarative", code={}),
        "task": "early-late",
        "model": ModelConfig(architecture="linear", features={"mrna": 6, "clinical": 3}, cohorts=("LUSC",), classes=2),
        "training": TRAINING,
        "noise": noise,
        "rounds": rounds,
        "min_sites": 3,
        "colluders": 1,
        "blocks": (Block(name="all", modality=None, length=12, parameters=("weight",)),),
        "encryption": ENCRYPTION,
        "deadline_seconds": 60,
        "canonical": NEWEST,
        "seed": None,
        "expires": (created + dt.timedelta(days=days)).isoformat(),
        "nonce": "0" * 32,
        "protocol": 3,
    }
    if "mechanism" not in changes:
        fields["mechanism"] = make_mechanism(rounds=rounds, noise=noise)
    if "environment" not in changes:
        fields["environment"] = Environment(lock_hash="1" * 64, code_hash="2" * 64, packages={"torch": "2.13.0"})
    people = {"participants": tuple(participants), "orchestrator": orchestrator, "keyholder": keyholder}
    return Proposal(**{**fields, **people, "created": created.isoformat(), **changes})
