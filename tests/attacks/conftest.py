"""One consortium whose orchestrator lies, and one round of it per test; and one datasite with its people."""

from support.liar import consortium, stage
from support.review_desk import desk, new_context, new_desk, new_proposal, now

__all__ = ["consortium", "desk", "new_context", "new_desk", "new_proposal", "now", "stage"]
