"""A proposal and the desk it is reviewed at."""

from support.review_desk import desk, new_context, new_desk, new_proposal, now

__all__ = ["desk", "new_context", "new_desk", "new_proposal", "now"]
