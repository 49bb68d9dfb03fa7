"""What people do to a budget by hand, each with a reason.

They release a reservation, move the cap, close a population, let a study go on after a failed round, or note what they
gave out themselves, which no epsilon covers. The policy says
how many different people have to ask for the same (``budget.required_people``). Until then the act waits, for a week at
most, and stands in the journal with who asked. The last one of them does it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from datasites.review.accounts import Account
from datasites.review.endings import Endings
from datasites.review.people.asked import Asked, AskedActs
from datasites.review.policy_file import PolicyFile
from datasites.study.text import check_line
from privacy.errors import InvalidInput, TesseraError
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger, StudyAccount
from privacy.sentences import say

ActKind = Literal["release", "cap", "close", "policy", "continue", "note"]
LONGEST_NAME = 120


@dataclass(frozen=True, kw_only=True)
class Act:
    """One act: ``release`` of a proposal, ``continue`` of one after a failed round, ``close`` of a population, a new
    ``cap``, a changed ``policy`` (by hash), or a ``note`` that ``name`` was given out of a population by hand.

    ``epsilon`` and ``delta`` are texts, so that equal acts are equal; empty where they do not matter.
    """

    kind: ActKind
    target: str = ""
    epsilon: str = ""
    delta: str = ""
    name: str = ""

    @property
    def title(self) -> str:
        """The act in words."""
        if self.kind == "cap":
            if self.delta:
                return say("move the cap to epsilon {epsilon} at delta {delta}", epsilon=self.epsilon, delta=self.delta)
            return say("move the cap to epsilon {epsilon}", epsilon=self.epsilon)
        if self.kind == "policy":
            return say("put the changed policy.toml in force ({digits})", digits=self.target[:12])
        if self.kind == "continue":
            return say("let proposal {proposal} charge again after a failed round", proposal=self.target[:12])
        if self.kind == "release":
            return say("release what is reserved for proposal {proposal}", proposal=self.target[:12])
        if self.kind == "note":
            return say("note that {name} was given out of {population} by hand", name=self.name, population=self.target)
        return say("close {population}", population=self.target)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What asking for an act led to: done, with what it did, or who else has to ask."""

    done: bool
    text: str


