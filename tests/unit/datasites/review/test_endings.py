"""Budgets that come back: over random histories nothing stays reserved that no approved study can charge."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from harness.proposals import make_mechanism
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.review_desk import NOW, identity, make_desk, make_proposal

from datasites.review.approvals import ApprovalStore
from datasites.review.endings import RETURNED, Endings
from datasites.review.policy import Policy
from datasites.study.proposal import Proposal
from privacy.errors import BudgetExceeded, Refused
from privacy.ledger.costs import ZERO, Cost, study_cost
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger, case_hash
from privacy.ledger.verification import verify_folder

ROUNDS = 4
MECHANISM = replace(make_mechanism(rounds=ROUNDS, noise="local"), sampling_rate=1.0, noise_multiplier=9.0)


class Crash(Exception):
    """The process dies here."""


@dataclass
class Hospital:
    """One hospital's stores, and what a person with a pencil would note beside them."""

    folder: Path
    now: dt.datetime = NOW
    crash: str = ""
    proposals: list[Proposal] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    charged: Cost = ZERO

    def __post_init__(self) -> None:
        self.desk = make_desk(self.folder)
        self.open()
        self.population = self.ledger.register_dataset("alba-lung", 1, [case_hash(bytes(32), "case")])
        self.ledger.set_cap(self.population, epsilon=8.0, delta=1e-5, by="B. Steward", reason="board")

    def open(self) -> None:
        """Open all stores, as a start does."""
        self.journal = Journal(self.folder / "journal.sqlite", identity("alba"), clock=lambda: self.now)
        self.ledger = Ledger(self.folder / "ledger.sqlite", identity("alba"), clock=lambda: self.now)
        self.store = ApprovalStore(
            self.folder / "approvals.sqlite",
            site="alba",
            identity=identity("alba"),
            policy=Policy(),
            record=self.record,
            reserve=self.reserve,
        )
        self.desk.store = self.store
        self.endings = Endings(ledger=self.ledger, journal=self.journal, approvals=self.store)

    def close(self) -> None:
        for store in (self.store, self.ledger, self.journal):
            store.close()

    def record(self, kind: str, body: dict[str, Any]) -> object:
        if self.crash == kind:
            raise Crash
        return self.journal.append(kind, body)

    def reserve(self, proposal: Proposal) -> None:
        self.ledger.reserve(
            self.population, study=proposal.study, proposal_hash=proposal.proposal_hash, plan=proposal.mechanism
        )

    def act(self, name: str, which: int, number: int) -> None:
        if name == "propose" or not self.proposals:
            index = len(self.proposals)
            proposal = make_proposal(
                study=f"study-{index}", nonce=f"{index:032d}", mechanism=MECHANISM, rounds=ROUNDS, created=self.now
            )
            self.desk.submit_at(proposal, self.now)
            self.proposals.append(proposal)
            return
        acts: dict[str, Callable[[Proposal], object]] = {
            "approve": lambda p: self.desk.approve(p.proposal_hash, now=self.now),
            "deny": lambda p: self.decide(self.store.deny, p),
            "revoke": lambda p: self.decide(self.store.revoke, p),
            "charge": lambda p: self.charge(p, number),
            "fail": self.fail,
            "finish": lambda p: self.end(p, lambda: self.endings.finished(p.proposal_hash, p.study)),
            "withdraw": lambda p: self.end(p, lambda: self.endings.study_ended(p.proposal_hash, "withdrawn elsewhere")),
            "expire": lambda _: self.wait(number),
            "crash": lambda p: self.die(p, number),
        }
        with contextlib.suppress(Refused):
            acts[name](self.proposals[which % len(self.proposals)])

    def decide(self, decision: Callable[..., object], proposal: Proposal) -> None:
        decision(proposal.proposal_hash, reviewer=self.desk.accounts.account("anna"), reason="not here", now=self.now)

    def end(self, proposal: Proposal, action: Callable[[], object]) -> None:
        if self.store.request(proposal.proposal_hash).state == "approved":
            self.ended.add(proposal.proposal_hash)
            action()

    def charge(self, proposal: Proposal, number: int) -> None:
        approved = self.store.request(proposal.proposal_hash)
        if approved.state != "approved":
            return
        new = number not in self.charged_rounds(proposal)
        self.ledger.charge(proposal.proposal_hash, number)
        self.charged = self.charged + study_cost(MECHANISM).of_round(number) if new else self.charged

    def charged_rounds(self, proposal: Proposal) -> tuple[int, ...]:
        studies = self.ledger.account(self.population).studies
        return next((s.charged_rounds for s in studies if s.proposal_hash == proposal.proposal_hash), ())

    def fail(self, proposal: Proposal) -> None:
        for number in (1, 2):
            self.journal.append("worker-failed", {"study": proposal.study, "round": number})
        self.ended.add(proposal.proposal_hash)

    def wait(self, number: int) -> None:
        self.now += dt.timedelta(days=9 * number)

    def die(self, proposal: Proposal, number: int) -> None:
        """Die in the middle of an approval, of a release, or between two acts, and start again."""
        with contextlib.suppress(Crash, Refused):
            if number == 1:
                self.crash = "proposal-approved"  # reserved, and never sealed
                self.desk.approve(proposal.proposal_hash, now=self.now)
            elif number == 2 and self.charged_rounds(proposal):
                self.ended.add(proposal.proposal_hash)
                self.ledger.release_reservation(proposal.proposal_hash, by="datasite", reason="died before the journal")
        self.crash = ""
        self.close()
        self.open()

    def can_charge(self, proposal: Proposal) -> bool:
        request = self.store.request(proposal.proposal_hash)
        expired = self.now >= dt.datetime.fromisoformat(proposal.expires)
        return request.state == "approved" and not expired and proposal.proposal_hash not in self.ended


