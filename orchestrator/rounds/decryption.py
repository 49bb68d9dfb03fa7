"""One sum per round for the keyholder, and what its answer must be.

The keyholder holds the round's secret key: of two sums that differ in one site it would know that site's update. So a
sum is readable for it only once its list is complete and attested by everybody in it, and from then on the round knows
no other list: what was served is written down first.
"""

from __future__ import annotations

from datasites.study.chain import checked_totals
from datasites.study.messages import Commitments, SumResult
from datasites.study.proposal import Proposal
from datasites.study.signing import parse
from orchestrator.rounds.store import Store
from privacy.errors import InvalidInput, Refused

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
    while (document := store.document(study, number, "commitments", closing=closing)) is not None:
        if parse(Commitments, document["payload"]).list_hash == list_hash:
            return closing
        closing += 1
    raise Refused(f"round {number}: there is no list with this hash; fetch the current one")


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
    commitments = store.document(study, number, "commitments", closing=closing) or {"payload": {"updates": []}}
    return {str(update["payload"]["site"]) for update in commitments["payload"]["updates"]}
