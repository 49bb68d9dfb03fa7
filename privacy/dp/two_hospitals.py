"""Epsilon of one study for a patient known to two of its hospitals.

The unit of every cap is one patient at one hospital. A patient known to two hospitals of the same study appears in the
answers of both. Under local noise these are two separate releases, which compose. Under shared noise both records
enter *one* noised sum: each is in the batch with probability q, so that the patient moves the sum by up to 0, C or 2 C
with probabilities (1 - q)^2, 2 q (1 - q) and q^2: a mixture of Gaussians (Choquette-Choo et al. 2024, "Privacy
amplification for matrix mechanisms", section 3). The other releases of a study get both contributions as well. Where
records are scored apart, the patient may train at one hospital and be scored at the other: every case is computed.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

from dp_accounting import dp_event

from privacy.dp.accounting import worst_epsilon
from privacy.dp.mechanism import Mechanism


@lru_cache(maxsize=256)
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
    twice = mechanism.total_variation(done) * (2 if mechanism.noise == "local" else 1)
    kinds = _local(mechanism, done) if mechanism.noise == "local" else _shared(mechanism, done)
    failure = 2 * mechanism.failure(done, records=1 if mechanism.noise == "local" else 2)
    return worst_epsilon(kinds, delta, slack=twice, failure=failure)


def _local(mechanism: Mechanism, rounds: int) -> list[dp_event.DpEvent]:
    """Return both hospitals' releases, for every way in which the patient trains or is scored at each."""
    kinds = mechanism.events(rounds)
    return [dp_event.ComposedDpEvent(pair) for pair in itertools.combinations_with_replacement(kinds, 2)]


def _shared(mechanism: Mechanism, rounds: int) -> list[dp_event.DpEvent]:
    """Return the sums both hospitals enter: at both the patient trains, or is scored, or does one of each."""
    q, sigma = mechanism.sampling_rate, mechanism.noise_multiplier
    once = dp_event.GaussianDpEvent(sigma)
    single = once if q == 1 else dp_event.PoissonSampledDpEvent(q, once)
    steps = rounds * mechanism.steps_per_round
    release, everybody = mechanism.evaluation, _of_everybody(mechanism, rounds)
    times = 0 if release is None else release.times(rounds)
    scored = 1.0 if release is None else release.noise_multiplier
    both, one = dp_event.GaussianDpEvent(scored / 2), dp_event.GaussianDpEvent(scored)
    if release is None or not release.scored_apart:
        return [_composed([(_step(mechanism), steps), (both, times), *everybody])]
    return [
        _composed([(_step(mechanism), steps), *everybody]),
        _composed([(both, times), *everybody]),
        _composed([(single, steps), (one, times), *everybody]),
    ]


def _of_everybody(mechanism: Mechanism, rounds: int) -> list[tuple[dp_event.DpEvent, int]]:
    parts: list[tuple[dp_event.DpEvent, int]] = []
    if mechanism.losses is not None:
        doubled = dp_event.GaussianDpEvent(mechanism.losses.noise_multiplier / 2)
        parts.append((doubled, mechanism.losses.times(rounds)))
    if mechanism.count is not None:  # each hospital releases its own
        parts.append((dp_event.GaussianDpEvent(mechanism.count.noise_multiplier), 2))
    return parts


def _composed(parts: list[tuple[dp_event.DpEvent, int]]) -> dp_event.DpEvent:
    return dp_event.ComposedDpEvent([dp_event.SelfComposedDpEvent(event, times) for event, times in parts if times])


def _step(mechanism: Mechanism) -> dp_event.DpEvent:
    q = mechanism.sampling_rate
    if q == 1:
        return dp_event.GaussianDpEvent(mechanism.noise_multiplier / 2)
    return dp_event.MixtureOfGaussiansDpEvent(
        mechanism.noise_multiplier, [0.0, 1.0, 2.0], [(1 - q) ** 2, 2 * q * (1 - q), q**2]
    )
