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
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.review_desk import NOW, identity, make_desk, make_proposal

from datasites.review.approvals import ApprovalStore
from datasites.review.endings import FINISHED, RETURNED, Endings
from datasites.review.policy import Policy
from datasites.study.proposal import Proposal
from datasites.study.signing import seal
from datasites.study.thread import WORD, Word
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
class Fuse:
    """Burns down by one before and after every write; at its end the process dies. None never ends."""

    left: int | None = None

    def step(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Crash

    def around(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def fused(*arguments: Any, **keywords: Any) -> Any:
            self.step()
            done = write(*arguments, **keywords)
            self.step()
            return done

        return fused


@dataclass
class Hospital:
    """One hospital's stores, and what a person with a pencil would note beside them."""

    folder: Path
    now: dt.datetime = NOW
    fuse: Fuse = field(default_factory=Fuse)
    proposals: list[Proposal] = field(default_factory=list)
    said: int = 0
    survived: bool = True

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
            record=self.journal.append,
            reserve=self.reserve,
            release=lambda proposal_hash, reason: self.endings.study_ended(proposal_hash, reason),
        )
        self.desk.store = self.store
        self.endings = Endings(ledger=self.ledger, journal=self.journal, approvals=self.store)
        self.wire()

    def wire(self) -> None:
        """Let the process die before and after each write to journal, ledger and approvals."""
        for store, name in (
            (self.journal._chain, "append"),
            *((self.ledger, name) for name in ("_add", "reserve", "charge", "release_reservation")),
            (self.store._records, "_write"),
        ):
            setattr(store, name, self.fuse.around(getattr(store, name)))

    def close(self) -> None:
        for store in (self.store, self.ledger, self.journal):
            store.close()

    def reserve(self, proposal: Proposal) -> None:
        self.ledger.reserve(
            self.population, study=proposal.study, proposal_hash=proposal.proposal_hash, plan=proposal.mechanism
        )

    def act(self, name: str, which: int, number: int, crash: int | None = None) -> None:
        """Do one act and settle; with ``crash`` the process dies at that write, starts again, and settles.

        What comes over the network comes again after a start; what a person did not finish is not done again.
        """
        self.fuse.left, self.survived = crash, True
        try:
            self._act(name, which, number)
            self.endings.settle(now=self.now)
        except Crash:
            self.fuse.left, self.survived = None, False
            self.close()
            self.open()
            if name in NETWORK:
                self._act(name, which, number)
        self.fuse.left = None
        self.endings.settle(now=self.now)

    def _act(self, name: str, which: int, number: int) -> None:
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
            "finish": lambda p: self.endings.finished(p.proposal_hash, p.study),
            "withdraw": lambda p: self.hear(p, "withdrawn"),
            "drop": lambda p: self.hear(p, "dropped", to="alba"),
            "expire": lambda _: self.wait(number),
            "release": lambda p: self.endings.study_ended(p.proposal_hash, "stuck", by="anna"),
        }
        with contextlib.suppress(Refused):
            acts[name](self.proposals[which % len(self.proposals)])

    def decide(self, decision: Callable[..., object], proposal: Proposal) -> None:
        decision(proposal.proposal_hash, reviewer=self.desk.accounts.account("anna"), reason="not here", now=self.now)

    def hear(self, proposal: Proposal, kind: Any, to: str = "") -> None:
        """Hear the scientist say something; the orchestrator's thread has it at the next place."""
        self.said += 1
        word = Word(
            study=proposal.study,
            proposal_hash=proposal.proposal_hash,
            author="dr-lang",
            number=self.said,
            kind=kind,
            person="Dr. Lang",
            text=f"{kind} elsewhere",
            at=self.now.isoformat(),
            to=to,
        )
        sealed = seal(identity("orchestrator"), WORD, word)
        self.store.thread.hear(proposal.proposal_hash, sealed, self.said, now=self.now)

    def charge(self, proposal: Proposal, number: int) -> None:
        """Charge a round as the hospital's part in a round does: only under an approval."""
        if self.store.request(proposal.proposal_hash).state == "approved":
            self.ledger.charge(proposal.proposal_hash, number)

    def fail(self, proposal: Proposal) -> None:
        for number in (1, 2):
            self.journal.append("worker-failed", {"study": proposal.study, "round": number})

    def wait(self, number: int) -> None:
        self.now += dt.timedelta(days=9 * number)

    def can_charge(self, proposal: Proposal) -> bool:
        """Whether a round of this proposal may still begin here, by what people and the scientist did."""
        request = self.store.request(proposal.proposal_hash)
        expired = self.now >= dt.datetime.fromisoformat(proposal.expires)
        failures = self.journal.entries(kind="worker-failed")
        failed = any((e.body["study"], e.body["round"]) == (proposal.study, 2) for e in failures)
        finished = any(e.body["proposal_hash"] == proposal.proposal_hash for e in self.journal.entries(kind=FINISHED))
        dropped = any(word.kind == "dropped" for word in request.words)
        return request.state == "approved" and not (expired or failed or finished or dropped)

    def noted(self) -> Cost:
        """Return what the entries about charges add up to, one by one."""
        total = ZERO
        for entry in self.ledger.entries(kind="charge"):
            total = total + study_cost(MECHANISM).of_round(entry.body["round"])
        return total


