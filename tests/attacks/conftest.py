"""One consortium whose orchestrator lies, and one round of it per test; one datasite with its people."""

from support.helped import helped, helped_consortium
from support.liar import consortium, stage
from support.passing_time import let_pass, without_the_gone
from support.review_desk import desk, new_context, new_desk, new_proposal, now

__all__ = [
    "consortium",
    "desk",
    "helped",
    "helped_consortium",
    "let_pass",
    "new_context",
    "new_desk",
    "new_proposal",
    "now",
    "stage",
    "without_the_gone",
]
