"""Golden numbers of four kinds: a theorem by hand, a slow oracle, pinned vectors with a source, sandwich bounds."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from dp_accounting import (
    ComposedDpEvent,
    GaussianDpEvent,
    LaplaceDpEvent,
    NoOpDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    UnsupportedDpEvent,
)
from dp_accounting.pld import PLDAccountant
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy.optimize import brentq
from scipy.signal import fftconvolve
from scipy.stats import norm

from privacy.dp.accounting import ADJACENCY, ORDERS, pld_epsilon, rdp_curve, rdp_epsilon
from privacy.dp.mechanism import Mechanism
from privacy.errors import InvalidInput

# sigma, q, steps, delta, epsilon, source
GOLDEN = [
    (1.0, 1.0, 1, 1e-5, 4.3772, "Balle and Wang 2018, theorem 8 (closed form)"),
    (2.0, 1.0, 1, 1e-5, 1.9931, "Balle and Wang 2018, theorem 8 (closed form)"),
    (4.0, 1.0, 20, 1e-4, 4.3456, "Balle and Wang 2018, theorem 8, at sigma 4 / sqrt(20)"),
    (10.0, 1.0, 400, 1e-5, 9.9973, "Balle and Wang 2018, theorem 8, at sigma 10 / sqrt(400)"),
    (1.0, 0.16, 350, 1e-5, 23.256, "dp-accounting PLD; PRV 23.27 and RDP 25.2 in our measured facts"),
    (0.7, 0.25, 4, 1e-5, 7.8129, "dp-accounting PLD and Opacus PRV"),
    (1.0, 0.01, 1000, 1e-5, 1.8289, "dp-accounting PLD and Opacus PRV"),
    (1.1, 256 / 60000, 14062, 1e-5, 2.3905, "MNIST of the DP-SGD tutorials (60 epochs); PLD and PRV"),
    (1.79, 1 / 7, 350, 1e-5, 8.0035, "sigma 1.79 for epsilon 8 at 200 patients, batch 32 (q = 1/7); PLD and PRV"),
    (2.9, 0.16, 350, 1e-3, 3.4380, "dp-accounting PLD and Opacus PRV"),
    (5.0, 0.5, 100, 1e-4, 3.8902, "dp-accounting PLD and Opacus PRV"),
    (1.3, 0.02, 2000, 1e-6, 4.0055, "dp-accounting PLD and Opacus PRV"),
]


def mechanism(sigma: float, q: float, steps: int, delta: float) -> Mechanism:
    return Mechanism(
        max_grad_norm=1.0,
        noise_multiplier=sigma,
        sampling_rate=q,
        steps_per_round=1,
        rounds=steps,
        target_delta=delta,
    )


def gaussian_delta(sigma: float, epsilon: float) -> float:
    """Balle and Wang, "Improving the Gaussian mechanism", ICML 2018, theorem 8, at sensitivity 1."""
    tail = math.exp(epsilon + norm.logcdf(-1 / (2 * sigma) - epsilon * sigma))
    return float(norm.cdf(1 / (2 * sigma) - epsilon * sigma) - tail)


def prv_epsilon(study: Mechanism, delta: float) -> float:
    """Return Opacus' PRV epsilon of the gradient steps alone (add/remove adjacency): a cross-check, not the charge.

    Source: Gopi, Lee and Wutschitz, "Numerical composition of differential privacy", NeurIPS 2021.
    """
    return _opacus_epsilon(PRVAccountant(), study, delta)


def opacus_rdp_epsilon(study: Mechanism, delta: float) -> float:
    """Return Opacus' RDP epsilon of the gradient steps alone: an upper bound the PLD figure must not pass."""
    return _opacus_epsilon(RDPAccountant(), study, delta)


def _opacus_epsilon(accountant: Any, study: Mechanism, delta: float) -> float:
    accountant.history = [(study.noise_multiplier, study.sampling_rate, study.steps)]
    with warnings.catch_warnings():  # log(0) at q = 1 is handled by numpy's where; the order remark is about tightness
        warnings.filterwarnings("ignore", message="divide by zero encountered in log", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(("sigma", "q", "steps", "delta", "epsilon", "source"), GOLDEN)
def test_golden_epsilons(sigma: float, q: float, steps: int, delta: float, epsilon: float, source: str) -> None:
    study = mechanism(sigma, q, steps, delta)
    ours = study.epsilon()
    assert ours == pytest.approx(epsilon, rel=1e-3), source
    reference = PLDAccountant(ADJACENCY).compose(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), steps)
    assert ours == pytest.approx(reference.get_epsilon(delta), rel=0.01)
    assert ours <= opacus_rdp_epsilon(study, delta) * (1 + 1e-9)
    assert ours == pytest.approx(prv_epsilon(study, delta), rel=0.01, abs=0.02)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (2.0, 1), (4.0, 20), (10.0, 400), (3.0, 7)])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_unsampled_steps_have_the_closed_form_of_the_gaussian_mechanism(sigma: float, steps: int, delta: float) -> None:
    exact = brentq(lambda e: gaussian_delta(sigma / math.sqrt(steps), e) - delta, 0, 100)
    ours = mechanism(sigma, 1.0, steps, delta).epsilon()
    assert ours == pytest.approx(exact, rel=1e-9)


