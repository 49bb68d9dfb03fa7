"""The page of accounts: who decides here, who has to be confirmed, and one's own sessions and tokens."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from datasites.portal.access import Context, Reader
from datasites.portal.context import PortalContext
from datasites.portal.pages import page
from datasites.review.accounts import Account, Credential
from datasites.review.people.vouching import check_vouches
from privacy.errors import Refused

router = APIRouter(include_in_schema=False)


@router.get("/people")
def people(request: Request, context: Context, caller: Reader) -> HTMLResponse:
    """Who has an account."""
    return show_people(request, context, caller)


def show_people(
    request: Request,
    context: PortalContext,
    caller: Credential,
    *,
    link: str = "",
    link_role: str = "",
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    """Return the page of accounts, with a one-time link just made, if any; ``problem`` is shown on top."""
    accounts = context.accounts
    everybody, retired = accounts.accounts(), accounts.retired()
    return page(
        request,
        "people.html",
        status=status,
        problem=problem,
        accounts=everybody,
        retired=retired,
        may_confirm=[a.name for a in everybody if a.name not in retired and _may_confirm(caller.account, a)],
        own=accounts.sessions.of(caller.account.name, now=context.clock()),
        present=caller.key,
        idle_minutes=f"{accounts.sessions.idle_minutes:g}",
        linked=accounts.has_link(caller.account.name),
        link=link,
        link_role=link_role,
    )


def _may_confirm(person: Account, newcomer: Account) -> bool:
    try:
        check_vouches(person, newcomer)
    except Refused:
        return False
    return True
