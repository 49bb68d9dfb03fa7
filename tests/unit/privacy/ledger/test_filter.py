"""The filter against an exact accountant, and against an adversary that chooses by the answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from privacy.dp.gaussian import dominating_mu, failure, gaussian_delta, gaussian_epsilon, gaussian_mu
from privacy.dp.mechanism import Mechanism
from privacy.ledger.costs import RDP_ORDERS, ZERO, Cost, gaussian_cost, study_cost
from privacy.ledger.divergence import combined_delta
from privacy.ledger.filter import FAILURE_SHARE, TOLERANCE, Cap

Floats = np.ndarray


def exact_delta(mu: float, epsilon: float) -> float:
    """Balle and Wang 2018, theorem 8, by scipy."""
    return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))


@given(st.floats(0.02, 60.0), st.floats(1e-9, 1e-3))
def test_the_gaussian_figures_are_exact(epsilon: float, delta: float) -> None:
    mu = gaussian_mu(epsilon, delta)
    assert exact_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)
    assert gaussian_delta(mu, epsilon) <= delta < gaussian_delta(mu * (1 + 1e-9), epsilon) * (1 + 1e-6)
    assert gaussian_epsilon(mu, delta) == pytest.approx(epsilon, rel=1e-6)


def test_the_far_tail_does_not_overflow() -> None:
    mu = gaussian_mu(5000.0, 1e-6)
    assert 80 < mu < 100 and gaussian_delta(mu, 5000.0) == pytest.approx(1e-6)
    assert gaussian_delta(math.inf, 3.0) == 1 and gaussian_delta(0.0, 3.0) == 0
    assert gaussian_epsilon(1.0, 0.0) == math.inf == gaussian_epsilon(math.inf, 0.1)
    assert gaussian_mu(8.0, 0.0) == 0


moves = st.lists(
    st.tuples(st.sampled_from(["study", "count", "cap", "end"]), st.floats(0.02, 1.0), st.floats(0.1, 20.0)),
    min_size=1,
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(moves, st.sampled_from([1e-6, 1e-5, 1e-4, 1e-3]))
def test_moving_caps_are_never_passed_and_a_full_batch_study_gets_what_is_exact(
    moves: list[tuple[str, float, float]], delta: float
) -> None:
    """Whatever was spent under whatever caps: what is accepted is exact, and 99.5 % of what is left is accepted."""
    cap, spent, first = Cap(epsilon=1.0, delta=delta), ZERO, True
    for act, part, epsilon in moves:
        if act == "cap":
            cap = Cap(epsilon=epsilon, delta=delta)
            continue
        exact_left = gaussian_mu(cap.epsilon, delta) ** 2 - spent.mu_squared
        wanted = 0.01 if act == "count" else part * exact_left if act == "study" else 0.995 * exact_left
        if wanted <= 0:
            continue
        cost = gaussian_cost(wanted**-0.5)
        accepted = cap.share(spent + cost, adaptive=not first) <= 1
        if accepted:
            spent, first = spent + cost, False
            assert exact_delta(math.sqrt(spent.mu_squared), cap.epsilon) <= delta * (1 + 1e-6)
        whole = exact_left + (spent.mu_squared - cost.mu_squared if accepted else spent.mu_squared)
        assert accepted or wanted > exact_left - 0.005 * whole


@pytest.mark.parametrize("delta", [1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 19.0, 50.0])
def test_full_batch_studies_get_995_of_1000_of_the_exact_budget(epsilon: float, delta: float) -> None:
    mu = gaussian_mu(epsilon, delta)
    cap = Cap(epsilon=epsilon, delta=delta)
    assert cap.share(gaussian_cost(1 / mu), adaptive=False) <= 1 + TOLERANCE
    assert cap.share(gaussian_cost(1 / mu / 1.0001), adaptive=False) > 1 + TOLERANCE
    assert cap.share(gaussian_cost(1 / mu).times(0.995)) <= 1


SAMPLED = [(1.79, 1 / 7, 350, 1e-5), (5.0, 0.5, 100, 1e-4), (0.7, 0.25, 4, 1e-5), (2.9, 0.16, 40, 1e-3)]


@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), SAMPLED)
def test_a_dominating_gaussian_lies_above_the_profile_everywhere(
    noise: float, rate: float, steps: int, delta: float
) -> None:
    lost = 1e-4 * delta
    mu = dominating_mu(noise, rate, steps, lost)
    epsilons = np.arange(0.0005, 40, 0.0137)
    one = pld.from_gaussian_mechanism(noise, sampling_prob=rate, value_discretization_interval=5e-4)
    profile = np.asarray(one.self_compose(steps).get_delta_for_epsilon(epsilons))
    above = np.array([lost + (1 - lost) * gaussian_delta(mu, e) for e in epsilons])
    assert np.all(profile <= above)
    less = np.array([lost + (1 - lost) * gaussian_delta(0.99 * mu, e) for e in epsilons])
    assert np.any(profile > less)


def mechanism(noise: float, rate: float, rounds: int, delta: float) -> Mechanism:
    return Mechanism(
        max_grad_norm=1.0,
        noise_multiplier=noise,
        sampling_rate=rate,
        steps_per_round=1,
        rounds=rounds,
        target_delta=delta,
    )


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_a_lone_study_fits_a_cap_of_its_own_epsilon_up_to_the_price_of_its_parts(rate: float) -> None:
    study = mechanism(3.0, rate, 20, 1e-5)
    cost = study_cost(study).total
    epsilon = study.epsilon()
    price = 1.0 if rate == 1 else 1.09
    assert Cap(epsilon=price * epsilon, delta=1e-5).share(cost, adaptive=False) <= 1
    assert epsilon <= cost.epsilon(1e-5) * (1 + 1e-5)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(2.0, 8.0), st.sampled_from([0.05, 0.2, 1.0]), st.integers(1, 12)), min_size=1, max_size=3
    )
)
def test_any_mixture_is_covered_by_what_the_ledger_says(studies: list[tuple[float, float, int]]) -> None:
    """Brute force: one privacy loss distribution of everything against the filter's sum."""
    delta, total, everything = 1e-5, ZERO, None
    for noise, rate, rounds in studies:
        total = total + study_cost(mechanism(noise, rate, rounds, delta)).total
        one = pld.from_gaussian_mechanism(noise, sampling_prob=rate, value_discretization_interval=1e-3)
        part = one.self_compose(rounds)
        everything = part if everything is None else everything.compose(part)
    assert everything is not None
    assert everything.get_epsilon_for_delta(delta) <= (total).epsilon(delta) * (1 + 1e-4)


