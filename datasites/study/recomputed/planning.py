"""What the next round's plan says about weights and scales, from what everybody has released so far.

Blending (``dgb``): losses released in round r, with noise and charged, become scales from round r + 1 on. Proximity
(``pcw``): a site compares its update of round r with the others' once the model after r is public, says so with its
update of round r + 1, and its weight follows in round r + 2. A round's weights are fixed in its plan, before anything
is encrypted, and are never changed afterwards. The rules themselves are in :mod:`datasites.strategy`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from datasites.strategy.blending import BlendingState, Evaluation
from datasites.strategy.weights import WeightRule
from datasites.study.proposal import Proposal
from datasites.study.recomputed.released_numbers import PROXIMITY, VALIDATION, releases_proximity
from privacy.errors import InvalidInput

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
    finished: int = field(default=0, init=False)
    proximities: Mapping[str, float] = field(default_factory=dict, init=False)
    _blending: BlendingState = field(default_factory=BlendingState, init=False)
    _sites: tuple[str, ...] = field(default=(), init=False)

    def observe(self, finished: FinishedRound) -> None:
        """Take one more finished round into account; who was in no sum of the round before has no proximity to it."""
        strategy = self.proposal.strategy
        if releases_proximity(self.proposal, finished.number):
            said = {s: r[PROXIMITY] for s, r in finished.releases.items() if s in self._sites and PROXIMITY in r}
            self.proximities = strategy.weights.observe(self.proximities, said, finished.number - 1)
        blends = strategy.blending.reads_losses and self.proposal.mechanism.releases_losses(finished.number)
        if blends and finished.releases:
            evaluation = released_evaluation(self.proposal, finished.releases)
            self._blending = strategy.blending.observe(self._blending, evaluation)
        self.finished, self._sites = finished.number, finished.sites

    def weights(self) -> dict[str, dict[str, float]]:
        """Return the next round's weights by block and site, within the bounds that sites and keyholder enforce."""
        return weights_by(self.proposal.strategy.weights, self.proposal, self.proximities)

    def scales(self) -> dict[str, float]:
        """Return the next round's blending scale of every exchanged block, in (0, 1], the largest 1."""
        blocks = self.proposal.exchanged_blocks()
        modalities = [b.modality for b in blocks if b.modality is not None]
        if not modalities:
            return {b.name: 1.0 for b in blocks}
        found = self.proposal.strategy.blending.scales(self._blending, modalities)
        largest = max(found.values())
        relative = {m: round(value / largest, _DECIMALS) for m, value in found.items()}
        return {b.name: 1.0 if b.modality is None else relative[b.modality] for b in blocks}


def weights_by(rule: WeightRule, proposal: Proposal, known: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return weights by block and site: the rule's, within the bounds of the study's noise.

    Args:
        rule: gives raw weights.
        proposal: with released patient counts.
        known: what the rule has observed of the sites.
    """
    result = {}
    for block in proposal.exchanged_blocks():
        holders = [proposal.participant(name) for name in proposal.contributors(block)]
        counts = {p.name: float(max(1, p.dataset.patients)) for p in holders}
        raw = rule.raw(counts, known, {p.name: p.cohort for p in holders})
        result[block.name] = proposal.noise_mode.weights(raw, min_sites=proposal.min_sites)
    return result


def released_evaluation(proposal: Proposal, releases: Mapping[str, Mapping[str, float]]) -> Evaluation:
    """Return mean losses by combination from the noised sums that the sites released: sums over sums of patients.

    Args:
        proposal: with a loss release; its patient counts are released ones.
        releases: by site, the numbers of one round (see :mod:`datasites.study.recomputed.released_numbers`).

    Raises:
        InvalidInput: the study releases no losses.
    """
    if proposal.mechanism.losses is None:
        raise InvalidInput("expected a study that releases losses")
    bound = proposal.mechanism.losses.bound
    sums: dict[str, dict[str, float]] = {"training": {}, "validation": {}}
    patients: dict[str, float] = {}
    for site in sorted(releases):
        for name, value in releases[site].items():
            if name.startswith("loss."):
                _, side, term = name.split(".")
                sums[side][term] = sums[side].get(term, 0.0) + value
                if side == "training":
                    patients[term] = patients.get(term, 0.0) + max(1, proposal.participant(site).dataset.patients)
    shares = {"training": 1.0 - VALIDATION, "validation": VALIDATION}
    means = {
        side: {term: min(bound, max(0.0, total / (shares[side] * patients[term]))) for term, total in by_term.items()}
        for side, by_term in sums.items()
    }
    return Evaluation(
        train=means["training"], validation=means["validation"], noise=_noise(proposal, releases, patients)
    )


def _noise(proposal: Proposal, releases: Mapping[str, Mapping[str, float]], patients: Mapping[str, float]) -> float:
    """Return the largest deviation of the noise in a mean validation loss of one modality; public facts only."""
    losses = proposal.mechanism.losses
    if losses is None:
        return 0.0
    found = [0.0]
    for term, count in patients.items():
        sites = sum(f"loss.validation.{term}" in numbers for numbers in releases.values())
        if "+" not in term:
            found.append(losses.noise_multiplier * losses.sensitivity * math.sqrt(sites) / (VALIDATION * count))
    return max(found)
