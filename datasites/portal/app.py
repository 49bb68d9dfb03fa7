"""The portal's application: pages for people, the machine API, and the headers that keep both to themselves."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from datasites.portal import api, forms, hospital_login, operations, pages, problems
from datasites.portal.assets import STATIC, Assets, SecurityHeaders
from datasites.portal.bodies import ShortBodies
from datasites.portal.context import PortalContext
from datasites.portal.desk import Desk
from datasites.portal.rendering import compile_templates, page


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
    compile_templates()
    context.environment()  # what this process was started with, not what lies on the disk when somebody looks
    app.include_router(api.health)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.include_router(forms.router)
    app.include_router(hospital_login.router)
    app.mount("/static", Assets(STATIC), name="static")
    problems.install(app, _page_of_problem)
    operations.install(app, app.state.desk)
    app.add_middleware(ShortBodies)
    app.add_middleware(SecurityHeaders)
    return app


def _page_of_problem(request: Request, problem: problems.Problem) -> Response:
    if problem.status == 401:
        return RedirectResponse(f"/login?{urlencode({'to': request.url.path})}", 303)
    headings = {403: "Not allowed", 404: "Not found", 422: "Not understood", 500: "Something failed"}
    heading = headings.get(problem.status, "Not done")
    return page(request, "error.html", status=problem.status, heading=heading, detail=problem.detail)
