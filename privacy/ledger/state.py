"""What the entries of a ledger add up to, and the rules by which it refuses.

The state is a pure function of the entries: folding them in order always gives the same balance, so no balance is kept
that could be edited. An entry that cannot follow from the ones before it (a charge without a reservation, a round
charged twice, a cost that is not the reserved one) is :class:`~privacy.errors.Tampered`. A request that the rules
forbid is :class:`~privacy.errors.Refused` before anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from privacy.dp.mechanism import Mechanism
from privacy.errors import BudgetExceeded, InvalidInput, Refused, Tampered
from privacy.ledger.chain import Entry
from privacy.ledger.costs import ZERO, Cap, Cost, StudyCost, cost_from_json, study_cost, study_from_json

Kind = Literal["dataset", "cap", "reserve", "charge", "free", "release", "release-without-guarantee", "import", "close"]
TOLERANCE = 1e-9  # sums of the same costs in another order differ in their last digits


@dataclass(kw_only=True)
class Reservation:
    """The worst case of one approved study, and how much of it was charged or freed so far."""

    study: str
    proposal_hash: str
    cost: StudyCost
    mechanism: Mapping[str, Any] | None
    at: str
    index: int
    charged: dict[int, int] = field(default_factory=dict)  # round -> number of the ledger's entry
    freed: set[int] = field(default_factory=set)
    spent: Cost = ZERO
    open: Cost = ZERO

    def charge_of(self, number: int) -> Cost:
        """Return what charging round ``number`` next would cost."""
        cost = self.cost.of_round(number)
        return cost if self.charged else cost + self.cost.once

    @property
    def open_rounds(self) -> tuple[int, ...]:
        """Rounds that are reserved and neither charged nor freed."""
        return tuple(r for r in range(1, self.cost.rounds + 1) if r not in self.charged and r not in self.freed)

    def recount(self) -> None:
        """Bring ``open`` up to date with ``charged`` and ``freed``."""
        rounds = self.open_rounds
        once = self.cost.once if rounds and not self.charged else ZERO
        self.open = sum((self.cost.of_round(r) for r in rounds), once)


@dataclass(frozen=True, kw_only=True)
class Posting:
    """One release or import beside the rounds of studies; ``cost`` None: without a guarantee."""

    index: int
    at: str
    name: str
    cost: Cost | None
    by: str
    reason: str
    study: str | None = None


@dataclass(kw_only=True)
class Population:
    """One line of budget: all datasets and versions that share a patient.

    ``orders`` are the Rényi orders of the privacy filter: fixed with the first expense, before any answer is seen,
    and never changed, because a choice that looks at answers is outside the theorem (Feldman and Zrnic 2021).
    """

    name: str
    datasets: list[tuple[str, int]] = field(default_factory=list)
    cases: set[str] = field(default_factory=set)
    cap: Cap | None = None
    orders: tuple[int, ...] = ()
    closed: bool = False
    reservations: dict[str, Reservation] = field(default_factory=dict)
    releases: dict[str, Posting] = field(default_factory=dict)
    imports: list[Posting] = field(default_factory=list)
    unguaranteed: list[Posting] = field(default_factory=list)
    posted: Cost = ZERO
    totals: tuple[Cost, Cost] | None = None  # spent and committed, until the next entry

    @property
    def spent(self) -> Cost:
        """Everything charged, released and imported."""
        return self._totals()[0]

    @property
    def committed(self) -> Cost:
        """Everything spent, and everything promised to approved studies."""
        return self._totals()[1]

    def _totals(self) -> tuple[Cost, Cost]:
        if self.totals is None:
            spent = sum((r.spent for r in self.reservations.values()), self.posted)
            self.totals = spent, sum((r.open for r in self.reservations.values()), spent)
        return self.totals

    def filter_orders(self, extra: Cost) -> tuple[int, ...]:
        """Return the orders at which the cap is checked; before the first expense, the best one for ``extra``."""
        if self.orders or self.cap is None:
            return self.orders
        return (self.cap.best_order(self.committed + extra),)

    def share(self, cost: Cost, orders: tuple[int, ...]) -> float:
        """Return which part of the cap ``cost`` takes at the worst of ``orders``."""
        if self.cap is None:
            return math.inf
        return max((self.cap.share(order, cost) for order in orders), default=0.0)

    def absorb(self, other: Population) -> None:
        """Join another population: its datasets, spend and promises add to this line, the smaller cap holds."""
        self.datasets += other.datasets
        self.cases |= other.cases
        self.cap = _smaller(self.cap, other.cap)
        self.orders = tuple(sorted({*self.orders, *other.orders}))
        self.closed = self.closed or other.closed
        self.reservations |= other.reservations
        taken = {n if n not in self.releases else f"{n} ({other.name})": p for n, p in other.releases.items()}
        self.releases |= taken
        self.imports += other.imports
        self.unguaranteed += other.unguaranteed
        self.posted = self.posted + other.posted


class State:
    """All populations of a ledger; :meth:`fold` takes the entries in order."""

    def __init__(self) -> None:
        self.populations: dict[str, Population] = {}
        self.dataset_cases: dict[tuple[str, int], frozenset[str]] = {}
        self.index = 0
        self._joined: dict[str, str] = {}
        self._created = 0

    def population(self, name: str) -> Population:
        """Return a population by its name, or by the name it had before it was joined to another.

        Raises:
            InvalidInput: there is no such population.
        """
        while name in self._joined:
            name = self._joined[name]
        if name not in self.populations:
            raise InvalidInput(f"expected a patient population of this ledger, got {name!r}")
        return self.populations[name]

    def population_of(self, name: str, version: int) -> Population:
        """Return the population that a dataset version belongs to.

        Raises:
            InvalidInput: the version is not registered.
        """
        for population in self.populations.values():
            if (name, version) in population.datasets:
                return population
        raise InvalidInput(f"expected a registered dataset, got {name!r} version {version}: ingest it first")

    def reservation(self, proposal_hash: str) -> tuple[Population, Reservation] | None:
        """Return the reservation of an approved proposal and its population, or None."""
        for population in self.populations.values():
            if proposal_hash in population.reservations:
                return population, population.reservations[proposal_hash]
        return None

    def overlapping(self, cases: frozenset[str]) -> list[Population]:
        """Return the populations that hold any of these cases, oldest first."""
        return [p for p in self.populations.values() if not p.cases.isdisjoint(cases)]

    def next_name(self) -> str:
        """Return the name for a new population."""
        return f"population-{self._created + 1}"

    def fold(self, entry: Entry) -> None:
        """Take the next entry into account.

        Raises:
            Tampered: the entry cannot follow from the ones before it.
        """
        try:
            if entry.index != self.index + 1:
                raise ValueError("an entry is missing")
            _FOLDS[entry.kind](self, entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Tampered(
                f"ledger entry {entry.index} ({entry.kind[:40]}) cannot follow from the entries before it: {error}"
            ) from error
        self.index = entry.index
        for population in self.populations.values():
            population.totals = None

    def _dataset(self, entry: Entry) -> None:
        body = entry.body
        version, cases = (str(body["name"]), int(body["version"])), frozenset(body["cases"])
        overlapping = self.overlapping(cases)
        name = overlapping[0].name if overlapping else self.next_name()
        if version in self.dataset_cases:
            raise ValueError("the dataset version is registered already")
        if body["population"] != name or body["joined"] != [p.name for p in overlapping[1:]]:
            raise ValueError("the population does not follow from the shared patients")
        if not overlapping:
            self._created += 1
            self.populations[name] = Population(name=name)
        target = self.populations[name]
        for other in overlapping[1:]:
            target.absorb(self.populations.pop(other.name))
            self._joined[other.name] = name
        target.datasets.append(version)
        target.cases |= cases
        self.dataset_cases[version] = cases

    def _cap(self, entry: Entry) -> None:
        body = entry.body
        epsilon = math.inf if body["epsilon"] is None else float(body["epsilon"])
        self.population(body["population"]).cap = Cap(epsilon=epsilon, delta=float(body["delta"]))

    def _reserve(self, entry: Entry) -> None:
        body = entry.body
        population = self.population(body["population"])
        if self.reservation(body["proposal_hash"]) is not None:
            raise ValueError("the proposal is reserved already")
        reservation = Reservation(
            study=str(body["study"]),
            proposal_hash=str(body["proposal_hash"]),
            cost=study_from_json(body["cost"]),
            mechanism=body["mechanism"],
            at=entry.at,
            index=entry.index,
        )
        reservation.recount()
        population.orders = population.orders or tuple(body["orders"])
        population.reservations[reservation.proposal_hash] = reservation

    def _charge(self, entry: Entry) -> None:
        body = entry.body
        found = self.reservation(body["proposal_hash"])
        if found is None or body["round"] not in found[1].open_rounds:
            raise ValueError("the round was not reserved, or was charged or freed before")
        reservation, number = found[1], int(body["round"])
        cost = cost_from_json(body["cost"])
        if cost != reservation.charge_of(number):
            raise ValueError("the charge is not what was reserved")
        reservation.spent = reservation.spent + cost
        reservation.charged[number] = entry.index
        reservation.recount()

    def _free(self, entry: Entry) -> None:
        body = entry.body
        found = self.reservation(body["proposal_hash"])
        if found is None or not set(body["rounds"]) <= set(found[1].open_rounds):
            raise ValueError("a round was not reserved, or was charged or freed before")
        found[1].freed |= set(body["rounds"])
        found[1].recount()

    def _release(self, entry: Entry) -> None:
        body = entry.body
        population = self.population(body["population"])
        posting = _posting(entry, cost_from_json(body["cost"]))
        if posting.name in population.releases:
            raise ValueError("the release was charged before")
        population.orders = population.orders or tuple(body["orders"])
        population.releases[posting.name] = posting
        population.posted = population.posted + cost_from_json(body["cost"])

    def _unguaranteed(self, entry: Entry) -> None:
        body = entry.body
        self.population(body["population"]).unguaranteed.append(_posting(entry, None))

    def _import(self, entry: Entry) -> None:
        body = entry.body
        population = self.population(body["population"])
        cost = cost_from_json(body["cost"])
        population.imports.append(_posting(entry, cost))
        population.posted = population.posted + cost

    def _close(self, entry: Entry) -> None:
        body = entry.body
        self.population(body["population"]).closed = True


_FOLDS = {
    "dataset": State._dataset,
    "cap": State._cap,
    "reserve": State._reserve,
    "charge": State._charge,
    "free": State._free,
    "release": State._release,
    "release-without-guarantee": State._unguaranteed,
    "import": State._import,
    "close": State._close,
}


def _posting(entry: Entry, cost: Cost | None) -> Posting:
    body = entry.body
    return Posting(
        index=entry.index,
        at=entry.at,
        name=str(body["name"]),
        cost=cost,
        by=str(body["by"]),
        reason=str(body["reason"]),
        study=body.get("study"),
    )


def _smaller(a: Cap | None, b: Cap | None) -> Cap | None:
    if a is None or b is None:
        return a or b
    return Cap(epsilon=min(a.epsilon, b.epsilon), delta=min(a.delta, b.delta))


def cost_of(plan: Mechanism | StudyCost) -> StudyCost:
    """Return the worst case of a study, given its mechanism or its costs."""
    return study_cost(plan) if isinstance(plan, Mechanism) else plan


def check_fits(population: Population, cost: Cost, what: str) -> tuple[int, ...]:
    """Return the filter's orders when ``cost`` fits beside everything spent and promised.

    Raises:
        Refused: the population is closed or has no cap.
        BudgetExceeded: it does not fit.
    """
    check_open(population)
    cap_of(population)
    orders = population.filter_orders(cost)
    check_share(population, population.committed + cost, orders, what)
    return orders


def cap_of(population: Population) -> Cap:
    """Return the cap of a population; Refused when none is set."""
    if population.cap is None:
        raise Refused(f"no privacy cap is set for {population.name}: its owner has to set one first")
    return population.cap


def check_open(population: Population) -> None:
    """Raise Refused when the population is closed."""
    if population.closed:
        raise Refused(f"{population.name} is closed: nothing is computed on it any more")


def check_share(population: Population, total: Cost, orders: tuple[int, ...], what: str) -> None:
    """Raise BudgetExceeded when ``total`` would pass the cap at one of the filter's ``orders``."""
    cap = cap_of(population)
    share = population.share(total, orders)
    if math.isinf(share) and any(map(math.isinf, total.rdp)):
        raise BudgetExceeded(
            f"{what} does not fit under the cap of {population.name}: something leaves without noise, which costs an "
            f"infinite epsilon, and the cap is {cap.epsilon:g} at delta {cap.delta:g}: add noise"
        )
    if share > 1 + TOLERANCE:
        raise BudgetExceeded(
            f"{what} does not fit under the cap of {population.name}: expected at most epsilon {cap.epsilon:g} at "
            f"delta {cap.delta:g} (add/remove, RDP filter), got {share:.3g} times that budget: ask for less"
        )


def reserved(state: State, proposal_hash: str) -> tuple[Population, Reservation]:
    """Return the reservation of a proposal and its population; Refused when there is none."""
    found = state.reservation(proposal_hash)
    if found is None:
        raise Refused(f"no budget is reserved for the proposal {proposal_hash[:12]}: it has to be approved first")
    return found


def person(by: str) -> str:
    """Return who acts; InvalidInput when nobody is named."""
    if not by.strip():
        raise InvalidInput("expected the name of the person or part that acts, got nothing")
    return by


def reason_given(reason: str) -> str:
    """Return why; InvalidInput when no reason is given."""
    if not reason.strip():
        raise InvalidInput("expected a reason, got nothing: it is part of the record")
    return reason
