"""What people do about accounts at one portal, and the check of a password that must come before.

A stolen cookie or machine token changes nothing that matters: who may decide, whose key is known, what may be spent.
For these a person gives their password within a browser session (:meth:`PeopleDesk.prove`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from starlette.concurrency import run_in_threadpool

from datasites.portal.context import PortalContext
from datasites.portal.people.admission import Admission
from datasites.portal.people.records import PeopleRecords
from datasites.review.accounts import Account, Credential, Role, Scope
from datasites.review.people.vouching import check_age, check_fresh
from datasites.review.records import Request
from privacy.errors import Refused
from privacy.identity import Identity
from privacy.sentences import say


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
        accounts, now = self._context.accounts, self._context.clock()
        known = bool(browser) and bool(await run_in_threadpool(accounts.sessions.browser_of, name, browser, now=now))

        def check() -> Account:
            try:
                return accounts.authenticate(name, password, now=now, place=address, browser=browser)
            except Refused:
                self.records.failed(name, address, what="password", now=now)
                raise

        return await self.signing_in.run(address, name, check, known=known)

    def prove(self, caller: Credential, password: str) -> Identity:
        """Check the password of whoever is signed in, and return their signing key.

        Raises:
            Refused: the wrong password, or too many attempts in this session.
        """
        now = self._context.clock()
        try:
            return self._context.accounts.prove(caller, password, now=now)
        except Refused:
            self.records.failed(caller.account.name, f"session {caller.key}", what="password in a session", now=now)
            raise

    def prove_in_person(self, caller: Credential, password: str) -> Identity:
        """As :meth:`prove`, for what no machine token may do even with the password.

        Raises:
            Refused: a machine token, the wrong password, or too many attempts.
        """
        return self.prove(check_session(caller), password)

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

    def register(self, token: str, name: str, password: str, *, full_name: str = "", function: str = "") -> Account:
        """Use up a one-time link and journal the new account with its public key."""
        account = self._context.accounts.register(
            token, name, password, now=self._context.clock(), full_name=full_name, function=function
        )
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

    def invite(self, role: Role, caller: Credential, password: str) -> str:
        """Return the secret of a one-time link; only a steward may, with their password.

        Raises:
            Refused: another role, a machine token, or the wrong password.
        """
        if caller.account.role != "steward":
            raise Refused(say("only a steward invites people"))
        self.prove_in_person(caller, password)
        token = self._context.accounts.invite(role, now=self._context.clock(), by=caller.account.name)
        self.records.wrote("account-invited", role=role, person=caller.account.name)
        return token

    def close(self, name: str, caller: Credential, password: str) -> None:
        """Close the account of somebody who has left; only a steward may, with their password, and not their own.

        Raises:
            Refused: another role, a machine token, the wrong password, or the last steward.
        """
        if caller.account.role != "steward" or caller.account.name == name:
            raise Refused(say("only a steward closes accounts, and another steward closes theirs"))
        self.prove_in_person(caller, password)
        self._context.accounts.retire(name)
        self.records.wrote("account-closed", name=name, person=caller.account.name)

    def vouch(self, name: str, caller: Credential, password: str) -> None:
        """Confirm a new account as a second person, with the password.

        Raises:
            Refused: not a second person, a machine token, or the wrong password.
        """
        self.prove_in_person(caller, password)
        self._context.accounts.vouch(name, caller.account)
        self.records.wrote("account-confirmed", name=name, person=caller.account.name)

    def change_password(self, caller: Credential, old: str, new: str) -> None:
        """Change the caller's own password; their other sessions, tokens and known browsers are forgotten.

        Raises:
            Refused: a machine token, or the old password is wrong.
            InvalidInput: the new one is not acceptable.
        """
        self.prove_in_person(caller, old)
        self._context.accounts.change_password(caller.account.name, old, new)
        self._context.accounts.sessions.end_others(caller.account.name, keep=caller.key)
        self.records.wrote("password-changed", person=caller.account.name)

    def rename(self, caller: Credential, password: str, *, full_name: str, function: str) -> None:
        """Change the caller's own full name and function, which stand in what they sign from now on.

        Raises:
            Refused: a machine token, or the wrong password.
            InvalidInput: a name that does not read as it is.
        """
        self.prove_in_person(caller, password)
        name = caller.account.name
        before = self._context.accounts.account(name)
        after = self._context.accounts.rename(name, full_name=full_name, function=function)
        self.records.wrote("account-renamed", person=name, before=before.title, titled=after.title)

    def end(self, key: str, caller: Credential) -> None:
        """End one of the caller's own sessions or tokens.

        Raises:
            InvalidInput: the caller has none of this name.
        """
        self._context.accounts.sessions.end_by_key(caller.account.name, key)
        self.records.wrote("credential-ended", person=caller.account.name, credential=key)
