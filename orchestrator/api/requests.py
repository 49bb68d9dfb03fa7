"""What a scientist of the roster may do here: ask for a study, and speak for those that they asked for.

A scientist has no part in rounds. With a key of their own they may send PySyft letters (as any peer), read what runs
here, ask for studies, read those studies with their threads and models, and say a few words about them. Every other
address refuses them. What a request brings is checked whole before any byte of it is kept.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request

from datasites.review.environment import current_environment
from datasites.study.parties import parse_time
from datasites.study.proposal import Party, Proposal
from datasites.study.requests import REQUEST, opened
from datasites.study.signing import Message, Signed, dump, parse, seal
from datasites.study.thread import OVER_FOR_GOOD
from orchestrator.api.authentication import Authenticator
from orchestrator.api.openapi import StudyName, object_of
from orchestrator.rounds.peers import check_understood
from orchestrator.rounds.service import Service
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused

_REQUEST_BYTES = 96 << 20
_CLOCK_APART = dt.timedelta(minutes=10)
MOST_OPEN = 5
"""How many studies of one scientist may be open here at a time."""

ScientistsWord = Literal["answered", "accepted", "withdrawn", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class StudyRequest(Message):
    """What a scientist sends: the signed proposal, and in base64 the initial model and the files of own code."""

    request: Signed
    model: str
    files: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Said(Message):
    """A word that the orchestrator writes for a scientist."""

    kind: ScientistsWord
    text: str
    to: str = ""
    answers: str = ""


def add_requests(app: FastAPI, service: Service, admits: Authenticator) -> None:
    """Add these requests to the orchestrator's application; ``admits`` knows parties and scientists."""
    caller = Depends(admits)

    def allowed(_: Request, party: Party) -> int:
        _require_scientist(service, party)
        return _REQUEST_BYTES

    scientist = Depends(admits.up_to(allowed))

    @app.get("/environment")
    async def environment(_: Party = caller) -> dict[str, Any]:
        return dump(await asyncio.to_thread(current_environment))

    @app.post("/requests", openapi_extra=object_of("request", "model", "files"))
    async def ask(request: Request, party: Party = scientist) -> dict[str, Any]:
        service.standing.require()
        asked = parse(StudyRequest, await request.body())
        proposal = opened(asked.request, party)
        known = {name: signed for name, signed, _, _ in service.store.studies()}.get(proposal.study)
        if known is not None:  # the answer was lost on the way, or the name is taken
            return {"proposal": dump(_again(proposal, known))}
        sealed = await asyncio.to_thread(_take, service, party, proposal, asked)
        service.start(proposal.study)
        return {"proposal": dump(sealed)}

    @app.post("/studies/{study}/said", openapi_extra=object_of("kind", "text"))
    async def said(study: StudyName, request: Request, party: Party = caller) -> dict[str, Any]:
        service.standing.require()
        word = parse(Said, await request.body())
        proposal = service.proposal(study)
        if proposal.scientist != party:
            raise Refused(f"only the scientist who asked for {study!r} may say this")
        return {"word": dump(await service.threads.say_for(proposal, party.name, **vars(word)))}


def _require_scientist(service: Service, party: Party) -> None:
    if party not in service.roster.scientists:
        raise Refused("only scientists of the roster ask here; the orchestrator's people use `tessera propose`")


def _take(service: Service, party: Party, proposal: Proposal, asked: StudyRequest) -> Signed:
    """Check a request, keep what it brings, and return the proposal as the orchestrator seals it."""
    store = service.store
    check_bounds(service, party, proposal)
    check_understood(proposal, service.peers.known())
    model, files = _decoded(asked.model), {name: _decoded(text) for name, text in asked.files.items()}
    if proposal.chain is None or sha256_hex(model) != proposal.chain.model_hash:
        raise InvalidInput("the request brings another initial model than its proposal binds")
    if {name: sha256_hex(data) for name, data in files.items()} != dict(proposal.plan.code):
        raise InvalidInput("the request brings other code than its proposal binds")
    if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in files):
        raise InvalidInput("expected the files of a code tree by plain relative names")
    for data in (model, *files.values()):
        store.put_blob(data)
    signed = seal(service.identity, "proposal", proposal)
    store.add_study(proposal.study, signed)
    store.put_document(proposal.study, 0, "initial", {"model_hash": sha256_hex(model)})
    store.put_document(proposal.study, 0, REQUEST, asked.request, author=party.name)
    body = {"study": proposal.study, "proposal_hash": proposal.proposal_hash, "scientist": party.name}
    service.journal.append("study-registered", {**body, "request": asked.request.signature})
    return signed


def _again(proposal: Proposal, known: Signed) -> Signed:
    """Return the sealed proposal of a request that came before; the answer was lost on the way."""
    if parse(Proposal, dict(known.payload)).proposal_hash != proposal.proposal_hash:
        raise Refused(f"a study called {proposal.study!r} exists; use another name")
    return known


def check_bounds(service: Service, party: Party, proposal: Proposal) -> None:
    """Check that a scientist asks for nothing but a study of this consortium, under this software, for themselves.

    Raises:
        Refused: another party, software, recipient, time or first model than a scientist may name, or too many studies.
    """
    roster = service.roster
    named = (proposal.orchestrator, proposal.keyholder, *proposal.helpers, *proposal.participants)
    if proposal.orchestrator != roster.orchestrator or proposal.keyholder != roster.keyholder:
        raise Refused("a request names the orchestrator and the keyholder of this consortium")
    strangers = [p.name for p in named if roster.by_key(p.public_key) is None or not _same(p, roster.by_name(p.name))]
    if strangers:
        raise Refused(f"{strangers[0]} is nobody of this consortium, or has another key or institution here")
    if proposal.environment != current_environment():
        raise Refused("a request names the software that runs here (GET /environment); connect anew and propose again")
    if not set(proposal.custody.downloaders) <= {party.name, roster.orchestrator.name}:
        raise Refused("a request gives the model to its scientist and the orchestrator alone")
    if abs(parse_time(proposal.created) - dt.datetime.now(dt.UTC)) > _CLOCK_APART:
        raise Refused("the proposal was not made now: the clocks of scientist and orchestrator differ, or it is old")
    mine = {
        service.proposal(name).proposal_hash: state
        for name, signed, state, _ in service.store.studies()
        if (signed.payload.get("scientist") or {}).get("public_key") == party.public_key
    }
    if proposal.chain is not None and proposal.chain.origin == "study" and proposal.chain.study not in mine:
        raise Refused("a scientist's study begins with the model of a study that they asked for themselves")
    if sum(state not in OVER_FOR_GOOD for state in mine.values()) >= MOST_OPEN:
        raise Refused(f"{party.name} has {MOST_OPEN} open studies; wait for one to end, or withdraw it")


def _same(party: Party, known: Party) -> bool:
    return (party.name, party.institution, party.public_key) == (known.name, known.institution, known.public_key)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("expected base64 in the request") from error
