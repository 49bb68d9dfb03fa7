"""How much each site counts, inside the bounds that sites and keyholder enforce.

Per block, weights are relative to the largest, lie in [1/4, 1], and their effective number (sum w)^2 / sum w^2 is
at least ``min_sites``: otherwise a "sum" could be one hospital's update in disguise (docs/threat-model.md). A rule
gives raw weights; the noise mode brings them inside the bounds (:class:`datasites.strategy.noise.NoiseMode`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from datasites.language import mark
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from datasites.study.proposal import Proposal

SMALLEST_WEIGHT = 0.25
_DECIMALS = 6


class WeightRule(Protocol):
    """Raw weights of the sites, from public numbers.

    ``compared_rounds`` are the rounds whose updates every site compares with the others'; the cosine travels with its
    next update, in the open. Empty for a rule that reads none. ``explanation`` is one sentence for people.
    """

    compared_rounds: ClassVar[range] = range(0)
    explanation: ClassVar[str] = ""

    def check(self, proposal: Proposal) -> None:
        """Refuse a study that this rule cannot weigh.

        Raises:
            InvalidInput: the message says what was expected.
        """
        if self.compared_rounds and not (
            proposal.noise_mode.covers_single_updates and proposal.training.server_step.plain
        ):
            raise InvalidInput(
                "proximity weighting reads single updates, which carry only a share of the noise under shared noise, "
                "and the server's plain step; expected local noise and the server optimizer sgd"
            )

    def observe(self, known: Mapping[str, float], now: Mapping[str, float], number: int) -> Mapping[str, float]:
        """Return what is known by site after the cosines ``now`` of round ``number``; nothing at first."""
        return known

    @abstractmethod
    def raw(
        self, counts: Mapping[str, float], known: Mapping[str, float], cohorts: Mapping[str, str]
    ) -> dict[str, float]:
        """Return non-negative weights of the sites that hold a block, not all zero; only their ratios matter.

        Args:
            counts: released patient counts by site, at least 1.
            known: what :meth:`observe` returned last.
            cohorts: the cohort of each site.
        """


class PatientCounts(WeightRule):
    """FedAvg: a site counts as its patients do."""

    explanation: ClassVar[str] = mark("By the noised numbers of patients that the hospitals released.")

    def raw(
        self, counts: Mapping[str, float], known: Mapping[str, float], cohorts: Mapping[str, str]
    ) -> dict[str, float]:
        """Return the counts."""
        return dict(counts)


class EqualWeights(WeightRule):
    """Every site counts alike, so that the mean of the updates is their sum over their number."""

    explanation: ClassVar[str] = mark("Every hospital counts alike.")

    def raw(
        self, counts: Mapping[str, float], known: Mapping[str, float], cohorts: Mapping[str, str]
    ) -> dict[str, float]:
        """Return 1 for every site."""
        return dict.fromkeys(counts, 1.0)


def effective_sites(weights: Mapping[str, float]) -> float:
    """Return (sum w)^2 / sum w^2: 3.0 for three equal weights, 1.0 for one site alone."""
    total = sum(weights.values())
    squares = sum(w * w for w in weights.values())
    return total * total / squares if squares else 0.0


def bounded(weights: Mapping[str, float], *, min_sites: int) -> dict[str, float]:
    """Bring raw weights inside the bounds by mixing in as little of the uniform weight as needed.

    Args:
        weights: non-negative raw weights by site, at least ``min_sites`` of them, not all zero.
        min_sites: the smallest allowed effective number of sites.

    Returns:
        Weights in [1/4, 1], the largest exactly 1.
    """
    largest = max(weights.values())
    relative = {site: max(SMALLEST_WEIGHT, w / largest) if largest > 0 else 1.0 for site, w in weights.items()}
    for percent in range(101):
        mixed = {s: round(w + (1 - w) * percent / 100, _DECIMALS) for s, w in relative.items()}
        if effective_sites(mixed) >= min_sites:
            return mixed
    return dict.fromkeys(weights, 1.0)
