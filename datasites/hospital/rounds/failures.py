"""What follows when a worker fails on private records: people hear of it, and the next charge waits for them.

The round itself looks like any other from outside: the hospital sends noise at the usual time. Then the scientist reads
that a round failed here, not why, and no further round of the study is charged before a person of the hospital has let
it go on. A second failed round ends the study here.
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass

from datasites.review.approvals import ApprovalStore
from datasites.review.endings import FAILED, FAILURES_UNTIL_END, failed_rounds, held_rounds
from datasites.study.messages import RoundPlan
from datasites.study.recomputed.released_numbers import checked_numbers
from datasites.training.encoding import checked_update
from datasites.worker.job import TrainingJob, TrainingResult
from privacy.errors import InvalidInput, Refused
from privacy.ledger.journal import Journal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Failures:
    """The failed rounds of one hospital, as its journal has them."""

    journal: Journal
    approvals: ApprovalStore

    def note(self, plan: RoundPlan) -> None:
        """Write down that the worker failed in a round that is charged; its log is kept beside."""
        self.journal.append(FAILED, {"study": plan.study, "round": plan.round})
        _log.error(
            "round %d of %s is charged and sends only noise: the worker failed; its log is in the folder worker-logs. "
            "No further round is charged before a person lets the study go on (the portal's page of studies, or "
            "`tessera datasite continue`)",
            plan.round,
            plan.study,
        )

    def tell(self, plan: RoundPlan) -> None:
        """Tell the scientist, once the update of the failed round left at its usual time."""
        if plan.round in failed_rounds(self.journal, plan.study):
            self.approvals.thread.say_failed(plan.proposal_hash, plan.round, now=dt.datetime.now(dt.UTC))

    def require_none(self, plan: RoundPlan) -> None:
        """Check that no earlier failure stands in the way of charging a round.

        Raises:
            Refused: two rounds have failed, or nobody has looked at the one that did.
        """
        failed = [n for n in failed_rounds(self.journal, plan.study) if n != plan.round]  # a restart repeats its round
        if len(failed) >= FAILURES_UNTIL_END:
            raise Refused("the study has ended at this site; its people find the reason in their journal")
        for number in failed:
            self.approvals.thread.say_failed(plan.proposal_hash, number, now=dt.datetime.now(dt.UTC))
        held = [n for n in held_rounds(self.journal, plan.study) if n != plan.round]
        if held:
            raise Refused(
                f"round {held[0]} failed at this site, so no further round is charged before a person there lets the "
                "study go on"
            )


def usable(job: TrainingJob, site: str, result: TrainingResult | None) -> TrainingResult | None:
    """Return the worker's result, or None where its round cannot send it: after the charge nothing refuses."""
    if result is None:
        return None
    try:
        checked_numbers(job.proposal, site, job.plan.round, result.releases)
        for block in job.proposal.blocks_of(site):
            values = checked_update(result.updates[block.name], block.length)
            job.proposal.noise_mode.check_vector(job.proposal, values)
    except (InvalidInput, Refused, KeyError):
        return None
    return result
