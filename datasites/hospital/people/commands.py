"""``tessera datasite people``, ``tokens`` and ``sessions``: who has an account here, and what opens it.

Whoever runs these works on the datasite's own machine. They only take away; the journal has each step.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from datasites.node.commands import HomeOption, JsonOption, console, show

if TYPE_CHECKING:
    from datasites.review.accounts import AccountStore, Credential
    from privacy.ledger.journal import Journal

people = typer.Typer(help="Accounts of the portal.", no_args_is_help=True)
tokens = typer.Typer(help="Machine tokens of the portal.", no_args_is_help=True)
sessions = typer.Typer(help="Browser sessions of the portal.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(help="The account's name.")]
_Key = Annotated[str, typer.Argument(help="The 16 digits that `list` shows.")]
_Of = Annotated[str, typer.Option("--name", help="Of one account only.")]
_Reason = Annotated[str, typer.Option(help="Why; it becomes part of the record.")]


@contextmanager
def _opened(home: Path) -> Iterator[tuple[AccountStore, Journal]]:
    from datasites.node.home import Home
    from datasites.review.accounts import AccountStore
    from datasites.review.policy import Policy
    from privacy.ledger.journal import Journal

    found = Home(folder=home)
    found.config()
    policy = Policy.load(home / "policy.toml")
    with (
        closing(AccountStore(home / "accounts.sqlite", idle_minutes=policy.people.idle_minutes)) as accounts,
        closing(Journal(home / "journal.sqlite", found.identity())) as journal,
    ):
        yield accounts, journal


@people.command("list")
def list_people(home: HomeOption, json_output: JsonOption = False) -> None:
    """Show every account: role, full name and function, standing, and its security keys."""
    with _opened(home) as (accounts, _):
        closed, everybody = accounts.retired(), accounts.accounts()
        keys = {one.name: accounts.security_keys.of(one.name) for one in everybody}
    for one in everybody:
        standing = "closed" if one.name in closed else "new, not confirmed" if one.fresh else "confirmed"
        counted = len(keys[one.name])
        text = f"{one.signature}: {one.role}, {standing}, {counted} security key{'s' * (counted != 1)}"
        console.print(text, highlight=False, markup=False)
    if json_output:
        plain = [
            {**asdict(one), "closed": one.name in closed, "security_keys": [asdict(key) for key in keys[one.name]]}
            for one in everybody
        ]
        show({"people": plain})


@people.command("forget-keys")
def forget_keys(home: HomeOption, name: _Name, reason: _Reason) -> None:
    """Forget every security key of an account, such as after its loss; its sessions and tokens end as well."""
    from datasites.review.people.asked import checked_reason
    from datasites.review.people.vouching import BY_COMMAND

    reason = checked_reason(reason)
    with _opened(home) as (accounts, journal):
        account = accounts.account(name)
        removed = accounts.security_keys.remove_all(account.name)
        accounts.sessions.end_others(account.name)
        body = {"person": account.name, "keys": removed, "by": BY_COMMAND, "reason": reason}
        journal.append("security-keys-forgotten", body)
    console.print(f"{removed} forgotten; {name} can register another after signing in.", highlight=False)


@tokens.command("list")
def list_tokens(home: HomeOption, name: _Of = "", json_output: JsonOption = False) -> None:
    """Show the machine tokens that hold: whose, since when, last used, until when."""
    _list(home, "token", name, json_output)


@tokens.command()
def revoke(home: HomeOption, key: _Key) -> None:
    """End one machine token."""
    _end(home, "token", key)


@sessions.command("list")
def list_sessions(home: HomeOption, name: _Of = "", json_output: JsonOption = False) -> None:
    """Show the browser sessions that hold: whose, since when, last used, until when."""
    _list(home, "session", name, json_output)


@sessions.command("end")
def end_session(home: HomeOption, key: _Key) -> None:
    """End one browser session."""
    _end(home, "session", key)


@sessions.command("end-all")
def end_all(home: HomeOption, name: _Name) -> None:
    """End every session and token of an account, and forget the browsers that it is known in."""
    from datasites.review.people.vouching import BY_COMMAND

    with _opened(home) as (accounts, journal):
        account = accounts.account(name)
        accounts.sessions.end_others(account.name)
        journal.append("credential-ended", {"person": account.name, "credential": "all", "by": BY_COMMAND})
    console.print(f"{name} has to sign in again everywhere.", highlight=False)


def _held(accounts: AccountStore, kind: Literal["session", "token"], name: str) -> list[Credential]:
    now = dt.datetime.now(dt.UTC)
    names = [accounts.account(name).name] if name else [account.name for account in accounts.accounts()]
    return [one for each in names for one in accounts.sessions.of(each, now=now) if one.kind == kind]


def _list(home: Path, kind: Literal["session", "token"], name: str, json_output: bool) -> None:
    with _opened(home) as (accounts, _):
        found = _held(accounts, kind, name)
    for one in found:
        used = f"since {one.created[:16]}, last used {one.used[:16]}, until {one.expires.isoformat()[:16]}"
        text = f"{one.key} {one.account.name} ({', '.join(one.scopes)}) {one.label}: {used}"
        console.print(text, highlight=False, markup=False)
    if not found:
        console.print(f"no {kind} holds", highlight=False)
    if json_output:
        plain = [
            {
                "key": one.key,
                "person": one.account.name,
                "scopes": list(one.scopes),
                "label": one.label,
                "created": one.created,
                "used": one.used,
                "expires": one.expires.isoformat(),
            }
            for one in found
        ]
        show({f"{kind}s": plain})


def _end(home: Path, kind: Literal["session", "token"], key: str) -> None:
    from datasites.review.people.vouching import BY_COMMAND
    from privacy.errors import InvalidInput

    with _opened(home) as (accounts, journal):
        owner = next((one.account.name for one in _held(accounts, kind, "") if one.key == key), None)
        if owner is None:
            raise InvalidInput(f"expected one of the keys that `tessera datasite {kind}s list` shows, got another")
        accounts.sessions.end_by_key(owner, key)
        journal.append("credential-ended", {"person": owner, "credential": key, "by": BY_COMMAND})
    console.print(f"ended: {key} of {owner}", highlight=False)
