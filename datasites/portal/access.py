"""Who calls: a browser session in a cookie, or a machine token in the Authorization header.

A session changes something only with its CSRF token, sent as the header ``X-CSRF-Token`` or the form field ``csrf``.
The cookie is named after the datasite's key, because browsers share cookies between the ports of one host.
"""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Form, Path, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel
from starlette.responses import Response

from datasites.language import mark
from datasites.node.web.problems import NotSignedIn
from datasites.portal.context import PortalContext
from datasites.portal.people.desk import check_session
from datasites.portal.people.drafts import Draft, taken_over
from datasites.portal.people.proof import Proof, act_of
from datasites.portal.service import PortalService
from datasites.review.accounts import LINKED, SESSION_HOURS, Account, Credential, Scope
from datasites.review.people.security_keys import LONGEST_ANSWER
from datasites.review.people.sessions import KNOWN_BROWSER_DAYS
from privacy.errors import Refused
from privacy.sentences import say

CSRF_HEADER = "x-csrf-token"
LIVE_HEADER = "x-tessera-live"
"""Sent by a page that fetches itself again; it keeps no session awake."""
_bearer = HTTPBearer(auto_error=False, description="a machine token (POST /api/tokens)")
_cookie = APIKeyCookie(name="tessera-session", auto_error=False, description="a browser session")
_Token = Annotated[object, Depends(_bearer)]  # for OpenAPI: says how to sign in; the check itself reads the request
_Session = Annotated[object, Depends(_cookie)]


def context_of(request: Request) -> PortalContext:
    """Return the datasite that the application belongs to."""
    context: PortalContext = request.app.state.context
    return context


def service_of(request: Request) -> PortalService:
    """Return what the portal does."""
    service: PortalService = request.app.state.service
    return service


def cookie_name(context: PortalContext) -> str:
    """Return the name of this datasite's session cookie."""
    return f"tessera-{context.public_key[:12]}"


def credential_of(request: Request) -> Credential | None:
    """Return who calls, or None; looked up once per request."""
    if not hasattr(request.state, "credential"):
        request.state.credential = _credential(request)
    known: Credential | None = request.state.credential
    return known


def address_of(request: Request) -> str:
    """Return the address a request came from, as the server or the proxy in front of it says."""
    return request.client.host if request.client else ""


def _credential(request: Request) -> Credential | None:
    context = context_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    secret = token if scheme.lower() == "bearer" else request.cookies.get(cookie_name(context), "")
    found = context.accounts.credential(secret, now=context.clock()) if secret else None
    expected = "token" if scheme.lower() == "bearer" else "session"
    if found is None or found.kind != expected:
        return None
    if not request.url.path.endswith("/events") and LIVE_HEADER not in request.headers:  # nobody looks
        context.accounts.sessions.used(found, now=context.clock())
    if found.kind == "token":
        service_of(request).people.records.token_used(found, address_of(request), now=context.clock())
    return found


def check_csrf(credential: Credential, given: str) -> None:
    """Check the CSRF token of a session; a machine token needs none.

    Raises:
        Refused: it is missing or another's.
    """
    if credential.kind == "session" and not hmac.compare_digest(credential.csrf.encode(), given.encode()):
        raise Refused(say("this form has expired; reload the page and send it again"))


_LACKS = {
    "read": mark("this needs the right to read, which {name} does not have here"),
    "review": mark("this needs the right to review, which {name} does not have here"),
}


def _require(request: Request, scope: Scope) -> Credential:
    credential = credential_of(request)
    if credential is None:
        raise NotSignedIn
    if scope not in credential.scopes:
        raise Refused(say(_LACKS[scope], name=credential.account.name))
    if request.method == "POST":
        service_of(request).drafts.forget(credential.key)
    return credential


def reader(request: Request, _token: _Token, _session: _Session) -> Credential:
    """Return who calls, who may read.

    Raises:
        NotSignedIn: nobody.
        Refused: without the scope.
    """
    return _require(request, "read")


def api_reviewer(request: Request, _token: _Token, _session: _Session) -> Credential:
    """Return who calls, who may decide; a session must send its CSRF header.

    Raises:
        NotSignedIn: nobody.
        Refused: without the scope, or without the CSRF header.
    """
    credential = _require(request, "review")
    check_csrf(credential, request.headers.get(CSRF_HEADER, ""))
    return credential


def form_reviewer(request: Request, csrf: Annotated[str, Form(max_length=64)] = "") -> Credential:
    """Return who sent a form, who may decide; the form must carry its CSRF token.

    Raises:
        NotSignedIn: nobody.
        Refused: without the scope, or without the token.
    """
    credential = _require(request, "review")
    check_csrf(credential, csrf)
    return credential


def form_person(request: Request, csrf: Annotated[str, Form(max_length=64)] = "") -> Credential:
    """Return who sent a form about their own account, auditors too; a machine token is refused.

    Raises:
        NotSignedIn: nobody.
        Refused: a machine token, or without the CSRF token.
    """
    credential = check_session(_require(request, "read"))
    check_csrf(credential, csrf)
    return credential


