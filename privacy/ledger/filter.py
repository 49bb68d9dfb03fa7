"""The privacy filter: what a cap still allows.

Studies may be chosen after seeing earlier answers, so the rule looks at sums only, never at a best order or a best
accountant of the moment (docs/filter.md has the theorems and their proofs):

* The Gaussian part adds up as mu squared (Smith and Thakurta 2022). Its delta at the cap's epsilon is exact.
* A hundredth of delta (:data:`FAILURE_SHARE`) is kept for failures: differences between computed and ideal noise, and
  the tails of studies on random batches. Before the first answer nothing can be adapted, and the whole delta counts.
* Entries of older code and imported spends are constants. Their Rényi curve is composed with the Gaussian part.

No order is chosen, hence none is frozen, and a cap may rise and fall: what happened while it was at or below some
value is private with that value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from privacy.dp.gaussian import gaussian_epsilon, gaussian_mu
from privacy.errors import InvalidInput
from privacy.ledger.costs import ZERO, Cost, gaussian_cost
from privacy.ledger.divergence import combined_delta, share_of

FAILURE_SHARE = 0.01
TOLERANCE = 1e-9  # sums of the same costs in another order differ in their last digits


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

    def outside(self, cost: Cost) -> float:
        """Return the delta that older entries and imports take before anything else."""
        return cost.delta + cost.distance(self.epsilon)

    def allowance(self, cost: Cost, *, adaptive: bool, fixed: Cost = ZERO) -> float:
        """Return the delta that is left for everything but failures; 0 or less: nothing fits.

        Args:
            cost: everything that counts against the cap.
            adaptive: an answer was seen before the last expense was chosen.
            fixed: see :meth:`share`; where all of it fits, what it may fail is kept for it, whatever was given back.
        """
        whole = self.delta - self.outside(cost)
        if adaptive and (cost.mu_squared > 0 or cost.failure > 0):
            kept = FAILURE_SHARE * whole
            if fixed.failure > kept and self.share(fixed, adaptive=False) <= 1 + TOLERANCE:
                kept = fixed.failure
            return whole - kept
        return whole - cost.failure

    def failures(self, cost: Cost, fixed: Cost = ZERO) -> float:
        """Return which part of the delta kept for failures ``cost`` takes; ``fixed``: see :meth:`share`."""
        whole = self.delta - self.outside(cost)
        kept = FAILURE_SHARE * whole
        if whole > 0 and share_of(fixed.mu_squared, fixed.others, self.epsilon, whole - kept) > 1:
            left = whole - combined_delta(fixed.mu_squared, fixed.others, self.epsilon)
            kept = min(kept, max(fixed.failure, left))
        return cost.failure / kept if kept > 0 else math.inf if cost.failure else 0.0

    def share(self, cost: Cost, *, adaptive: bool = True, fixed: Cost = ZERO) -> float:
        """Return which part of the cap ``cost`` takes; above 1: over the cap. Parts of Gaussian costs add up.

        Args:
            cost: everything that counts against the cap.
            adaptive: an answer was seen before the last expense was chosen.
            fixed: what was reserved before the first answer; what it took of either part is kept from the other.
        """
        if cost.is_zero or math.isinf(self.epsilon):
            return 0.0
        allowance = self.allowance(cost, adaptive=adaptive, fixed=fixed)
        if allowance <= 0 or not cost.bounded:
            return math.inf
        failures = self.failures(cost, fixed) if adaptive else 0.0
        return max(share_of(cost.mu_squared, cost.others, self.epsilon, allowance), failures)

    def most(self, beside: Cost, *, adaptive: bool, fixed: Cost = ZERO) -> float:
        """Return the epsilon, at the cap's delta, of the largest Gaussian release that still fits beside this."""
        low, high = 0.0, gaussian_mu(self.epsilon, self.delta)
        for _ in range(40):
            middle = (low + high) / 2
            fits = self.share(beside + gaussian_cost(1 / middle), adaptive=adaptive, fixed=fixed) <= 1
            low, high = (middle, high) if fits else (low, middle)
        return gaussian_epsilon(low, self.delta) if low else 0.0
