"""Somebody asks for studies one after another, by what was seen, while caps move, rounds are skipped and roles crash.

Played: random adaptive sequences of reservations (plain, with losses, with records that are scored apart), rounds out
of order, repeated rounds, ended studies, releases, caps that rise and fall, and restarts. What was spent is computed
here from the definition, and what a cap allows by scipy from the exact formula of Balle and Wang: nothing of the
ledger's accounting judges the ledger. It may never pass the cap of the moment, and it may refuse nothing that takes
less than 99.5 % of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from privacy.errors import BudgetExceeded
from privacy.identity import Identity
from privacy.ledger.costs import PeriodicCost, StudyCost, gaussian_cost
from privacy.ledger.ledger import Ledger

LEAST = 0.995


def exact_room(epsilon: float, delta: float) -> float:
    """The largest mu squared of a Gaussian release that is (epsilon, delta) private."""

    def excess(mu: float) -> float:
        lower = math.exp(epsilon + float(norm.logcdf(-mu / 2 - epsilon / mu)))
        return float(norm.cdf(mu / 2 - epsilon / mu)) - lower - delta

    return float(brentq(excess, 1e-9, 60.0, xtol=1e-13)) ** 2


@dataclass(kw_only=True)
class Asked:
    """A reserved study: ``worst`` is what a set of its rounds costs the patient who pays most."""

    rounds: int
    worst: Callable[[set[int]], float]
    done: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)

    @property
    def promised(self) -> float:
        return self.worst(set(range(1, self.rounds + 1)) - self.ended) - self.worst(self.done)


class Adversary:
    """Acts at random on one ledger, and keeps an account of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random, self.path, self.identity = random.Random(seed), folder / "ledger.sqlite", Identity.generate()  # noqa: S311
        self.delta = 10 ** self.random.uniform(-6, -3)
        self.epsilon = math.exp(self.random.uniform(-1, 3))
        self.spent, self.studies, self.refused = 0.0, dict[str, Asked](), list[float]()
        self.ledger = Ledger(self.path, self.identity)
        self.ledger.register_dataset("cohort", 1, [f"{i:032x}" for i in range(5)])
        self.set_cap()

    @property
    def room(self) -> float:
        return exact_room(self.epsilon, self.delta)

    @property
    def committed(self) -> float:
        return self.spent + sum(study.promised for study in self.studies.values())

    def set_cap(self) -> None:
        self.ledger.set_cap("population-1", epsilon=self.epsilon, delta=self.delta, by="Ada", reason="a decision")

    def move_cap(self) -> None:
        self.epsilon = math.exp(self.random.uniform(-1, 3))
        self.set_cap()

    def crash(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path, self.identity)

    def tried(self, act: Callable[[], object], total: float) -> bool:
        """Say whether the ledger took what brings its sum to ``total``."""
        try:
            act()
        except BudgetExceeded:
            self.refused.append(total / self.room)
            return False
        assert total <= self.room * (1 + 1e-6)
        return True

    def release(self) -> None:
        cost, number = self.room * 10 ** self.random.uniform(-4, -0.3), len(self.refused) + self.random.random()
        what = {"name": f"count {number}", "cost": gaussian_cost(cost**-0.5), "by": "Ada", "reason": "asked"}
        if self.tried(lambda: self.ledger.release("population-1", **what), self.committed + cost):  # type: ignore[arg-type]
            self.spent += cost

    def reserve(self) -> None:
        rounds, every = self.random.randint(1, 6), self.random.randint(1, 3)
        beside, kind = self.random.uniform(0.01, 2.0), self.random.choice(["plain", "losses", "apart"])

        def shape(numbers: set[int]) -> float:
            due = beside * sum(number % every == 0 for number in numbers)
            return {"plain": len(numbers), "losses": len(numbers) + due, "apart": max(len(numbers), due)}[kind]

        wanted = max(self.room - self.committed, 1e-3 * self.room)
        wanted *= self.random.choice([0.2, 0.5, 0.9, 0.99, 0.996, 0.999, 1.0001, 1.001, 1.2])
        unit = wanted / shape(set(range(1, rounds + 1)))
        other = (PeriodicCost(every_rounds=every, cost=gaussian_cost((unit * beside) ** -0.5)),)
        plan = StudyCost(
            rounds=rounds,
            round=gaussian_cost(unit**-0.5),
            periodic=other if kind == "losses" else (),
            apart=other if kind == "apart" else (),
        )
        proposal = f"{self.random.getrandbits(200):064x}"
        reserve = lambda: self.ledger.reserve("population-1", study="s", proposal_hash=proposal, plan=plan)  # noqa: E731
        if self.tried(reserve, self.committed + wanted):
            self.studies[proposal] = Asked(rounds=rounds, worst=lambda numbers: unit * shape(numbers))

    def charge(self) -> None:
        open_rounds = [
            (proposal, number)
            for proposal, study in self.studies.items()
            for number in range(1, study.rounds + 1)
            if number not in study.ended
        ]
        if not open_rounds:
            return
        proposal, number = self.random.choice(open_rounds)
        study = self.studies[proposal]
        more = study.worst(study.done | {number}) - study.worst(study.done)
        if number in study.done:
            self.ledger.charge(proposal, number)  # a repeat costs nothing, under any cap
        elif self.tried(lambda: self.ledger.charge(proposal, number), self.spent + more):
            study.done.add(number)
            self.spent += more

    def end(self) -> None:
        if self.studies:
            proposal = self.random.choice(list(self.studies))
            self.ledger.release_reservation(proposal, by="scientist", reason="ended")
            study = self.studies[proposal]
            study.ended |= set(range(1, study.rounds + 1)) - study.done

    def act(self) -> None:
        acts = [*[self.charge] * 10, *[self.reserve] * 4, self.end, self.move_cap, self.crash, self.release]
        self.random.choice(acts)()
        found = self.ledger.account("population-1").spent.cost.mu_squared
        assert found == pytest.approx(self.spent, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(s, marks=pytest.mark.thorough) for s in range(2, 60))])
def test_no_sequence_passes_a_cap_and_nothing_that_fits_is_refused(tmp_path: Path, seed: int) -> None:
    adversary = Adversary(tmp_path, seed)
    for _ in range(60):
        adversary.act()
    adversary.ledger.verify()
    adversary.ledger.close()
    assert min(adversary.refused, default=1.0) >= LEAST
