"""What an event costs: epsilon and Rényi curves by Google's ``dp_accounting``, with no bound of our own.

An event (``DpEvent``) says what is released; :mod:`privacy.dp.mechanism` makes it. Epsilon is always for add/remove
adjacency. The tight figure comes from privacy loss distributions (PLD); Rényi curves are for the ledger's filter.
Gaussian releases without sampling, however many, are one Gaussian: their figure is exact (:mod:`privacy.dp.gaussian`)
and takes microseconds where a PLD takes a tenth of a second.
Gaussian DP's central-limit approximation is never used, since it under-reports (2.70 where the truth is 4.22).

    >>> from dp_accounting import GaussianDpEvent
    >>> round(pld_epsilon(GaussianDpEvent(1.0), 1e-5), 2)
    4.38
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import dp_accounting
from dp_accounting import DpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from privacy.dp.gaussian import gaussian_delta, gaussian_epsilon
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from privacy.dp.mechanism import Mechanism

ADJACENCY = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
ORDERS: tuple[float, ...] = (
    *(1 + x / 10 for x in range(1, 100)),
    *(float(x) for x in range(11, 65)),
    128.0,
    256.0,
    512.0,
    1024.0,
)
"""Rényi orders of a study's curve: dense where the best order of a study lies (epsilon 1 to 20)."""
INTERVAL = 1e-3
"""Width of the PLD's bins; the bound is valid at any width, a finer one is tighter and slower."""


def composed_epsilon(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """Return epsilon of several studies on the same patients together, by PLD (add/remove adjacency).

    Args:
        mechanisms: of the studies, at least one.
        delta: in (0, 1).

    Returns:
        an upper bound, infinite where one has no noise.
    """
    return worst_epsilon(
        [dp_accounting.ComposedDpEvent([mechanism.event() for mechanism in mechanisms])],
        delta,
        slack=sum(mechanism.total_variation() for mechanism in mechanisms),
        failure=sum(mechanism.failure() for mechanism in mechanisms),
    )


@lru_cache(maxsize=1024)
def study_epsilon(mechanism: Mechanism, delta: float, rounds: int | None = None) -> float:
    """Return :meth:`Mechanism.epsilon`; a value that was asked for before is remembered, by every field."""
    slack, failure = mechanism.total_variation(rounds), mechanism.failure(rounds)
    return worst_epsilon(mechanism.events(rounds), delta, slack=slack, failure=failure)


def worst_epsilon(events: Sequence[DpEvent], delta: float, *, slack: float, failure: float) -> float:
    """Return the largest epsilon of ``events``, by the better of two bounds for noise that is not quite ideal.

    Args:
        events: each bounds one kind of patient, at least one.
        delta: in (0, 1).
        slack: total variation between what runs and each event.
        failure: what that distance adds to delta at every epsilon (docs/filter.md, theorem 2: better at a large one).

    Returns:
        an upper bound, infinite without noise.
    """
    losses = [PrivacyLoss(event) for event in events]
    found = max(loss.epsilon(delta, slack=slack) for loss in losses)
    left = delta - failure
    if left <= 0 or (math.isfinite(found) and left <= delta - (1 + math.exp(found)) * slack):
        return found
    return min(found, max(loss.epsilon(left) for loss in losses))


class PrivacyLoss:
    """The privacy loss of an event: of one Gaussian if it is one, else its distribution (PLD), composed once.

    Args:
        event: any event the PLD accountant supports.

    Raises:
        InvalidInput: the event has no PLD.
    """

    def __init__(self, event: DpEvent) -> None:
        mu = _mu(event)
        self._epsilon: Callable[[float], float]
        self._delta: Callable[[float], float]
        if mu is None:
            accountant = _composed(PLDAccountant(ADJACENCY, value_discretization_interval=INTERVAL), event)
            self._epsilon, self._delta = accountant.get_epsilon, accountant.get_delta
        else:
            self._epsilon, self._delta = partial(gaussian_epsilon, mu), partial(gaussian_delta, mu)

    def epsilon(self, delta: float, *, slack: float = 0.0) -> float:
        """Return epsilon at ``delta`` (add/remove adjacency).

        Args:
            delta: in (0, 1).
            slack: total variation between what runs and the event; costs ``(1 + exp(epsilon)) * slack`` of delta.

        Returns:
            an upper bound, infinite when some part carries no noise or the slack alone passes delta.

        Raises:
            InvalidInput: delta is out of range.
        """
        if not 0 < delta < 1:
            raise InvalidInput(f"expected a delta above 0 and below 1, got {delta}")
        epsilon = float(self._epsilon(delta))
        for _ in range(50):
            if not math.isfinite(epsilon) or epsilon > 700:
                return math.inf
            left = delta - (1 + math.exp(epsilon)) * slack
            if left <= 0:
                return math.inf
            enough = epsilon if left == delta else float(self._epsilon(left))
            if enough <= epsilon:
                return epsilon
            epsilon = enough + 1e-9
        return math.inf

    def deltas(self, epsilons: Sequence[float], *, slack: float = 0.0) -> tuple[float, ...]:
        """Return delta at each epsilon: the privacy profile.

        Args:
            epsilons: each at least 0.
            slack: total variation between what runs and the event.
        """
        found = (float(self._delta(e)) + (1 + math.exp(e)) * slack for e in epsilons)
        return tuple(min(1.0, delta) for delta in found)


def _mu(event: DpEvent) -> float | None:
    """Return the mu of which an event is mu-GDP to the letter; None if it is no composition of Gaussian releases."""
    match event:
        case dp_accounting.NoOpDpEvent():
            return 0.0
        case dp_accounting.GaussianDpEvent():
            return 1 / event.noise_multiplier if event.noise_multiplier else math.inf
        case dp_accounting.SelfComposedDpEvent():
            part = _mu(event.event)
            return part if part is None else part * math.sqrt(event.count)
        case dp_accounting.ComposedDpEvent():
            parts = [_mu(each) for each in event.events]
            return None if None in parts else math.hypot(*(part for part in parts if part is not None))
    return None


def pld_epsilon(event: DpEvent, delta: float, *, slack: float = 0.0) -> float:
    """Return epsilon of ``event`` at ``delta`` by privacy loss distributions: see :class:`PrivacyLoss`."""
    return PrivacyLoss(event).epsilon(delta, slack=slack)


def rdp_epsilon(event: DpEvent, delta: float) -> float:
    """Return epsilon of ``event`` at ``delta`` by Rényi DP: looser than :func:`pld_epsilon`, additive in a filter."""
    with _quiet():
        accountant = _composed(RdpAccountant(list(ORDERS), ADJACENCY), event)
        return float(accountant.get_epsilon(delta))


def rdp_curve(event: DpEvent, orders: tuple[float, ...] = ORDERS) -> tuple[float, ...]:
    """Return the Rényi divergence bound of ``event`` at each of ``orders`` (Mironov 2017; add/remove adjacency)."""
    with _quiet():
        accountant = _composed(RdpAccountant(list(orders), ADJACENCY), event)
        return tuple(float(value) for value in accountant.rdp)


def _composed(accountant: dp_accounting.PrivacyAccountant, event: DpEvent) -> dp_accounting.PrivacyAccountant:
    try:
        return accountant.compose(event)
    except dp_accounting.UnsupportedEventError as error:
        raise InvalidInput("this release has no bound in the accountant; use Gaussian releases") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep dp-accounting's remark about small Rényi orders off the log; it is made at every conversion."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
