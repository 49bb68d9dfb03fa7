"""What the entries of a ledger add up to.

The state is a pure function of the entries: folding them in order always gives the same balance, so no balance is kept
that could be edited. An entry that cannot follow from the ones before it (a charge without a reservation, a round
charged twice, a cost that is not the reserved one) is :class:`~privacy.errors.Tampered`. What may be written at all is
in :mod:`privacy.ledger.rules`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from privacy.errors import InvalidInput, Tampered
from privacy.ledger.chain import Entry
from privacy.ledger.cost_documents import cost_from_json, study_from_json
from privacy.ledger.costs import ZERO, Cost, StudyCost
from privacy.ledger.filter import TOLERANCE, Cap
from privacy.ledger.links import ROTATED

Kind = Literal["dataset", "cap", "reserve", "charge", "free", "release", "release-without-guarantee", "import", "close"]


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
        cost = self.cost.of_rounds([number], paid=self.charged)
        return cost if self.charged else cost + self.cost.once

    @property
    def open_rounds(self) -> tuple[int, ...]:
        """Rounds that are reserved and neither charged nor freed."""
        return tuple(r for r in range(1, self.cost.rounds + 1) if r not in self.charged and r not in self.freed)

    def recount(self) -> None:
        """Bring ``open`` up to date with ``charged`` and ``freed``."""
        rounds = self.open_rounds
        once = self.cost.once if rounds and not self.charged else ZERO
        self.open = once + self.cost.of_rounds(rounds, paid=self.charged)


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

    ``answered`` says that something was spent; ``fixed`` is what was reserved or released before that, and
    ``adaptive`` says that something was reserved, released or imported afterwards, which an answer may have chosen.
    """

    name: str
    datasets: list[tuple[str, int]] = field(default_factory=list)
    cases: set[str] = field(default_factory=set)
    spellings: set[str] = field(default_factory=set)
    cap: Cap | None = None
    answered: bool = False
    adaptive: bool = False
    fixed: Cost = ZERO
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

    def share(self, cost: Cost, *, adaptive: bool | None = None) -> float:
        """Return which part of the cap ``cost`` takes; ``adaptive`` None: as what was decided so far."""
        if self.cap is None:
            return math.inf
        return self.cap.share(cost, adaptive=self.adaptive if adaptive is None else adaptive, fixed=self.fixed)

    def settle(self) -> None:
        """Bring sums up to date after an entry."""
        self.totals = None
        if not self.answered:
            self.fixed, self.answered = self.committed, not self.spent.is_zero

    def absorb(self, other: Population) -> None:
        """Join another population: its datasets, spend and promises add to this line, the smaller cap holds."""
        self.datasets += other.datasets
        self.cases |= other.cases
        self.spellings |= other.spellings
        self.cap = _smaller(self.cap, other.cap)
        self.answered = self.adaptive = self.answered or other.answered
        self.fixed = max(self.fixed, other.fixed, key=lambda cost: cost.mu_squared)
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

    def overlapping(self, cases: frozenset[str], spellings: frozenset[str]) -> list[Population]:
        """Return the populations that hold any of these cases, in any of these spellings, oldest first."""
        found = self.populations.values()
        return [p for p in found if not (p.cases.isdisjoint(cases) and p.spellings.isdisjoint(spellings))]

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
            population.settle()

    def _dataset(self, entry: Entry) -> None:
        body = entry.body
        version, cases = (str(body["name"]), int(body["version"])), frozenset(body["cases"])
        spellings = frozenset(body.get("spellings", ()))  # older entries say none
        overlapping = self.overlapping(cases, spellings)
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
        target.spellings |= spellings
        self.dataset_cases[version] = cases

    def _cap(self, entry: Entry) -> None:
        body = entry.body
        epsilon = math.inf if body["epsilon"] is None else float(body["epsilon"])
        population = self.population(body["population"])
        population.cap = Cap(epsilon=epsilon, delta=float(body["delta"]))
        if population.answered and population.share(population.fixed, adaptive=False) > 1 + TOLERANCE:
            population.adaptive = True  # from now on answers choose which part of it runs, also under a later cap

    def _reserve(self, entry: Entry) -> None:
        body = entry.body
        population = self.population(body["population"])
        known = self.reservation(body["proposal_hash"])
        if known is not None and (known[1].open_rounds or known[1].charged):
            raise ValueError("the proposal is reserved already")
        if known is not None:
            del known[0].reservations[known[1].proposal_hash]
        reservation = Reservation(
            study=str(body["study"]),
            proposal_hash=str(body["proposal_hash"]),
            cost=study_from_json(body["cost"]),
            mechanism=body["mechanism"],
            at=entry.at,
            index=entry.index,
        )
        reservation.recount()
        population.adaptive = population.answered
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
        population.adaptive = population.answered
        population.releases[posting.name] = posting
        population.posted = population.posted + cost_from_json(body["cost"])

    def _unguaranteed(self, entry: Entry) -> None:
        body = entry.body
        self.population(body["population"]).unguaranteed.append(_posting(entry, None))

    def _import(self, entry: Entry) -> None:
        body = entry.body
        population = self.population(body["population"])
        cost = cost_from_json(body["cost"])
        population.adaptive = population.adaptive or population.answered
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
    ROTATED: lambda *_: None,
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
