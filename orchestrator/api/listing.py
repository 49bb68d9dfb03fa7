"""``GET /studies``: every study of the caller in a few lines, read beside the event loop, sent only when it changed."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request, Response

from datasites.study.proposal import Party
from orchestrator.api.authentication import Authenticator
from orchestrator.rounds.service import Service
from orchestrator.studies.summaries import MOST, Summaries
from privacy.canonical import plain_json, sha256_hex


def add_listing(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    """Add the list of studies."""
    summaries = app.state.summaries = Summaries(service.store)

    @app.get("/studies")
    async def studies(
        request: Request,
        after: Annotated[str, Query(max_length=80)] = "",
        limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
        party: Party = Depends(authenticate),
    ) -> Response:
        """Return a summary of each study that the caller takes part in; ``after`` is the last name of the page before.

        The answer carries an ETag; a request that names it gets 304 and no body.
        """
        lines = await asyncio.to_thread(summaries.page, party.name, after=after, limit=limit)
        body = plain_json([{**line, "waiting": service.waiting(line["study"])} for line in lines])
        headers = {"etag": f'"{sha256_hex(body)[:32]}"'}
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)
