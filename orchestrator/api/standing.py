"""HTTP for what peers have seen of the orchestrator, and it of them: who was restored from an old backup notices it.

Peers show their newest heads here, and get back what they have shown of their own past. A person imports the gap.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import Depends, FastAPI, Request

from datasites.study.proposal import Party
from datasites.study.signing import Signed, parse
from orchestrator.api.authentication import JSON_BYTES, Authenticator
from orchestrator.api.openapi import object_of, read_json
from orchestrator.rounds.restarting.rollback import helper_heads, keyholder_heads, shown_heads
from orchestrator.rounds.service import Service
from privacy.errors import InvalidInput, Refused
from privacy.ledger.journal import Head

_EVIDENCE_BYTES = 16 << 20
_TROUBLE_CHARACTERS = 500


def add_standing(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    """Add these requests to the orchestrator's application."""
    caller = Depends(authenticate)

    witness = Depends(authenticate.up_to(lambda _, __: _EVIDENCE_BYTES if service.standing.trouble else JSON_BYTES))

    @app.get("/heads")
    async def heads(party: Party = caller) -> list[dict[str, Any]]:
        if party in service.roster.helpers:
            return await asyncio.to_thread(helper_heads, service.store, party.name)
        found = keyholder_heads if party == service.roster.keyholder else shown_heads
        return await asyncio.to_thread(found, service.store, party.name)

    @app.post("/head", openapi_extra=object_of("seen", "trouble"))
    async def head(request: Request, party: Party = caller) -> dict[str, Any]:
        body = _fields(await request.body(), {"seen", "trouble"})
        note_trouble(service, party, str(body["trouble"])[:_TROUBLE_CHARACTERS])
        await compare_head(service, parse(Head, body["seen"]) if body["seen"] is not None else None, party)
        trouble = service.standing.trouble
        return {"standing": trouble, "head": None if trouble else asdict(service.journal.head)}

    @app.post("/evidence", openapi_extra=object_of("proposal", "plan"))
    async def evidence(request: Request, _: Party = witness) -> dict[str, str]:
        body = _fields(await request.body(), {"proposal", "plan"})
        proposal, plan = (parse(Signed, body[n]) if body[n] is not None else None for n in ("proposal", "plan"))
        service.standing.learn(proposal, plan)
        return {"standing": service.standing.trouble}

    @app.post("/import-gap", openapi_extra=object_of("by", "reason"))
    async def import_gap(request: Request, party: Party = caller) -> dict[str, Any]:
        if party.public_key != service.roster.orchestrator.public_key:
            raise Refused("only the orchestrator's own people may import its gap")
        body = _fields(await request.body(), {"by", "reason"})
        trouble = service.standing.trouble
        booked = service.standing.import_gap(by=str(body["by"]), reason=str(body["reason"]))
        for name, _proposal, state, why in service.store.studies():
            if state == "paused" and why == trouble:
                service.store.set_state(name, "waiting")
                service.start(name)
        return {"studies": booked}


async def compare_head(service: Service, seen: Head | None, party: Party) -> None:
    """Compare with the head that a peer was given last; every peer's is noted, for the import."""
    known = bool(service.standing.trouble)
    if not service.standing.compare(seen, party.name) and not known:
        await service.pause_all()


def note_trouble(service: Service, party: Party, trouble: str) -> None:
    """Remember why a peer does no work now, for the people who wait for it; an empty text forgets it."""
    if trouble:
        service.troubles[party.name] = trouble
    else:
        service.troubles.pop(party.name, None)


def _fields(data: bytes, names: set[str]) -> dict[str, Any]:
    body = read_json(data)
    if not isinstance(body, dict) or body.keys() != names:
        raise InvalidInput(f"expected an object with the fields {', '.join(sorted(names))}")
    return body
