"""Views of a ledger: frozen values, read at one moment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from privacy.dp.gaussian import gaussian_mu
from privacy.ledger.chain import Entry
from privacy.ledger.costs import Cost, gaussian_cost
from privacy.ledger.filter import TOLERANCE, Cap
from privacy.ledger.links import ROTATED
from privacy.ledger.state import Population, Posting, Reservation, State
from privacy.sentences import say


@dataclass(frozen=True, kw_only=True)
class Spend:
    """A part of a population's budget.

    ``epsilon`` is stated at ``delta``, add or remove of one patient (:func:`privacy.ledger.costs.Cost.epsilon`);
    ``share`` is the part of the cap by the filter (0 to 1), the figure by which the ledger refuses.
    """

    cost: Cost
    epsilon: float
    delta: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a study would do to the budget: before (spent and promised), the study alone, after."""

    population: str
    before: Spend
    study: Spend
    after: Spend
    cap: Cap
    fits: bool


@dataclass(frozen=True, kw_only=True)
class StudyAccount:
    """One study's line in the ledger; ``mechanism`` is the canonical form of what was approved."""

    study: str
    proposal_hash: str
    mechanism: Mapping[str, Any] | None
    reserved_at: str
    rounds: int
    charged_rounds: tuple[int, ...]
    freed_rounds: tuple[int, ...]
    spent: Spend
    promised: Spend


@dataclass(frozen=True, kw_only=True)
class Account:
    """Everything the ledger says about one population, read at one moment."""

    population: str
    datasets: tuple[tuple[str, int], ...]
    patients: int
    cap: Cap | None
    closed: bool
    spent: Spend
    committed: Spend
    studies: tuple[StudyAccount, ...]
    releases: tuple[Posting, ...]
    imports: tuple[Posting, ...]
    unguaranteed: tuple[Posting, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A population's budget right after one entry; ``cap`` None: not set yet."""

    index: int
    at: str
    kind: str
    event: str
    study: str | None
    spent: Spend
    committed: Spend
    cap: Cap | None


def timeline(entries: Iterable[Entry], population: str) -> tuple[Point, ...]:
    """Return the budget of a population after each entry that concerns it, oldest first.

    Spending of populations that were joined to it counts from the join on. Epsilons are at the delta of their time.
    """
    state, points = State(), []
    for entry in entries:
        state.fold(entry)
        if entry.kind == ROTATED:
            continue
        if entry.kind == "charge":
            event: str = say("round {number}", number=entry.body["round"])
        else:
            event = str(entry.body.get("name") or "") or _EVENTS.get(entry.kind, entry.kind)
        found = state.population(entry.body["population"])
        if found.name == population:
            points.append(
                Point(
                    index=entry.index,
                    at=entry.at,
                    kind=entry.kind,
                    event=event,
                    study=entry.body.get("study"),
                    spent=spend_of(found, found.spent),
                    committed=spend_of(found, found.committed),
                    cap=found.cap,
                )
            )
    return tuple(points)


_EVENTS = {
    "cap": say("cap set"),
    "reserve": say("study approved"),
    "free": say("rounds freed"),
    "close": say("population closed"),
}


def spend_of(population: Population, cost: Cost, *, adaptive: bool | None = None) -> Spend:
    """Return ``cost`` as a part of the population's budget; ``adaptive``: see :meth:`Population.share`."""
    delta = population.cap.delta if population.cap else 0.0
    epsilon = cost.epsilon(delta) if delta else (0.0 if cost.is_zero else math.inf)
    return Spend(cost=cost, epsilon=epsilon, delta=delta, share=population.share(cost, adaptive=adaptive))


SIZES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Epsilons, at the cap's delta, of the studies that :func:`room_of` counts."""
_MOST_STUDIES = 10_000


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many more full-batch studies of one epsilon, at the cap's delta, still fit under a cap together."""

    epsilon: float
    studies: int


def room_of(population: Population) -> tuple[Room, ...]:
    """Return how many studies of each of :data:`SIZES` still fit; nothing without a finite cap, or when closed."""
    cap = population.cap
    if cap is None or population.closed or math.isinf(cap.epsilon):
        return ()
    return tuple(Room(epsilon=size, studies=_fitting(population, cap, size)) for size in SIZES)


def _fitting(population: Population, cap: Cap, size: float) -> int:
    one = gaussian_cost(1 / gaussian_mu(size, cap.delta))

    def fits(studies: int) -> bool:
        total = population.committed + one.times(studies)
        return population.share(total, adaptive=population.answered or studies > 1) <= 1 + TOLERANCE

    low, high = 0, 1
    while high <= _MOST_STUDIES and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def account_of(p: Population) -> Account:
    """Return everything about one population."""
    return Account(
        population=p.name,
        datasets=tuple(p.datasets),
        patients=len(p.cases),
        cap=p.cap,
        closed=p.closed,
        spent=spend_of(p, p.spent),
        committed=spend_of(p, p.committed),
        studies=tuple(_study_account(p, reservation) for reservation in p.reservations.values()),
        releases=tuple(p.releases.values()),
        imports=tuple(p.imports),
        unguaranteed=tuple(p.unguaranteed),
    )


def _study_account(population: Population, reservation: Reservation) -> StudyAccount:
    return StudyAccount(
        study=reservation.study,
        proposal_hash=reservation.proposal_hash,
        mechanism=reservation.mechanism,
        reserved_at=reservation.at,
        rounds=reservation.cost.rounds,
        charged_rounds=tuple(sorted(reservation.charged)),
        freed_rounds=tuple(sorted(reservation.freed)),
        spent=spend_of(population, reservation.spent),
        promised=spend_of(population, reservation.open),
    )
