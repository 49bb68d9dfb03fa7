"""What everybody in a study is shown of a round that is over, so that each computes the next model alone."""

from __future__ import annotations

from typing import Any

from datasites.study.chain import RoundEvidence
from datasites.study.messages import LostRound
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, parse, seal
from orchestrator.rounds.decryption import SERVED
from orchestrator.rounds.helping import OPENING, PADS
from orchestrator.rounds.store import Store
from privacy.encryption.shares import MISSING_PART
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity


def evidence_of(store: Store, identity: Identity, proposal: Proposal, number: int) -> RoundEvidence:
    """Return what was signed about a round: plan, list and result, or that it is lost.

    Raises:
        InvalidInput: the round is not over.
    """
    study = proposal.study
    checkpoint = store.document(study, number, "checkpoint")
    if checkpoint is None:
        raise InvalidInput(f"round {number} of {study!r} is not over; ask again when the next one is planned")
    if checkpoint.get("lost"):
        reason = str(checkpoint["lost"])[:500]
        lost = LostRound(study=study, proposal_hash=proposal.proposal_hash, round=number, reason=reason)
        return RoundEvidence(lost=seal(identity, "round-lost", lost))
    closing = int((store.document(study, number, SERVED) or {"closing": 0})["closing"])
    found = {
        "plan": store.document(study, number, "plan"),
        "commitments": store.document(study, number, "commitments", closing=closing),
        "result": store.document(study, number, "result", author=proposal.keyholder.name),
    }
    documents: dict[str, Any] = {
        kind: parse(Signed, document) for kind, document in found.items() if document is not None
    }
    return RoundEvidence(**documents, **_opened(store, proposal, number, closing))


def _opened(store: Store, proposal: Proposal, number: int, closing: int) -> dict[str, Any]:
    """Return what everybody recomputes a published round's sum from, besides its plan, list and result."""
    if not proposal.published:
        return {}
    study, keyholder = proposal.study, proposal.keyholder.name

    def signed(kind: str, closing: int | None = None) -> dict[str, Signed]:
        found = store.documents(study, number, kind, closing=closing)
        return {author: parse(Signed, document) for author, document in sorted(found.items())}

    return {
        "key": signed("key").get(keyholder),
        "opening": signed(OPENING).get(keyholder),
        "helped": tuple(signed(PADS).values()),
        "attestations": tuple(signed("attestation", closing).values()),
    }


def opened_blob(store: Store, proposal: Proposal, number: int, what: str) -> str:
    """Return the hash of the sum of a published round, its opening, a helper's pad sums or its public key.

    Raises:
        Refused: the study publishes nothing.
        InvalidInput: the round is not answered.
    """
    if not proposal.published:
        raise Refused(f"study {proposal.study!r} publishes nothing of its rounds")
    result = store.document(proposal.study, number, "result", author=proposal.keyholder.name)
    opening = store.document(proposal.study, number, OPENING, author=proposal.keyholder.name)
    answers = list(store.documents(proposal.study, number, PADS).values())
    if result is None or opening is None or not answers:
        raise InvalidInput(f"round {number} of {proposal.study!r} is not answered")
    found = {
        "sum": result["payload"]["sum_hash"],
        "opening": opening["payload"]["body_hash"],
        "key": store.documents(proposal.study, number, "key")[proposal.keyholder.name]["payload"]["key_hash"],
        "pads": answers[0]["payload"]["parts"][str(MISSING_PART)],
    }
    return str(found[what])


def integers_of(store: Store, proposal: Proposal, number: int) -> str:
    """Return the hash of the integers that the keyholder decrypted in a round.

    Raises:
        InvalidInput: it answered no sum of that round.
    """
    result = store.document(proposal.study, number, "result", author=proposal.keyholder.name)
    if result is None:
        raise InvalidInput(f"round {number} of {proposal.study!r} has no sum")
    return str(result["payload"]["integers_hash"])


def require_participant(proposal: Proposal, public_key: str) -> None:
    """Check that whoever asks takes part in the study as one of its hospitals.

    Raises:
        Refused: they do not.
    """
    if all(participant.public_key != public_key for participant in proposal.participants):
        raise Refused(f"you take no part in study {proposal.study!r}")
