"""Errors over HTTP: problem documents (RFC 9457) for machines, and the same errors as pages for people.

Which error has which status and type is in one table, :data:`datasites.node.http.PROBLEMS`; the client reads it
backwards. Besides:

=======================  ======  =============================
error                    status  type
=======================  ======  =============================
nobody is signed in      401     ``urn:tessera:not-signed-in``
malformed request        422     ``urn:tessera:invalid-input``
no room on the disk      507     ``urn:tessera:no-room``
storage does not answer  503     ``urn:tessera:no-storage``
any other of Tessera's   500     ``urn:tessera:failed``
unexpected               500     ``urn:tessera:internal``
=======================  ======  =============================

An unexpected exception is logged here and answered without its text: no traceback leaves the server.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, PrivateAttr
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from datasites.language.shapes import expected
from datasites.node.files import is_out_of_room
from datasites.node.http import PROBLEMS
from datasites.study.text import visible
from privacy.errors import TesseraError
from privacy.sentences import Sentence, say, sentence_of

_LONGEST_NAME = 40
_log = logging.getLogger(__name__)


class Problem(BaseModel):
    """An error, as RFC 9457 wants it."""

    model_config = ConfigDict(extra="forbid")
    type: str
    title: str
    status: int
    detail: str
    _said: str = PrivateAttr(default="")

    @property
    def said(self) -> str:
        """The detail, able to be said in another language."""
        return self._said or self.detail


class NotSignedIn(Exception):
    """Nobody is signed in; a page sends the person to the login, the API answers 401."""


def new_problem(status: int, name: str, detail: str) -> Problem:
    """Return the problem document of type ``urn:tessera:NAME``."""
    problem = Problem(type=f"urn:tessera:{name}", title=name.replace("-", " "), status=status, detail=str(detail))
    problem._said = detail
    return problem


def describe(error: Exception) -> Problem:
    """Return the problem document of any exception; unexpected ones are logged and keep their text to themselves."""
    for kind, status, name in PROBLEMS:
        if isinstance(error, kind):
            return new_problem(status, name, sentence_of(error))
    if isinstance(error, TesseraError):
        _log.error("a request failed: %s", error)
        return new_problem(500, "failed", sentence_of(error))
    if isinstance(error, NotSignedIn):
        return new_problem(401, "not-signed-in", say("sign in, or send a token as Authorization: Bearer ..."))
    if isinstance(error, HTTPException):
        return new_problem(error.status_code, "http", _own_words(error))
    if isinstance(error, RequestValidationError):
        return _malformed(error)
    if isinstance(error, ClientDisconnect):
        return new_problem(400, "invalid-input", say("the connection ended before the whole request was here"))
    if is_out_of_room(error):
        _log.error("the disk is full: %s", error)
        return new_problem(
            507, "no-room", say("the server's disk is full; nothing was kept of this request, ask again later")
        )
    if isinstance(error, OSError) and error.errno == errno.EIO:
        _log.error("the storage does not answer: %s", error)
        said = say("the server's storage does not answer; nothing was kept of this request, ask again later")
        return new_problem(503, "no-storage", said)
    _log.error("a request failed unexpectedly", exc_info=error)
    said = say("the server failed on this request; its operator finds the reason in the log")
    return new_problem(500, "internal", said)


_NOTHING = say("there is nothing at this address; check it, or begin at the first page")
_WORDS = {
    400: say("the request cannot be read; send it again, as forms or JSON are written"),
    404: _NOTHING,
    405: say("this address is only for forms or programs; go to the page that leads here"),
}


_FIELDS = {
    "conditions": say("the text of the conditions"),
    "decision": say("the decision"),
    "full_name": say("the full name"),
    "function": say("the function"),
    "kind": say("the kind"),
    "name": say("the name"),
    "page": say("the page's number"),
    "password": say("the password"),
    "q": say("the text to search for"),
    "reason": say("the reason"),
    "role": say("the role"),
    "token": say("the one-time link"),
}
"""What people call the fields of forms; any other name is the field's own."""


def _own_words(error: HTTPException) -> str:
    """Return what an error says: our own sentence, never the framework's."""
    if isinstance(error.detail, Sentence):
        return error.detail
    return _WORDS.get(error.status_code) or say("the request was not done (status {status})", status=error.status_code)


def _malformed(error: RequestValidationError) -> Problem:
    """Return what was expected of the first malformed part of a request; what was sent is not repeated."""
    first = error.errors()[0]
    names = [visible(str(part), besides="")[:_LONGEST_NAME] for part in first.get("loc", ())[1:]]
    where = _FIELDS.get(names[0], names[0]) if len(names) == 1 else ".".join(names)
    return new_problem(422, "invalid-input", expected(first, where or say("the body")))


def _leads_nowhere(error: Exception) -> bool:
    """Return whether an address holds something else than it should; for people there is nothing at such an address."""
    return isinstance(error, RequestValidationError) and error.errors()[0].get("loc", ("",))[0] == "path"


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
            response = page(request, new_problem(404, "http", _NOTHING) if _leads_nowhere(error) else problem)
            response.headers.update(headers)
            return response
        return answer(problem, headers)

    for kind in (TesseraError, NotSignedIn, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, handle)
