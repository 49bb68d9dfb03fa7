"""The portal's errors: problem documents (RFC 9457) for machines; pages turn the same errors into sentences."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from datasites.node.files import is_out_of_room
from privacy.errors import BudgetExceeded, InvalidInput, Refused, Tampered, TesseraError

_log = logging.getLogger(__name__)
_KINDS: tuple[tuple[type[TesseraError], int, str], ...] = (
    (BudgetExceeded, 409, "budget-exceeded"),
    (Refused, 403, "refused"),
    (InvalidInput, 400, "invalid-input"),
    (Tampered, 409, "tampered"),
)


class Problem(BaseModel):
    """An error, as RFC 9457 wants it."""

    type: str
    title: str
    status: int
    detail: str


class NotSignedIn(Exception):
    """Nobody is signed in; a page sends the person to the login, the API answers 401."""


def describe(error: Exception) -> Problem:
    """Return the problem document of any exception; unexpected ones are logged and keep their text to themselves."""
    for kind, status, name in _KINDS:
        if isinstance(error, kind):
            return _problem(status, name, str(error))
    if isinstance(error, NotSignedIn):
        return _problem(401, "not-signed-in", "sign in, or send a token as Authorization: Bearer ...")
    if isinstance(error, HTTPException):
        return _problem(error.status_code, "http", str(error.detail))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first.get("loc", ()))
        return _problem(422, "invalid-input", f"{where}: {first.get('msg', 'malformed request')}")
    if is_out_of_room(error):
        _log.error("the disk is full: %s", error)
        return _problem(
            507, "no-room", "the datasite's disk is full; nothing was kept of this request, make room first"
        )
    _log.error("a portal request failed unexpectedly", exc_info=error)
    return _problem(500, "internal", "the portal failed on this request; its operator finds the reason in the log")


def answer(error: Exception) -> JSONResponse:
    """Return ``error`` as an ``application/problem+json`` response."""
    problem = describe(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.model_dump(), problem.status, headers=headers, media_type="application/problem+json")


def install(app: FastAPI, page: Callable[[Request, Problem], Response]) -> None:
    """Answer errors under ``/api`` (and for clients that do not want HTML) as problems, others as pages."""

    async def handle(request: Request, error: Exception) -> Response:
        if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            return answer(error)
        return page(request, describe(error))

    for kind in (TesseraError, NotSignedIn, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, handle)


def _problem(status: int, name: str, detail: str) -> Problem:
    return Problem(type=f"urn:tessera:{name}", title=name.replace("-", " "), status=status, detail=detail)
