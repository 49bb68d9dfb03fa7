"""Proximity-aware client weighting: sites whose updates contradict everybody else's count less.

The published weight compares a site's update with the global one, which contains it::

    prox_k = <update_k, global update>

Ours changes six things, each for a reason seen on the TCGA federations (docs/results.md has the numbers):

* **leave-one-out**: the site takes its own weighted update out of the public mean first; the published rule rewards
  whoever dominates the average;
* only the angle counts, so an inflated norm gains nothing; and one angle over all modality blocks of the site, so
  that a long block counts as much as it moves the model, not as much as a short one;
* cosines are averaged over the rounds ``first`` to ``last``: one round's cosine is mostly chance. The very first
  round is left out, since it mainly says how common each stage is at a site, and another stage mix is not bad data;
  later rounds are, since near the optimum honest sites contradict each other as well;
* **absolute, not relative**: whoever agrees with the others keeps the full weight, however much others agree more;
  only a mean cosine below ``-tolerance`` is turned down. On clean data next to nobody is;
* the weight that is taken goes to the site's own cohort: another cancer is not to lose its say;
* turning a bad site down changes the mean that the next round's cosines are taken with, so that sites it had made
  look bad recover.

Weights then go through the bounds that sites and keyholder enforce (:mod:`datasites.strategy.weights`). Under local
noise a site's own noised update and the public model are already released: this is post-processing and costs nothing.
Under shared noise a single update carries too little noise, so weighting by it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datasites.language import mark
from datasites.strategy.weights import WeightRule
from privacy.errors import InvalidInput

Vector = NDArray[np.floating]
Similarity = Literal["cosine", "inner-product"]
FIRST_COMPARED_ROUND, LAST_COMPARED_ROUND = 2, 6


@dataclass(frozen=True, kw_only=True)
class ProximityWeights(WeightRule):
    """How proximities become weights.

    ``sharpness`` b: the weight is exp(b (proximity + ``tolerance``)) where that is below 1, else 1; the proximity is
    the mean over the rounds ``first`` to ``last``. ``published`` uses the raw similarity with the whole global
    update, block by block, every round, cut at zero; only there may ``similarity`` be the inner product's size.
    """

    similarity: Similarity = "cosine"
    published: bool = False
    sharpness: float = 10.0
    tolerance: float = 0.1
    first: int = FIRST_COMPARED_ROUND
    last: int = LAST_COMPARED_ROUND
    compared_rounds: ClassVar[range] = range(FIRST_COMPARED_ROUND, LAST_COMPARED_ROUND + 1)
    explanation: ClassVar[str] = mark("Proximity weights: how well an update agrees with the other hospitals' updates.")

    def __post_init__(self) -> None:
        if not (self.sharpness >= 0 and self.tolerance >= 0 and 1 <= self.first <= self.last):
            raise InvalidInput("expected sharpness and tolerance of at least 0 and rounds 1 <= first <= last")

    def reads(self, number: int) -> bool:
        """Return whether round ``number`` (from 1) is read."""
        return self.published or self.first <= number <= self.last

    def observe(self, known: Mapping[str, float], now: Mapping[str, float], number: int) -> Mapping[str, float]:
        """Return the mean cosine of every site over the compared rounds so far."""
        return accumulate(known, now, number, self)

    def raw(
        self, counts: Mapping[str, float], known: Mapping[str, float], cohorts: Mapping[str, str]
    ) -> dict[str, float]:
        """Return patient counts, turned down where a site contradicts the others."""
        return weighted(counts, known, cohorts, self) if known else dict(counts)


def without(update: Vector, mean: Vector, share: float) -> NDArray[np.float64]:
    """Return the mean update of the others: ``mean`` with the site's own ``share`` of it taken out."""
    whole = mean.astype(np.float64)
    return np.asarray((whole - share * update.astype(np.float64)) / (1.0 - share))


def cosine(own: Vector, other: Vector) -> float:
    """Return the cosine of two vectors [n], in [-1, 1]; 0 where either is zero."""
    norms = float(np.linalg.norm(own) * np.linalg.norm(other))
    return max(-1.0, min(1.0, float(own @ other) / norms)) if norms > 0 else 0.0


