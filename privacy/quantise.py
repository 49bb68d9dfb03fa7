"""Unbiased integers from bounded numbers, and numbers back from their sum.

    >>> quantise(np.float32([0.5, -2.0]), bound=1.0, weight=1.0, levels=64, uniform=np.zeros).tolist()
    [32, -64]

Stochastic rounding: x goes to floor(x) + 1 with probability x - floor(x), so that its expectation is x (to within
2**-40). The range is a public constant of the study, never the maximum of the data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidInput

Uniform = Callable[[int], NDArray[np.float64]]


def quantise(
    values: NDArray[np.float32], *, bound: float, weight: float, levels: int, uniform: Uniform
) -> NDArray[np.int64]:
    """Project on the public box, weight, and round stochastically to integers in -levels..levels.

    Args:
        values: float32[n], finite.
        bound: public half-width of the box; values beyond it are projected on it.
        weight: the site's weight relative to the largest, in (0, 1].
        levels: integer that ``bound`` maps to at weight 1.
        uniform: returns float64[n] uniform in [0, 1), as :meth:`privacy.randomness.Randomness.uniform` does; secret to
            the site, never drawn twice.

    Returns:
        int64[n] whose expectation is ``clip(values) * weight * levels / bound``.

    Raises:
        InvalidInput: a value is not finite, or an argument is out of range.
    """
    if not (np.isfinite(bound) and bound > 0 and 0 < weight <= 1 and levels >= 1):
        raise InvalidInput("expected bound > 0, weight in (0, 1] and levels >= 1")
    exact = np.asarray(values, np.float64)
    if exact.ndim != 1 or not np.isfinite(exact).all():
        raise InvalidInput("expected a vector of finite values; the update did not train to finite numbers")
    exact = np.clip(exact, -bound, bound)
    exact *= weight * levels / bound
    draws = uniform(exact.size)
    if draws.dtype != np.float64 or draws.shape != exact.shape:
        raise InvalidInput(f"expected float64[{exact.size}] draws, got {draws.dtype}{list(draws.shape)}")
    exact += draws
    return np.clip(np.floor(exact, out=exact), -levels, levels).astype(np.int64)


def dequantise(total: NDArray[np.int64], *, bound: float, levels: int, total_weight: float) -> NDArray[np.float32]:
    """Return the weighted mean that a sum of quantised updates stands for.

    Args:
        total: int64[n], the sum over the sites that arrived.
        bound: as given to :func:`quantise`.
        levels: as given to :func:`quantise`.
        total_weight: sum of the weights of the sites that arrived.

    Raises:
        InvalidInput: an argument is out of range.
    """
    if not (np.isfinite(bound) and bound > 0 and levels >= 1 and total_weight > 0):
        raise InvalidInput("expected bound > 0, levels >= 1 and total_weight > 0")
    return (total * (bound / (levels * total_weight))).astype(np.float32)
