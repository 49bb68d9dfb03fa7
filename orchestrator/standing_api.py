"""How peers and orchestrator keep one another honest about the past: heads shown, gaps noticed, imported by a person.

=====================  ===================================================================================
``GET /heads``         everything of the caller's own that was taken here: its headers, or its keys and sums
``POST /head``         the newest journal head the caller was given; answers with the present one
``POST /evidence``     what a caller holds of a study that this orchestrator has forgotten
``POST /import-gap``   a person of the orchestrator's writes off what is missing
=====================  ===================================================================================
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request

from datasites.contract import Party, Signed, parse
from orchestrator.authentication import JSON_BYTES, Authenticator
from orchestrator.description import object_of, read_json
from orchestrator.heads import keyholder_heads, shown_heads
from privacy.errors import InvalidInput, Refused
from privacy.journal import Head

if TYPE_CHECKING:
    from orchestrator.service import Service

_EVIDENCE_BYTES = 16 << 20
_TROUBLE_CHARACTERS = 500


def add_standing(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    """Add these requests to the orchestrator's application."""
    caller = Depends(authenticate)

    witness = Depends(authenticate.up_to(lambda _, __: _EVIDENCE_BYTES if service.standing.trouble else JSON_BYTES))

    @app.get("/heads")
    async def heads(party: Party = caller) -> list[dict[str, Any]]:
        found = keyholder_heads if party == service.roster.keyholder else shown_heads
        return await asyncio.to_thread(found, service.store, party.name)

    @app.post("/head", openapi_extra=object_of("seen", "trouble"))
    async def head(request: Request, party: Party = caller) -> dict[str, Any]:
        body = _fields(await request.body(), {"seen", "trouble"})
        _note_trouble(service, party, str(body["trouble"])[:_TROUBLE_CHARACTERS])
        seen = parse(Head, body["seen"]) if body["seen"] is not None else None
        known = bool(service.standing.trouble)
        if not service.standing.compare(seen, party.name) and not known:  # every peer's head is noted, for the import
            await service.pause_all()
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


def _note_trouble(service: Service, party: Party, trouble: str) -> None:
    if trouble:
        service.troubles[party.name] = trouble
    else:
        service.troubles.pop(party.name, None)


def _fields(data: bytes, names: set[str]) -> dict[str, Any]:
    body = read_json(data)
    if not isinstance(body, dict) or body.keys() != names:
        raise InvalidInput(f"expected an object with the fields {', '.join(sorted(names))}")
    return body
