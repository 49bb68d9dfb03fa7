"""Signing in with the hospital's own accounts, where the owner has set it up (:mod:`datasites.review.oidc`).

A sign-in under way is bound to the browser by a cookie of its own, because the session cookie is not sent when another
site (the provider) leads the browser here. Each can be finished once. It opens a session; it never signs anything.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from datasites.language import tr
from datasites.node.web.problems import describe
from datasites.portal.access import (
    Context,
    FormPerson,
    PasswordProof,
    ServiceHere,
    address_of,
    context_of,
    cookie_name,
    notice_name,
    open_session,
)
from datasites.portal.context import PortalContext
from datasites.portal.forms import inside
from datasites.portal.pages import page, show_login
from datasites.portal.people.drafts import NOTHING, Draft, taken_over
from datasites.portal.people.proof import Proof
from datasites.portal.service import SIGN_IN_SECONDS, Pending, PortalService
from datasites.review.accounts import LINKED, Account, Credential
from privacy.errors import Refused, TesseraError
from privacy.sentences import say, sentence_of

if TYPE_CHECKING:
    from datasites.review.oidc import Begun, Identified, OidcProvider


router = APIRouter(include_in_schema=False)
_PATH = "/login/hospital"
_Word = Annotated[str, Query(max_length=4096)]


@router.get(_PATH)
def begin(request: Request, service: ServiceHere, to: Annotated[str, Query(max_length=256)] = "/inbox") -> Response:
    """Send the browser to the hospital's sign-in."""
    try:
        begun = _provider(service.context).begin()
    except TesseraError as error:
        return _failed(request, error)
    response = RedirectResponse(begun.address, 303)
    _remember(response, service, begun, to=to, account=None)
    return response


@router.post(_PATH)
def begin_with_words(request: Request, service: ServiceHere, to: Annotated[str, Form(max_length=256)]) -> Response:
    """As :func:`begin`, and keep what the person typed before their session ended until they come back."""
    draft = taken_over(request)
    try:
        begun = _provider(service.context).begin()
    except TesseraError as error:
        return _failed(request, error, to=to, draft=draft)
    response: Response = page(request, "continue.html", to=begun.address, what=tr("To the hospital's sign-in"))
    _remember(response, service, begun, to=to, account=None, draft=draft)
    return response


@router.post("/people/link")
async def link(request: Request, service: ServiceHere, caller: FormPerson, proof: PasswordProof) -> Response:
    """Link the caller's account with the hospital's sign-in, which they now show to be theirs; needs the password."""
    work = partial(_link, request, service, caller, proof)
    return await service.people.signing.run(address_of(request), caller.account.name, work)


def _link(request: Request, service: PortalService, caller: Credential, proof: Proof) -> Response:
    service.people.prove_in_person(caller, proof)
    account = caller.account
    begun = _provider(service.context).begin()
    response: Response = page(request, "continue.html", to=begun.address, what=tr("To the hospital's sign-in"))
    _remember(response, service, begun, to="/people?notice=linked", account=account)
    return response


@router.post("/people/unlink")
def unlink(service: ServiceHere, caller: FormPerson) -> Response:
    """Forget the caller's link; sessions that came from it end."""
    service.context.accounts.unlink(caller.account.name)
    service.context.journal.append("account-unlinked", {"person": caller.account.name})
    return RedirectResponse("/people?notice=unlinked", 303)


@router.get(f"{_PATH}/callback")
def callback(
    request: Request, service: ServiceHere, state: _Word = "", code: _Word = "", iss: _Word = "", error: _Word = ""
) -> Response:
    """Take the browser back from the hospital's sign-in: check everything, then open the session or make the link."""
    context = service.context
    try:
        provider, now = _provider(context), context.clock()
        pending = service.sign_ins.take(state, request.cookies.get(_cookie(context), ""), now=now)
        provider.check_sender(iss)
        if error or not code:
            raise Refused(say("the hospital's sign-in did not let you in, or you went back"))
        who = provider.finish(pending.begun, code=code, now=now)
        response = _finished(request, service, provider, pending, who)
    except TesseraError as problem:
        response = _failed(request, problem)
    response.delete_cookie(_cookie(context), path=_PATH)
    return response


def _finished(
    request: Request, service: PortalService, provider: OidcProvider, pending: Pending, who: Identified
) -> Response:
    context, now = service.context, service.context.clock()
    if pending.account is not None:
        context.accounts.link(pending.account.name, who.issuer, who.subject, now=now)
        context.journal.append("account-linked", {"person": pending.account.name, "issuer": who.issuer})
        return _onward(request, pending.to)
    account = context.accounts.linked(who.issuer, who.subject)
    if account is None:
        return _onward(request, f"/welcome?token={_invitation(context, provider, who)}")
    if provider.settings.roles and account.role not in who.roles:
        raise Refused(
            say("your hospital account does not give you the part that {name} has here any more", name=account.name)
        )
    response = _onward(request, inside(pending.to))
    open_session(request, response, account, by=LINKED, draft=pending.draft)
    return response


def _invitation(context: PortalContext, provider: OidcProvider, who: Identified) -> str:
    """Return a one-time link's secret for somebody without an account, where the owner allows that."""
    needed = context.approvals.policy.people.required_people
    if needed > 1:
        raise Refused(
            say(
                "the policy wants {needed} people for every new account, and a sign-in is none: make your account with "
                "a one-time link from them, then link it on the People page",
                needed=needed,
            )
        )
    if not provider.settings.create_accounts or not who.roles:
        raise Refused(
            say(
                "nobody here is linked with this hospital account: make your account with a "
                "one-time link from a steward, "
                "then link it on the People page"
            )
        )
    role = who.roles[0]
    context.journal.append("account-invited", {"role": role, "person": "hospital sign-in"})
    return context.accounts.invite(role, now=context.clock(), subject=(who.issuer, who.subject), by="hospital sign-in")


def _onward(request: Request, to: str) -> Response:
    """Return a page that leads on: a redirect would come from the provider, which gets no session cookie."""
    response = page(request, "continue.html", to=to, what=tr("Continue"))
    if to.endswith("?notice=linked"):
        response.set_cookie(notice_name(context_of(request)), "linked", max_age=60, httponly=True, samesite="strict")
    return response


def _failed(request: Request, error: TesseraError, *, to: str = "/inbox", draft: Draft = NOTHING) -> Response:
    return show_login(request, to=to, draft=draft, problem=sentence_of(error), status=describe(error).status)


def _remember(
    response: Response,
    service: PortalService,
    begun: Begun,
    *,
    to: str,
    account: Account | None,
    draft: Draft = NOTHING,
) -> None:
    secret = service.sign_ins.add(begun, to=to, account=account, draft=draft, now=service.context.clock())
    response.set_cookie(
        _cookie(service.context),
        secret,
        max_age=SIGN_IN_SECONDS,
        httponly=True,
        samesite="lax",
        secure=service.context.secure_cookies,
        path=_PATH,
    )


def _cookie(context: Context) -> str:
    return f"{cookie_name(context)}-login"


def _provider(context: PortalContext) -> OidcProvider:
    if context.hospital_login is None:
        raise HTTPException(404, say("this hospital has not set up signing in with its own accounts"))
    return context.hospital_login
