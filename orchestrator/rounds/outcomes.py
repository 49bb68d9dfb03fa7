"""How a study stops before its last round, and why, in words for people."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from datasites.study.proposal import Proposal
from orchestrator.rounds.store import Store
from orchestrator.rounds.thread import unaccepted, withdrawn_sites
from privacy.errors import TesseraError


class StudyPaused(TesseraError):
    """A study cannot go on by itself; people read the reason and decide."""


class StudyExpired(TesseraError):
    """The proposal expired before everybody had approved it."""


def too_few(store: Store, proposal: Proposal, number: int, sites: Collection[str]) -> StudyPaused:
    """Return why round ``number`` cannot go on with the updates of ``sites``; it names who revoked or was dropped."""
    gone = "".join(f"; {sentence}" for sentence in withdrawn_sites(store, proposal.study).values())
    return StudyPaused(
        f"round {number}: expected updates of at least {proposal.min_sites} institutions per block, got those of "
        f"{len(sites)} sites; bring the missing sites back and resume the study{gone}"
    )


def missing_approvals(store: Store, proposal: Proposal) -> set[str]:
    """Return the hospitals that have not approved, or whose conditions the scientist has not accepted."""
    expected = {p.name for p in proposal.participants}
    return (expected - set(store.documents(proposal.study, 0, "approval"))) | unaccepted(store, proposal.study)


def lost_checkpoint(
    model_hash: str, moments_hash: str, uplink_bytes: int, *, reason: str, without: Collection[str]
) -> dict[str, Any]:
    """Return the checkpoint of a round without a sum: the model and the optimizer stay as they were."""
    return {
        "model_hash": model_hash,
        "moments_hash": moments_hash,
        "sites": [],
        "uplink_bytes": uplink_bytes,
        "releases": {},
        "weights": {},
        "seconds": 0.0,
        "lost": reason,
        "without": sorted(without),
    }
