"""What people change through forms: decisions, fingerprints, reports. Every form carries its session's CSRF token."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from datasites.node.web.problems import describe
from datasites.portal.access import (
    ActKey,
    FormPerson,
    FormProof,
    FormReviewer,
    FormSession,
    Hash,
    PasswordProof,
    ServiceHere,
    address_of,
    public_address,
)
from datasites.portal.pages import show_fingerprints, show_inbox
from datasites.portal.request_page import show_request
from datasites.portal.service import Decision, PortalService
from datasites.review.people.acts import PersonAct
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
    proof: PasswordProof,
    conditions: Text = "",
) -> Response:
    """Sign with the person's own key, under conditions or none."""

    def work() -> Response:
        return _decided(
            request, service, proposal_hash, "signed", lambda: service.sign(proposal_hash, caller, proof, conditions)
        )

    return await service.people.signing.run(address_of(request), caller.account.name, work)


@router.post("/requests/{proposal_hash}/dry-run")
def dry_run(request: Request, proposal_hash: Hash, service: ServiceHere, _: FormReviewer) -> Response:
    """Begin a dry run; the page follows it."""
    found = service.find(proposal_hash)
    try:
        service.dry_runs.start(service.dry_run_wanted(proposal_hash))
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
    proof: FormProof,
) -> Response:
    """Deny, ask for changes, or revoke, with a reason."""
    act = partial(service.decide, decision, proposal_hash, caller, reason, proof)
    return _decided(request, service, proposal_hash, decision, act)


@router.post("/fingerprints")
async def confirm(
    request: Request, service: ServiceHere, caller: FormSession, public_key: Secret, proof: PasswordProof
) -> Response:
    """Confirm a fingerprint that was compared out of band; needs the password."""

    def work() -> Response:
        try:
            done = service.confirm(public_key, caller, proof)
        except TesseraError as error:
            return show_fingerprints(request, service, problem=sentence_of(error), status=describe(error).status)
        return RedirectResponse(f"/fingerprints?notice={'confirmed' if done else 'act-proposed'}", 303)

    return await service.people.signing.run(address_of(request), caller.account.name, work)


@router.post("/acts/{key}/{answer}")
async def answer_act(
    request: Request,
    key: ActKey,
    answer: Literal["confirm", "decline"],
    service: ServiceHere,
    caller: FormSession,
    proof: FormProof,
    reason: Text = "",
) -> Response:
    """Confirm an act that somebody else proposed, or say no to it."""

    def work() -> Response:
        try:
            if answer == "decline":
                service.acts.decline(key, caller, proof, reason)
                return RedirectResponse("/inbox?notice=act-declined", 303)
            act, made = service.acts.confirm(key, caller, proof, reason)
        except TesseraError as error:
            return show_inbox(request, service, caller, problem=sentence_of(error), status=describe(error).status)
        if made and isinstance(act, PersonAct) and act.kind == "invite":
            link = f"{public_address(request, service)}/welcome?token={made}"
            return show_inbox(request, service, caller, link=link, link_role=act.target)
        return RedirectResponse(f"/inbox?notice={'act-done' if made else 'act-confirmed'}", 303)

    return await service.people.signing.run(address_of(request), caller.account.name, work)


@router.post("/reports")
def write_reports(service: ServiceHere, _: FormPerson) -> Response:
    """Begin to write the reports as of now, for everybody who may read; the page says how it goes."""
    service.writing.start()
    return RedirectResponse("/reports#writing", 303)


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