NETWORK = ("propose", "charge", "finish", "withdraw", "drop", "fail")
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
    "drop",
    "release",
)
CRASHES = st.one_of(st.none(), st.none(), st.integers(0, 24))


def check(hospital: Hospital, act: object) -> None:
    """Check what has to hold whenever nothing is under way."""
    account = hospital.ledger.account(hospital.population)
    live = {p.proposal_hash for p in hospital.proposals if hospital.can_charge(p)}
    for study in account.studies:
        assert study.proposal_hash in live or study.promised.cost == ZERO, act
    assert live or account.committed.cost == account.spent.cost
    assert account.spent.cost.mu_squared == pytest.approx(hospital.noted().mu_squared, rel=1e-12)
    freed = [e.index for e in hospital.ledger.entries(kind="free")]
    told = list(hospital.journal.entries(kind=RETURNED))
    assert sorted(e.body["entry"] for e in told) == freed, act  # each once, also when it was told twice
    assert all(e.body["reason"] for e in told)
    words = [w for p in hospital.proposals for w in hospital.store.request(p.proposal_hash).words]
    assert sum(w.kind == "returned" for w in words) == len(freed), act


def histories(least: int, most: int, studies: int = 4) -> st.SearchStrategy[list[tuple[str, int, int, int | None]]]:
    """Lists of acts, each with the study and the round it is about, and the write at which the process dies."""
    act = st.tuples(st.sampled_from(ACTS), st.integers(0, studies - 1), st.integers(1, ROUNDS), CRASHES)
    return st.lists(act, min_size=least, max_size=most)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories(0, 25))
def test_nothing_stays_reserved_for_what_cannot_run_and_spent_is_what_was_charged(
    tmp_path: Path, acts: list[tuple[str, int, int, int | None]]
) -> None:
    hospital = Hospital(tmp_path / os.urandom(6).hex())
    for act in acts:
        hospital.act(*act)
        check(hospital, act)
    hospital.ledger.verify()
    hospital.close()
    assert verify_folder(hospital.folder).holds


@pytest.mark.thorough
@settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate], database=None
)
@given(histories(100, 250, studies=20))
def test_nothing_stays_reserved_over_ten_times_as_long_a_history(
    tmp_path: Path, acts: list[tuple[str, int, int, int | None]]
) -> None:
    test_nothing_stays_reserved_for_what_cannot_run_and_spent_is_what_was_charged.hypothesis.inner_test(tmp_path, acts)


@pytest.mark.parametrize("ending", ["revoke", "withdraw", "drop", "finish", "fail", "release", "expire"])
def test_a_death_at_any_write_of_an_ending_returns_the_budget_once(tmp_path: Path, ending: str) -> None:
    for crash in range(60):
        hospital = Hospital(tmp_path / str(crash))
        for act in (("propose", 0, 1), ("approve", 0, 1), ("charge", 0, 3)):
            hospital.act(*act)
        hospital.act(ending, 0, 4, crash)
        check(hospital, (ending, crash))
        if hospital.survived:
            break
        hospital.close()
    assert 2 < crash < 59
    (freed,) = hospital.ledger.entries(kind="free")
    assert freed.body["rounds"] == [1, 2, 4]


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    found = Hospital(tmp_path)
    found.act("propose", 0, 1)
    return found


def test_an_approval_that_died_at_any_write_is_sealed_or_can_be_given_again(tmp_path: Path) -> None:
    whole, died = study_cost(MECHANISM).total, 0
    for crash in range(60):
        hospital = Hospital(tmp_path / str(crash))
        hospital.act("propose", 0, 1)
        hospital.act("approve", 0, 1, crash)
        approved = hospital.store.request(hospital.proposals[0].proposal_hash).state == "approved"
        committed = hospital.ledger.account(hospital.population).committed.cost
        assert committed == (whole if approved else ZERO), crash
        if not approved:
            died += 1
            hospital.act("approve", 0, 1)
        assert hospital.ledger.account(hospital.population).committed.cost == whole
        hospital.ledger.charge(hospital.proposals[0].proposal_hash, 1)
        hospital.ledger.verify()
        hospital.close()
        if hospital.survived and crash > 3:
            break
    assert died > 3


@pytest.mark.parametrize(
    ("act", "number", "reason"),
    [
        ("revoke", 1, "revoked by anna: not here"),
        ("expire", 4, "the approval expired at"),
        ("fail", 1, "the worker failed in rounds 1, 2"),
        ("finish", 1, "the study is finished"),
        ("withdraw", 1, "dr-lang withdrew the request: “withdrawn elsewhere”"),
    ],
)
def test_the_reason_stands_in_ledger_and_journal(hospital: Hospital, act: str, number: int, reason: str) -> None:
    hospital.act("approve", 0, 1)
    hospital.act("charge", 0, 3)
    hospital.act(act, 0, number)
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
    whole = hospital.endings
    hospital.endings = replace(whole, held=lambda: "rolled back")
    hospital.act("revoke", 0, 1)
    assert hospital.store.request(hospital.proposals[0].proposal_hash).state == "revoked"
    with pytest.raises(Refused, match="rolled back"):
        hospital.endings.study_ended(hospital.proposals[0].proposal_hash, "by hand", by="anna")
    assert not list(hospital.ledger.entries(kind="free"))
    whole.settle(now=hospital.now)
    assert len(list(hospital.ledger.entries(kind="free"))) == 1


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
