"""The ledger's unit: Rényi divergence at fixed orders, and how it becomes an epsilon.

A cost is an upper bound on the Rényi divergence at each order of :data:`RDP_ORDERS`, so costs add up under
adaptive composition (Mironov 2017, Proposition 1), and the sum gives an epsilon at any delta. Two small terms ride
along: an additive ``delta``, and a ``total_variation`` distance (rounded or saturated noise) to the mechanism whose
divergence is given.

The curve of a mechanism comes from :meth:`privacy.dp.mechanism.Mechanism.rdp` (Google's ``dp-accounting``, imported
only when a curve is computed): a process that only reads a ledger stays small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from privacy.dp.mechanism import Mechanism


RDP_ORDERS: tuple[float, ...] = (
    *(1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 9.0, 10.0),
    *(11.0, 12.0, 14.0, 16.0, 20.0, 24.0, 28.0, 32.0, 40.0, 48.0, 64.0, 96.0, 128.0, 256.0, 512.0),
)
"""The orders of every cost in every ledger; changing them would make old entries unreadable."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The privacy cost of one release, under add or remove of one patient.

    Args:
        rdp: Rényi divergence in nats at each of :data:`RDP_ORDERS`, each >= 0 (infinite: no guarantee there).
        delta: probability of failure that adds to the owner's delta, in [0, 1].
        total_variation: distance between what runs and the mechanism that ``rdp`` describes, in [0, 1].
    """

    rdp: tuple[float, ...]
    delta: float = 0.0
    total_variation: float = 0.0

    def __post_init__(self) -> None:
        if len(self.rdp) != len(RDP_ORDERS):
            raise InvalidInput(f"expected a Rényi divergence at {len(RDP_ORDERS)} orders, got {len(self.rdp)}")
        if not all(value >= 0 for value in self.rdp):  # refuses NaN as well
            raise InvalidInput("expected Rényi divergences of at least 0")
        if not (0 <= self.delta <= 1 and 0 <= self.total_variation <= 1):
            raise InvalidInput("expected delta and total variation between 0 and 1")

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            rdp=tuple(a + b for a, b in zip(self.rdp, other.rdp, strict=True)),
            delta=min(1.0, self.delta + other.delta),
            total_variation=min(1.0, self.total_variation + other.total_variation),
        )

    def times(self, count: int) -> Cost:
        """Return the cost of ``count`` such releases, one after the other."""
        if count < 0:
            raise InvalidInput(f"expected a count of at least 0, got {count}")
        return Cost(
            rdp=tuple(count * value if count else 0.0 for value in self.rdp),
            delta=min(1.0, count * self.delta),
            total_variation=min(1.0, count * self.total_variation),
        )

    @property
    def is_zero(self) -> bool:
        """Whether nothing was spent."""
        return self == ZERO

    def epsilon(self, delta: float) -> float:
        """Return the smallest epsilon at ``delta`` over the orders (add/remove adjacency, RDP accountant).

        Zero for a cost of zero, infinite where no order gives a bound. Balle et al. 2020, Theorem 21; Canonne,
        Kamath and Steinke 2020, Proposition 12.
        """
        if self.is_zero:
            return 0.0
        return min(self.epsilon_at(order, delta) for order in range(len(RDP_ORDERS)))

    def epsilon_at(self, order: int, delta: float) -> float:
        """Return the epsilon at ``delta`` that the order ``RDP_ORDERS[order]`` alone gives.

        The total variation enters delta times (1 + e^epsilon); the fixed point is approached from above.
        """
        if self.is_zero:
            return 0.0
        epsilon = _epsilon(self.rdp[order], RDP_ORDERS[order], delta - self.delta)
        if self.total_variation == 0 or math.isinf(epsilon):
            return epsilon
        for _ in range(60):
            left = delta - self.delta - slack(epsilon, self.total_variation)
            larger = _epsilon(self.rdp[order], RDP_ORDERS[order], left)
            if larger <= epsilon * (1 + 1e-9):
                return larger if larger > epsilon else epsilon
            epsilon = larger
        return math.inf


ZERO = Cost(rdp=(0.0,) * len(RDP_ORDERS))


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
        round: what every round costs.
        periodic: what some rounds cost on top.
        once: what the first charged round costs on top, whatever its number.
    """

    rounds: int
    round: Cost
    periodic: tuple[PeriodicCost, ...] = ()
    once: Cost = ZERO

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InvalidInput(f"expected at least one round, got {self.rounds}")

    def of_round(self, number: int) -> Cost:
        """Return the cost of round ``number`` without what is charged once.

        Raises:
            InvalidInput: the study has no such round.
        """
        if not 1 <= number <= self.rounds:
            raise InvalidInput(f"expected a round from 1 to {self.rounds}, got {number}")
        extra = (item.cost for item in self.periodic if item.times(number) > item.times(number - 1))
        return sum(extra, self.round)

    @property
    def total(self) -> Cost:
        """Everything the study may release."""
        extra = (item.cost.times(item.times(self.rounds)) for item in self.periodic)
        return sum(extra, self.once + self.round.times(self.rounds))


