"""What a test asks of an approval store."""

from __future__ import annotations

from datasites.review.approvals import ApprovalStore
from privacy.errors import InvalidInput


def is_approved(store: ApprovalStore, proposal_hash: str) -> bool:
    """Return whether the proposal is known, approved and not revoked."""
    try:
        return store.request(proposal_hash).state == "approved"
    except InvalidInput:
        return False
