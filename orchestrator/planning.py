"""What the next round's plan says about weights and scales, from what everybody has released so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from datasites.contract import Proposal
from orchestrator.weights import fedavg_weights


@dataclass(frozen=True, kw_only=True)
class FinishedRound:
    """One round as the public knows it: who was in the sum, and the numbers every site released with its update."""

    number: int
    sites: tuple[str, ...]
    releases: Mapping[str, Mapping[str, float]]


@dataclass
class Planner:
    """Plans weights and scales round after round; the same rounds give the same plans, live, restarted or simulated."""

    proposal: Proposal
    finished: int = field(default=0, init=False)

    def observe(self, finished: FinishedRound) -> None:
        """Take one more finished round into account."""
        self.finished = finished.number

    def weights(self) -> dict[str, dict[str, float]]:
        """Return the next round's weights by block and site, within the bounds that sites and keyholder enforce."""
        return fedavg_weights(self.proposal)

    def scales(self) -> dict[str, float]:
        """Return the next round's blending scale of every exchanged block, in (0, 1]."""
        return {b.name: 1.0 for b in self.proposal.exchanged_blocks()}