@dataclass(frozen=True, kw_only=True)
class Cap:
    """What a person allowed for one patient population: epsilon at delta, add or remove of one patient."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0 or not 0 < self.delta < 1:
            raise InvalidInput(
                f"expected a cap of epsilon > 0 at a delta between 0 and 1, got {self.epsilon} at {self.delta}"
            )

    def budget(self, order: int, cost: Cost) -> float:
        """Return the Rényi divergence allowed at ``RDP_ORDERS[order]``, given the deltas that ``cost`` uses up.

        Negative when even a cost of zero would not fit: delta is too small for this epsilon at this order.
        """
        if math.isinf(self.epsilon):
            return math.inf
        left = self.delta - cost.delta - slack(self.epsilon, cost.total_variation)
        return self.epsilon - conversion(RDP_ORDERS[order], left)

    def share(self, order: int, cost: Cost) -> float:
        """Return which part of the budget ``cost`` takes at one order; above 1: over the cap."""
        if cost.is_zero or math.isinf(self.epsilon):
            return 0.0
        budget = self.budget(order, cost)
        return cost.rdp[order] / budget if budget > 0 else math.inf

    def best_order(self, cost: Cost) -> int:
        """Return the index of the order at which ``cost`` takes the smallest part of this cap."""
        return min(range(len(RDP_ORDERS)), key=lambda order: self.share(order, cost))


def conversion(order: float, delta: float) -> float:
    """Return what the step from Rényi divergence of one order to epsilon at ``delta`` adds.

    ``log(1 - 1/a) - log(a delta) / (a - 1)``: Canonne, Kamath and Steinke 2020, Proposition 12.
    """
    if delta <= 0:
        return math.inf
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def slack(epsilon: float, total_variation: float) -> float:
    """Return the delta that a total variation distance costs at ``epsilon``: (1 + e^epsilon) times it."""
    if total_variation == 0:
        return 0.0
    return math.inf if epsilon > 700 else (1 + math.exp(epsilon)) * total_variation


def gaussian_cost(noise_multiplier: float) -> Cost:
    """Return the cost of one Gaussian release: a / (2 sigma^2) at order a (Mironov 2017, Proposition 7).

    Args:
        noise_multiplier: standard deviation of the noise over the sensitivity of the released value;
            0 is no guarantee, an infinite divergence.
    """
    if not noise_multiplier >= 0:
        raise InvalidInput(f"expected a noise multiplier of at least 0, got {noise_multiplier}")
    if noise_multiplier == 0:
        return Cost(rdp=(math.inf,) * len(RDP_ORDERS))
    return Cost(rdp=tuple(order / (2 * noise_multiplier**2) for order in RDP_ORDERS))


@lru_cache(maxsize=256)
def study_cost(mechanism: Mechanism) -> StudyCost:
    """Return what a study with this mechanism costs, round by round; the curve takes a tenth of a second, once.

    A release without noise costs an infinite divergence.
    """
    single = replace(mechanism, rounds=1, losses=None, count=None, evaluation=None)
    training = Cost(rdp=single.rdp(RDP_ORDERS), total_variation=single.total_variation())
    several = (mechanism.losses, mechanism.evaluation)
    last = None if mechanism.losses is None else mechanism.losses.last_round
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
    )


def cost_to_json(cost: Cost) -> dict[str, Any]:
    """Return a cost as canonical JSON; an infinite divergence becomes null."""
    return {
        "rdp": [None if math.isinf(value) else value for value in cost.rdp],
        "delta": cost.delta,
        "total_variation": cost.total_variation,
    }


def cost_from_json(data: Mapping[str, Any]) -> Cost:
    """Read a cost back from :func:`cost_to_json`."""
    return Cost(
        rdp=tuple(math.inf if value is None else float(value) for value in data["rdp"]),
        delta=float(data["delta"]),
        total_variation=float(data["total_variation"]),
    )


def study_to_json(cost: StudyCost) -> dict[str, Any]:
    """Return a study's cost as canonical JSON."""
    return {
        "rounds": cost.rounds,
        "round": cost_to_json(cost.round),
        "periodic": [_periodic_to_json(item) for item in cost.periodic],
        "once": cost_to_json(cost.once),
    }


def _periodic_to_json(item: PeriodicCost) -> dict[str, Any]:
    plain: dict[str, Any] = {"every_rounds": item.every_rounds, "cost": cost_to_json(item.cost)}
    return plain if item.last_round is None else {**plain, "last_round": item.last_round}


def study_from_json(data: Mapping[str, Any]) -> StudyCost:
    """Read a study's cost back from :func:`study_to_json`."""
    return StudyCost(
        rounds=int(data["rounds"]),
        round=cost_from_json(data["round"]),
        periodic=tuple(
            PeriodicCost(
                every_rounds=int(item["every_rounds"]),
                cost=cost_from_json(item["cost"]),
                last_round=item.get("last_round"),
            )
            for item in data["periodic"]
        ),
        once=cost_from_json(data["once"]),
    )


def _epsilon(divergence: float, order: float, delta: float) -> float:
    if math.isinf(divergence):
        return math.inf
    return max(0.0, divergence + conversion(order, delta))
