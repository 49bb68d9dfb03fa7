"""Each constant of docs/shared-noise.md, checked by numbers."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from scipy.stats import norm

from privacy.dp.distance import MIN_SHARE_STEPS, SAMPLER_DISTANCE, rounding_distance, saturation_distance
from privacy.errors import InvalidInput


def rounded(x: mpf, s: float, reach: int) -> list[mpf]:
    """pmf of a stochastically rounded x + N(0, s**2) on -reach..reach: the second difference of E (Z)+."""

    def hinge(u: mpf) -> mpf:
        return (x - u) * mpmath.ncdf((x - u) / s) + s * mpmath.npdf((x - u) / s)

    values = [hinge(mpf(j)) for j in range(-reach - 1, reach + 2)]
    return [values[i] - 2 * values[i + 1] + values[i + 2] for i in range(2 * reach + 1)]


def convolved(parts: list[list[mpf]]) -> list[mpf]:
    total = parts[0]
    for part in parts[1:]:
        longer = [mpf(0)] * (len(total) + len(part) - 1)
        for (i, a), (j, b) in itertools.product(enumerate(total), enumerate(part)):
            longer[i + j] += a * b
        total = longer
    return total


def distance(a: list[mpf], b: list[mpf]) -> mpf:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / 2


def central_rounding(x: mpf, s: float, reach: int) -> list[mpf]:
    """pmf of the post-processing of the theorem for two sites: N(x, 2 s**2) through the cubic B-spline kernel.

    The kernel is the convolution of two hats, so that the pmf is the fourth difference of E (Z)+**3 / 6.
    """
    wide = mpmath.sqrt(2) * s

    def cube(u: mpf) -> mpf:
        m, z = x - u, (x - u) / wide
        return (m**3 + 3 * m * wide**2) * mpmath.ncdf(z) / 6 + (m**2 * wide + 2 * wide**3) * mpmath.npdf(z) / 6

    v = [cube(mpf(j)) for j in range(-reach - 2, reach + 3)]
    return [v[i] - 4 * v[i + 1] + 6 * v[i + 2] - 4 * v[i + 3] + v[i + 4] for i in range(2 * reach + 1)]


@pytest.mark.parametrize("steps", [1.0, 1.5, 3.0])
def test_the_sum_of_two_rounded_shares_is_a_rounding_of_the_central_gaussian(steps: float) -> None:
    with mpmath.workdps(90):
        reach = math.ceil(14.5 * steps) + 2
        worst = mpf(0)
        for x, y in [(mpf(0), mpf(0)), (mpf(0), mpf("0.5")), (mpf("0.25"), mpf("0.9"))]:
            real = convolved([rounded(x, steps, reach), rounded(y, steps, reach)])
            ideal = central_rounding(x + y, steps, 2 * reach)
            worst = max(worst, distance(real, ideal))
        bound = 9.61 * mpmath.exp(-(mpmath.pi**2) * steps**2)
        order = mpmath.exp(-(mpmath.pi**2) * steps**2)
        assert worst > order / 1000  # the bound is of the right order, and the test would see a larger distance
        if steps >= MIN_SHARE_STEPS:
            assert worst < rounding_distance(sites=2, share_steps=steps)
        else:
            assert worst < 40 * bound


@pytest.mark.parametrize("sites", [2, 3])
def test_how_the_data_is_spread_over_sites_does_not_show(sites: int) -> None:
    with mpmath.workdps(70):
        steps, reach = 3.0, 46
        even = convolved([rounded(mpf("0.5"), steps, reach)] * sites)
        one = mpf("0.5") * sites
        spread = convolved([rounded(one, steps, reach), *[rounded(mpf(0), steps, reach)] * (sites - 1)])
        assert distance(even, spread) < 2 * rounding_distance(sites=sites, share_steps=steps)


def test_rounding_before_the_noise_would_show() -> None:
    """Two sites with a half each against one with a whole: without noise first, the roundings differ for ever."""
    halves = np.convolve([0.5, 0.5], [0.5, 0.5])
    whole = np.array([0.0, 1.0, 0.0])
    assert np.abs(halves - whole).sum() / 2 == 0.5


def test_the_rounding_bound_is_of_order_exp_minus_pi_squared_sigma_squared() -> None:
    for steps in (3.0, 4.0, 6.0):
        ratio = rounding_distance(sites=2, share_steps=steps) / math.exp(-(math.pi**2) * steps**2)
        assert 1 < ratio < 1e5
    assert rounding_distance(sites=9, share_steps=3.0) < rounding_distance(sites=2, share_steps=3.0)
    assert all(rounding_distance(sites=h, share_steps=3.0) < 1e-34 for h in range(1, 65))
    assert rounding_distance(sites=1, share_steps=3.0) == 0


@pytest.mark.parametrize(("sites", "steps"), [(2, 2.9), (0, 3.0), (65, 3.0), (2, math.inf), (2, math.nan)])
def test_outside_the_proof_there_is_no_bound(sites: int, steps: float) -> None:
    with pytest.raises(InvalidInput):
        rounding_distance(sites=sites, share_steps=steps)


def test_saturation_is_the_two_sided_normal_tail() -> None:
    assert saturation_distance() == pytest.approx(2 * norm.sf(8.5), rel=1e-9)
    assert saturation_distance() < 2e-17
    assert saturation_distance(3.0) == pytest.approx(0.0026998, rel=1e-4)


def test_the_sampler_constant_covers_its_parts() -> None:
    tail = 2 * math.erfc(8191 / 700 / math.sqrt(2))
    thresholds = 2 * 2.0**14 * 2.0 ** -(14 + 18 + 192)
    convolution = 4 * math.exp(-2 * math.pi**2 * 4 * 0.99999)
    smoothing = 4 * math.exp(-2 * math.pi**2 * 4)
    assert tail + thresholds + convolution + smoothing < SAMPLER_DISTANCE
