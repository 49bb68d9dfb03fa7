"""One sum per round for the keyholder, and what its answer must be.

The keyholder holds the round's secret key: of two sums that differ in one site it would know that site's update. So a
sum is readable for it only once its list is complete and attested by everybody in it, and from then on the round knows
no other list: what was served is written down first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from datasites.study.messages import Commitments, SumResult
from datasites.study.next_model import model_from_bytes
from datasites.study.proposal import Proposal
from orchestrator.rounds.store import Store
from privacy.errors import InvalidInput

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
    try:
        totals = model_from_bytes(integers)
    except Exception as error:  # whatever the parser finds wrong
        raise InvalidInput("expected the sum's integers as safetensors") from error
    sites = _sites_of(store, proposal.study, result.round)
    check_totals(proposal, totals, sites)


def check_totals(proposal: Proposal, totals: Mapping[str, np.ndarray], sites: Collection[str]) -> None:
    """Check decrypted sums against the proposal.

    Args:
        proposal: the study's.
        totals: by block, integers [block.length].
        sites: whose updates are in the sums.

    Raises:
        InvalidInput: what is wrong; no value is said.
    """
    blocks = proposal.exchanged_blocks()
    if set(totals) != {block.name for block in blocks}:
        raise InvalidInput("the result has other blocks than the proposal exchanges")
    for block in blocks:
        values = totals[block.name]
        if values.shape != (block.length,) or not np.issubdtype(values.dtype, np.signedinteger):
            raise InvalidInput(f"expected {block.length} signed integers in block {block.name!r} of the result")
        reach = proposal.encryption.levels * len(set(sites) & set(proposal.contributors(block)))
        if int(np.abs(values.astype(np.int64)).max(initial=0)) > reach:
            raise InvalidInput(f"block {block.name!r} of the result is beyond what its contributors can send together")


def _sites_of(store: Store, study: str, number: int) -> set[str]:
    document = store.document(study, number, SERVED)
    closing = int(document["closing"]) if document else 0
    commitments = store.document(study, number, "commitments", closing=closing) or {"payload": {"updates": []}}
    return {str(update["payload"]["site"]) for update in commitments["payload"]["updates"]}
