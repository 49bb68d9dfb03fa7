"""What people do about accounts at one portal, and the check of a password that must come before.

A stolen cookie or machine token changes nothing that matters: who may decide, whose key is known, what may be spent.
For these a person gives their password within a browser session (:meth:`PeopleDesk.prove`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from datasites.language import mark
from datasites.node.joining.changes import CONFIRMED
from datasites.portal.context import PortalContext
from datasites.portal.people.admission import Admission, one_of
from datasites.portal.people.proof import Challenges, Proof, relying_party
from datasites.portal.people.records import PeopleRecords
from datasites.review.accounts import Account, Credential, Role, Scope
from datasites.review.people.acts import (
    PersonAct,
    check_enough,
    check_proposes,
    check_takes_part,
    people_acts,
)
from datasites.review.people.attempts import Standing
from datasites.review.people.security_keys import RelyingParty
from datasites.review.people.vouching import INVITERS, check_age, check_fresh
from datasites.review.records import Request
from privacy.errors import Refused, TesseraError
from privacy.identity import Identity
from privacy.sentences import say, sentence_of

T = TypeVar("T")
_NEW_KEY = "a new security key"
PROPOSED = mark("proposed in the portal")


def check_session(credential: Credential) -> Credential:
    """Check that a person in a browser session calls, and no machine token.

    Raises:
        Refused: a machine token.
    """
    if credential.kind != "session":
        raise Refused(say("a machine token cannot do this: a person signs in and gives their password"))
    return credential


class PeopleDesk:
    """The people of one portal.

    ``signing_in`` admits strangers, ``signing`` those who are signed in; neither waits for the other.
    """

    def __init__(self, context: PortalContext) -> None:
        self._context = context
        self.records = PeopleRecords(context.journal, context.accounts)
        self.challenges = Challenges()
        self.acts = people_acts(context.journal)
        self.signing_in = Admission(threads=1, waiting=512, waiting_of_one=128)
        self.signing = Admission(threads=2, waiting=512, waiting_of_one=512)

    async def sign_in(self, name: str, password: str, *, address: str, browser: str = "") -> Account:
        """Check the password of somebody who is not signed in, when it is their turn.

        Args:
            name: of the account.
            password: as it was typed.
            address: where from.
            browser: the secret of a browser in which somebody signed in before.

        Raises:
            Refused: the password is wrong, or there were too many attempts.
            HTTPException: 429, too many wait.
        """
        accounts, now, place = self._context.accounts, self._context.clock(), one_of(address)
        standing = await run_in_threadpool(accounts.standing, name, now=now, place=place, browser=browser)

        def check() -> Account:
            try:
                account = accounts.authenticate(name, password, now=now, place=place, browser=browser)
            except Refused:
                self.records.failed(name, address, what="password", now=now)
                raise
            accounts.sessions.remember_place(name, place, now=now)
            return account

        return await self.signing_in.run(place, name, check, standing=standing)

    async def newcomer(self, token: str, name: str, work: Callable[[], T], *, address: str) -> T:
        """Return what ``work`` returns, which makes an account; a one-time link that holds is as good as being known.

        Raises:
            HTTPException: 429, too many wait.
        """
        context, place = self._context, one_of(address)

        def holds() -> bool:
            with suppress(Refused):
                return bool(context.accounts.invitation_role(token, now=context.clock()))
            return False

        standing: Standing = "known" if await run_in_threadpool(holds) else "new"
        return await self.signing_in.run(place, name, work, standing=standing)

    def prove(self, caller: Credential, proof: Proof) -> Identity:
        """Check the password of whoever is signed in, and their security key where one is asked for.

        Returns:
            The person's signing key.

        Raises:
            Refused: the wrong password, too many attempts in this session, or no valid answer of a security key.
        """
        key = self._prove_password(caller, proof)
        self.check_key(caller, proof)
        return key

    def prove_in_person(self, caller: Credential, proof: Proof) -> Identity:
        """As :meth:`prove`, for what no machine token may do even with the password.

        Raises:
            Refused: a machine token, the wrong password, too many attempts, or no valid answer of a security key.
        """
        return self.prove(check_session(caller), proof)

    def _prove_password(self, caller: Credential, proof: Proof) -> Identity:
        now = self._context.clock()
        try:
            return self._context.accounts.prove(caller, proof.password, now=now)
        except Refused:
            self.records.failed(caller.account.name, f"session {caller.key}", what="password in a session", now=now)
            raise

    def check_key(self, caller: Credential, proof: Proof) -> None:
        """Check the answer of a security key, if the person has one or the policy wants everybody to have one.

        Raises:
            Refused: no key, no answer, or one that does not count.
        """
        account, now = caller.account, self._context.clock()
        keys = self._context.accounts.security_keys
        if not keys.of(account.name):
            if account.decides and self._context.approvals.policy.people.security_key == "required":
                raise Refused(
                    say("the policy wants a security key of everybody who decides: register yours on People first")
                )
            return
        if not proof.answer:
            raise Refused(
                say("{name} acts with a security key: this needs its answer, which needs JavaScript", name=account.name)
            )
        try:
            challenge = self.challenges.take(caller.key, proof.act, now=now)
            party = self.relying_party(proof.host)
            used = keys.verify(account, proof.answer, party=party, challenge=challenge, now=now)
        except Refused:
            self.records.failed(account.name, f"session {caller.key}", what="security key", now=now)
            raise
        self.records.wrote("security-key-used", person=account.name, key=used.key)

    def ask_key(self, caller: Credential, proof: Proof) -> dict[str, Any]:
        """Return what the browser needs to ask one of the caller's security keys for one act.

        Raises:
            Refused: none of them was registered for this address.
        """
        party = self.relying_party(proof.host)
        challenge = self.challenges.new(caller.key, proof.act, now=self._context.clock())
        return self._context.accounts.security_keys.question(caller.account, party, challenge)

    def new_key(self, caller: Credential, host: str) -> dict[str, Any]:
        """Return what the browser needs to make a security key for the caller.

        Raises:
            Refused: an address that no security key can be registered for.
        """
        challenge = self.challenges.new(caller.key, _NEW_KEY, now=self._context.clock())
        return self._context.accounts.security_keys.registration(caller.account, self.relying_party(host), challenge)

    def register_key(self, caller: Credential, proof: Proof, *, made: str, label: str) -> None:
        """Keep a security key that the caller's browser has made; a second one needs the answer of the first.

        Raises:
            Refused: a machine token, the wrong password, or an answer that does not count.
            InvalidInput: no label, or too many keys.
        """
        accounts, account, now = self._context.accounts, check_session(caller).account, self._context.clock()
        self._prove_password(caller, proof)
        if accounts.security_keys.of(account.name):
            self.check_key(caller, proof)
        challenge, party = self.challenges.take(caller.key, _NEW_KEY, now=now), self.relying_party(proof.host)
        key = accounts.security_keys.register(account, made, party=party, challenge=challenge, label=label, now=now)
        self.records.wrote("security-key-registered", person=account.name, key=key.key, label=key.label)

    def remove_key(self, caller: Credential, proof: Proof, key: str) -> None:
        """Forget one of the caller's own security keys, with the password and an answer of one of them.

        Raises:
            Refused: a machine token, the wrong password, or an answer that does not count.
            InvalidInput: the caller has no such key.
        """
        self.prove_in_person(caller, proof)
        self._context.accounts.security_keys.remove(caller.account.name, key)
        self.records.wrote("security-key-removed", person=caller.account.name, key=key, by=caller.account.name)

    def relying_party(self, host: str) -> RelyingParty:
        """Return whom security keys are registered for here.

        Raises:
            Refused: an address that none can be registered for.
        """
        return relying_party(self._context.public_url, host, self._context.institution)

    def check_reviewer(self, account: Account, request: Request, *, signs: bool = False) -> None:
        """Check that a fresh account decides no older request, and that no two of them sign one.

        Raises:
            Refused: one of the two.
        """
        check_age(account, request.received)
        if signs:
            self.check_together(account, [s.reviewer for s in request.signatures])

    def check_together(self, account: Account, others: Iterable[str]) -> None:
        """Check that ``account`` and the people who said the same before are not two fresh accounts.

        Raises:
            Refused: they are.
        """
        everybody = {person.name: person for person in self._context.accounts.accounts()}
        check_fresh(account, [everybody[name] for name in others if name in everybody])

    def register(
        self, token: str, name: str, password: str, *, address: str, full_name: str = "", function: str = ""
    ) -> Account:
        """Use up a one-time link, used from ``address``, and journal the new account with its public key."""
        accounts, now = self._context.accounts, self._context.clock()
        account = accounts.register(token, name, password, now=now, full_name=full_name, function=function)
        accounts.sessions.remember_place(name, one_of(address), now=now)
        self._context.journal.append("account-created", asdict(account))
        return account

    def issue_token(
        self, account: Account, scopes: tuple[Scope, ...], *, label: str, days: float
    ) -> tuple[str, Credential]:
        """Issue a machine token to its owner and journal it."""
        now = self._context.clock()
        secret, granted = self._context.accounts.issue_token(account, scopes=scopes, label=label, days=days, now=now)
        self.records.wrote("token-issued", person=account.name, token=granted.key, label=label, scopes=list(scopes))
        return secret, granted

    def invite(self, role: Role, caller: Credential, proof: Proof) -> str:
        """Return the secret of a one-time link, or an empty text while others have to want it too.

        Raises:
            Refused: another role than a steward's, a machine token, the wrong password, or too few people.
        """
        return self.act(PersonAct(kind="invite", target=role), caller, proof)

    def close(self, name: str, caller: Credential, proof: Proof) -> str:
        """Close the account of somebody who has left; return the name, or an empty text while others have to want it.

        Raises:
            Refused: another role than a steward's, one's own account, a machine token, the wrong password, too few
                people, or the last steward.
        """
        return self.act(PersonAct(kind="close-account", target=name), caller, proof)

    def act(self, act: PersonAct, caller: Credential, proof: Proof, reason: str = PROPOSED) -> str:
        """Propose an act or confirm it, and do it once enough people want it; return what it made, or an empty text.

        Raises:
            Refused: somebody who may not, a machine token, the wrong password, or asked already.
            InvalidInput: nothing that the act could do.
        """
        person, now = caller.account, self._context.clock()
        check_takes_part(act, person)
        if self.acts.find(act, now=now) is None:
            check_proposes(act, person)
        self.prove_in_person(caller, proof)
        needed = self._context.approvals.policy.people.required_people
        accounts = self._context.accounts
        check_enough(needed, person, (a for a in accounts.accounts() if a.name not in accounts.retired()))
        if act.kind == "close-account":
            accounts.account(act.target)
        if needed == 1:
            return self._do(act, person, (person.name,))
        with self.acts.alone():
            asked = self.acts.add(act, person=person, reason=reason, now=now)
            if len(asked.people) < needed:
                return ""
            try:
                made = self._do(act, person, asked.people)
            except TesseraError as error:
                self.acts.drop(
                    act, by="datasite", reason=say("it could not be done: {error}", error=sentence_of(error))
                )
                raise
            self.acts.done(asked, act.kind)
        return made

    def decline(self, key: str, caller: Credential, proof: Proof, reason: str) -> None:
        """Say no to an act that waits for more people, with the password.

        Raises:
            Refused: somebody who may not, a machine token, or the wrong password.
            InvalidInput: no such act waits, or no reason.
        """
        now = self._context.clock()
        check_takes_part(self.acts.named(key, now=now).act, caller.account)
        self.prove_in_person(caller, proof)
        self.acts.decline(key, person=caller.account, reason=reason, now=now)

    def _do(self, act: PersonAct, person: Account, people: tuple[str, ...]) -> str:
        accounts, now, names = self._context.accounts, self._context.clock(), INVITERS.join(people)
        if act.kind == "invite":
            role: Role = act.target  # type: ignore[assignment]  # checked by invite
            token = accounts.invite(role, now=now, by=names)
            self.records.wrote("account-invited", role=act.target, person=names)
            return token
        if act.kind == "close-account":
            accounts.retire(act.target)
            self.records.wrote("account-closed", name=act.target, person=names)
            return act.target
        confirm = self._context.approvals.confirm
        if act.kind == "roster":
            change = self._context.confirm_roster(act.target)
            self.records.wrote(CONFIRMED, **change.entry(by=names))
            for party in (*change.joins, *change.changed):
                key, institution = party.public_key, party.institution
                confirm(key, name=party.name, institution=institution, person=person, now=now, by=names)
            return act.target
        confirm(act.target, name=act.name, institution=act.institution, person=person, now=now, by=names)
        return act.target

    def vouch(self, name: str, caller: Credential, proof: Proof) -> None:
        """Confirm a new account as a second person, with the password.

        Raises:
            Refused: not a second person, a machine token, or the wrong password.
        """
        self.prove_in_person(caller, proof)
        self._context.accounts.vouch(name, caller.account)
        self.records.wrote("account-confirmed", name=name, person=caller.account.name)

    def change_password(self, caller: Credential, proof: Proof, new: str) -> None:
        """Change the caller's own password; their other sessions, tokens and known browsers are forgotten.

        Raises:
            Refused: a machine token, or the old password is wrong.
            InvalidInput: the new one is not acceptable.
        """
        self.prove_in_person(caller, proof)
        self._context.accounts.change_password(caller.account.name, proof.password, new)
        self._context.accounts.sessions.end_others(caller.account.name, keep=caller.key)
        self.records.wrote("password-changed", person=caller.account.name)

    def rename(self, caller: Credential, proof: Proof, *, full_name: str, function: str) -> None:
        """Change the caller's own full name and function, which stand in what they sign from now on.

        Raises:
            Refused: a machine token, or the wrong password.
            InvalidInput: a name that does not read as it is.
        """
        self.prove_in_person(caller, proof)
        name = caller.account.name
        before = self._context.accounts.account(name)
        after = self._context.accounts.rename(name, full_name=full_name, function=function)
        if after.title != before.title:
            self.records.wrote("account-renamed", person=name, before=before.title, titled=after.title)

    def end(self, key: str, caller: Credential) -> None:
        """End one of the caller's own sessions or tokens.

        Raises:
            InvalidInput: the caller has none of this name.
        """
        self._context.accounts.sessions.end_by_key(caller.account.name, key)
        self.records.wrote("credential-ended", person=caller.account.name, credential=key)
