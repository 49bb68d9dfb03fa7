"""What people change through forms: sign in, decide, confirm, invite. Every form carries its session's CSRF token."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from datasites.node.web.problems import describe
from datasites.portal.access import (
    Context,
    FormReviewer,
    Hash,
    Reader,
    ServiceHere,
    check_csrf,
    cookie_name,
    set_session,
    sign_in,
)
from datasites.portal.pages import page, show_people, show_request
from datasites.portal.service import Decision, PortalService
from datasites.review.accounts import Role
from datasites.review.records import Request as ReviewRequest
from privacy.errors import Refused, TesseraError

router = APIRouter(include_in_schema=False)
Text = Annotated[str, Form(max_length=4000)]
Secret = Annotated[str, Form(max_length=256)]


@router.post("/login")
def login(request: Request, context: Context, name: Secret, password: Secret, to: Secret = "/inbox") -> Response:
    """Open a session and go where the person wanted to."""
    try:
        secret, _ = sign_in(context, name, password)
    except TesseraError as error:
        nobody = not context.accounts.accounts()
        return page(request, "login.html", status=403, problem=str(error), to=to, nobody=nobody)
    response = RedirectResponse(inside(to), 303)
    set_session(response, context, secret)
    return response


@router.post("/logout")
def logout(request: Request, context: Context, caller: Reader, csrf: Secret) -> Response:
    """End the session."""
    check_csrf(caller, csrf)
    context.accounts.end(request.cookies.get(cookie_name(context), ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookie_name(context))
    return response


@router.post("/welcome")
def welcome(request: Request, service: ServiceHere, token: Secret, name: Secret, password: Secret) -> Response:
    """Make the account of a one-time link and sign its owner in."""
    try:
        account = service.register(token, name, password)
    except TesseraError as error:
        role = service.context.accounts.invitation_role(token, now=service.context.clock())
        return page(request, "welcome.html", status=400, problem=str(error), token=token, for_role=role)
    secret, _ = service.context.accounts.open_session(account, now=service.context.clock())
    response = RedirectResponse("/inbox?notice=welcome", 303)
    set_session(response, service.context, secret)
    return response


@router.post("/requests/{proposal_hash}/approve")
def approve(
    request: Request,
    proposal_hash: Hash,
    service: ServiceHere,
    caller: FormReviewer,
    password: Secret,
    conditions: Text = "",
) -> Response:
    """Sign with the person's own key, under conditions or none."""
    name = caller.account.name
    return _decided(
        request, service, proposal_hash, "signed", lambda: service.sign(proposal_hash, name, password, conditions)
    )


@router.post("/requests/{proposal_hash}/dry-run")
def dry_run(request: Request, proposal_hash: Hash, service: ServiceHere, _: FormReviewer) -> Response:
    """Begin a dry run; the page follows it."""
    found = service.find(proposal_hash)
    try:
        service.dry_runs.start(found)
    except Refused as error:
        return show_request(request, service, found, problem=str(error), status=403)
    return RedirectResponse(f"/requests/{proposal_hash}#dry-run", 303)


@router.post("/requests/{proposal_hash}/{decision}")
def decide(
    request: Request,
    proposal_hash: Hash,
    decision: Decision,
    service: ServiceHere,
    caller: FormReviewer,
    reason: Text,
) -> Response:
    """Deny, ask for changes, or revoke, with a reason."""
    person = caller.account
    return _decided(
        request, service, proposal_hash, decision, lambda: service.decide(decision, proposal_hash, person, reason)
    )


@router.post("/fingerprints")
def confirm(service: ServiceHere, caller: FormReviewer, public_key: Secret) -> Response:
    """Confirm a fingerprint that was compared out of band."""
    service.confirm(public_key, caller.account)
    return RedirectResponse("/fingerprints?notice=confirmed", 303)


@router.post("/reports")
def write_reports(service: ServiceHere, caller: Reader, csrf: Secret) -> Response:
    """Write the reports as of now; whoever may read may ask for them."""
    check_csrf(caller, csrf)
    service.write_reports()
    return RedirectResponse("/reports?notice=written", 303)


@router.post("/people")
def invite(request: Request, service: ServiceHere, caller: FormReviewer, role: Annotated[Role, Form()]) -> Response:
    """Make a one-time link for somebody; only a steward may."""
    if caller.account.role != "steward":
        raise Refused("only a steward invites people")
    token = service.context.accounts.invite(role, now=service.context.clock())
    service.context.journal.append("account-invited", {"role": role, "person": caller.account.name})
    # a Host header is the caller's to choose: a link that makes accounts has the configured address, if there is one
    here = service.context.public_url.rstrip("/") or f"{request.url.scheme}://{request.url.netloc}"
    link = f"{here}/welcome?token={token}"
    return show_people(request, service.context, caller, link=link, link_role=role)


@router.post("/people/close")
def close_account(service: ServiceHere, caller: FormReviewer, name: Secret) -> Response:
    """Close the account of somebody who has left; only a steward may, and not their own."""
    if caller.account.role != "steward" or caller.account.name == name:
        raise Refused("only a steward closes accounts, and another steward closes theirs")
    service.context.accounts.retire(name)
    service.context.journal.append("account-closed", {"name": name, "person": caller.account.name})
    return RedirectResponse("/people?notice=closed", 303)


def _decided(
    request: Request, service: PortalService, proposal_hash: str, notice: str, action: Callable[[], ReviewRequest]
) -> Response:
    """Do it and show the request again, or show it with the reason why it was not done."""
    found = service.find(proposal_hash)
    try:
        action()
    except TesseraError as error:
        return show_request(request, service, found, problem=str(error), status=describe(error).status)
    return RedirectResponse(f"/requests/{proposal_hash}?notice={notice}", 303)


_INSIDE = re.compile(r"/(?:[a-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*)?(?:\?[A-Za-z0-9._~=&-]*)?")


def inside(to: str) -> str:
    """Return ``to`` where it is a plain path of this portal, or the inbox.

    Browsers read ``/\\host``, and what is left of ``/<tab>/host``, as another host; so only what pages here are called
    by is let through.

    >>> inside("/requests/0ab1"), inside("//elsewhere.example"), inside("/%09/elsewhere.example")
    ('/requests/0ab1', '/inbox', '/inbox')
    """
    return to if _INSIDE.fullmatch(to) else "/inbox"
