"""The portal's application: pages for people, the machine API, and what operators watch.

``/healthz`` and ``/readyz`` answer everybody, ``/metrics`` only people who are signed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasites.language import mark
from datasites.node.web import problems
from datasites.node.web.folder_figures import FolderFigures
from datasites.node.web.languages import Languages
from datasites.node.web.metrics import CONTENT_TYPE, FIGURES, JournalFigures, RequestMetrics, exposition, new_registry
from datasites.node.web.middleware import STATIC, Assets, SecurityHeaders, ShortBodies
from datasites.portal import (
    api,
    away,
    forms,
    hospital_login,
    jobs,
    owner_pages,
    pages,
    people_api,
    people_forms,
    request_page,
    roster_page,
)
from datasites.portal.access import Context, Reader, credential_of, notice_name
from datasites.portal.api import ERRORS
from datasites.portal.context import PortalContext
from datasites.portal.pages import compile_templates, page, show_login
from datasites.portal.people.drafts import NOTHING, note_form, page_of, typed_here
from datasites.portal.service import PortalService
from datasites.review.endings import FAILED, STOPPED
from privacy.ledger.journal import Entry

_BUDGET_LABELS = ("population", "delta", "adjacency", "accountant")
_ADJACENCY, _ACCOUNTANT = "add-remove", "gdp"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Whether journal and approvals can be read."""

    status: Literal["ready", "not ready"]


def install(app: FastAPI, service: PortalService) -> None:
    """Add request counting, ``/readyz`` and ``/metrics`` to the portal's application."""
    registry = new_registry()
    registry.register(JournalFigures(service.context.journal, _SUMS, kinds=(FAILED, STOPPED)))
    registry.register(_Figures(service))
    if service.context.folder is not None:
        registry.register(FolderFigures(service.context.folder))

    @app.get("/readyz", responses={503: {"model": Ready}}, summary="Can it be used?")
    def readyz(context: Context, response: Response) -> Ready:
        ready = _answers(context)
        response.status_code = 200 if ready else 503
        return Ready(status="ready" if ready else "not ready")

    @app.get("/metrics", response_class=Response, responses={**ERRORS, **FIGURES}, summary="Figures for Prometheus")
    def metrics(_: Reader) -> Response:
        return Response(exposition(registry), media_type=CONTENT_TYPE)

    app.add_middleware(RequestMetrics, registry=registry)


def _answers(context: PortalContext) -> bool:
    """Return whether journal and approvals can be read; why not is for the log, not for strangers."""
    try:
        _ = context.journal.head
        context.approvals.requests()
    except Exception:  # whatever it is: not ready
        return False
    return True


def _updates(entry: Entry) -> float:
    return float(entry.kind == "update-encrypted")


def _refusals(entry: Entry) -> float:
    return float(entry.kind in ("refused", "proposal-rejected"))


def _charges(entry: Entry) -> float:
    return float(entry.kind == "round-charged")


_SUMS = {
    "tessera_updates": ("Encrypted updates made here.", _updates),
    "tessera_refusals": ("Rounds and proposals refused here.", _refusals),
    "tessera_rounds_charged": ("Rounds charged to a budget here.", _charges),
}


class _Figures(Collector):
    def __init__(self, service: PortalService) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield from self._budget()
        yield _by_state(
            "tessera_proposals", "Proposals by state.", (r.state for r in self._service.context.approvals.requests())
        )
        yield _by_state("tessera_studies", "Studies by state.", (s.state for s in self._service.studies()))

    def _budget(self) -> Iterable[Metric]:
        figures = {
            "spent": GaugeMetricFamily("tessera_epsilon_spent", "Epsilon spent per patient.", labels=_BUDGET_LABELS),
            "reserved": GaugeMetricFamily(
                "tessera_epsilon_reserved", "Epsilon spent and promised per patient.", labels=_BUDGET_LABELS
            ),
            "cap": GaugeMetricFamily("tessera_epsilon_cap", "The owner's cap of epsilon.", labels=_BUDGET_LABELS),
        }
        for line in self._service.budgets():
            labels = (line.population, f"{line.delta:g}", _ADJACENCY, _ACCOUNTANT)
            for name, family in figures.items():
                family.add_metric(labels, getattr(line, name))
        return figures.values()


def _by_state(name: str, text: str, states: Iterable[str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("state",))
    for state, count in sorted(Counter(states).items()):
        family.add_metric((state,), count)
    return family


class Notices:
    """ASGI middleware: gives a browser that is led to a page with a notice the cookie that lets the page show it."""

    def __init__(self, app: ASGIApp, *, cookie: str, secure: bool) -> None:
        self._app, self._cookie, self._secure = app, cookie, secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and look where its answer leads."""

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                named = parse_qs(urlsplit(headers.get("location", "")).query).get("notice", [""])[0]
                if named:
                    rest = "; Max-Age=60; Path=/; HttpOnly; SameSite=Strict" + "; Secure" * self._secure
                    headers.append("set-cookie", f"{self._cookie}={quote(named)}{rest}")
            await send(message)

        await self._app(scope, receive, with_cookie if scope["type"] == "http" else send)


@lru_cache(maxsize=1)
def _all_routes() -> APIRouter:
    """Return the routes of every portal: FastAPI works out what each takes once a process, not once an application."""
    routes = APIRouter(dependencies=[Depends(note_form)])
    for router in (
        api.health,
        people_api.router,
        api.router,
        pages.router,
        request_page.router,
        people_forms.router,
        forms.router,
        owner_pages.router,
        away.router,
        hospital_login.router,
        roster_page.api,
        roster_page.pages,
        jobs.api,
        jobs.pages,
    ):
        routes.include_router(router)
    return routes


def create_portal(context: PortalContext) -> FastAPI:
    """Return the portal of one datasite, to be served by uvicorn on its own address."""
    app = FastAPI(
        title=f"Tessera portal of {context.institution}",
        description="Review, approve and watch what runs on this hospital's data.",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(note_form)],
    )
    app.state.context = context
    app.state.service = PortalService(context)
    compile_templates()
    context.environment()  # what this process was started with, not what lies on the disk when somebody looks
    app.router.routes.extend(_all_routes().routes)
    app.mount("/static", Assets(STATIC), name="static")
    problems.install_problem_handlers(app, _page_of_problem)
    install(app, app.state.service)
    app.add_middleware(Notices, cookie=notice_name(context), secure=context.secure_cookies)
    app.add_middleware(ShortBodies)
    app.add_middleware(Languages, https=context.secure_cookies)
    app.add_middleware(SecurityHeaders)
    return app


def _page_of_problem(request: Request, problem: problems.Problem) -> Response:
    if problem.status == 401:
        draft = typed_here(request)
        path = request.url.path if request.method == "GET" else page_of(request.url.path)
        if draft.typed:
            return show_login(request, to=path, draft=draft, status=401)
        return RedirectResponse(f"/login?{urlencode({'to': path})}", 303)
    headings = {403: mark("Not allowed"), 404: mark("Not found"), 422: mark("Not understood")}
    headings |= {500: mark("Something failed")}
    heading = headings.get(problem.status, mark("Not done"))
    draft = typed_here(request) if credential_of(request) is not None else NOTHING
    back = draft.page if draft.typed else ""
    return page(request, "error.html", status=problem.status, heading=heading, detail=problem.said, back=back)
