"""The requests that carry the threads of studies: words arrive here, and everybody reads those that concern them."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Depends, FastAPI, Query, Request

from datasites.study.proposal import Party
from datasites.study.signing import Signed, parse
from orchestrator.api.authentication import Authenticator
from orchestrator.api.openapi import SIGNED_BODY, StudyName
from orchestrator.rounds.service import Service
from orchestrator.rounds.thread import sealed_words
from orchestrator.studies.status import asked_for, require_party


def add_thread(app: FastAPI, service: Service, authenticate: Authenticator, admits: Authenticator) -> None:
    """Add these requests to the orchestrator's application."""
    caller, reader = Depends(authenticate), Depends(admits)

    def reads_all(party: Party) -> bool:
        return party.public_key == service.roster.orchestrator.public_key

    @app.get("/words")
    async def latest(party: Party = caller) -> dict[str, dict[str, Any]]:
        return await asyncio.to_thread(service.threads.latest, party.name, all_words=reads_all(party))

    @app.get("/studies/{study}/words")
    async def read(
        study: StudyName, since: int = Query(0, ge=0, le=2**31), party: Party = reader
    ) -> list[dict[str, Any]]:
        require_party(service.store, study, party.name)
        whose = "" if reads_all(party) or asked_for(service.store, study, party.name) else party.name
        return [{"place": place, "word": word} for place, word in sealed_words(service.store, study, whose, since)]

    @app.post("/studies/{study}/words", openapi_extra=SIGNED_BODY)
    async def say(study: StudyName, request: Request, party: Party = caller) -> dict[str, Any]:
        service.standing.require()
        signed = parse(Signed, await request.body())
        return {"study": study, "place": await service.threads.take(study, signed, party.name)}
