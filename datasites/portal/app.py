"""The portal's application: pages for people, the machine API, and the headers that keep both to themselves."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasites.portal import api, forms, operations, pages, problems
from datasites.portal.context import PortalContext
from datasites.portal.desk import Desk
from datasites.portal.rendering import FOLDER, page

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
    app.state.desk = Desk(context)
    context.environment()  # what this process was started with, not what lies on the disk when somebody looks
    app.include_router(api.health)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.include_router(forms.router)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    problems.install(app, _page_of_problem)
    operations.install(app, app.state.desk)
    app.add_middleware(SecurityHeaders)
    return app


def _page_of_problem(request: Request, problem: problems.Problem) -> Response:
    if problem.status == 401:
        return RedirectResponse(f"/login?{urlencode({'to': request.url.path})}", 303)
    headings = {403: "Not allowed", 404: "Not found", 422: "Not understood", 500: "Something failed"}
    heading = headings.get(problem.status, "Not done")
    return page(request, "error.html", status=problem.status, heading=heading, detail=problem.detail)


class SecurityHeaders:
    """Adds to every answer: no foreign resource, no framing, no sniffing, no storing of what is personal.

    What another site makes a browser send (``Sec-Fetch-Site``) changes nothing here.
    """

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

        if scope["type"] == "http" and _foreign(scope):
            await PlainTextResponse("another site sent this form; nothing was done", 403)(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def _foreign(scope: Scope) -> bool:
    return scope["method"] not in {"GET", "HEAD"} and (b"sec-fetch-site", b"cross-site") in scope["headers"]