def proximity(update: Vector, mean: Vector, share: float, rule: ProximityWeights) -> float:
    """Return how far a site's own update [n] of one block points where the others' went.

    Args:
        update: the site's noised update of one block.
        mean: the public weighted mean of all sites' updates of that block.
        share: the site's share of that mean, its weight over the sum of weights, in [0, 1).
        rule: which similarity; the published rule does not take the site out.

    Returns:
        A cosine in [-1, 1], or an inner product; 0 where either vector is zero.
    """
    return site_proximity({"": update}, {"": mean}, {"": share}, rule)


def site_proximity(
    updates: Mapping[str, Vector], means: Mapping[str, Vector], shares: Mapping[str, float], rule: ProximityWeights
) -> float:
    """Return how far a site's whole update points where the others' went: one number for all its blocks.

    Args:
        updates: the site's noised update of each modality block that it holds (not of the shared block, which
            mostly follows how common each stage is).
        means: the public weighted mean of all sites' updates, at least of those blocks.
        shares: the site's share of each mean, its weight over the sum of weights, in [0, 1).
        rule: which similarity; the published rule does not take the site out.

    Returns:
        A cosine in [-1, 1], or an inner product; 0 where either vector is zero.

    Raises:
        InvalidInput: shapes or blocks disagree, or a share is out of its range.
    """
    own = np.concatenate([updates[name].astype(np.float64) for name in sorted(updates)])
    other = np.concatenate([_others(updates[n], means[n], shares[n], rule) for n in sorted(updates)])
    return float(own @ other) if rule.similarity == "inner-product" else cosine(own, other)


def _others(update: Vector, mean: Vector, share: float, rule: ProximityWeights) -> Vector:
    if update.shape != mean.shape or not 0 <= share < 1:
        raise InvalidInput(f"expected vectors of one shape and a share in [0, 1), got {update.shape}, {mean.shape}")
    return mean.astype(np.float64) if rule.published else without(update, mean, share)


def accumulate(
    past: Mapping[str, float], now: Mapping[str, float], number: int, rule: ProximityWeights
) -> dict[str, float]:
    """Return proximities by site after round ``number``: the mean over the rounds that are read.

    A site's first proximity counts as it is; the published rule keeps only the newest.

    Args:
        past: what this function returned before; empty at first.
        now: this round's proximities of the sites that came.
        number: the round, one that ``rule.reads``.
        rule: which rounds are read.
    """
    new = 1.0 if rule.published else 1.0 / (number - rule.first + 1)
    return {**past, **{s: past.get(s, value) + new * (value - past.get(s, value)) for s, value in now.items()}}


def weighted(
    counts: Mapping[str, float],
    proximities: Mapping[str, float],
    cohorts: Mapping[str, object],
    rule: ProximityWeights,
) -> dict[str, float]:
    """Return raw weights by site: patient counts turned down where proximities are negative, cohorts' totals kept.

    Args:
        counts: patients of the sites that hold a block.
        proximities: accumulated proximities by site; a site without one keeps its full weight.
        cohorts: the cohort of each site.
        rule: sharpness and tolerance.
    """
    raw = {
        s: n * math.exp(rule.sharpness * min(0.0, proximities.get(s, 0.0) + rule.tolerance)) for s, n in counts.items()
    }
    result = {}
    for site in counts:
        peers = [s for s in counts if cohorts[s] == cohorts[site]]
        result[site] = raw[site] * sum(counts[s] for s in peers) / sum(raw[s] for s in peers)
    return result


def weighted_as_published(counts: Mapping[str, float], proximities: Mapping[str, float]) -> dict[str, float]:
    """Return patient counts times the proximity cut at zero; the counts alone where nothing is above zero."""
    factor = {s: max(0.0, proximities.get(s, 0.0)) for s in counts}
    if not proximities or max(factor.values()) <= 0:
        return dict(counts)
    return {s: n * factor[s] for s, n in counts.items()}
