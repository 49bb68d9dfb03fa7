"""Gaussian differential privacy: exact figures of one Gaussian release, and releases that one Gaussian dominates.

A release is mu-GDP if telling two neighbouring data sets apart by it is as hard as telling N(0, 1) from N(mu, 1). The
squares of mu add up under fully adaptive composition (Smith and Thakurta 2022, arXiv 2210.17520), so that one number
says all about any number of Gaussian releases. Adjacency is add or remove of one patient.

    >>> round(gaussian_epsilon(1.0, 1e-5), 3)     # Balle and Wang 2018, theorem 8
    4.377
    >>> round(gaussian_mu(8.0, 1e-4) ** 2, 2)
    3.47

Only :func:`dominating_mu` imports ``dp_accounting``; the rest is a few lines of arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

from privacy.errors import InvalidInput

_LARGEST_MU = 1e8
_SEGMENT_INTERVAL = 1e-3


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the delta of a mu-GDP release at ``epsilon``: its exact privacy profile.

    ``Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)`` (Balle and Wang 2018, theorem 8).

    Args:
        mu: at least 0; infinite gives 1.
        epsilon: at least 0.
    """
    if mu <= 0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    upper = _log_tail(epsilon / mu - mu / 2)
    lower = epsilon + _log_tail(epsilon / mu + mu / 2)
    return math.exp(upper) * -math.expm1(min(0.0, lower - upper))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon of a mu-GDP release at ``delta``, rounded up; infinite where ``delta`` is 0 or less."""
    if mu <= 0:
        return 0.0
    if delta <= 0 or math.isinf(mu):
        return math.inf
    if delta >= 1:
        return 0.0
    high = mu * mu / 2 + mu * math.sqrt(-2 * math.log(delta))  # the tail of the privacy loss alone
    return smallest(lambda epsilon: gaussian_delta(mu, epsilon) <= delta, high)


@lru_cache(maxsize=4096)
def gaussian_mu(epsilon: float, delta: float) -> float:
    """Return the largest mu, rounded down, of which a release is (``epsilon``, ``delta``) private; 0 if none is."""
    if delta <= 0:
        return 0.0
    if math.isinf(epsilon) or delta >= 1:
        return math.inf
    low, high = 0.0, 1.0
    while high < _LARGEST_MU and gaussian_delta(high, epsilon) <= delta:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if gaussian_delta(middle, epsilon) <= delta else (low, middle)
    return low


def failure(total_variation: float, mu: float, times: int) -> float:
    """Return what distances of single steps to their ideal Gaussians add to delta, at every epsilon.

    A step at total variation eta from a mu-GDP one adds ``eta + Phi(mu + Phi^-1(eta))``, with no factor
    ``e^epsilon`` (docs/filter.md, theorem 2).

    Args:
        total_variation: of all steps together, at least 0; spread over them evenly, the worst case.
        mu: the largest mu of a step.
        times: number of steps, at least 1.
    """
    if not 0 <= total_variation < 1 or times < 1:
        raise InvalidInput(f"expected a distance from 0 to 1 and a step or more, got {total_variation} and {times}")
    each = total_variation / times
    if each < 1e-300:
        return total_variation
    if math.isinf(mu):
        return 1.0
    return min(1.0, total_variation + times * math.exp(_log_tail(-NormalDist().inv_cdf(each) - mu)))


@lru_cache(maxsize=256)
def dominating_mu(noise_multiplier: float, sampling_rate: float, steps: int, failure: float) -> float:
    """Return a mu so that steps on Poisson batches tell no more than a mu-GDP release that fails with ``failure``.

    At every epsilon the profile of all ``steps`` (privacy loss distribution, connect the dots) lies below
    ``failure + (1 - failure) * gaussian_delta(mu, epsilon)``. The steps are then post-processing of one Gaussian of
    this mu, except with probability ``failure`` (Blackwell; docs/filter.md, theorem 3). It says nothing of the first
    few steps alone.

    Args:
        noise_multiplier: of a step, above 0.
        sampling_rate: in (0, 1).
        steps: at least 1.
        failure: in (0, 1).
    """
    import numpy as np
    from dp_accounting.pld import privacy_loss_distribution

    one = privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sampling_rate, value_discretization_interval=_SEGMENT_INTERVAL
    )
    whole = one.self_compose(steps)
    epsilons = [0.0]
    while epsilons[-1] < 600:
        epsilons.append(epsilons[-1] + max(0.002, 0.0005 * epsilons[-1]))
    profile = np.asarray(whole.get_delta_for_epsilon(np.asarray(epsilons)), dtype=float)
    above = np.flatnonzero(profile > failure)
    if above.size == 0:
        return 0.0
    last = int(above[-1])
    if last + 1 >= len(epsilons):
        return math.inf  # the tail is too long for the grid: no bound
    wanted = [(float(p - failure) / (1 - failure), epsilons[i + 1]) for i, p in enumerate(profile[: last + 1])]
    wanted = [(delta, epsilon) for delta, epsilon in wanted if delta > 0]

    def holds(mu: float) -> bool:  # between two points the profile is at most its left value, the Gaussian's falls
        above = [(delta, epsilon) for delta, epsilon in wanted if delta > gaussian_delta(mu, epsilon)]
        if above:  # a Gaussian of a larger mu lies higher everywhere: only these points are asked about again
            wanted[:] = above
        return not above

    return smallest(holds, 1.0, steps=40)


def smallest(holds: Callable[[float], bool], high: float, *, steps: int = 60) -> float:
    """Return the smallest number above 0 from which on ``holds`` is true, rounded up; infinite if there is none.

    Args:
        holds: false below some number and true above it.
        high: a first guess.
        steps: halvings of the last bracket.
    """
    low = 0.0
    high = max(high, 1e-12)
    while not holds(high):
        low, high = high, 2 * high
        if high > _LARGEST_MU:
            return math.inf
    for _ in range(steps):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _log_tail(x: float) -> float:
    """Return the logarithm of the normal distribution's tail above ``x``."""
    if x < 25:
        return math.log(math.erfc(x / math.sqrt(2)) / 2)
    square = 1 / (x * x)  # the asymptotic series, cut after a positive term: an upper bound
    series = 1 - square * (1 - 3 * square * (1 - 5 * square * (1 - 7 * square)))
    return -x * x / 2 - math.log(x * math.sqrt(2 * math.pi)) + math.log(series)
