"""The ledger's unit of privacy, and what a mechanism costs in it.

A cost has two parts that the filter (:mod:`privacy.ledger.filter`) takes together:

* ``mu_squared``: everything that is, or is dominated by, a Gaussian release. Squares of mu add up exactly.
* ``rest``: the Rényi divergence, at the orders :data:`RDP_ORDERS`, of everything else: entries from before this
  part existed, and imported spends.

``rdp`` is the Rényi divergence of both together. Two small terms ride along: ``delta`` of imported spends, and
``failure``, what differences between computed and ideal noise add to delta. ``total_variation`` is such a difference
in the entries of older code.

The figures of a mechanism are computed by Google's ``dp-accounting``, imported only then: a process that only reads a
ledger stays small.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from privacy.dp.gaussian import dominating_mu
from privacy.errors import InvalidInput
from privacy.ledger.divergence import RDP_ORDERS, distance, epsilon_at, slack

if TYPE_CHECKING:
    from privacy.dp.mechanism import Mechanism


NO_DIVERGENCE = (0.0,) * len(RDP_ORDERS)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The privacy cost of one release, under add or remove of one patient.

    Args:
        rdp: Rényi divergence in nats at each of :data:`RDP_ORDERS`, each >= 0 (infinite: no guarantee there).
        delta: probability of failure that adds to the owner's delta, in [0, 1].
        total_variation: distance between what runs and the mechanism that ``rdp`` describes, in [0, 1].
        mu_squared: square of the mu of the Gaussian release that dominates the Gaussian part, >= 0.
        failure: probability with which that domination fails, in [0, 1]; adds to delta.
        rest: Rényi divergence of what ``mu_squared`` does not cover; None: of everything, ``rdp`` itself.
    """

    rdp: tuple[float, ...]
    delta: float = 0.0
    total_variation: float = 0.0
    mu_squared: float = 0.0
    failure: float = 0.0
    rest: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        rest = self.rdp if self.rest is None else self.rest
        object.__setattr__(self, "rest", rest)
        if len(self.rdp) != len(RDP_ORDERS) or len(rest) != len(RDP_ORDERS):
            raise InvalidInput(f"expected a Rényi divergence at {len(RDP_ORDERS)} orders, got {len(self.rdp)}")
        if not all(value >= 0 for value in (*self.rdp, *rest, self.mu_squared)):  # refuses NaN as well
            raise InvalidInput("expected Rényi divergences of at least 0")
        if not (0 <= self.delta <= 1 and 0 <= self.total_variation <= 1 and 0 <= self.failure <= 1):
            raise InvalidInput("expected delta, failure and total variation between 0 and 1")

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            rdp=_sum(self.rdp, other.rdp),
            delta=min(1.0, self.delta + other.delta),
            total_variation=min(1.0, self.total_variation + other.total_variation),
            mu_squared=self.mu_squared + other.mu_squared,
            failure=min(1.0, self.failure + other.failure),
            rest=_sum(self.others, other.others),
        )

    def times(self, count: float) -> Cost:
        """Return the cost of ``count`` such releases, one after the other; a fraction gives that part of one."""
        if count < 0:
            raise InvalidInput(f"expected a count of at least 0, got {count}")
        return Cost(
            rdp=_scaled(self.rdp, count),
            delta=min(1.0, count * self.delta),
            total_variation=min(1.0, count * self.total_variation),
            mu_squared=count * self.mu_squared if count else 0.0,
            failure=min(1.0, count * self.failure),
            rest=_scaled(self.others, count),
        )

    def or_worse(self, other: Cost) -> Cost:
        """Return a cost that covers a patient who pays this one or ``other``, and nobody knows which."""
        return Cost(
            rdp=_larger(self.rdp, other.rdp),
            delta=max(self.delta, other.delta),
            total_variation=max(self.total_variation, other.total_variation),
            mu_squared=max(self.mu_squared, other.mu_squared),
            failure=max(self.failure, other.failure),
            rest=_larger(self.others, other.others),
        )

    def beyond(self, paid: Cost) -> Cost:
        """Return what is left of this cost where ``paid``, a part of it, was charged before."""
        return Cost(
            rdp=_left(self.rdp, paid.rdp),
            delta=max(0.0, self.delta - paid.delta),
            total_variation=max(0.0, self.total_variation - paid.total_variation),
            mu_squared=_left((self.mu_squared,), (paid.mu_squared,))[0],
            failure=max(0.0, self.failure - paid.failure),
            rest=_left(self.others, paid.others),
        )

    @property
    def is_zero(self) -> bool:
        """Whether nothing was spent."""
        return self == ZERO

    @property
    def others(self) -> tuple[float, ...]:
        """Rényi divergence of what ``mu_squared`` does not cover, at each of :data:`RDP_ORDERS`."""
        return self.rdp if self.rest is None else self.rest

    @property
    def gaussian_only(self) -> bool:
        """Whether ``mu_squared`` and ``failure`` say everything."""
        return not any(self.others) and self.delta == 0 and self.total_variation == 0

    @property
    def bounded(self) -> bool:
        """Whether there is any guarantee; False where something left without noise."""
        return math.isfinite(self.mu_squared) and not all(map(math.isinf, self.others))

    def epsilon(self, delta: float) -> float:
        """Return the smallest epsilon at ``delta`` that is proved (add/remove adjacency).

        Zero for a cost of zero, infinite where nothing bounds it. Exact for Gaussian costs.
        """
        if self.is_zero:
            return 0.0
        left = delta - self.delta - self.failure
        if left <= 0 or not self.bounded:
            return math.inf
        epsilon = epsilon_at(self.mu_squared, self.others, left)
        for _ in range(60):
            if self.total_variation == 0 or math.isinf(epsilon):
                return epsilon
            larger = epsilon_at(self.mu_squared, self.others, left - slack(epsilon, self.total_variation))
            if larger <= epsilon * (1 + 1e-9):
                return max(larger, epsilon)
            epsilon = larger
        return epsilon_at(self.mu_squared, self.others, left - self.distance(math.inf))

    def distance(self, epsilon: float) -> float:
        """Return the delta that ``total_variation`` costs at ``epsilon``."""
        return distance(epsilon, self.rdp, self.total_variation)


