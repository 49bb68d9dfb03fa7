"""Noise that hospitals share: each adds a part, and the encrypted sum carries all of it.

Nobody sees a single update, so the sum must be private. Each site's share has variance
``sigma**2 C**2 / (min_sites - colluders)``: even without the shares of the colluders the sum of any permitted round
carries what is charged. A round is then one DP-SGD step over the union of the hospitals.

Order (it matters: rounding first would multiply the sensitivity by about the square root of the dimension): clip per
record, sum, project on the public box, add the Gaussian share of at least three grid steps, round stochastically, cut
at the field's width. Proof and constants: docs/shared-noise.md.

    >>> from privacy.dp.mechanism import Mechanism
    >>> plan = Mechanism(max_grad_norm=1.0, noise_multiplier=4.0, sampling_rate=1.0, steps_per_round=1, rounds=20,
    ...                  target_delta=1e-4, noise="shared", min_sites=8)
    >>> encoding = choose_encoding(plan, values=2252, bound=10.0, levels=100)
    >>> encoding.levels <= 100 and encoding.share_steps >= 3
    True
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.dp import discrete_gaussian
from privacy.dp.distance import MIN_SHARE_STEPS, SATURATION_SIGMAS
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Floats, Randomness, covering_deviation, grid_step
from privacy.errors import InvalidInput, Refused

Integers = npt.NDArray[np.int64]
# A grid step is 2**16 fine steps at most: then a share has 245,001 / 65,536 = 3.74 grid steps.
_LARGEST_SHIFT = 16
# A worker hands its integers over as float32, which holds every integer up to here. Beyond, each share would be rounded
# once more, on a grid that depends on its size; the proof knows no such rounding.
_EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True, kw_only=True)
class SharedEncoding:
    """Public constants by which every site lays its noised gradient sum on integers.

    ``deviation`` is the standard deviation of one share and ``bound`` the half-width of the box, in units of the
    gradient; one integer step is ``2**shift`` steps of the noise's own fine grid; ``levels`` is the largest integer.
    """

    values: int
    bound: float
    deviation: float
    shift: int
    levels: int

    @property
    def fine_step(self) -> float:
        """Step of the noise's grid, units of the gradient."""
        return grid_step(self.deviation)

    @property
    def step(self) -> float:
        """What one integer stands for, units of the gradient."""
        return float(self.fine_step * 2**self.shift)

    @property
    def share_steps(self) -> float:
        """Standard deviation of one share in integer steps; at least 3, or the proof does not hold."""
        return float(discrete_gaussian.DEVIATION / 2**self.shift)


def choose_encoding(mechanism: Mechanism, *, values: int, bound: float, levels: int) -> SharedEncoding:
    """Return the finest encoding whose integers stay within ``levels``.

    Args:
        mechanism: with ``noise="shared"`` and noise above 0.
        values: coordinates of the update, 1 to ``mechanism.max_parameters``.
        bound: public half-width of the box each coordinate of a site's gradient sum is projected on, above 0.
        levels: largest integer that the packing carries for one site; at most 2**24 are used.

    Raises:
        Refused: the mechanism shares no noise, or the update has more coordinates than it charges for.
        InvalidInput: no grid fits; the message says which levels would.
    """
    if mechanism.noise != "shared" or mechanism.noise_multiplier == 0:
        raise Refused("expected a mechanism with shared noise and a noise multiplier above 0")
    if not 1 <= values <= mechanism.max_parameters:
        raise Refused(f"expected 1 to {mechanism.max_parameters} coordinates under shared noise, got {values}")
    if not (math.isfinite(bound) and bound > 0):
        raise InvalidInput(f"expected a box above 0, got {bound}")
    whole = covering_deviation(mechanism.noise_multiplier, mechanism.max_grad_norm, values)
    deviation = whole / math.sqrt(mechanism.min_sites - mechanism.colluders)
    for shift in range(_LARGEST_SHIFT + 1):
        needed = _levels(bound, deviation, shift)
        if needed <= min(levels, _EXACT_IN_FLOAT32):
            return SharedEncoding(values=values, bound=bound, deviation=deviation, shift=shift, levels=needed)
    raise InvalidInput(f"expected levels of at least {needed} for this box and noise, got {levels}; shrink the box")


def encode(values: Floats, encoding: SharedEncoding, randomness: Randomness) -> Integers:
    """Project, add this site's share, round stochastically and cut: the integers to be packed and encrypted.

    Args:
        values: float64[n], the clipped gradient sum of this site (zeros for a block without its modality); n may be
            any part of ``encoding.values``.
        encoding: the study's public constants.
        randomness: keyed stream of this round and block; never used for other values.

    Returns:
        int64[n] within ``-levels..levels``. A value that is not finite counts as 0.
    """
    inside = np.clip(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), -encoding.bound, encoding.bound)
    fine = np.rint(inside / encoding.fine_step).astype(np.int64) + randomness.grid_gaussian(values.size)
    rounded = stochastic_round(fine, encoding.shift, randomness)
    return np.clip(rounded, -encoding.levels, encoding.levels)


def stochastic_round(fine: Integers, shift: int, randomness: Randomness) -> Integers:
    """Divide by ``2**shift`` and round up with exactly the probability of the fraction.

    Args:
        fine: int64[n].
        shift: 0 to 62.
        randomness: gives one word per value.
    """
    words = randomness.uniform_words(fine.size).view(np.int64)
    return (fine + (words & np.int64((1 << shift) - 1))) >> np.int64(shift)


def decode(total: Integers, encoding: SharedEncoding) -> Floats:
    """Return the noised gradient sum over all sites, from the decrypted sum of their integers."""
    return np.asarray(total * encoding.step, dtype=np.float64)


def mean_gradient(
    total: Integers, encoding: SharedEncoding, *, sampling_rate: float, expected_records: float
) -> Floats:
    """Return the noised mean gradient of the round: one DP-SGD step over the union of the hospitals.

    Args:
        total: decrypted sum, int64[n].
        encoding: the study's public constants.
        sampling_rate: q, the same at every site.
        expected_records: public number of records of all contributing sites together, above 0.
    """
    if not (expected_records > 0 and 0 < sampling_rate <= 1):
        raise InvalidInput("expected a public record count above 0 and a sampling rate in (0, 1]")
    return np.asarray(decode(total, encoding) / (sampling_rate * expected_records), dtype=np.float64)


def _levels(bound: float, deviation: float, shift: int) -> int:
    """Return the largest integer that is not cut: box, 8.5 deviations of noise and the rounding up."""
    if discrete_gaussian.DEVIATION / 2**shift < MIN_SHARE_STEPS:
        raise InvalidInput(f"expected shares of at least {MIN_SHARE_STEPS} grid steps")
    steps = float((bound / deviation + SATURATION_SIGMAS) * discrete_gaussian.DEVIATION / 2**shift)
    return math.ceil(steps) + 1
