"""Which keyed stream each random step of a round reads, at a hospital and in a simulation alike.

The streams of a real study hang on the site's secret and on everything that names the round: study, number, plan hash
and dataset fingerprint. A study with a public seed has no privacy to protect and has to repeat instead, from one
consortium to the next and in :mod:`orchestrator.simulation.engine`: its streams hang on seed, site, study and round
alone, since keys, nonces and fingerprints differ from run to run.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any

from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from privacy.canonical import canonical_json, sha256_hex
from privacy.dp.randomness import Randomness

_PUBLIC = "public seed"


def noise_secret(proposal: Proposal, site: str, own: Callable[[], bytes]) -> bytes:
    """Return the site's own noise secret, or, for a public seed, one that anybody can derive (no privacy).

    Args:
        proposal: the study's.
        site: whose secret.
        own: gives the site's long-lived secret; not called for a public seed.
    """
    return own() if proposal.seed is None else public_secret(proposal.seed, site)


def public_secret(seed: int, site: str) -> bytes:
    """Return what stands in for the secret of ``site`` in a study with a public seed: **no privacy**."""
    return bytes.fromhex(sha256_hex(f"public-seed/{seed}/{site}".encode()))


def daemon_stream(proposal: Proposal, plan: RoundPlan, site: str, secret: bytes) -> Randomness:
    """Return the stream of what the daemon draws in a round: rounding, and the noise of a failed worker."""
    return _stream(proposal, plan, site, secret)


def worker_seed(proposal: Proposal, plan: RoundPlan, site: str, secret: bytes, *, begins_with: bytes = b"") -> str:
    """Return the 32 secret bytes (hexadecimal) that a worker gets for one round, and for no other.

    Args:
        proposal: the study's.
        plan: the round's.
        site: whose worker.
        secret: of the site, or of the public seed.
        begins_with: the model that training begins with. The plan binds what everybody has of it. A site's own
            parameters may differ if the round is run again after a restore; then it must draw other noise, since the
            same noise on two sums would fall out of their difference.
    """
    plan_hash, fingerprint = _context(proposal, plan, site)
    facts = {"study": plan.study, "round": plan.round, "plan": plan_hash, "dataset": fingerprint}
    if begins_with and proposal.seed is None:
        facts["model"] = sha256_hex(begins_with)
    return derive(secret, "round", facts)


def worker_stream(proposal: Proposal, plan: RoundPlan, site: str, seed: str) -> Randomness:
    """Return the worker's stream from what :func:`worker_seed` gave it."""
    return _stream(proposal, plan, site, bytes.fromhex(seed))


def membership_secret(secret: bytes, dataset: str) -> str:
    """Return the secret bytes (hexadecimal) that split the records of ``dataset``; the same in every round."""
    return derive(secret, "membership", {"dataset": dataset})


def _stream(proposal: Proposal, plan: RoundPlan, site: str, secret: bytes) -> Randomness:
    plan_hash, fingerprint = _context(proposal, plan, site)
    return Randomness(secret, study=plan.study, round=plan.round, plan_hash=plan_hash, dataset_fingerprint=fingerprint)


def _context(proposal: Proposal, plan: RoundPlan, site: str) -> tuple[str, str]:
    if proposal.seed is not None:
        return _PUBLIC, _PUBLIC
    return plan.plan_hash, proposal.participant(site).dataset.fingerprint


def derive(secret: bytes, label: str, facts: Mapping[str, Any]) -> str:
    """Return 32 secret bytes (hexadecimal) bound to ``label`` and ``facts``, from the site's long-lived secret.

    The worker gets only these, so that code of one round learns nothing about the noise of another.
    """
    return hmac.digest(
        secret, b"tessera/v1/worker/" + label.encode() + b"\0" + canonical_json(facts, 1), "sha256"
    ).hex()
