"""Errors over HTTP: problem documents (RFC 9457) for machines, and the same errors as pages for people.

Which error has which status and type is in one table, :data:`datasites.node.http.PROBLEMS`; the client reads it
backwards. Besides:

=======================  ======  =============================
error                    status  type
=======================  ======  =============================
nobody is signed in      401     ``urn:tessera:not-signed-in``
malformed request        422     ``urn:tessera:invalid-input``
no room on the disk      507     ``urn:tessera:no-room``
any other of Tessera's   500     ``urn:tessera:failed``
unexpected               500     ``urn:tessera:internal``
=======================  ======  =============================

An unexpected exception is logged here and answered without its text: no traceback leaves the server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from datasites.node.files import is_out_of_room
from datasites.node.http import PROBLEMS
from privacy.errors import TesseraError

_log = logging.getLogger(__name__)


class Problem(BaseModel):
    """An error, as RFC 9457 wants it."""

    model_config = ConfigDict(extra="forbid")
    type: str
    title: str
    status: int
    detail: str


class NotSignedIn(Exception):
    """Nobody is signed in; a page sends the person to the login, the API answers 401."""


def new_problem(status: int, name: str, detail: str) -> Problem:
    """Return the problem document of type ``urn:tessera:NAME``."""
    return Problem(type=f"urn:tessera:{name}", title=name.replace("-", " "), status=status, detail=detail)


def describe(error: Exception) -> Problem:
    """Return the problem document of any exception; unexpected ones are logged and keep their text to themselves."""
    for kind, status, name in PROBLEMS:
        if isinstance(error, kind):
            return new_problem(status, name, str(error))
    if isinstance(error, TesseraError):
        _log.error("a request failed: %s", error)
        return new_problem(500, "failed", str(error))
    if isinstance(error, NotSignedIn):
        return new_problem(401, "not-signed-in", "sign in, or send a token as Authorization: Bearer ...")
    if isinstance(error, HTTPException):
        return new_problem(error.status_code, "http", _own_words(error))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return new_problem(422, "invalid-input", _expected(first))
    if isinstance(error, ClientDisconnect):
        return new_problem(400, "invalid-input", "the connection ended before the whole request was here")
    if is_out_of_room(error):
        _log.error("the disk is full: %s", error)
        return new_problem(
            507, "no-room", "the server's disk is full; nothing was kept of this request, ask again later"
        )
    _log.error("a request failed unexpectedly", exc_info=error)
    return new_problem(500, "internal", "the server failed on this request; its operator finds the reason in the log")


_WORDS = {
    404: "there is nothing at this address; check it, or begin at the first page",
    405: "this address is only for forms or programs; go to the page that leads here",
}


def _own_words(error: HTTPException) -> str:
    """Return what an error says, in our own words where the framework would say its own."""
    said = str(error.detail or "")
    phrase = HTTPStatus(error.status_code).phrase if error.status_code in set(HTTPStatus) else ""
    if said and said != phrase:
        return said
    return _WORDS.get(error.status_code, said.lower() or f"status {error.status_code}")


def _expected(first: Mapping[str, Any]) -> str:
    """Return what was expected of the first malformed part of a request; what was sent is not repeated."""
    where = ".".join(str(part) for part in first.get("loc", ()))
    limits = first.get("ctx") or {}
    kinds = {
        "missing": "is missing",
        "string_pattern_mismatch": "has another form than expected here",
        "string_too_long": f"is longer than {limits.get('max_length')} characters",
        "string_too_short": f"is shorter than {limits.get('min_length')} characters",
    }
    kind = str(first.get("type", ""))
    return f"{where} {kinds[kind]}" if kind in kinds else f"{where}: {first.get('msg', 'malformed request')}"


def answer(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return a problem as an ``application/problem+json`` response."""
    extra = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
    return JSONResponse(
        problem.model_dump(),
        problem.status,
        headers={**(headers or {}), **extra},
        media_type="application/problem+json",
    )


def documented(description: str) -> dict[str, Any]:
    """Return how OpenAPI describes an answer that is a problem."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"model": Problem, "description": description, "content": {"application/problem+json": {"schema": schema}}}


def install_problem_handlers(app: FastAPI, page: Callable[[Request, Problem], Response] | None = None) -> None:
    """Make ``app`` answer every failure with a problem document.

    Args:
        app: not serving yet.
        page: draws a problem for people; it is asked outside ``/api/``, for clients that want HTML.
    """

    async def handle(request: Request, error: Exception) -> Response:
        problem = describe(error)
        wants_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        if page is not None and wants_page:
            response = page(request, problem)
            response.headers.update(headers)
            return response
        return answer(problem, headers)

    for kind in (TesseraError, NotSignedIn, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, handle)
