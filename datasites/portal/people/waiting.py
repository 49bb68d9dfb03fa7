"""Acts that take more than one person, at the portal: on budgets, accounts and keys; who may still say what to each."""

from __future__ import annotations

from datasites.language import mark
from datasites.portal.context import PortalContext
from datasites.portal.people.desk import PeopleDesk
from datasites.portal.people.proof import Proof
from datasites.review.accounts import Account, Credential
from datasites.review.budget_acts import Act, ActKind, cap_act
from datasites.review.people.acts import PersonAct
from datasites.review.people.asked import Asked
from privacy.errors import InvalidInput, Refused
from privacy.sentences import say


class WaitingActs:
    """The acts of one portal's people."""

    def __init__(self, context: PortalContext, desk: PeopleDesk) -> None:
        self._context, self._desk = context, desk

    def ask_budget(
        self,
        kind: ActKind,
        caller: Credential,
        proof: Proof,
        reason: str,
        target: str,
        epsilon: str,
        delta: str,
        name: str,
    ) -> bool:
        """Ask for an act on a budget with one's password; return whether it is done or waits for another person.

        Raises:
            Refused: the password or a rule says no.
            InvalidInput: there is nothing to do, or no reason.
        """
        act = cap_act(epsilon, delta) if kind == "cap" else Act(kind=kind, target=target, name=name)
        return self._ask(act, caller, proof, reason)

    def _ask(self, act: Act, caller: Credential, proof: Proof, reason: str) -> bool:
        acts, now = self._context.budget_acts, self._context.clock()
        if acts is None:
            raise Refused(say("budgets are not changed here"))
        self._desk.prove_in_person(caller, proof)
        for asked in acts.waiting(now=now):
            if asked.act == act:
                self._desk.check_together(caller.account, asked.people)
        return acts.ask(act, person=caller.account, reason=reason, now=now).done

    def waiting(self, person: Account) -> tuple[tuple[Asked[Act] | Asked[PersonAct], bool], ...]:
        """Return the acts that wait for more people, and whether each needs this very person."""
        now = self._context.clock()
        budget = self._context.budget_acts.waiting(now=now) if self._context.budget_acts else ()
        able = person.decides and not person.fresh
        others = tuple(
            (one, able and person.name not in (*one.people, one.act.target)) for one in self._desk.acts.waiting(now=now)
        )
        return (*others, *((one, person.decides and person.name not in one.people) for one in budget))

    def confirm(self, key: str, caller: Credential, proof: Proof, reason: str) -> tuple[PersonAct | Act, str]:
        """Confirm an act that waits; return it with what it made, or an empty text where more have to.

        Raises:
            Refused: the password or a rule says no.
            InvalidInput: no such act waits.
        """
        now, acts = self._context.clock(), self._context.budget_acts
        if any(asked.key == key for asked in self._desk.acts.waiting(now=now)):
            act = self._desk.acts.named(key, now=now).act
            return act, self._desk.act(act, caller, proof, reason=reason or mark("confirmed"))
        if acts is None:
            raise InvalidInput(say("this waits no more: it was done, somebody said no, or its week is over"))
        budget_act = acts.named(key, now=now).act
        return budget_act, "done" if self._ask(budget_act, caller, proof, reason or mark("confirmed")) else ""

    def decline(self, key: str, caller: Credential, proof: Proof, reason: str) -> None:
        """Say no to an act that waits, or take one's own back.

        Raises:
            Refused: the password or a rule says no.
            InvalidInput: no such act waits, or no reason.
        """
        now, acts = self._context.clock(), self._context.budget_acts
        if acts is not None and any(asked.key == key for asked in acts.waiting(now=now)):
            self._desk.prove_in_person(caller, proof)
            acts.decline(key, person=caller.account, reason=reason, now=now)
            return
        self._desk.decline(key, caller, proof, reason)
