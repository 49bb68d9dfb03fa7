"""From a wanted epsilon to the least noise that keeps a study within it.

    >>> plan = Mechanism(max_grad_norm=1.0, noise_multiplier=1.0, sampling_rate=0.16, steps_per_round=10,
    ...                  rounds=35, target_delta=1e-5)
    >>> round(calibrate(plan, 8.0).noise_multiplier, 2)
    2.0

The answer is tight by privacy loss distributions (PLD), each of which takes a tenth of a second: the search begins
where the central limit theorem says, and follows a straight line between logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from dp_accounting import DpEvent

from privacy.dp.accounting import pld_epsilon
from privacy.dp.gaussian import gaussian_mu
from privacy.dp.mechanism import Mechanism
from privacy.errors import InvalidInput

MOST_EPSILON = 100.0
"""Above it the odds that a patient was in the study may change by e^100, and the accountant takes minutes."""
_LARGEST_NOISE = 1e4
_FAILURES = 0.01
_TOLERANCE = 1e-6
_NOISE_TOLERANCE = 1e-4
_LITTLE_NOISE = 0.4  # from here down a privacy loss distribution grows fast, so the search goes on in small steps
_WIDEST = 0.22


def check_most(epsilon: float) -> None:
    """Check that a finite epsilon is at most :data:`MOST_EPSILON`, before anything is done for it.

    Raises:
        InvalidInput: it is above.
    """
    if MOST_EPSILON < epsilon < math.inf:
        raise InvalidInput(
            f"epsilon {epsilon:g} promises a patient next to nothing: take at most {MOST_EPSILON:g}, or inf, which "
            "says openly that the study has no noise"
        )


def calibrate(mechanism: Mechanism, epsilon: float, delta: float | None = None) -> Mechanism:
    """Return ``mechanism`` with the smallest gradient noise that keeps the whole study within (epsilon, delta).

    The other releases keep their noise.

    Args:
        mechanism: what the study releases; its own gradient noise does not matter.
        epsilon: target above 0, at ``delta``, add/remove adjacency, PLD accountant.
        delta: in (0, 1); becomes the new ``target_delta``. None keeps the present one.

    Raises:
        InvalidInput: epsilon is not above 0, is above :data:`MOST_EPSILON`, or the other releases alone cost more.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InvalidInput(f"expected a finite epsilon above 0, got {epsilon}")
    check_most(epsilon)
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

    @cache
    def above(logarithm: float) -> float:
        """Return by how much the cost passes ``epsilon``, as a logarithm: nearly a straight line in that of noise."""
        spent = pld_epsilon(_trained(_with_noise(aim, math.exp(logarithm))), left)
        return math.log(max(spent, 1e-300) / epsilon) if math.isfinite(spent) else math.inf

    try:
        low, high = _bracket(above, math.log(_likely(aim, epsilon, left)))
    except ValueError as error:  # so little noise that the accountant's grid holds no such epsilon
        raise InvalidInput(
            f"epsilon {epsilon:g} at delta {aim.target_delta:g} is more than the accountant can tell from no privacy "
            "at all; ask for less (100, say), or for inf"
        ) from error
    while math.exp(high) - math.exp(low) > max(_NOISE_TOLERANCE, 1e-6 * math.exp(high)):
        low, high = _closer(above, low, high)
    return _with_noise(aim, math.exp(high))


def _trained(mechanism: Mechanism) -> DpEvent:
    """Return what the study costs the patients that train; gradient noise changes no other kind's cost."""
    return mechanism.events()[0]


def _with_noise(mechanism: Mechanism, noise_multiplier: float) -> Mechanism:
    return replace(mechanism, noise_multiplier=float(noise_multiplier))


def _likely(aim: Mechanism, epsilon: float, delta: float) -> float:
    """Return the noise by the central limit theorem, which under-reports: a place to begin, never an answer.

    Source: Bu et al. 2020, "Deep learning with Gaussian differential privacy".
    """
    releases = (aim.losses, None if aim.evaluation and aim.evaluation.scored_apart else aim.evaluation)
    others = sum(r.times(aim.rounds) / r.noise_multiplier**2 for r in releases if r is not None and r.noise_multiplier)
    if aim.count is not None and aim.count.noise_multiplier:
        others += aim.count.noise_multiplier**-2
    square = max(gaussian_mu(epsilon, delta) ** 2 - others, 1e-6) / aim.steps
    found = square if aim.sampling_rate == 1 else math.log1p(square / aim.sampling_rate**2)
    return min(max(1 / math.sqrt(found), _LITTLE_NOISE), _LARGEST_NOISE)


def _bracket(above: Callable[[float], float], start: float) -> tuple[float, float]:
    """Return two logarithms of noise around the wanted one, as near to ``start`` as they are found."""
    low = high = start
    width = 0.02
    if above(start) > 0:
        while above(high) > 0:
            low, high, width = high, high + width, min(2 * width, _WIDEST)
        return low, high
    while above(low) <= 0 and low > math.log(1e-3):
        low, high, width = low - width, low, min(2 * width, _WIDEST)
    return low, high


def _closer(above: Callable[[float], float], low: float, high: float) -> tuple[float, float]:
    """Return a smaller bracket: on the straight line between both ends, a little to the side that is still far."""
    if not math.isfinite(above(low)) or not above(low) > above(high):
        middle = (low + high) / 2
    else:
        zero = low + (high - low) * above(low) / (above(low) - above(high))
        step = max(_NOISE_TOLERANCE / 3 / math.exp(high), 3e-7, 0.02 * (high - low))
        middle = zero + step if zero - low > high - zero else zero - step
        middle = min(max(middle, low + 0.02 * (high - low)), high - 0.02 * (high - low))
    return (middle, high) if above(middle) > 0 else (low, middle)
