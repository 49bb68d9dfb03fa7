"""From a wanted epsilon to the least noise that keeps a study within it.

    >>> plan = Mechanism(max_grad_norm=1.0, noise_multiplier=1.0, sampling_rate=0.16, steps_per_round=10,
    ...                  rounds=35, target_delta=1e-5)
    >>> round(calibrate(plan, 8.0).noise_multiplier, 2)
    2.0

The answer is tight by privacy loss distributions (PLD). A PLD of little noise is slow, so the search starts from both
sides with cheap Rényi bounds.
"""

from __future__ import annotations

import math
from dataclasses import replace

import dp_accounting
from dp_accounting.pld import PLDAccountant

from privacy.dp.accounting import ADJACENCY, INTERVAL, pld_epsilon, rdp_epsilon
from privacy.dp.mechanism import Mechanism
from privacy.errors import InvalidInput

_LARGEST_NOISE = 1e4
_FAILURES = 0.01
_TOLERANCE = 1e-6


def calibrate(mechanism: Mechanism, epsilon: float, delta: float | None = None) -> Mechanism:
    """Return ``mechanism`` with the smallest gradient noise that keeps the whole study within (epsilon, delta).

    The other releases keep their noise.

    Args:
        mechanism: what the study releases; its own gradient noise does not matter.
        epsilon: target above 0, at ``delta``, add/remove adjacency, PLD accountant.
        delta: in (0, 1); becomes the new ``target_delta``. None keeps the present one.

    Raises:
        InvalidInput: epsilon is not above 0, or the other releases alone cost more.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InvalidInput(f"expected a finite epsilon above 0, got {epsilon}")
    aim = replace(mechanism, target_delta=mechanism.target_delta if delta is None else delta)
    result = _calibrated(aim, epsilon, delta_for_ideal_noise(aim, epsilon))
    if result.epsilon() <= epsilon * (1 + _TOLERANCE):
        return result
    left = _left_by_slack(aim, epsilon)  # the distance takes more than the hundredth that theorem 2 was given
    if left <= 0:
        raise InvalidInput(
            f"epsilon {epsilon} at delta {aim.target_delta} leaves too little noise per round for the distance to "
            "ideal noise: take more rounds, fewer parameters or a larger delta"
        )
    return _calibrated(aim, epsilon, left)


def delta_for_ideal_noise(mechanism: Mechanism, epsilon: float) -> float:
    """Return the delta at which ideal noise is calibrated, so that computed noise keeps ``target_delta``.

    What the usual term ``(1 + e^epsilon)`` times the distance leaves, or all but a hundredth, whichever is more: the
    distance adds no more than that hundredth at any epsilon where the noise of a step is not tiny (docs/filter.md,
    theorem 2).

    Args:
        mechanism: gives delta and the distance; its noise does not matter.
        epsilon: above 0.
    """
    return max(_left_by_slack(mechanism, epsilon), mechanism.target_delta * (1 - _FAILURES))


def _left_by_slack(mechanism: Mechanism, epsilon: float) -> float:
    return mechanism.target_delta - (1 + math.exp(min(epsilon, 700))) * mechanism.total_variation()


def _calibrated(aim: Mechanism, epsilon: float, left: float) -> Mechanism:
    """Return ``aim`` with the gradient noise at which its ideal releases cost ``epsilon`` at ``left``."""
    if any(pld_epsilon(event, left) > epsilon for event in _with_noise(aim, _LARGEST_NOISE).events()):
        raise InvalidInput(
            f"epsilon {epsilon} at delta {aim.target_delta} cannot be reached by gradient noise alone: give the "
            "loss, count or evaluation releases more noise or release them less often"
        )
    try:
        found = dp_accounting.calibrate_dp_mechanism(
            lambda: PLDAccountant(ADJACENCY, value_discretization_interval=INTERVAL),
            lambda noise_multiplier: _trained(_with_noise(aim, noise_multiplier)),
            epsilon,
            left,
            _bracket(aim, epsilon, left),
            tol=1e-4,
        )
    except ValueError as error:  # so little noise that the accountant's grid holds no such epsilon
        raise InvalidInput(
            f"epsilon {epsilon:g} at delta {aim.target_delta:g} is more than the accountant can tell from no privacy "
            "at all; ask for less (100, say), or for inf"
        ) from error
    return _with_noise(aim, found)


def _trained(mechanism: Mechanism) -> dp_accounting.DpEvent:
    """Return what the study costs the patients that train; gradient noise changes no other kind's cost."""
    return mechanism.events()[0]


def _with_noise(mechanism: Mechanism, noise_multiplier: float) -> Mechanism:
    return replace(mechanism, noise_multiplier=float(noise_multiplier))


def _bracket(mechanism: Mechanism, epsilon: float, delta: float) -> dp_accounting.ExplicitBracketInterval:
    """Enclose the wanted noise from both sides."""

    def loose(noise_multiplier: float) -> float:
        return rdp_epsilon(_trained(_with_noise(mechanism, noise_multiplier)), delta)

    def tight(noise_multiplier: float) -> float:
        return pld_epsilon(_trained(_with_noise(mechanism, noise_multiplier)), delta)

    high = 0.5
    while loose(high) > epsilon and high < _LARGEST_NOISE:
        high *= 1.25
    low = high / 1.25
    while tight(low) <= epsilon and low > 1e-3:
        low /= 1.25
    while tight(high) > epsilon:
        high *= 1.25
    return dp_accounting.ExplicitBracketInterval(low, high)