def form_session(credential: Annotated[Credential, Depends(form_reviewer)]) -> Credential:
    """Return who sent a form that changes who may decide here; a machine token is refused.

    Raises:
        Refused: a machine token.
    """
    return check_session(credential)


def api_session(credential: Annotated[Credential, Depends(api_reviewer)]) -> Credential:
    """Return who calls the API to change who may decide here; a machine token is refused.

    Raises:
        Refused: a machine token.
    """
    return check_session(credential)


def host_of(request: Request) -> str:
    """Return the origin under which a person reached the portal, as they say."""
    return f"{request.url.scheme}://{request.url.netloc}"


async def form_proof(
    request: Request,
    password: Annotated[str, Form(max_length=256)] = "",
    security_key: Annotated[str, Form(max_length=LONGEST_ANSWER)] = "",
) -> Proof:
    """Return what a form brings to show who sends it, and for which act."""
    fields = [(name, value) for name, value in (await request.form()).multi_items() if isinstance(value, str)]
    act = act_of(request.url.path, fields)
    return Proof(password=password, answer=security_key, act=act, host=host_of(request))


def password_proof(
    proof: Annotated[Proof, Depends(form_proof)], password: Annotated[str, Form(max_length=256)]
) -> Proof:
    """As :func:`form_proof`, for forms that are malformed without a password."""
    return replace(proof, password=password)


def json_proof(request: Request, body: BaseModel) -> Proof:
    """Return what a call of the API brings to show who calls, and for which act."""
    values = body.model_dump(mode="json")
    act = act_of(request.url.path, ((name, str(value)) for name, value in values.items()))
    password, answer = values.get("password", ""), values.get("security_key", "")
    return Proof(password=password, answer=answer, act=act, host=host_of(request))


def stranger(request: Request) -> None:
    """Check that whoever makes an account sends no machine token along.

    Raises:
        Refused: a machine token.
    """
    if request.headers.get("authorization"):
        raise Refused(say("a machine token makes no account: open the one-time link in a browser"))


def _set_cookie(response: Response, context: PortalContext, name: str, secret: str, *, max_age: int) -> None:
    response.set_cookie(
        name, secret, max_age=max_age, httponly=True, samesite="strict", secure=context.secure_cookies, path="/"
    )


async def sign_in(request: Request, name: str, password: str) -> Account:
    """Check a password of somebody who is not signed in; they wait for their turn.

    Raises:
        Refused: the password is wrong, or there were too many attempts.
        HTTPException: 429, too many wait.
    """
    browser = request.cookies.get(known_name(context_of(request)), "")
    return await service_of(request).people.sign_in(name, password, address=address_of(request), browser=browser)


def open_session(
    request: Request, response: Response, account: Account, *, by: str = "password", draft: Draft | None = None
) -> str:
    """Open a session, give the browser its cookies, and write it down; return the session's CSRF token.

    The session begins with ``draft``, or with what the page to sign in took along: words that wait for their form.
    """
    context, now = context_of(request), context_of(request).clock()
    label = LINKED if by == LINKED else request.headers.get("user-agent", "browser")
    secret, credential = context.accounts.open_session(account, now=now, label=label)
    _set_cookie(response, context, cookie_name(context), secret, max_age=SESSION_HOURS * 3600)
    if by != LINKED:
        remembered = context.accounts.sessions.remember_browser(account.name, now=now)
        _set_cookie(response, context, known_name(context), remembered, max_age=KNOWN_BROWSER_DAYS * 86400)
    service_of(request).drafts.keep(credential.key, taken_over(request) if draft is None else draft, now=now)
    service_of(request).people.records.signed_in(account.name, address_of(request), by=by)
    return credential.csrf


def notice_of(request: Request) -> str:
    """Return the notice a page is to show: the one its address names, where this portal itself led there just now.

    So an address that somebody sends around shows no banner about something that did not happen.
    """
    named = request.query_params.get("notice", "")
    return named if named and named == request.cookies.get(notice_name(context_of(request))) else ""


def notice_name(context: PortalContext) -> str:
    """Return the name of the cookie that says to which notice this portal led the browser."""
    return f"{cookie_name(context)}-notice"


def known_name(context: PortalContext) -> str:
    """Return the name of the cookie by which a browser shows that somebody signed in there before."""
    return f"{cookie_name(context)}-known"


def public_address(request: Request, service: PortalService) -> str:
    """Return the address for links to this portal: the configured one, since a caller chooses the Host header."""
    return service.context.public_url.rstrip("/") or host_of(request)


ActKey = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="an act that waits for more people")]
Hash = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the canonical proposal")]
PublicKey = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Ed25519 public key")]
ServiceHere = Annotated[PortalService, Depends(service_of)]
FormReviewer = Annotated[Credential, Depends(form_reviewer)]
Context = Annotated[PortalContext, Depends(context_of)]
Reader = Annotated[Credential, Depends(reader)]
ApiReviewer = Annotated[Credential, Depends(api_reviewer)]
PasswordProof = Annotated[Proof, Depends(password_proof)]
FormProof = Annotated[Proof, Depends(form_proof)]
FormPerson = Annotated[Credential, Depends(form_person)]
FormSession = Annotated[Credential, Depends(form_session)]
ApiSession = Annotated[Credential, Depends(api_session)]
