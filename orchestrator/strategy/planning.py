"""What the next round's plan says about weights and scales, from what everybody has released so far.

Blending (``dgb``): losses released in round r, with noise and charged, become scales from round r + 1 on. Proximity
(``pcw``): a site compares its update of round r with the others' once the model after r is public, says so with its
update of round r + 1, and its weight follows in round r + 2: a round's weights are fixed in its plan, before anything
is encrypted, and are never changed afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from datasites.study.proposal import Proposal
from datasites.study.released_numbers import PROXIMITY, releases_proximity
from orchestrator.strategy import blending
from orchestrator.strategy.blending import released_evaluation
from orchestrator.strategy.proximity import ProximityRule, accumulate, weighted
from orchestrator.strategy.weights import bounded, fedavg_weights

_DECIMALS = 6


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
    blending_rule: blending.BlendingRule = field(default_factory=blending.BlendingRule)
    proximity_rule: ProximityRule = field(default_factory=ProximityRule)
    finished: int = field(default=0, init=False)
    proximities: dict[str, float] = field(default_factory=dict, init=False)
    _blending: blending.BlendingState = field(default_factory=blending.BlendingState, init=False)
    _sites: tuple[str, ...] = field(default=(), init=False)

    def observe(self, finished: FinishedRound) -> None:
        """Take one more finished round into account; who was in no sum of the round before has no proximity to it."""
        if releases_proximity(self.proposal, finished.number):
            said = {s: r[PROXIMITY] for s, r in finished.releases.items() if s in self._sites and PROXIMITY in r}
            self.proximities = accumulate(self.proximities, said, finished.number - 1, self.proximity_rule)
        if self._blends and self.proposal.mechanism.releases_losses(finished.number) and finished.releases:
            evaluation = released_evaluation(self.proposal, finished.releases)
            self._blending = blending.observe(self._blending, evaluation, self.blending_rule)
        self.finished, self._sites = finished.number, finished.sites

    def weights(self) -> dict[str, dict[str, float]]:
        """Return the next round's weights by block and site, within the bounds that sites and keyholder enforce."""
        plain = fedavg_weights(self.proposal)
        if not self.proximities:
            return plain
        return {name: self._turned_down(tuple(sites)) for name, sites in plain.items()}

    def scales(self) -> dict[str, float]:
        """Return the next round's blending scale of every exchanged block, in (0, 1], the largest 1."""
        blocks = self.proposal.exchanged_blocks()
        modalities = [b.modality for b in blocks if b.modality is not None]
        if not self._blends or not modalities:
            return {b.name: 1.0 for b in blocks}
        found = blending.scales(self._blending, modalities, self.blending_rule)
        largest = max(found.values())
        relative = {m: round(value / largest, _DECIMALS) for m, value in found.items()}
        return {b.name: 1.0 if b.modality is None else relative[b.modality] for b in blocks}

    @property
    def _blends(self) -> bool:
        return "dgb" in self.proposal.training.aggregation

    def _turned_down(self, sites: tuple[str, ...]) -> dict[str, float]:
        counts = {s: float(max(1, self.proposal.participant(s).dataset.patients)) for s in sites}
        cohorts = {s: self.proposal.participant(s).cohort for s in sites}
        raw = weighted(counts, self.proximities, cohorts, self.proximity_rule)
        return bounded(raw, min_sites=self.proposal.min_sites)
