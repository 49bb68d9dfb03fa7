"""Which earlier request a request is compared with, so that people read only what changed."""

from __future__ import annotations

from datasites.review.approvals import ApprovalStore
from datasites.review.records import Request


def version_before(approvals: ApprovalStore, proposal_hash: str) -> Request | None:
    """Return the version that a request replaces, or else what was approved last here, same study first."""
    proposal, others = approvals.request(proposal_hash).proposal, approvals.requests()
    replaced = [r for r in others if r.proposal_hash == proposal.replaces]
    approved = [r for r in others if r.approval is not None and r.proposal_hash != proposal_hash]
    same = [r for r in approved if r.proposal.study == proposal.study]
    return next(iter(replaced or same or approved), None)