def test_old_entries_beside_new_ones_are_composed_and_not_added_as_epsilons() -> None:
    old = Cost(rdp=gaussian_cost(10.0).rdp)
    new = gaussian_cost(0.6)
    together = (old + new).epsilon(1e-5)
    exact = gaussian_epsilon(math.sqrt(1 / 0.36 + 0.01), 1e-5)
    assert exact <= together < 1.01 * exact
    assert combined_delta(0.0, old.rdp, 1.0) <= gaussian_delta(0.1, 0.0)
    cap = Cap(epsilon=8.0, delta=1e-5)
    assert cap.share(old + new) < cap.share(old + new + new)
    assert cap.share(old + gaussian_cost(gaussian_mu(8.0, 1e-5) ** -1)) > 1


def test_shared_noise_fits_under_any_cap() -> None:
    """(1 + e^cap) times the distance to the ideal noise passed delta from a cap of 19 on."""
    study = Mechanism(
        max_grad_norm=1.0,
        noise_multiplier=4.0,
        sampling_rate=1.0,
        steps_per_round=1,
        rounds=20,
        target_delta=1e-5,
        noise="shared",
        min_sites=8,
    )
    cost = study_cost(study).total
    old = Cost(rdp=cost.rdp, total_variation=study.total_variation())
    for epsilon in (5.5, 8.0, 16.0, 19.0, 30.0, 100.0, 1e4, 1e16):
        assert Cap(epsilon=epsilon, delta=1e-5).share(gaussian_cost(10.0) + cost) < 1
        assert Cap(epsilon=epsilon, delta=1e-5).share(old) < 1


def test_a_distance_is_weighed_by_the_gaussian_and_not_by_e_to_the_epsilon() -> None:
    """Theorem 2 by brute force: two points of N(0,1) and N(mu,1) are moved to the worst place for every epsilon."""
    mu, eta = 1.0, 1e-6
    bound = failure(eta, mu, 1)
    edge = norm.isf(eta) - mu  # where the reweighted mass is largest: the upper tail of Q
    moved = norm.sf(edge + mu - mu) - norm.sf(edge + mu)
    for epsilon in (0.5, 2.0, 5.0, 9.0):
        x = np.linspace(-10, 12, 400_001)
        p, q = norm.pdf(x, mu), norm.pdf(x)
        kept = np.where(x > norm.isf(eta), 0.0, q)  # eta of Q leaves exactly where P / Q is largest
        worst = float(np.clip(p - math.exp(epsilon) * kept, 0, None).sum() * (x[1] - x[0]))
        assert worst <= exact_delta(mu, epsilon) + bound
        assert moved <= 1


class Search:
    """The best adaptive strategy against an acceptance rule, by dynamic programming over the privacy loss.

    The adversary sees the loss so far and chooses the next release: a Gaussian step, an event that reveals all with a
    small probability, or a step on a random batch. ``value`` is the delta it reaches at the cap's epsilon.
    """

    def __init__(self, epsilon: float, kinds: list[tuple[Cost, Callable[[], tuple[Floats, Floats, float]]]]) -> None:
        self.epsilon, self.kinds = epsilon, kinds
        self.grid = np.linspace(-6, 10, 1601)
        self.stop = np.clip(-np.expm1(epsilon - self.grid), 0, None)

    def _after(self, value: Floats, kind: int) -> Floats:
        losses, weights, lost = self.kinds[kind][1]()
        moved = self.grid[:, None] + losses[None, :]
        inside = np.interp(moved, self.grid, value, right=1.0) @ weights
        return np.asarray(lost + (1 - lost) * inside)

    def value(self, accepts: Callable[[tuple[int, ...]], bool], most: tuple[int, ...]) -> float:
        known: dict[tuple[int, ...], Floats] = {}
        for state in sorted(product(*(range(m + 1) for m in most)), key=sum, reverse=True):
            best = self.stop
            for kind in range(len(most)):
                following = tuple(n + (i == kind) for i, n in enumerate(state))
                if following in known and accepts(following):
                    best = np.maximum(best, self._after(known[following], kind))
            known[state] = best
        return float(np.interp(0.0, self.grid, known[(0,) * len(most)]))


