"""The portal's application: the machine API now, the pages beside it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasites.portal import api, problems
from datasites.portal.context import PortalContext

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}


def create_portal(context: PortalContext) -> FastAPI:
    """Return the portal of one datasite, to be served by uvicorn on its own address."""
    app = FastAPI(
        title=f"Tessera portal of {context.institution}",
        description="Review, approve and watch what runs on this hospital's data.",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    app.include_router(api.health)
    app.include_router(api.router)
    problems.install(app, _plain_page)
    app.add_middleware(SecurityHeaders)
    return app


def _plain_page(_: Request, problem: problems.Problem) -> Response:
    return PlainTextResponse(f"{problem.title}: {problem.detail}", problem.status)


class SecurityHeaders:
    """Adds to every answer: no foreign resource, no framing, no sniffing, no storing of what is personal."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the headers to its answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)
