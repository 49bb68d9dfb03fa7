"""Epsilon of one study for a patient known to two of its hospitals.

The unit of every cap is one patient at one hospital. A patient known to two hospitals of the same study appears in the
answers of both. Under local noise these are two separate releases, which compose. Under shared noise both records
enter *one* noised sum: each is in the batch with probability q, so that the patient moves the sum by up to 0, C or 2 C
with probabilities (1 - q)^2, 2 q (1 - q) and q^2: a mixture of Gaussians (Choquette-Choo et al. 2024, "Privacy
amplification for matrix mechanisms", section 3). The other releases of a study get both contributions as well.
"""

from __future__ import annotations

import math

from dp_accounting import dp_event

from privacy.dp.accounting import pld_epsilon
from privacy.dp.mechanism import Mechanism


def epsilon_at_two_hospitals(mechanism: Mechanism, delta: float, *, rounds: int | None = None) -> float:
    """Return epsilon of the first ``rounds`` rounds for a patient known to two hospitals that run ``mechanism``.

    Args:
        mechanism: the same at both hospitals.
        delta: in (0, 1), for both together.
        rounds: 0 to ``mechanism.rounds``; None means all.

    Returns:
        an upper bound (add or remove of the patient at both hospitals, PLD accountant), infinite without noise.
    """
    done = mechanism.rounds if rounds is None else rounds
    if not mechanism.private:
        return math.inf
    if mechanism.noise == "local":
        once = mechanism.event(done)
        return pld_epsilon(dp_event.ComposedDpEvent([once, once]), delta, slack=2 * mechanism.total_variation(done))
    return pld_epsilon(_shared(mechanism, done), delta, slack=mechanism.total_variation(done))


def _shared(mechanism: Mechanism, rounds: int) -> dp_event.DpEvent:
    parts = [dp_event.SelfComposedDpEvent(_step(mechanism), rounds * mechanism.steps_per_round)] if rounds else []
    for release in (mechanism.losses, mechanism.evaluation):
        if release is not None and release.times(rounds):
            doubled = dp_event.GaussianDpEvent(release.noise_multiplier / 2)
            parts.append(dp_event.SelfComposedDpEvent(doubled, release.times(rounds)))
    if mechanism.count is not None:  # each hospital releases its own
        parts.append(dp_event.SelfComposedDpEvent(dp_event.GaussianDpEvent(mechanism.count.noise_multiplier), 2))
    return dp_event.ComposedDpEvent(parts)


def _step(mechanism: Mechanism) -> dp_event.DpEvent:
    q = mechanism.sampling_rate
    if q == 1:
        return dp_event.GaussianDpEvent(mechanism.noise_multiplier / 2)
    return dp_event.MixtureOfGaussiansDpEvent(
        mechanism.noise_multiplier, [0.0, 1.0, 2.0], [(1 - q) ** 2, 2 * q * (1 - q), q**2]
    )
