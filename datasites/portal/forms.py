"""What people change through forms: decisions, fingerprints, reports. Every form carries its session's CSRF token."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from datasites.node.web.problems import describe
from datasites.portal.access import (
    FormReviewer,
    FormSession,
    Hash,
    Reader,
    ServiceHere,
    address_of,
    check_csrf,
)
from datasites.portal.pages import show_fingerprints
from datasites.portal.request_page import show_request
from datasites.portal.service import Decision, PortalService
from datasites.review.records import Request as ReviewRequest
from privacy.errors import Refused, TesseraError
from privacy.sentences import sentence_of

router = APIRouter(include_in_schema=False)
Text = Annotated[str, Form(max_length=4000)]
Secret = Annotated[str, Form(max_length=256)]


@router.post("/requests/{proposal_hash}/approve")
async def approve(
    request: Request,
    proposal_hash: Hash,
    service: ServiceHere,
    caller: FormReviewer,
    password: Secret,
    conditions: Text = "",
) -> Response:
    """Sign with the person's own key, under conditions or none."""

    def work() -> Response:
        return _decided(
            request, service, proposal_hash, "signed", lambda: service.sign(proposal_hash, caller, password, conditions)
        )

    return await service.people.signing.run(address_of(request), caller.account.name, work)


@router.post("/requests/{proposal_hash}/dry-run")
def dry_run(request: Request, proposal_hash: Hash, service: ServiceHere, _: FormReviewer) -> Response:
    """Begin a dry run; the page follows it."""
    found = service.find(proposal_hash)
    try:
        service.dry_runs.start(found)
    except Refused as error:
        return show_request(request, service, found, problem=sentence_of(error), status=403)
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
async def confirm(
    request: Request, service: ServiceHere, caller: FormSession, public_key: Secret, password: Secret
) -> Response:
    """Confirm a fingerprint that was compared out of band; needs the password."""

    def work() -> Response:
        try:
            service.people.prove_in_person(caller, password)
            service.confirm(public_key, caller.account)
        except TesseraError as error:
            return show_fingerprints(request, service, problem=sentence_of(error), status=describe(error).status)
        return RedirectResponse("/fingerprints?notice=confirmed", 303)

    return await service.people.signing.run(address_of(request), caller.account.name, work)


@router.post("/reports")
def write_reports(service: ServiceHere, caller: Reader, csrf: Secret) -> Response:
    """Write the reports as of now; whoever may read may ask for them."""
    check_csrf(caller, csrf)
    service.write_reports()
    return RedirectResponse("/reports?notice=written", 303)


def _decided(
    request: Request, service: PortalService, proposal_hash: str, notice: str, action: Callable[[], ReviewRequest]
) -> Response:
    """Do it and show the request again, or show it with the reason why it was not done."""
    found = service.find(proposal_hash)
    try:
        done = action()
    except TesseraError as error:
        return show_request(request, service, found, problem=sentence_of(error), status=describe(error).status)
    if notice == "signed" and done.state != "approved":
        notice = "signed-first"
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
