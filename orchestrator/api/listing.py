"""``GET /studies``: the caller's studies in a few lines each; ``GET /studies/STUDY``: one of them whole.

A study of hundreds of rounds has megabytes of documents, so both are read and written as JSON beside the event loop.
Both carry an ETag: a request that names it gets 304 and no body.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request, Response

from datasites.study.proposal import Party
from orchestrator.api.authentication import Authenticator
from orchestrator.api.openapi import StudyName
from orchestrator.rounds.service import Service
from orchestrator.studies.status import study_status
from orchestrator.studies.summaries import MOST, Summaries
from privacy.canonical import Json, plain_json, sha256_hex


def add_listing(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    """Add the list of studies, and the single study."""
    summaries = app.state.summaries = Summaries(service.store)

    @app.get("/studies")
    async def studies(
        request: Request,
        after: Annotated[str, Query(max_length=80)] = "",
        limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
        party: Party = Depends(authenticate),
    ) -> Response:
        """Return a summary of each study of the caller; ``after`` is the last name of the page before."""
        lines = await asyncio.to_thread(summaries.page, party.name, after=after, limit=limit)
        found = [{**line, "waiting": service.waiting(line["study"])} for line in lines]
        return await asyncio.to_thread(_answer, request, found)

    @app.get("/studies/{study}")
    async def study(request: Request, study: StudyName, party: Party = Depends(authenticate)) -> Response:
        """Return proposal, approvals, state and checkpoints of one study, as its participants see it."""
        status = await asyncio.to_thread(study_status, service.store, study, party.name)
        return await asyncio.to_thread(_answer, request, {**status, "waiting": service.waiting(study)})


def _answer(request: Request, value: Json) -> Response:
    """Return a value as JSON, or only that it is the one that the request names."""
    body = plain_json(value)
    headers = {"etag": f'"{sha256_hex(body)[:32]}"'}
    if headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
