"""What a ledger charged."""

from __future__ import annotations

from privacy.ledger.ledger import Ledger


def is_charged(ledger: Ledger, proposal_hash: str, round_number: int) -> bool:
    """Tell whether a round was charged."""
    studies = [study for population in ledger.populations() for study in ledger.account(population).studies]
    return any(s.proposal_hash == proposal_hash and round_number in s.charged_rounds for s in studies)