def _gaussian(mu_squared: float) -> tuple[Floats, Floats, float]:
    nodes = np.linspace(-7, 7, 141)
    weights = norm.pdf(nodes)
    return mu_squared / 2 + math.sqrt(mu_squared) * nodes, weights / weights.sum(), 0.0


def _sampled(noise: float, rate: float, steps: int) -> tuple[Floats, Floats, float]:
    x = np.linspace(-8 * noise, 1 + 8 * noise, 301)
    p = (1 - rate) * norm.pdf(x, 0, noise) + rate * norm.pdf(x, 1, noise)
    one, p = np.log(p / norm.pdf(x, 0, noise)), p / p.sum()
    grid, width = np.linspace(-8, 8, 1601), 0.01
    single = np.zeros(grid.size)
    place = (one + 8) / width
    for low, part in ((np.floor(place), 1 - place % 1), (np.floor(place) + 1, place % 1)):
        np.add.at(single, low.astype(int), p * part)
    whole = single
    for _ in range(steps - 1):
        whole = np.convolve(whole, single)[800:2401]
    kept = whole > 1e-12
    return grid[kept], whole[kept] / whole[kept].sum(), 0.0


def test_no_adaptive_choice_passes_the_cap_and_the_search_finds_rules_that_can_be_passed() -> None:
    epsilon, delta, lost = 2.0, 1e-2, 2e-5
    cap = Cap(epsilon=epsilon, delta=delta)
    step = gaussian_mu(epsilon, delta * (1 - FAILURE_SHARE)) ** 2 / 12
    batch = dominating_mu(2.0, 0.2, 4, lost)
    kinds: list[tuple[Cost, Callable[[], tuple[Floats, Floats, float]]]] = [
        (gaussian_cost(step**-0.5), lambda: _gaussian(step)),
        (Cost(rdp=ZERO.rdp, failure=2e-5, rest=ZERO.rdp), lambda: (np.zeros(1), np.ones(1), 2e-5)),
        (gaussian_cost(1 / batch, failure=lost), lambda: _sampled(2.0, 0.2, 4)),
    ]

    def cost(state: tuple[int, ...]) -> Cost:
        return sum((kind[0].times(n) for kind, n in zip(kinds, state, strict=True)), ZERO)

    search = Search(epsilon, kinds)
    reached = search.value(lambda s: cap.share(cost(s), adaptive=sum(s) > 1) <= 1 + 1e-9, (13, 6, 4))
    assert reached <= delta * 1.0005  # the grid's own error
    assert reached > 0.95 * delta  # and nearly all of it can be used

    # a rule that lets the two parts of delta be exchanged by the answers is passed, as is the best figure of each path
    loud = Search(epsilon, [kinds[0], (kinds[1][0], lambda: (np.zeros(1), np.ones(1), 1e-3))])

    def naive(state: tuple[int, ...]) -> bool:
        return exact_delta(math.sqrt(max(state[0], 1e-9) * step), epsilon) + 1e-3 * state[1] <= delta

    assert loud.value(naive, (13, 10)) > 1.3 * delta


def test_an_import_that_takes_all_of_delta_leaves_nothing() -> None:
    cap = Cap(epsilon=8.0, delta=1e-5)
    heavy = Cost(rdp=(0.0,) * len(RDP_ORDERS), delta=1e-5)
    assert math.isinf(cap.share(gaussian_cost(10.0) + heavy))
    assert cap.share(gaussian_cost(10.0) + Cost(rdp=ZERO.rdp, delta=2e-6)) < 0.1


def test_the_parts_of_delta_never_sum_to_more_whatever_older_entries_take() -> None:
    """An older entry's distance comes off before delta is divided, and what a fixed set may fail is kept for it."""
    cap = Cap(epsilon=4.0, delta=1e-4)
    older = Cost(rdp=tuple(1e-9 * order for order in RDP_ORDERS), total_variation=0.3 * cap.delta)
    outside = cap.outside(older)
    assert 0.3 * cap.delta <= outside < 0.9 * cap.delta
    for kept in (0.0, 0.001, 0.009, 0.5, 0.9):
        fixed = older + gaussian_cost(1e6, failure=kept * (cap.delta - outside))
        for fails in (0.0, 0.001, 0.0099, 0.5):
            total = older + gaussian_cost(1e3, failure=fails * cap.delta)
            if cap.failures(total, fixed) <= 1:
                allowed = cap.allowance(total, adaptive=True, fixed=fixed)
                assert allowed + max(total.failure, fixed.failure) + cap.outside(total) <= cap.delta * (1 + 1e-9)