ZERO = Cost(rdp=NO_DIVERGENCE)


def _sum(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _larger(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(max(x, y) for x, y in zip(a, b, strict=True))


def _left(total: tuple[float, ...], paid: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(0.0 if math.isinf(y) else max(0.0, x - y) for x, y in zip(total, paid, strict=True))


def _scaled(values: tuple[float, ...], count: float) -> tuple[float, ...]:
    return tuple(count * value if count else 0.0 for value in values)


@dataclass(frozen=True, kw_only=True)
class PeriodicCost:
    """A release in every ``every_rounds``-th round, such as losses or an evaluation; none after ``last_round``."""

    every_rounds: int
    cost: Cost
    last_round: int | None = None

    def __post_init__(self) -> None:
        if self.every_rounds < 1:
            raise InvalidInput(f"expected every_rounds to be at least 1, got {self.every_rounds}")

    def times(self, rounds: int) -> int:
        """Return how often it is released in the first ``rounds`` rounds."""
        return (rounds if self.last_round is None else min(rounds, self.last_round)) // self.every_rounds


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """The worst case of a study at one site.

    Args:
        rounds: rounds of the study, at least 1; they are numbered from 1.
        round: what every round costs; with ``together`` above 1, what that many rounds cost together.
        periodic: what some rounds cost on top.
        once: what the first charged round costs on top, whatever its number.
        apart: what some rounds cost the patients that never train, such as an evaluation on records that are kept out
            of every round. A patient pays for ``round`` or for ``apart``: the larger total is charged, and a round is
            charged by how much that total grows.
        together: consecutive rounds that are paid with the first of them that is charged. Rounds on random batches
            are bounded only together (:func:`privacy.dp.gaussian.dominating_mu`).
    """

    rounds: int
    round: Cost
    periodic: tuple[PeriodicCost, ...] = ()
    once: Cost = ZERO
    together: int = 1
    apart: tuple[PeriodicCost, ...] = ()

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.together < 1:
            raise InvalidInput(f"expected at least one round, got {min(self.rounds, self.together)}")

    def part_of(self, number: int) -> int:
        """Return which part of the study round ``number`` is paid with, from 0."""
        return (number - 1) // self.together

    def of_round(self, number: int, *, paid: bool = False) -> Cost:
        """Return the cost of round ``number`` without what is charged once.

        Args:
            number: of the round.
            paid: another round of its part was charged before.

        Raises:
            InvalidInput: the study has no such round.
        """
        if not 1 <= number <= self.rounds:
            raise InvalidInput(f"expected a round from 1 to {self.rounds}, got {number}")
        return sum(_due(self.periodic, number), ZERO if paid else self.round)

    def of_rounds(self, numbers: Iterable[int], *, paid: Collection[int] = ()) -> Cost:
        """Return the cost of several rounds; ``paid``: rounds that were charged before."""
        if self.apart:
            return self._worst({*paid, *numbers}).beyond(self._worst(paid))
        parts, total = {self.part_of(number) for number in paid}, ZERO
        for number in numbers:
            total = total + self.of_round(number, paid=self.part_of(number) in parts)
            parts.add(self.part_of(number))
        return total

    @property
    def total(self) -> Cost:
        """Everything the study may release."""
        if self.apart:
            return self.once + self._worst(range(1, self.rounds + 1))
        extra = (item.cost.times(item.times(self.rounds)) for item in self.periodic)
        return sum(extra, self.once + self.round.times(self.part_of(self.rounds) + 1))

    def _worst(self, numbers: Collection[int]) -> Cost:
        """Return what these rounds cost the patients that train or those that do not, whichever is more."""
        if not all(1 <= number <= self.rounds for number in numbers):
            raise InvalidInput(f"expected rounds from 1 to {self.rounds}")
        trained = self.round.times(len({self.part_of(number) for number in numbers}))
        scored = sum((cost for number in numbers for cost in _due(self.apart, number)), ZERO)
        extra = (cost for number in numbers for cost in _due(self.periodic, number))
        return sum(extra, trained.or_worse(scored))


def _due(items: Iterable[PeriodicCost], number: int) -> Iterator[Cost]:
    return (item.cost for item in items if item.times(number) > item.times(number - 1))


def gaussian_cost(noise_multiplier: float, *, steps: int = 1, failure: float = 0.0) -> Cost:
    """Return the cost of Gaussian releases: mu squared 1 / sigma^2, and a / (2 sigma^2) at order a, for each.

    Args:
        noise_multiplier: standard deviation of the noise over the sensitivity of the released value;
            0 is no guarantee, an infinite divergence.
        steps: number of releases.
        failure: see :class:`Cost`.

    Source: Dong, Roth and Su 2022, theorem 1; Mironov 2017, Proposition 7.
    """
    if not noise_multiplier >= 0:
        raise InvalidInput(f"expected a noise multiplier of at least 0, got {noise_multiplier}")
    if noise_multiplier == 0:
        return Cost(rdp=(math.inf,) * len(RDP_ORDERS), mu_squared=math.inf, rest=NO_DIVERGENCE)
    return Cost(
        rdp=tuple(steps * order / (2 * noise_multiplier**2) for order in RDP_ORDERS),
        mu_squared=steps / noise_multiplier**2,
        failure=failure,
        rest=NO_DIVERGENCE,
    )


_SEGMENT_FAILURE = 1e-4
_PRICE_OF_PARTS = 1.1


@lru_cache(maxsize=256)
def study_cost(mechanism: Mechanism) -> StudyCost:
    """Return what a study with this mechanism costs, round by round; random batches take a second, once.

    A release without noise costs an infinite divergence.
    """
    evaluation = mechanism.evaluation
    apart = evaluation is not None and evaluation.scored_apart
    several = (mechanism.losses, None if apart else evaluation)
    last = None if mechanism.losses is None else mechanism.losses.last_round
    together, training = _training_cost(mechanism)
    return StudyCost(
        rounds=mechanism.rounds,
        round=training,
        periodic=tuple(
            PeriodicCost(
                every_rounds=item.every_rounds,
                cost=gaussian_cost(item.noise_multiplier),
                last_round=last if item is mechanism.losses else None,
            )
            for item in several
            if item is not None
        ),
        once=ZERO if mechanism.count is None else gaussian_cost(mechanism.count.noise_multiplier),
        together=together,
        apart=(PeriodicCost(every_rounds=evaluation.every_rounds, cost=gaussian_cost(evaluation.noise_multiplier)),)
        if evaluation is not None and apart
        else (),
    )


def _training_cost(mechanism: Mechanism) -> tuple[int, Cost]:
    """Return how many rounds are paid together, and their cost without the other releases of the study."""
    noise, steps, rounds = mechanism.noise_multiplier, mechanism.steps_per_round, mechanism.rounds
    failure = mechanism.failure() / rounds
    if mechanism.sampling_rate == 1 or noise == 0:
        return 1, gaussian_cost(noise, steps=steps, failure=failure)
    allowed = _SEGMENT_FAILURE * mechanism.target_delta

    def squared(parts: int) -> float:
        together = math.ceil(rounds / parts)
        return dominating_mu(noise, mechanism.sampling_rate, together * steps, allowed / parts) ** 2

    whole = squared(1)
    fits = (p for p in (8, 4, 2) if p <= rounds and p * squared(p) <= _PRICE_OF_PARTS * whole)
    parts = next(fits, 1)
    together = math.ceil(rounds / parts)
    divergence = replace(mechanism, rounds=together, losses=None, count=None, evaluation=None).rdp(RDP_ORDERS)
    cost = Cost(
        rdp=divergence,
        mu_squared=squared(parts),
        failure=min(1.0, failure * together + allowed / parts),
        rest=NO_DIVERGENCE,
    )
    return together, cost