ACTS = (
    "propose",
    "approve",
    "approve",
    "deny",
    "revoke",
    "charge",
    "charge",
    "expire",
    "fail",
    "finish",
    "withdraw",
    "crash",
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 3), st.integers(1, ROUNDS)), max_size=25))
def test_nothing_stays_reserved_for_what_cannot_run_and_spent_is_what_was_charged(
    tmp_path: Path, acts: list[tuple[str, int, int]]
) -> None:
    hospital = Hospital(tmp_path / os.urandom(6).hex())
    for act in acts:
        hospital.act(*act)
        hospital.endings.settle(now=hospital.now)
        account = hospital.ledger.account(hospital.population)
        live = {p.proposal_hash for p in hospital.proposals if hospital.can_charge(p)}
        for study in account.studies:
            assert study.proposal_hash in live or study.promised.cost == ZERO, act
        assert live or account.committed.cost == account.spent.cost
        assert account.spent.cost.mu_squared == pytest.approx(hospital.charged.mu_squared, rel=1e-12)
        freed = {e.index for e in hospital.ledger.entries(kind="free")}
        assert {e.body["entry"] for e in hospital.journal.entries(kind=RETURNED)} == freed
        assert all(e.body["reason"] for e in hospital.journal.entries(kind=RETURNED))
    hospital.ledger.verify()
    hospital.close()
    assert verify_folder(hospital.folder).holds


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    found = Hospital(tmp_path)
    found.act("propose", 0, 1)
    return found


def test_an_approval_that_died_before_its_seal_is_reserved_anew(hospital: Hospital) -> None:
    proposal = hospital.proposals[0]
    hospital.act("crash", 0, 1)
    assert hospital.ledger.account(hospital.population).committed.cost == study_cost(MECHANISM).total
    hospital.endings.settle(now=hospital.now)
    assert hospital.ledger.account(hospital.population).committed.cost == ZERO
    hospital.act("approve", 0, 1)
    assert hospital.ledger.account(hospital.population).committed.cost == study_cost(MECHANISM).total
    hospital.ledger.charge(proposal.proposal_hash, 1)
    hospital.ledger.verify()


@pytest.mark.parametrize(
    ("act", "number", "reason"),
    [
        ("revoke", 1, "the request is revoked here by anna: not here"),
        ("expire", 4, "the approval expired at"),
        ("fail", 1, "the worker failed in rounds 1, 2"),
        ("finish", 1, "the study is finished"),
        ("withdraw", 1, "withdrawn elsewhere"),
    ],
)
def test_the_reason_stands_in_ledger_and_journal(hospital: Hospital, act: str, number: int, reason: str) -> None:
    hospital.act("approve", 0, 1)
    hospital.act("charge", 0, 3)
    hospital.act(act, 0, number)
    hospital.endings.settle(now=hospital.now)
    (entry,) = hospital.journal.entries(kind=RETURNED)
    assert entry.body["rounds"] == [1, 2, 4] and entry.body["reason"].startswith(reason)
    (freed,) = hospital.ledger.entries(kind="free")
    assert freed.body["reason"] == entry.body["reason"]
    words = [signed.payload for _, signed in hospital.store.thread.unsent() if signed.payload["kind"] == "returned"]
    assert [word["text"] for word in words] == [f"rounds 1, 2, 4 were not charged: {entry.body['reason']}"]
    with pytest.raises(Refused, match="was freed"):
        hospital.ledger.charge(hospital.proposals[0].proposal_hash, 1)


def test_a_newer_dataset_returns_the_budget_of_the_old_one(hospital: Hospital) -> None:
    hospital.act("approve", 0, 1)
    endings = replace(hospital.endings, newest=lambda _: 2)
    endings.settle(now=hospital.now)
    (entry,) = hospital.journal.entries(kind=RETURNED)
    assert "version 2" in entry.body["reason"]


def test_nothing_is_released_while_the_chains_are_older_than_what_left(hospital: Hospital) -> None:
    hospital.act("approve", 0, 1)
    hospital.act("revoke", 0, 1)
    replace(hospital.endings, held=lambda: "rolled back").settle(now=hospital.now)
    assert not list(hospital.ledger.entries(kind="free"))


def test_what_came_back_is_there_for_the_next_study(hospital: Hospital) -> None:
    whole = study_cost(MECHANISM).total.epsilon(1e-5)
    hospital.ledger.set_cap(hospital.population, epsilon=1.2 * whole, delta=1e-5, by="owner", reason="one, not two")
    hospital.act("approve", 0, 1)
    hospital.act("propose", 0, 1)
    other = hospital.proposals[1]
    with pytest.raises(BudgetExceeded):
        hospital.desk.approve(other.proposal_hash, now=hospital.now)
    hospital.act("revoke", 0, 1)
    hospital.endings.settle(now=hospital.now)
    hospital.desk.approve(other.proposal_hash, now=hospital.now)
    assert hospital.store.request(other.proposal_hash).state == "approved"