def test_gaussian_releases_of_several_kinds_are_one_gaussian_and_a_sampled_one_among_them_is_none() -> None:
    parts = [SelfComposedDpEvent(GaussianDpEvent(4.0), 20), NoOpDpEvent(), GaussianDpEvent(1.5)]
    exact = brentq(lambda e: gaussian_delta((20 / 16 + 1 / 2.25) ** -0.5, e) - 1e-5, 0, 100)
    assert pld_epsilon(ComposedDpEvent(parts), 1e-5) == pytest.approx(exact, rel=1e-9)
    by_pld = PLDAccountant(ADJACENCY).compose(ComposedDpEvent(parts)).get_epsilon(1e-5)
    assert exact <= by_pld <= exact * 1.001
    sampled = ComposedDpEvent([*parts, PoissonSampledDpEvent(0.2, GaussianDpEvent(2.0))])
    reference = PLDAccountant(ADJACENCY, value_discretization_interval=1e-3).compose(sampled).get_epsilon(1e-5)
    assert pld_epsilon(sampled, 1e-5) == pytest.approx(reference, rel=1e-12)
    assert pld_epsilon(GaussianDpEvent(0.0), 1e-5) == math.inf


@pytest.mark.parametrize(("sigma", "q", "delta"), [(1.0, 0.2, 1e-5), (0.6, 0.05, 1e-4), (2.0, 0.5, 1e-6)])
def test_one_sampled_step_has_the_hockey_stick_worked_out_by_hand(sigma: float, q: float, delta: float) -> None:
    """Removing a record compares (1-q) N(0) + q N(1) with N(0): the likelihood ratio passes exp(epsilon) beyond t."""

    def removed(epsilon: float) -> float:
        t = sigma**2 * math.log((math.exp(epsilon) - 1 + q) / q) + 0.5
        return float((1 - q - math.exp(epsilon)) * norm.sf(t / sigma) + q * norm.sf((t - 1) / sigma))

    exact = brentq(lambda e: removed(e) - delta, 1e-6, 50)
    ours = mechanism(sigma, q, 1, delta).epsilon()
    assert exact - 1e-6 <= ours <= exact * 1.003 + 2e-3


def test_a_slow_oracle_composes_sampled_steps_to_the_same_figure() -> None:
    """Privacy losses of 30 steps convolved on a fine grid, both directions, by nothing but numpy."""
    sigma, q, steps, delta = 1.5, 0.1, 30, 1e-5
    width = 1e-3
    x = np.linspace(-14 * sigma, 14 * sigma, 400_001)
    null, mixed = norm.pdf(x, 0, sigma), (1 - q) * norm.pdf(x, 0, sigma) + q * norm.pdf(x, 1, sigma)

    def epsilon(p: np.ndarray, other: np.ndarray) -> float:
        loss = np.log(p / other)
        bins = np.rint(loss / width).astype(int)
        one = np.bincount(bins - bins.min(), weights=p * (x[1] - x[0]))
        total, shift = np.ones(1), 0
        for _ in range(steps):
            total, shift = fftconvolve(total, one), shift + bins.min()
        losses = (np.arange(len(total)) + shift) * width

        def deltas(e: float) -> float:
            return float((np.maximum(total, 0) * np.maximum(0, -np.expm1(e - losses))).sum())

        return float(brentq(lambda e: deltas(e) - delta, 0, 20))

    slow = max(epsilon(mixed, null), epsilon(null, mixed))
    assert mechanism(sigma, q, steps, delta).epsilon() == pytest.approx(slow, rel=0.01)


def test_the_central_limit_approximation_would_under_report_and_is_not_used() -> None:
    q, sigma, steps, delta = 0.25, 1.0, 4, 1e-5
    mu = q * math.sqrt(steps * (math.exp(sigma**-2) - 1))
    gdp = brentq(lambda e: gaussian_delta(1 / mu, e) - delta, 0, 50)
    assert gdp < 0.8 * mechanism(sigma, q, steps, delta).epsilon()


def test_renyi_curves_convert_to_the_same_figure_as_opacus() -> None:
    for sigma, q, steps, delta, *_ in GOLDEN:
        study = mechanism(sigma, q, steps, delta)
        assert rdp_epsilon(study.event(), delta) == pytest.approx(opacus_rdp_epsilon(study, delta), rel=5e-3)


def test_the_renyi_curve_of_the_gaussian_is_the_textbook_line() -> None:
    for order, value in zip(ORDERS, rdp_curve(SelfComposedDpEvent(GaussianDpEvent(3.0), 5)), strict=True):
        assert value == pytest.approx(5 * order / (2 * 3.0**2))


def test_orders_rise() -> None:
    assert ORDERS[0] > 1 and all(a < b for a, b in pairwise(ORDERS))


def test_unsupported_events_and_odd_deltas_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no bound"):
        pld_epsilon(UnsupportedDpEvent(), 1e-5)
    with pytest.raises(InvalidInput, match="delta"):
        pld_epsilon(LaplaceDpEvent(1.0), 0.0)
