"""HTTP for the chain of models: what was signed about a finished round, and the integers of its sum.

Only a study's own hospitals are served. They compute the next model from these
(:mod:`datasites.study.recomputed.chain`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse

from datasites.study.proposal import Party, Proposal
from datasites.study.signing import dump, open_sealed
from orchestrator.api.authentication import Authenticator
from orchestrator.api.blob_access import Blob
from orchestrator.api.openapi import BINARY_ANSWER, RoundNumber, StudyName
from orchestrator.rounds.decryption import evidence_of, integers_of, require_participant
from orchestrator.rounds.service import Service


def add_chain_calls(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    """Add these requests to the orchestrator's application."""
    caller = Depends(authenticate)
    store = service.store

    def opened(study: str, party: Party) -> Proposal:
        signed, _, _ = store.study(study)
        proposal = open_sealed(signed, "proposal", service.identity.public_key, Proposal)
        require_participant(proposal, party.public_key)
        return proposal

    @app.get("/studies/{study}/rounds/{number}/evidence")
    async def evidence(study: StudyName, number: RoundNumber, party: Party = caller) -> dict[str, Any]:
        proposal = opened(study, party)
        return dump(await asyncio.to_thread(evidence_of, store, service.identity, proposal, number))

    @app.get("/studies/{study}/rounds/{number}/integers", response_class=FileResponse, responses=BINARY_ANSWER)
    async def integers(study: StudyName, number: RoundNumber, party: Party = caller) -> FileResponse:
        proposal = opened(study, party)
        digest = await asyncio.to_thread(integers_of, store, proposal, number)
        return Blob(store.blob_path(digest), media_type="application/octet-stream")
