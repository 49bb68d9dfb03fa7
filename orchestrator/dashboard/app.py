"""The dashboard's application, mounted under ``/dashboard`` of the orchestrator. Every page only reads.

A study's report is written when somebody asks for it, and again only when the study has changed since.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Form, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from datasites.language import current, speaking
from datasites.language.formats import instant
from datasites.node.web import problems
from datasites.node.web.charts import swatch
from datasites.node.web.events import Cached, Streams, mark
from datasites.node.web.languages import Languages, asked_language
from datasites.node.web.middleware import REPORT_POLICY, STATIC, Assets, SecurityHeaders, ShortBodies, new_environment
from datasites.study.parties import parse_time
from datasites.study.text import delta_text, epsilon_text
from datasites.study.thread import SHOWN
from orchestrator.dashboard.access import FILE, SESSION_HOURS, Visitors
from orchestrator.dashboard.facts import StudyNow, study_now, traces
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import STATES
from orchestrator.studies.facts import StudyFacts
from orchestrator.studies.report import write_study_report
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput


class Reports:
    """Reports in a folder of the orchestrator's home, one per study and language, the newest only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._written: dict[tuple[str, str], tuple[StudyFacts, Path]] = {}

    def write(self, facts: StudyFacts) -> Path:
        """Return the web page of a study's report, written now unless it says the same already."""
        folder, key = self._folder / sha256_hex(facts.study.encode()), (facts.study, facts.language)
        with self._lock:
            if key not in self._written or self._written[key][0] != facts:
                self._written[key] = (facts, write_study_report(facts, folder)[0])
            return self._written[key][1]


MOUNT = "/dashboard"
FOLDER = Path(__file__).parent
_SECONDS = 1.0
Seen = Annotated[str, Query(max_length=24)]
_TONES = dict.fromkeys(STATES, "bad") | {"running": "good", "finished": "good", "waiting": "warn"}


class Dashboard:
    """What the pages share: the orchestrator's service, its visitors, and what was read a moment ago."""

    def __init__(self, service: Service, visitors: Visitors, reports: Reports, *, https: bool) -> None:
        self.service = service
        self.visitors = visitors
        self.reports = reports
        self.https = https
        self.streams = Streams()
        self.cookie = f"tessera-dashboard-{service.identity.public_key[:12]}"
        self.traces = Cached(lambda: traces(service.store), seconds=_SECONDS)
        self._studies: dict[tuple[str, str], tuple[object, Cached[StudyNow]]] = {}
        self._templates = new_environment(FOLDER / "templates", mount=f"{MOUNT}/shared")
        self._templates.globals |= {"number": epsilon_text, "small": delta_text, "swatch": swatch, "tones": _TONES}
        self._templates.globals |= {"said": SHOWN, "when": lambda text: instant(parse_time(text))}

    def study(self, name: str) -> StudyNow:
        """Return one study, a second old at most, and never older than what :attr:`traces` tells.

        Raises:
            InvalidInput: there is none of this name.
        """
        trace = self.traces().get(name)
        key = (name, current())
        known, cached = self._studies.get(key, (None, None))
        if cached is None or known != trace:
            if name not in (known for known, *_ in self.service.store.studies()):
                raise InvalidInput("there is no study of this name here")
            caller = self.service.roster.orchestrator.name
            cached = Cached(
                lambda: study_now(self.service.store, name, caller, self.service.waiting(name)), seconds=_SECONDS
            )
            self._studies[key] = (trace, cached)
        return cached()

    def known(self, request: Request) -> bool:
        """Return whether the browser holds an open session."""
        secret = request.cookies.get(self.cookie, "")
        return bool(secret) and self.visitors.knows(secret, now=_now())

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """Return one page."""
        shared = {
            "institution": self.service.roster.orchestrator.institution,
            "name": self.service.roster.orchestrator.name,
            "signed_in": self.known(request),
            "caller": None,
            "problem": "",
            "notice": "",
            "error": "",
        }
        with speaking(asked_language()):
            return HTMLResponse(self._templates.get_template(template).render({**shared, **values}), status)


def create_dashboard(service: Service, folder: Path, *, https: bool) -> tuple[FastAPI, Callable[[], None]]:
    """Return the application to be mounted under :data:`MOUNT`, and what ends its event streams.

    Args:
        service: the orchestrator's.
        folder: the orchestrator's home; ``dashboard.sqlite`` and finished reports lie in it.
        https: whether the orchestrator speaks HTTPS, so that the cookie is for HTTPS alone.
    """
    visitors = Visitors(folder / FILE)
    board = Dashboard(service, visitors, Reports(folder / "dashboard"), https=https)
    app = FastAPI(title="Tessera dashboard", openapi_url=None, docs_url=None, redoc_url=None)
    app.mount("/shared", Assets(STATIC))
    _add_visits(app, board)
    _add_pages(app, board)
    problems.install_problem_handlers(app, lambda request, problem: _page_of_problem(board, request, problem))
    app.add_middleware(ShortBodies)
    app.add_middleware(Languages, MOUNT, https=https)
    app.add_middleware(SecurityHeaders)
    return app, board.streams.close


def _add_visits(app: FastAPI, board: Dashboard) -> None:
    @app.get("/enter")
    def ask(request: Request, token: Annotated[str, Query(max_length=128)] = "") -> HTMLResponse:
        """Ask before the link is used up: programs that look at links in advance only read this."""
        return board.page(request, "enter.html", token=token)

    @app.post("/enter")
    def enter(token: Annotated[str, Form(max_length=128)]) -> Response:
        secret = board.visitors.enter(token, now=_now())
        response = RedirectResponse(f"{MOUNT}/", 303)
        response.set_cookie(
            board.cookie,
            secret,
            max_age=SESSION_HOURS * 3600,
            path=MOUNT,
            httponly=True,
            samesite="strict",
            secure=board.https,
        )
        return response

    @app.post("/leave")
    def leave(request: Request) -> Response:
        board.visitors.leave(request.cookies.get(board.cookie, ""))
        response = RedirectResponse(f"{MOUNT}/enter", 303)
        response.delete_cookie(board.cookie, path=MOUNT)
        return response


def _add_pages(app: FastAPI, board: Dashboard) -> None:
    def visitor(request: Request) -> None:
        if not board.known(request):
            raise problems.NotSignedIn

    signed_in = [Depends(visitor)]

    @app.get("/", dependencies=signed_in)
    def studies(request: Request) -> HTMLResponse:
        told = board.traces()
        return board.page(request, "studies.html", studies=[board.study(name) for name in told], seen=mark(told))

    @app.get("/events", dependencies=signed_in)
    def changes(request: Request, seen: Seen = "") -> Response:
        return board.streams.events(request, board.traces, seen=seen)

    @app.get("/studies/{study}", dependencies=signed_in)
    def study(request: Request, study: str) -> HTMLResponse:
        seen = mark(board.traces().get(study))
        return board.page(request, "study.html", study=board.study(study), seen=seen)

    @app.get("/studies/{study}/events", dependencies=signed_in)
    def study_changes(request: Request, study: str, seen: Seen = "") -> Response:
        return board.streams.events(request, lambda: board.traces().get(study), seen=seen)

    @app.get("/studies/{study}/report", dependencies=signed_in)
    def report(study: str) -> Response:
        path = board.reports.write(board.study(study).facts)
        return FileResponse(path, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


def _page_of_problem(board: Dashboard, request: Request, problem: problems.Problem) -> Response:
    if problem.status == 401:
        return RedirectResponse(f"{MOUNT}/enter", 303)
    return board.page(request, "problem.html", status=problem.status, detail=problem.detail)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
