"""One sum per round for the keyholder, and what its answer must be.

The keyholder holds the round's secret key: of two sums that differ in one site it would know that site's update. So a
sum is readable for it only once its list is complete and attested by everybody in it, and from then on the round knows
no other list: what was served is written down first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasites.study.messages import Attestation, Commitments, LostRound, SumResult
from datasites.study.proposal import Proposal
from datasites.study.recomputed.chain import RoundEvidence, checked_totals
from datasites.study.signing import Signed, parse, seal
from orchestrator.rounds.helping import OPENING, PADS, chosen_commitments
from orchestrator.rounds.store import Store
from privacy.encryption.shares import MISSING_PART
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity

SERVED = "served"
"""Kind of the document that names a round's one served sum."""


def serve(store: Store, commitments: Commitments) -> None:
    """Write down which sum of a round the keyholder may read; another one is never served afterwards.

    Raises:
        InvalidInput: another sum of this round was served before.
    """
    known = served(store, commitments.study, commitments.round)
    if known not in (None, commitments.sum_hash):
        raise InvalidInput(f"round {commitments.round} has another sum before the keyholder; one sum per round")
    if known is None:
        document = {"sum_hash": commitments.sum_hash, "closing": commitments.closing}
        store.put_document(commitments.study, commitments.round, SERVED, document)


def served(store: Store, study: str, number: int) -> str | None:
    """Return the hash of the one sum that the keyholder may read in a round, or None before there is one."""
    document = store.document(study, number, SERVED)
    return None if document is None else str(document["sum_hash"])


def closing_of(store: Store, study: str, number: int, list_hash: str) -> int:
    """Return which list of a round has this hash.

    Raises:
        Refused: none has.
    """
    closing = 1
    while (listed := store.opened(Commitments, study, number, "commitments", closing=closing)) is not None:
        if listed.list_hash == list_hash:
            return closing
        closing += 1
    raise Refused(f"round {number}: there is no list with this hash; fetch the current one")


def check_bound(store: Store, attestation: Attestation, place: tuple[str, int, str], closing: int) -> None:
    """Check that a site signs what everybody compares a signature with: else all of them refuse and nobody is named.

    Args:
        store: where the lists are kept.
        attestation: what the site signed.
        place: the study, the round and the site that it came from.
        closing: which list of the round it is under.

    Raises:
        InvalidInput: it names another study, round, site, plan or sum.
    """
    if (attestation.study, attestation.round, attestation.site) != place:
        raise InvalidInput("the attestation names another study, round or site than its address")
    study, number, site = place
    listed = store.opened(Commitments, study, number, "commitments", closing=closing)
    if listed is None or (attestation.plan_hash, attestation.sum_hash) != (listed.plan_hash, listed.sum_hash):
        raise InvalidInput(f"{site} attested another plan or sum than those of the list")


def excluded_sites(store: Store, study: str) -> frozenset[str]:
    """Return the sites whose updates the keyholder could not use in an earlier round."""
    past = (store.document(study, n, "checkpoint") for n in range(1, store.last_round(study, "checkpoint") + 1))
    return frozenset(str(site) for checkpoint in past for site in (checkpoint or {}).get("without", ()))


def check_answer(store: Store, proposal: Proposal, result: SumResult, integers: bytes) -> None:
    """Check the keyholder's answer before it is kept: of the served sum, and one that its contributors can reach.

    Raises:
        InvalidInput: another sum, other blocks or lengths, no integers, or values beyond all contributors together.
    """
    if result.sum_hash != served(store, proposal.study, result.round):
        raise InvalidInput("the result is of another sum than the one that was served in this round")
    checked_totals(proposal, integers, result.integers_hash, _sites_of(store, proposal.study, result.round))


def _sites_of(store: Store, study: str, number: int) -> set[str]:
    document = store.document(study, number, SERVED)
    closing = int(document["closing"]) if document else 0
    listed = store.opened(Commitments, study, number, "commitments", closing=closing)
    return {str(update.payload["site"]) for update in listed.updates} if listed else set()


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
        "pad_commitments": tuple(chosen_commitments(store, study, number, closing).values()),
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


def files_of(store: Store, proposal: Proposal, number: int) -> dict[str, Path]:
    """Return where the files lie that a finished round is recomputed from, by name; none of a lost round.

    The public key is not among them: whoever encrypted under it has it.

    Raises:
        InvalidInput: a file is not kept any more.
    """
    checkpoint = store.document(proposal.study, number, "checkpoint") or {}
    if checkpoint.get("lost"):
        return {}
    if not proposal.published:
        return {"integers": store.blob_path(integers_of(store, proposal, number))}
    names = ("opening", "pads", "sum")
    return {name: store.blob_path(opened_blob(store, proposal, number, name)) for name in names}


def require_round(proposal: Proposal, number: int) -> None:
    """Check that a study has a round of this number.

    Raises:
        InvalidInput: it has not.
    """
    if not 1 <= number <= proposal.rounds:
        raise InvalidInput(f"expected a round between 1 and {proposal.rounds}, got {number}")


def require_participant(proposal: Proposal, public_key: str) -> None:
    """Check that whoever asks takes part in the study as one of its hospitals.

    Raises:
        Refused: they do not.
    """
    if all(participant.public_key != public_key for participant in proposal.participants):
        raise Refused(f"you take no part in study {proposal.study!r}")
