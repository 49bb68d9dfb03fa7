"""HTTP for the chain of models: what was signed about a finished round, and the integers of its sum.

Only a study's own hospitals are served. They compute the next model from these
(:mod:`datasites.study.recomputed.chain`). All of them ask for the same documents at about the same time, so these are
put together once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse, Response, StreamingResponse

from datasites.study.proposal import Party, Proposal
from datasites.study.recomputed.shown import shown_header
from datasites.study.signing import dump
from orchestrator.api.authentication import Authenticator
from orchestrator.api.blob_access import Blob
from orchestrator.api.openapi import BINARY_ANSWER, RoundNumber, StudyName
from orchestrator.rounds.decryption import evidence_of, files_of, integers_of, require_participant
from orchestrator.rounds.helping import PADS
from orchestrator.rounds.service import Service
from privacy.canonical import plain_json

_ROUNDS_KEPT = 8
_AT_ONCE_BYTES = 1 << 20
_BINARY = "application/octet-stream"


def add_chain_calls(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    """Add these requests to the orchestrator's application."""
    caller = Depends(authenticate)
    evidence_bytes = _Evidence(service)

    def opened(study: str, party: Party) -> Proposal:
        proposal = service.proposal(study)
        require_participant(proposal, party.public_key)
        return proposal

    @app.get("/studies/{study}/rounds/{number}/evidence")
    async def evidence(
        study: StudyName, number: RoundNumber, files: Literal["yes", "no"] = "no", party: Party = caller
    ) -> Response:
        proposal = opened(study, party)
        documents = await evidence_bytes.of(proposal, number)
        if files == "no":
            return Response(documents, media_type="application/json")
        return await evidence_bytes.with_files(proposal, number, documents)

    @app.get("/studies/{study}/rounds/{number}/integers", response_class=FileResponse, responses=BINARY_ANSWER)
    async def integers(study: StudyName, number: RoundNumber, party: Party = caller) -> FileResponse:
        digest = await asyncio.to_thread(integers_of, service.store, opened(study, party), number)
        return Blob(service.store.blob_path(digest), media_type="application/octet-stream")


async def _streamed(header: bytes, paths: Sequence[Path], length: int) -> Response:
    """Return the documents of a round and its files as one answer, read as it is sent."""

    async def pieces() -> AsyncIterator[bytes]:
        yield header
        for path in paths:
            with path.open("rb") as file:
                while piece := await asyncio.to_thread(file.read, _AT_ONCE_BYTES):
                    yield piece

    return StreamingResponse(pieces(), media_type=_BINARY, headers={"Content-Length": str(length)})


class _Evidence:
    """The documents of finished rounds as JSON; those of the newest rounds are kept, and nothing is built twice."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._kept: OrderedDict[tuple[str, int, int], asyncio.Task[bytes]] = OrderedDict()
        self._whole: tuple[bytes, Sequence[Path], bytes] = b"", (), b""

    async def of(self, proposal: Proposal, number: int) -> bytes:
        """Return what was signed about a round.

        Raises:
            InvalidInput: the round is not over.
        """
        answers = len(self._service.store.documents(proposal.study, number, PADS))  # a second helper's may come later
        place = proposal.study, number, answers
        task = self._kept.get(place)
        if task is None:
            task = self._kept[place] = asyncio.create_task(asyncio.to_thread(self._built, proposal, number))
            while len(self._kept) > _ROUNDS_KEPT:
                self._kept.popitem(last=False)
        try:
            return await asyncio.shield(task)  # one who hangs up ends it for nobody else
        except Exception:
            self._kept.pop(place, None)
            raise

    async def with_files(self, proposal: Proposal, number: int, documents: bytes) -> Response:
        """Return the documents of a round and its files as one answer; a short one is put together once.

        Raises:
            InvalidInput: a file is not kept any more.
        """
        paths = await asyncio.to_thread(files_of, self._service.store, proposal, number)
        ordered = [path for _, path in sorted(paths.items())]
        if documents is not self._whole[0] or ordered != self._whole[1]:
            sizes = {name: path.stat().st_size for name, path in paths.items()}
            header, total = shown_header(documents, sizes), sum(sizes.values())
            if total > _AT_ONCE_BYTES:
                return await _streamed(header, ordered, len(header) + total)
            read = await asyncio.to_thread(lambda: [path.read_bytes() for path in ordered])
            self._whole = documents, ordered, b"".join([header, *read])
        return Response(self._whole[2], media_type=_BINARY)

    def _built(self, proposal: Proposal, number: int) -> bytes:
        found = evidence_of(self._service.store, self._service.identity, proposal, number)
        return plain_json(dump(found), checked=True)
