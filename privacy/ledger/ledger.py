"""The privacy ledger of a data owner: one line of budget per patient population, reserved, charged, never edited.

::

    register_dataset     datasets and versions that share a patient share a line of budget
    set_cap              a person allows epsilon at delta
    preview, reserve     a study's worst case must fit whole, or nothing is reserved (BudgetExceeded)
    charge               a round is spent from the moment a record may be read; once per round, whatever crashes
    release_reservation  rounds that never read a record go back
    release              counts and other noised numbers beside the rounds of studies

Across studies, which may be chosen after seeing earlier answers, the cap is a privacy filter
(:mod:`privacy.ledger.filter`): squares of mu of everything spent and promised stay below what the cap allows at the
owner's delta. The cap may rise and fall at any time. Adjacency is add or remove of one patient.

    >>> ledger = Ledger(folder / "ledger.db", identity)
    >>> population = ledger.register_dataset("brca", 1, [case_hash(secret, case) for case in cases])
    >>> ledger.set_cap(population, epsilon=8.0, delta=1e-4, by="B. Steward", reason="board decision 12/2026")
    >>> ledger.reserve(population, study="pilot", proposal_hash=proposal_hash, plan=mechanism)
    >>> ledger.charge(proposal_hash, 1)
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from privacy.dp.mechanism import Mechanism
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity
from privacy.ledger.chain import Chain, Entry, Head
from privacy.ledger.cost_documents import cost_to_json, study_to_json
from privacy.ledger.costs import Cost, StudyCost
from privacy.ledger.filter import TOLERANCE, Cap
from privacy.ledger.links import case_hash
from privacy.ledger.rules import (
    cap_of,
    chainable,
    check_fits,
    check_open,
    check_share,
    chosen_by_answers,
    cost_of,
    person,
    reason_given,
    reserved,
    same_cost,
)
from privacy.ledger.state import Population, State
from privacy.ledger.views import (
    Account,
    Point,
    Preview,
    Room,
    Spend,
    StudyAccount,
    account_of,
    room_of,
    spend_of,
    timeline,
)

__all__ = ["Account", "Ledger", "Point", "Preview", "Spend", "StudyAccount", "case_hash"]


class Ledger:
    """The ledger in the SQLite file ``path``, signed by ``identity`` (None: for reading only).

    Several processes and threads may use the same file; every decision is made and written in one transaction.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity | None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._chain = Chain(path, identity, purpose="ledger", clock=clock)
        self._lock = threading.RLock()
        self._state = State()

    @property
    def path(self) -> Path:
        """Where the ledger lies."""
        return self._chain.path

    @property
    def public_key(self) -> str:
        """The key its entries are signed with."""
        return self._chain.public_key

    @property
    def head(self) -> Head:
        """The signed end of the ledger, to be shown to peers."""
        return self._chain.head

    def register_dataset(self, name: str, version: int, cases: Iterable[str], spellings: Iterable[str] = ()) -> str:
        """Register a dataset version and return the population whose budget it shares.

        Args:
            name, version: the dataset; the same version with the same cases may be registered again.
            cases: one :func:`case_hash` per patient, in any order.
            spellings: the same of ids without what makes no other patient; who shares one shares the budget.

        Raises:
            InvalidInput: no cases, a case twice, or this version was registered with others.
        """
        listed = list(cases)
        wanted, alike = frozenset(listed), frozenset(spellings)
        if len(wanted) != len(listed):
            raise InvalidInput(f"expected every patient once in {name!r} version {version}, got one twice; merge them")
        if not wanted:
            raise InvalidInput(f"expected at least one patient in {name!r} version {version}, got none")
        with self._writing() as state:
            known = state.dataset_cases.get((name, version))
            if known is not None and known != wanted:
                raise InvalidInput(f"{name!r} version {version} was registered with other patients: raise the version")
            if known is None:
                shared = state.overlapping(wanted, alike)
                body = {
                    "name": name,
                    "version": version,
                    "population": shared[0].name if shared else state.next_name(),
                    "joined": [population.name for population in shared[1:]],
                    "cases": sorted(wanted),
                }
                self._add("dataset", body | ({"spellings": sorted(alike)} if alike else {}))
            return state.population_of(name, version).name

    def population_of(self, name: str, version: int) -> str:
        """Return the population of a dataset version; InvalidInput when it is not registered."""
        with self._reading() as state:
            return state.population_of(name, version).name

    def populations(self) -> tuple[str, ...]:
        """Return the names of all populations, oldest first."""
        with self._reading() as state:
            return tuple(state.populations)

    def set_cap(self, population: str, *, epsilon: float, delta: float, by: str, reason: str) -> Entry:
        """Set what may be spent on a population: a person's act, with a reason.

        Args:
            epsilon: above 0; infinite means no cap.
            delta: the owner's delta for the whole life of the population, in (0, 1); 1/(10 n) or less is usual.

        A cap below what is spent or promised holds as well: what no longer fits is refused, at the next reservation
        and before the next round of every study.
        """
        cap = Cap(epsilon=float(epsilon), delta=float(delta))
        with self._writing() as state:
            found = state.population(population)
            body = {
                "population": found.name,
                "epsilon": None if math.isinf(cap.epsilon) else cap.epsilon,
                "delta": cap.delta,
                "by": person(by),
                "reason": reason_given(reason),
            }
            return self._add("cap", body)

    def preview(self, population: str, plan: Mechanism | StudyCost) -> Preview:
        """Return the budget before and after a study, and the study's own cost; nothing is written.

        Raises:
            Refused: no cap is set.
        """
        cost = cost_of(plan)
        with self._reading() as state:
            found = state.population(population)
            cap = cap_of(found)
            adaptive = found.answered
            after = spend_of(found, found.committed + cost.total, adaptive=adaptive)
            return Preview(
                population=found.name,
                before=spend_of(found, found.committed, adaptive=adaptive),
                study=spend_of(found, cost.total, adaptive=adaptive),
                after=after,
                cap=cap,
                fits=after.share <= 1 + TOLERANCE and not found.closed,
            )

    def reserve(self, population: str, *, study: str, proposal_hash: str, plan: Mechanism | StudyCost) -> Entry:
        """Promise a study its whole worst case, or nothing; the same proposal again changes nothing.

        A proposal whose rounds all went back uncharged is reserved anew.

        Raises:
            BudgetExceeded: it does not fit under the cap beside what is spent and promised.
            Refused: the population is closed or has no cap.
        """
        cost = cost_of(plan)
        with self._writing() as state:
            known = state.reservation(proposal_hash)
            if known is not None and (known[1].open_rounds or known[1].charged):
                return self._chain.entry(known[1].index)
            found = state.population(population)
            check_fits(found, chainable(cost.total, "a study"), f"study {study!r}")
            body = {
                "population": found.name,
                "study": study,
                "proposal_hash": proposal_hash,
                "mechanism": asdict(plan) if isinstance(plan, Mechanism) else None,
                "cost": study_to_json(cost),
            }
            return self._add("reserve", body)

    def charge(self, proposal_hash: str, round_number: int) -> Entry:
        """Charge one round of a study; call it before the worker may read a record.

        Idempotent: after a crash, charging the same round again returns the entry that is there.

        Raises:
            Refused: the proposal has no reservation, the round was freed, or the population is closed.
            BudgetExceeded: the cap was lowered or populations were joined since, and the spend would pass the cap.
            InvalidInput: the study has no such round.
        """
        with self._writing() as state:
            population, reservation = reserved(state, proposal_hash)
            cost = reservation.charge_of(round_number)
            if round_number in reservation.charged:
                return self._chain.entry(reservation.charged[round_number])
            if round_number in reservation.freed:
                raise Refused(f"round {round_number} of study {reservation.study!r} was freed: it cannot be charged")
            check_open(population)
            check_share(
                population, population.spent + cost, f"round {round_number}", adaptive=chosen_by_answers(population)
            )
            body = {
                "population": population.name,
                "study": reservation.study,
                "proposal_hash": proposal_hash,
                "round": round_number,
                "cost": cost_to_json(cost),
            }
            return self._add("charge", body)

    def release_reservation(
        self, proposal_hash: str, *, by: str, reason: str, round_number: int | None = None
    ) -> Entry | None:
        """Free one round that never read a record, or all that are left; None when nothing is left to free.

        Raises:
            Refused: the proposal has no reservation, or the round was charged.
        """
        with self._writing() as state:
            population, reservation = reserved(state, proposal_hash)
            left = reservation.open_rounds
            if round_number is not None and round_number in reservation.charged:
                raise Refused(f"round {round_number} was charged: what may have been read is never refunded")
            rounds = left if round_number is None else tuple(r for r in left if r == round_number)
            if not rounds:
                return None
            body = {
                "population": population.name,
                "study": reservation.study,
                "proposal_hash": proposal_hash,
                "rounds": list(rounds),
                "by": person(by),
                "reason": reason_given(reason),
            }
            return self._add("free", body)

    def release(
        self, population: str, *, name: str, cost: Cost, by: str, reason: str, study: str | None = None
    ) -> Entry:
        """Charge a noised release beside the rounds of studies, such as the count of a dataset version.

        Call it before reading records. The same name with the same cost again changes nothing.

        Args:
            name: what is released, unique in the population (``count of brca version 1``).
            cost: see :func:`privacy.ledger.costs.gaussian_cost`.

        Raises:
            BudgetExceeded: it does not fit.
            InvalidInput: the name was used for a release of another cost.
        """
        with self._writing() as state:
            found = state.population(population)
            if name in found.releases:
                if not same_cost(found.releases[name].cost, cost):
                    raise InvalidInput(f"the release {name!r} was charged with another cost: give it another name")
                return self._chain.entry(found.releases[name].index)
            check_fits(found, chainable(cost, "a release"), f"the release {name!r}")
            body = _posting_body(found, name, by, reason, study)
            return self._add("release", body | {"cost": cost_to_json(cost)})

    def release_without_guarantee(
        self, population: str, *, name: str, by: str, reason: str, study: str | None = None
    ) -> Entry:
        """Book something a person let out by hand: it has no cost, and no epsilon of this ledger covers it."""
        with self._writing() as state:
            body = _posting_body(state.population(population), name, by, reason, study)
            return self._add("release-without-guarantee", body)

    def import_spend(self, population: str, *, name: str, cost: Cost, by: str, reason: str) -> Entry:
        """Charge a spend from elsewhere, or missing after a restore; it counts even where it passes the cap."""
        with self._writing() as state:
            body = _posting_body(state.population(population), name, by, reason, None)
            return self._add("import", body | {"cost": cost_to_json(cost)})

    def close_population(self, population: str, *, by: str, reason: str) -> Entry:
        """End all use of a population: nothing is reserved, charged or released on it again."""
        with self._writing() as state:
            found = state.population(population)
            return self._add("close", {"population": found.name, "by": person(by), "reason": reason_given(reason)})

    def spent(self, population: str) -> Spend:
        """Return what was charged, released and imported on a population."""
        with self._reading() as state:
            found = state.population(population)
            return spend_of(found, found.spent)

    def account(self, population: str) -> Account:
        """Return everything about one population at this moment."""
        with self._reading() as state:
            return account_of(state.population(population))

    def room(self, population: str) -> tuple[Room, ...]:
        """Return how many studies of which size still fit beside everything spent and promised."""
        with self._reading() as state:
            return room_of(state.population(population))

    def timeline(self, population: str) -> tuple[Point, ...]:
        """Return the budget after each entry that concerns this population, oldest first."""
        return timeline(self.entries(), self.account(population).population)

    def entries(self, *, since: int = 0, kind: str | None = None) -> Iterator[Entry]:
        """Yield the ledger's entries with an index above ``since``, oldest first, of one kind or of all."""
        return self._chain.entries(since=since, kind=kind)

    def verify(self) -> None:
        """Check the chain, and that every entry follows from those before it.

        Raises:
            Tampered: the first thing that does not hold.
        """
        self._chain.verify()
        state = State()
        for entry in self._chain.entries():
            state.fold(entry)

    def check_not_rolled_back(self, heads: Iterable[Head | str]) -> None:
        """Raise Tampered when a head that a peer has seen is not in this ledger (a restore from backup)."""
        self._chain.check_not_rolled_back(heads)

    def contains(self, digest: str) -> bool:
        """Tell whether an entry has this hash."""
        return self._chain.contains(digest)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._chain.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[State]:
        with self._lock:
            yield self._folded()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[State]:
        with self._lock:
            before = self._folded().index
            try:
                with self._chain.transaction():
                    before = self._folded().index
                    yield self._state
            except BaseException:
                if self._state.index > before:
                    self._state = State()  # what was added and folded inside did not happen
                raise

    def _folded(self) -> State:
        for entry in self._chain.entries(since=self._state.index):
            self._state.fold(entry)
        return self._state

    def _add(self, kind: str, body: Mapping[str, Any]) -> Entry:
        entry = self._chain.add(kind, body)
        self._folded()
        return entry


def _posting_body(population: Population, name: str, by: str, reason: str, study: str | None) -> dict[str, Any]:
    why = {"by": person(by), "reason": reason_given(reason)}
    return {"population": population.name, "name": name, **why, "study": study}
