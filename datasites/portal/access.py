"""Who calls: a browser session in a cookie, or a machine token in the Authorization header.

A session changes something only with its CSRF token, sent as the header ``X-CSRF-Token`` or the form field ``csrf``.
The cookie is named after the datasite's key, because browsers share cookies between the ports of one host.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Form, Path, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.responses import Response

from datasites.node.web.problems import NotSignedIn
from datasites.portal.context import PortalContext
from datasites.portal.service import PortalService
from datasites.review.accounts import SESSION_HOURS, Account, Credential, Scope
from privacy.errors import Refused

CSRF_HEADER = "x-csrf-token"
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


def _credential(request: Request) -> Credential | None:
    context = context_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    secret = token if scheme.lower() == "bearer" else request.cookies.get(cookie_name(context), "")
    found = context.accounts.credential(secret, now=context.clock()) if secret else None
    expected = "token" if scheme.lower() == "bearer" else "session"
    return found if found is not None and found.kind == expected else None


def check_csrf(credential: Credential, given: str) -> None:
    """Check the CSRF token of a session; a machine token needs none.

    Raises:
        Refused: it is missing or another's.
    """
    if credential.kind == "session" and not hmac.compare_digest(credential.csrf.encode(), given.encode()):
        raise Refused("this form has expired; reload the page and send it again")


def _require(request: Request, scope: Scope) -> Credential:
    credential = credential_of(request)
    if credential is None:
        raise NotSignedIn
    if scope not in credential.scopes:
        raise Refused(f"this needs the right to {scope}, which {credential.account.name} does not have here")
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


def set_session(response: Response, context: PortalContext, secret: str) -> None:
    """Give the browser its session cookie."""
    response.set_cookie(
        cookie_name(context),
        secret,
        max_age=SESSION_HOURS * 3600,
        httponly=True,
        samesite="strict",
        secure=context.secure_cookies,
        path="/",
    )


def sign_in(context: PortalContext, name: str, password: str) -> tuple[str, Account]:
    """Check a password and open a session; return the cookie's value and the account.

    Raises:
        Refused: the password is wrong, or there were too many attempts.
    """
    account = context.accounts.authenticate(name, password, now=context.clock())
    secret, _ = context.accounts.open_session(account, now=context.clock())
    return secret, account


Hash = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the canonical proposal")]
PublicKey = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Ed25519 public key")]
ServiceHere = Annotated[PortalService, Depends(service_of)]
FormReviewer = Annotated[Credential, Depends(form_reviewer)]
Context = Annotated[PortalContext, Depends(context_of)]
Reader = Annotated[Credential, Depends(reader)]
ApiReviewer = Annotated[Credential, Depends(api_reviewer)]
