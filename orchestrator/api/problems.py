"""Errors over HTTP: every error of :mod:`privacy.errors` becomes a problem document (RFC 9457), and nothing else.

=================  ======  ================================
error              status  type
=================  ======  ================================
``InvalidInput``   400     ``urn:tessera:invalid-input``
``Tampered``       400     ``urn:tessera:tampered``
``Refused``        403     ``urn:tessera:refused``
``BudgetExceeded`` 409     ``urn:tessera:budget-exceeded``
``UnsafeSum``      409     ``urn:tessera:unsafe-sum``
no room on disk    507     ``urn:tessera:no-room``
any other          500     ``urn:tessera:internal``
=================  ======  ================================

An unexpected exception is logged here and answered without its text: no traceback leaves the server.
"""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from datasites.node.files import is_out_of_room
from privacy.errors import BudgetExceeded, InvalidInput, Refused, Tampered, TesseraError, UnsafeSum

_log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[TesseraError], int, str], ...] = (
    (BudgetExceeded, 409, "budget-exceeded"),
    (UnsafeSum, 409, "unsafe-sum"),
    (Refused, 403, "refused"),
    (Tampered, 400, "tampered"),
    (InvalidInput, 400, "invalid-input"),
)


def problem(status: int, name: str, detail: str) -> JSONResponse:
    """Return one problem document, ``{"type", "title", "status", "detail"}``."""
    return JSONResponse(
        {
            "type": f"urn:tessera:{name}",
            "title": name.replace("-", " "),
            "status": status,
            "detail": detail,
        },
        status_code=status,
        media_type="application/problem+json",
    )


def problem_of(error: Exception) -> JSONResponse:
    """Return the problem document of any exception."""
    for kind, status, name in _STATUS:
        if isinstance(error, kind):
            return problem(status, name, str(error))
    if isinstance(error, TesseraError):
        return problem(500, "failed", str(error))
    if is_out_of_room(error):
        _log.error("the disk is full: %s", error)
        return problem(507, "no-room", "the server's disk is full; nothing was kept of this request, ask again later")
    _log.error("a request failed unexpectedly", exc_info=error)
    return problem(500, "internal", "the server failed on this request; its operator finds the reason in the log")


def install_problem_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every failure with a problem document."""

    async def known(_: Request, error: Exception) -> JSONResponse:
        return problem_of(error)

    async def http(_: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return problem(status, "http", str(getattr(error, "detail", "")) or f"status {status}")

    async def malformed(_: Request, error: Exception) -> JSONResponse:
        first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
        where = ".".join(str(part) for part in first.get("loc", ()))
        return problem(422, "invalid-input", f"{where}: {first.get('msg', 'malformed request')}")

    async def gone(_: Request, __: Exception) -> JSONResponse:
        return problem(400, "invalid-input", "the connection ended before the whole request was here")

    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(TesseraError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(Exception, known)
