"""Who is invited fetches the invitation and answers it, before anybody here knows their key; parties fetch the roster.

The number of an invitation is a secret of 128 bits, and answers are signed: nothing else is asked of the caller.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Response

from datasites.node.files import require_room
from datasites.node.home import Home
from datasites.node.joining.documents import read_signed
from datasites.node.joining.entering import EDITION_FILE
from datasites.node.web.problems import install_problem_handlers
from datasites.study.proposal import Party
from datasites.study.signing import Signed, dump, parse
from orchestrator.api.authentication import Authenticator, read_body
from orchestrator.api.openapi import BINARY_ANSWER, ERRORS, SIGNED_BODY
from orchestrator.enrolment.desk import ANSWER_BYTES, Desk
from orchestrator.enrolment.handing_over import HandOvers
from orchestrator.rounds.changed_keys import settle
from orchestrator.rounds.service import Service

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_Number = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="the invitation's number")]


def add_joining(app: FastAPI, home: Home) -> None:
    """Add what invited parties ask for; each may take the disk's time, so none runs on the event loop."""
    desk = Desk(home=home)

    @app.get("/invitations/{number}", responses=BINARY_ANSWER, response_class=Response)
    def invitation(number: _Number) -> Response:
        return Response(desk.invitation(number), media_type="application/octet-stream")

    @app.post("/invitations/{number}", openapi_extra=SIGNED_BODY)
    async def answer(number: _Number, request: Request) -> dict[str, Any]:
        signed = parse(Signed, await read_body(request, ANSWER_BYTES))

        def take() -> dict[str, Any]:
            require_room(home.folder)
            return desk.take(number, signed, now=dt.datetime.now(dt.UTC))

        return await asyncio.to_thread(take)


def add_roster(app: FastAPI, home: Home, authenticate: Authenticator) -> None:
    """Add the newest signed edition of the roster, for parties; null where the roster was built by hand."""

    @app.get("/roster")
    def roster(_: Party = Depends(authenticate)) -> dict[str, Any] | None:
        path = home.folder / EDITION_FILE
        return dump(read_signed(path)) if path.exists() else None


def add_handovers(app: FastAPI, home: Home) -> None:
    """Add what parties with a new key ask for: its hand-over is signed by the old one, and nothing else is asked."""
    there = HandOvers(home)

    @app.post("/handovers", openapi_extra=SIGNED_BODY)
    async def hand_over(request: Request) -> dict[str, str]:
        signed = parse(Signed, await read_body(request, ANSWER_BYTES))

        def take() -> dict[str, str]:
            require_room(home.folder)
            return there.take(signed)

        return await asyncio.to_thread(take)

    @app.get("/handovers")
    def own() -> list[dict[str, Any]]:
        return there.own()


def founding_app(home: Home) -> FastAPI:
    """Return what an orchestrator serves before there is a roster: invitations and their answers."""

    app = FastAPI(title="Tessera orchestrator", version="1", responses=ERRORS, docs_url=None, redoc_url=None)
    install_problem_handlers(app)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "founding", "role": "orchestrator"}

    add_joining(app, home)
    return app


async def follow_roster(service: Service, home: Home) -> None:
    """Take over a roster that the operator's command has written, while studies go on."""
    await settle(service)
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            now = await asyncio.to_thread(home.roster)
        except (OSError, ValueError) as error:
            _log.warning("the roster cannot be read: %s", error)
            continue
        if now != service.roster:
            names = {p.name for p in {*now.known} ^ {*service.roster.known}}
            service.roster = now
            service.journal.append("roster-changed", {"parties": len(now.everybody), "changed": sorted(names)})
            await settle(service)
            service.bell.ring()
