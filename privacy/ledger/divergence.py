"""Arithmetic of a Gaussian part (mu squared) and a Rényi curve (one value per order) together: epsilon, delta, share.

Proofs: docs/filter.md.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from privacy.dp.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu, smallest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RDP_ORDERS: tuple[float, ...] = (
    *(1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 9.0, 10.0),
    *(11.0, 12.0, 14.0, 16.0, 20.0, 24.0, 28.0, 32.0, 40.0, 48.0, 64.0, 96.0, 128.0, 256.0, 512.0),
)
"""The orders of every cost in every ledger; changing them would make old entries unreadable."""
_CELLS = 800
_LEFT, _RIGHT, _WIDTH = -20.0, 200.0, 0.002
_DEVIATIONS = 9.0


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


def distance(epsilon: float, rdp: tuple[float, ...], total_variation: float) -> float:
    """Return the delta that a total variation distance of a process with this Rényi curve costs at ``epsilon``.

    ``(1 + e^epsilon)`` times it or, where that is less, at no epsilon more than it and ``(e^rho tv)^((a - 1) / a)``
    (Hölder; docs/filter.md, theorem 2).
    """
    if total_variation == 0:
        return 0.0
    finite = ((order, rho) for order, rho in zip(RDP_ORDERS, rdp, strict=True) if math.isfinite(rho))
    logs = ((order - 1) / order * (rho + math.log(total_variation)) for order, rho in finite)
    return min(slack(epsilon, total_variation), total_variation + math.exp(min(0.0, min(logs, default=0.0))))


@lru_cache(maxsize=4096)
def share_of(mu_squared: float, others: tuple[float, ...], epsilon: float, delta: float) -> float:
    """Return which part of (``epsilon``, ``delta``) a Gaussian part and a Rényi curve take; above 1: over it."""
    if not any(others):
        allowed = gaussian_mu(epsilon, delta) ** 2
        return mu_squared / allowed if allowed else math.inf
    if mu_squared == 0:
        budgets = [epsilon - conversion(order, delta) for order in RDP_ORDERS]
        parts = [rho / budget for rho, budget in zip(others, budgets, strict=True) if budget > 0]
        return min(parts, default=math.inf)

    alone = share_of(0.0, others, epsilon, delta)
    allowed = _gaussian_room(others, epsilon, delta)
    return alone + (1 - alone) * mu_squared / allowed if alone < 1 and allowed else math.inf


@lru_cache(maxsize=1024)
def _gaussian_room(others: tuple[float, ...], epsilon: float, delta: float) -> float:
    """Return the largest mu squared that fits beside a Rényi curve, 0 where none does."""
    low, high = 0.0, gaussian_mu(epsilon, delta) ** 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if combined_delta(middle, others, epsilon) <= delta else (low, middle)
    return low


@lru_cache(maxsize=4096)
def epsilon_at(mu_squared: float, others: tuple[float, ...], delta: float) -> float:
    """Return the epsilon of a Gaussian part and a Rényi curve at ``delta``, infinite for a delta of 0 or less.

    Exact without a curve. Without a Gaussian part it is the best over the orders (Balle et al. 2020, Theorem 21;
    Canonne, Kamath and Steinke 2020, Proposition 12).
    """
    if delta <= 0:
        return math.inf
    if not any(others):
        return gaussian_epsilon(math.sqrt(mu_squared), delta)
    if mu_squared == 0:
        found = (rho + conversion(order, delta) for order, rho in zip(RDP_ORDERS, others, strict=True))
        return max(0.0, min(found))
    first = epsilon_at(mu_squared, (0.0,) * len(others), delta)
    return smallest(lambda epsilon: combined_delta(mu_squared, others, epsilon) <= delta, first, steps=30)


@lru_cache(maxsize=65536)
def combined_delta(mu_squared: float, others: tuple[float, ...], epsilon: float) -> float:
    """Return an upper bound on delta at ``epsilon`` of a Gaussian part together with a fixed Rényi curve.

    ``E[delta_R(epsilon - L)]`` over the privacy loss L ~ N(mu^2 / 2, mu^2) of the Gaussian part, summed over cells of
    L with the larger end of each; ``delta_R(x)`` is the smallest ``exp((a - 1)(rho_a - x)) (1 - 1/a)^(a - 1) / a``,
    at most 1 (docs/filter.md, theorem 4).
    """
    if not any(others):
        return gaussian_delta(math.sqrt(mu_squared), epsilon)
    import numpy as np  # only where a ledger holds old entries or imports beside new ones

    mu_squared = mu_squared or 1e-300
    profile = _profile(others)
    edges, tails = _cells()
    left = epsilon - mu_squared / 2 - math.sqrt(mu_squared) * edges[1:]
    places = np.floor((left - _LEFT) / _WIDTH).astype(np.int64)  # the profile falls: the point to the left is above it
    values = np.where(places < 0, 1.0, profile[np.clip(places, 0, profile.size - 1)])
    outside = tails[-1] + float(values[0]) * (1 - tails[0])
    return float(((tails[:-1] - tails[1:]) * values).sum() + outside)


@lru_cache(maxsize=64)
def _profile(others: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Return the delta of a Rényi curve on a grid of epsilons from ``_LEFT`` in steps of ``_WIDTH``, each at most 1."""
    import numpy as np

    points = np.arange(_LEFT, _RIGHT, _WIDTH)
    logs = np.zeros(points.size)
    for order, rho in zip(RDP_ORDERS, others, strict=True):
        if math.isfinite(rho):
            constant = (order - 1) * (rho + math.log1p(-1 / order)) - math.log(order)
            logs = np.minimum(logs, constant - (order - 1) * points)
    return np.asarray(np.exp(logs))


@lru_cache(maxsize=1)
def _cells() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the ends of the cells of a standard normal variable, and its probability above each."""
    import numpy as np

    edges = np.linspace(-_DEVIATIONS, _DEVIATIONS, _CELLS + 1)
    return edges, np.asarray([math.erfc(edge / math.sqrt(2)) / 2 for edge in edges])
