"""What is written down when a study begins to run, and when a round is over.

Of a round: the model it left, who was in it, or why it has no sum.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from datasites.study.messages import RoundPlan, UpdateHeader
from datasites.study.parties import parse_time
from datasites.study.proposal import Proposal
from datasites.study.recomputed.centring import CENTRING_ROUND, first_training_round
from datasites.study.recomputed.next_model import Arrays, ServerOptimizer, model_to_bytes, next_model
from datasites.study.recomputed.planning import FinishedRound
from datasites.study.signing import dump
from orchestrator.rounds.board import names
from orchestrator.rounds.scoring.dp_evaluation import dp_evaluation
from orchestrator.rounds.store import Store
from orchestrator.rounds.thread import unaccepted, withdrawn_sites
from privacy.errors import Refused, TesseraError
from privacy.ledger.journal import Journal

STUDY_RUNS = "study-running"
"""Kind of the journal's entries about studies that begin to run, or go on after a pause."""


def study_runs(store: Store, journal: Journal, study: str) -> None:
    """Write down that a study runs from now on; of one that ran when its orchestrator was stopped it is known."""
    if store.study(study)[1] != "running":
        journal.append(STUDY_RUNS, {"study": study})
        store.set_state(study, "running")


NEXT_ROUND = "the round is lost: resume the study for the next one"
"""How the reason of a pause ends where hospitals were started anew in a round and the others were too few."""


def finished_checkpoint(
    store: Store,
    proposal: Proposal,
    plan: RoundPlan,
    headers: Sequence[UpdateHeader],
    model: Mapping[str, np.ndarray],
    moments: Mapping[str, np.ndarray],
    seconds: float,
) -> dict[str, Any]:
    """Keep model and moments as blobs, and return the checkpoint of a round that was answered."""
    releases = {h.site: dict(h.releases) for h in headers}
    evaluation = dp_evaluation(proposal, plan.round, releases)
    return {
        "model_hash": store.put_blob(model_to_bytes(model)),
        "moments_hash": store.put_blob(model_to_bytes(moments)),
        "sites": sorted(h.site for h in headers),
        "uplink_bytes": sum(h.body_bytes for h in headers),
        "releases": releases,
        "evaluation": dump(evaluation) if evaluation else None,
        "weights": {b: dict(w) for b, w in plan.weights.items()},
        "scales": dict(plan.scales),
        "seconds": round(seconds, 3),
    }


def finished_round(store: Store, study: str, number: int) -> FinishedRound:
    """Return what the planner has to see of a round that is over."""
    done = store.document(study, number, "checkpoint") or {}
    sites, releases = tuple(done.get("sites", ())), done.get("releases", {})
    return FinishedRound(number=number, sites=sites, releases=releases)


class StudyPaused(TesseraError):
    """A study cannot go on by itself; people read the reason and decide."""


class StudyExpired(TesseraError):
    """The proposal expired before everybody had approved it, or before its last round: no hospital serves it again."""


def model_after(
    proposal: Proposal,
    plan: RoundPlan,
    optimizer: ServerOptimizer,
    model: Arrays,
    totals: Mapping[str, np.ndarray],
    sites: Collection[str],
) -> Arrays:
    """Return the model after a round (:func:`datasites.study.recomputed.next_model.next_model`).

    Raises:
        StudyPaused: the study's own server's rule gave none.
    """
    try:
        return next_model(proposal, plan, optimizer, model, totals, sorted(sites))
    except Refused as error:
        raise StudyPaused(f"round {plan.round}: {error}") from error


@contextmanager
def in_time(proposal: Proposal, number: int) -> Iterator[None]:
    """Check that the proposal still holds when round ``number`` begins, and when it cannot go on.

    Raises:
        StudyExpired: it does not; every party refuses the round then, and who refused first does not matter.
    """
    _require_time(proposal, number)
    try:
        yield
    except StudyPaused:
        _require_time(proposal, number)
        raise


def _require_time(proposal: Proposal, number: int) -> None:
    if dt.datetime.now(dt.UTC) >= parse_time(proposal.expires):
        raise StudyExpired(
            f"the proposal expired at {proposal.expires} before the end of round {number} of {proposal.rounds}"
        )


def too_few(store: Store, proposal: Proposal, number: int, sites: Collection[str]) -> StudyPaused:
    """Return why round ``number`` cannot go on with the updates of ``sites``; it names who revoked or was dropped."""
    gone = "".join(f"; {sentence}" for sentence in withdrawn_sites(store, proposal.study).values())
    return StudyPaused(
        f"round {number}: expected updates of at least {proposal.min_sites} institutions per block, got those of "
        f"{len(sites)} sites; bring the missing sites back and resume the study{gone}"
    )


def require_centres(store: Store, proposal: Proposal, number: int) -> None:
    """Pause a study after the loss of a round that releases feature means or spreads, where it has one."""
    released = range(CENTRING_ROUND, min(number, first_training_round(proposal)))
    lost = [r for r in released if (store.document(proposal.study, r, "checkpoint") or {}).get("lost")]
    if lost:
        raise StudyPaused(f"round {lost[0]}, which releases feature means, was lost; propose the study again")


def missing_approvals(store: Store, proposal: Proposal) -> str:
    """Return what keeps a study from its first round: hospitals' approvals, and conditions to accept; or nothing."""
    missing = {p.name for p in proposal.participants} - set(store.documents(proposal.study, 0, "approval"))
    conditions = unaccepted(store, proposal.study) - missing
    return "; ".join(
        text
        for text, waits in (
            (f"approval by {names(missing)}", missing),
            (
                f"the scientist to accept the conditions of {names(conditions)} "
                "(tessera study answer --accept-conditions)",
                conditions,
            ),
        )
        if waits
    )


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
