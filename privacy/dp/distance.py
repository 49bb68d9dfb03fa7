"""How far the computed noise is from the Gaussian that is charged, as total variation.

Three differences, each with a bound that is proved in docs/shared-noise.md and checked by the tests:

* the sampler (``randomness``): a discrete Gaussian from two tables instead of a real number;
* rounding under shared noise: the sites round their shares one by one, not the sum once;
* saturation under shared noise: an encoded coordinate must fit its field.

    >>> rounding_distance(sites=2, share_steps=3.0) < 1e-35
    True
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from privacy.errors import InvalidInput

if TYPE_CHECKING:
    pass


# One sample: two tables cut at 11.7 deviations (2**-102 each), thresholds of 210 bits, the convolution of the tables at
# ratio 2 (2**-111); see docs/privacy.md, "The sampler".
SAMPLER_DISTANCE = 2.0**-100
# Coordinates of one noised step that the sampler's distance is multiplied with; larger models are refused.
MAX_PARAMETERS = 2**24
# A share is cut at so many standard deviations beyond the public box.
SATURATION_SIGMAS = 8.5
# No share may have a standard deviation of fewer grid steps than this.
MIN_SHARE_STEPS = 3.0


def rounding_distance(*, sites: int, share_steps: float) -> float:
    """Bound the distance of one coordinate's sum of rounded shares from a rounding of the central Gaussian.

    Args:
        sites: honest sites in the sum, 1 to 64. For one site the rounding is post-processing and the distance 0.
        share_steps: standard deviation of one share in grid steps, at least ``MIN_SHARE_STEPS``.

    Raises:
        InvalidInput: an argument outside its range, where the proof does not reach.

    Source: docs/shared-noise.md, theorem 1; of order ``exp(-pi**2 share_steps**2)`` for two sites, less for more.
    """
    if not 1 <= sites <= 64:
        raise InvalidInput(f"expected 1 to 64 honest sites, got {sites}")
    if not (math.isfinite(share_steps) and share_steps >= MIN_SHARE_STEPS):
        raise InvalidInput(f"expected shares of at least {MIN_SHARE_STEPS} grid steps, got {share_steps}")
    if sites == 1:
        return 0.0
    variance = share_steps**2
    exponent = 2 * math.pi**2 * variance * (1 - 1 / sites)
    window = math.sqrt(2 * sites * (variance + 1) * exponent)
    peak = (3.1**sites) * math.exp(-exponent)
    return (window + 1) * peak + 4 * math.exp(-exponent)


def saturation_distance(sigmas: float = SATURATION_SIGMAS) -> float:
    """Bound the probability that one share passes ``sigmas`` standard deviations (two-sided normal tail)."""
    return math.erfc(sigmas / math.sqrt(2))