class BudgetActs:
    """The acts of one datasite's people on its budgets."""

    def __init__(self, *, ledger: Ledger, journal: Journal, policies: PolicyFile, endings: Endings) -> None:
        self._ledger = ledger
        self._asked = AskedActs(journal, name="budget-act", read=_act)
        self._policies = policies
        self._endings = endings

    def ask(self, act: Act, *, person: Account, reason: str, now: dt.datetime) -> Outcome:
        """Ask for an act in one person's name, and do it once enough people asked for the same.

        Raises:
            InvalidInput: no reason, or nothing that the act could change.
            Refused: the person may not decide, or asked already.
        """
        with self._asked.alone():
            self._check(act)
            asked = self._asked.add(act, person=person, reason=reason, now=now)
            needed = self._needed(act)
            if len(asked.people) < needed:
                more = needed - len(asked.people)
                what = f"asked; the policy wants {more} more person{'s' * (more > 1)} to ask for the same within a week"
                return Outcome(done=False, text=what)
            try:
                text = self._do(act, by=" and ".join(asked.signatures), reason="; ".join(asked.reasons))
            except TesseraError as error:
                self._asked.drop(act, by="datasite", reason=f"it could not be done: {error}")
                raise
            self._asked.done(asked, text)
        return Outcome(done=True, text=text)

    def decline(self, key: str, *, person: Account, reason: str, now: dt.datetime) -> None:
        """Say no to an act that waits, or take one's own back.

        Raises:
            InvalidInput: no such act waits, or no reason.
            Refused: an auditor.
        """
        self._asked.decline(key, person=person, reason=reason, now=now)

    def named(self, key: str, *, now: dt.datetime) -> Asked[Act]:
        """Return the act that waits under a key.

        Raises:
            InvalidInput: there is none.
        """
        return self._asked.named(key, now=now)

    def waiting(self, *, now: dt.datetime) -> tuple[Asked[Act], ...]:
        """Return the acts that wait for more people, oldest first."""
        return self._asked.waiting(now=now)

    def expire(self, *, now: dt.datetime) -> int:
        """Write down which acts nobody confirmed within a week; return how many."""
        return self._asked.expire(now=now)

    @property
    def held(self) -> str:
        """Hash of a policy.toml that waits for several people to ask for it; empty where none does."""
        self._policies.current()
        return self._policies.held

    def find(self, study: str) -> str:
        """Return the hash of the one proposal of a study, named or given by the start of its hash, with open rounds.

        Raises:
            InvalidInput: none or several.
        """
        accounts = (self._ledger.account(population) for population in self._ledger.populations())
        found = [s for a in accounts for s in a.studies if open_rounds(s)]
        fits = [s for s in found if s.study == study or (len(study) >= 8 and s.proposal_hash.startswith(study))]
        if len(fits) != 1:
            names = ", ".join(sorted(f"{s.study} ({s.proposal_hash[:12]})" for s in found)) or "none"
            raise InvalidInput(
                say(
                    "expected a study with open rounds or its hash, got {study!r}; there are: {names}",
                    study=study,
                    names=names,
                )
            )
        return fits[0].proposal_hash

    def _check(self, act: Act) -> None:
        if act.kind == "release":
            self.find(act.target)
        elif act.kind == "continue" and not self._endings.waiting(act.target):
            raise InvalidInput(
                say("expected a study that waits for a person after a failed round, got one that does not")
            )
        elif act.kind == "close" and self._ledger.account(act.target).closed:
            raise InvalidInput(say("{target} is closed already", target=act.target))
        elif act.kind == "note":
            self._ledger.account(act.target)
            if not 3 <= len(act.name.strip()) <= LONGEST_NAME:
                raise InvalidInput(
                    say("expected 3 to {longest} characters that say what was given out", longest=LONGEST_NAME)
                )
            check_line(act.name, say("what was given out"))
        elif act.kind == "policy" and act.target != self._policies.held:
            raise InvalidInput(
                say("expected the hash of the policy.toml that waits for people; the file has changed since")
            )

    def _needed(self, act: Act) -> int:
        policy = self._policies.current()
        if act.kind == "policy":
            return max(policy.budget.required_people, policy.people.required_people)
        return policy.budget.required_people

    def _do(self, act: Act, *, by: str, reason: str) -> str:
        if act.kind == "cap":
            delta = float(act.delta) if act.delta else None
            changes = self._policies.write_cap(epsilon=float(act.epsilon), delta=delta, by=by, reason=reason)
            return "; ".join(f"{c.key}: {c.before} -> {c.after}" for c in changes) or say("the cap was that already")
        if act.kind == "release":
            rounds = self._endings.study_ended(act.target, reason, by=by)
            return say(
                "released rounds {rounds}; what was charged stays charged",
                rounds=", ".join(map(str, rounds)) or say("none"),
            )
        if act.kind == "continue":
            rounds = self._endings.let_go_on(act.target, reason, by=by)
            return say(
                "the study goes on after the failed round {rounds}; a second failure ends it here",
                rounds=", ".join(map(str, rounds)),
            )
        if act.kind == "policy":
            changes = self._policies.accept(act.target, by=by, reason=reason)
            return "; ".join(f"{c.key}: {c.before} -> {c.after}" for c in changes)
        if act.kind == "note":
            self._ledger.release_without_guarantee(act.target, name=act.name, by=by, reason=reason)
            return say("noted; no epsilon covers it, and every report says so")
        account = self._ledger.account(act.target)
        self._ledger.close_population(act.target, by=by, reason=reason)
        for study in account.studies:
            self._endings.study_ended(
                study.proposal_hash,
                str(say("{population} was closed: {reason}", population=act.target, reason=reason)),
                by=by,
            )
        return say("{population} is closed for ever; what was reserved on it is released", population=act.target)


def cap_act(epsilon: str, delta: str) -> Act:
    """Return the act of moving the cap to numbers given as text.

    Raises:
        InvalidInput: they are none.
    """
    try:
        values = [float(text) for text in (epsilon, delta) if text]
    except ValueError as error:
        raise InvalidInput(
            say(
                "expected numbers for epsilon and delta, got {epsilon!r} and {delta!r}",
                epsilon=epsilon[:20],
                delta=delta[:20],
            )
        ) from error
    if not epsilon or not values[0] > 0 or not all(0 < value < 1 for value in values[1:]):
        raise InvalidInput(say("expected an epsilon above 0 (inf for none) and a delta between 0 and 1"))
    return Act(kind="cap", epsilon=f"{values[0]:.12g}", delta=f"{values[1]:.12g}" if delta else "")


def open_rounds(study: StudyAccount) -> int:
    """Return how many rounds of a study are reserved and neither charged nor released."""
    return study.rounds - len(study.charged_rounds) - len(study.freed_rounds)


def _act(body: Mapping[str, Any]) -> Act:
    fields = {name: body[name] for name in ("kind", "target", "epsilon", "delta")}
    return Act(**fields, name=body.get("name", ""))
