"""One-time links by which a person makes an account at this hospital's portal."""

from __future__ import annotations

import datetime as dt

from datasites.node.home import Home, address
from datasites.review.accounts import BY_COMMAND, AccountStore
from privacy.errors import InvalidInput
from privacy.ledger.journal import Journal


def invitation_link(home: Home, role: str) -> str:
    """Return a link for one person of ``role``.

    Raises:
        InvalidInput: an unknown role, or the portal does not run: the link would lead nowhere.
    """
    if not (home.folder / "address.json").exists():
        raise InvalidInput("expected a running datasite, whose portal the link leads to; start it first")
    accounts = AccountStore(home.folder / "accounts.sqlite")
    try:
        token = accounts.invite(role, now=dt.datetime.now(dt.UTC))  # type: ignore[arg-type]  # checked there
    finally:
        accounts.close()
    return registration_link(home, token)


def first_link(accounts: AccountStore, home: Home) -> str:
    """Return a one-time link for the first steward; empty when there are accounts.

    Every start prints one: whoever removed the containers has lost the log with the link before.
    """
    if accounts.accounts():
        return ""
    return registration_link(home, accounts.invite("steward", now=dt.datetime.now(dt.UTC)))


def registration_link(home: Home, token: str) -> str:
    """Return where the portal turns an invitation into an account; the portal must have announced itself."""
    return f"{address(home.folder)}/register?token={token}"


def confirm_account(home: Home, name: str) -> None:
    """Confirm a new account that was invited in the portal, as whoever runs commands on this machine.

    Raises:
        InvalidInput: there is no such account.
        Refused: it was invited from here, or is confirmed.
    """
    accounts = AccountStore(home.folder / "accounts.sqlite")
    journal = Journal(home.folder / "journal.sqlite", home.identity())
    try:
        accounts.vouch(name, None)
        journal.append("account-confirmed", {"name": name, "person": BY_COMMAND})
    finally:
        journal.close()
        accounts.close()
