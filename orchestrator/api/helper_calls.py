"""HTTP for studies with helpers: their keys, pad sums and voids, and what is published of an answered round."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import FileResponse

from datasites.keyholder.opened import counts_of, opening_bytes, parts_of
from datasites.keyholder.vouched import require_own_parts
from datasites.study.messages import Arrival, Clearance, HelperKey, Opening, PadCommitment, PadSums, Void
from datasites.study.proposal import Party, Proposal
from datasites.study.recomputed.shown import require_short
from datasites.study.signing import Signed, open_sealed, parse, unpack_envelope
from orchestrator.api.authentication import Authenticator
from orchestrator.api.blob_access import Blob
from orchestrator.api.openapi import BINARY_ANSWER, BINARY_BODY, SIGNED_BODY, RoundNumber, StudyName
from orchestrator.rounds.decryption import closing_of, opened_blob, require_participant, require_round, served
from orchestrator.rounds.helping import COMMITMENT, KEY, OPENING, PADS, VOID, require_true_pads
from orchestrator.rounds.runner import StudyRunner
from orchestrator.rounds.service import Service
from privacy.canonical import sha256_hex
from privacy.encryption.pads import require_pad_key
from privacy.encryption.shares import MISSING_PART, sum_bytes
from privacy.errors import InvalidInput, Refused

_HEADER_BYTES = 1 << 16
_MOST_KEYS = 50
What = Annotated[
    str,
    Path(
        pattern="^(sum|opening|pads|key)$",
        description="the sum, the secret key with two pad sums, the third, or the public key",
    ),
]


def add_helper_calls(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    """Add these requests to the orchestrator's application."""
    _add_keys_and_voids(app, service, authenticate)
    _add_pads(app, service, authenticate)
    _add_openings(app, service, authenticate)
    _add_arrivals(app, service, authenticate)


def _add_keys_and_voids(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    caller = Depends(authenticate)

    @app.post("/studies/{study}/rounds/{number}/helper-key", openapi_extra=SIGNED_BODY)
    async def put_key(study: StudyName, number: RoundNumber, request: Request, party: Party = caller) -> dict[str, str]:
        runner = service.runner(study)
        helper = _helper(runner.proposal, party)
        signed = parse(Signed, await request.body())
        key = open_sealed(signed, KEY, helper.public_key, HelperKey, since=runner.proposal.canonical)
        expected = (study, number, helper.name, runner.proposal.proposal_hash)
        if (key.study, key.round, key.helper, key.proposal_hash) != expected:
            raise InvalidInput("the key names another study, round, helper or proposal than its address")
        require_round(runner.proposal, number)
        try:
            require_pad_key(key.pad_key, hybrid=True)  # else every hospital would be charged, and fail to seal to it
        except InvalidInput as error:
            _told(service, runner, party, number, "key", error)
            raise
        known = service.store.documents(study, number, KEY).get(party.name)
        count = service.store.count(study, number, KEY, author=party.name)
        if known is None or known["payload"] != dict(signed.payload):  # started anew: it made another key
            if count >= _MOST_KEYS:
                raise Refused(f"round {number} has too many keys of {party.name}; is it started again and again?")
            service.store.put_document(study, number, KEY, signed, closing=count, author=party.name)
        service.board.withdraw(study, party=party.name, when=lambda item: item.kind == "key" and item.round == number)
        runner.wake()
        return {"helper": party.name}

    @app.post("/studies/{study}/rounds/{number}/pad-commitment", openapi_extra=SIGNED_BODY)
    async def commit(study: StudyName, number: RoundNumber, request: Request, party: Party = caller) -> dict[str, str]:
        return await _keep(service, request, study, number, party, (COMMITMENT, PadCommitment, "commitment"))

    @app.post("/studies/{study}/rounds/{number}/void", openapi_extra=SIGNED_BODY)
    async def declare_void(
        study: StudyName, number: RoundNumber, request: Request, party: Party = caller
    ) -> dict[str, str]:
        return await _keep(service, request, study, number, party, (VOID, Void, "void"))


async def _keep(
    service: Service,
    request: Request,
    study: str,
    number: int,
    party: Party,
    what: tuple[str, type[PadCommitment] | type[Void], str],
) -> dict[str, str]:
    """Keep what keyholder or helper signed about one list of a round, with that list; ``what`` ends in its word."""
    runner, (kind, value, word) = service.runner(study), what
    require_round(runner.proposal, number)
    if party.public_key != runner.proposal.keyholder.public_key:
        _helper(runner.proposal, party)
    signed = parse(Signed, await request.body())
    try:
        require_short(signed)
        said = open_sealed(signed, kind, party.public_key, value, since=runner.proposal.canonical)
        if (said.study, said.round, said.party) != (study, number, party.name):
            raise InvalidInput(f"the {word} names another study, round or party than its address")
        if isinstance(said, PadCommitment):
            require_own_parts(runner.proposal, said)  # else every hospital would refuse to sign under it
    except InvalidInput as error:
        _told(service, runner, party, number, word, error)
        raise
    closing = closing_of(service.store, study, number, said.list_hash)
    service.store.put_document(study, number, kind, signed, closing=closing, author=party.name)
    runner.wake()
    return {"list_hash": said.list_hash}


def _told(service: Service, runner: StudyRunner, party: Party, number: int, what: str, error: InvalidInput) -> None:
    """Note what a party sent that is of no use: it counts as absent in this round, and people read who it was."""
    about = {"study": runner.proposal.study, "round": number, "party": party.name, "what": what}
    service.journal.append("part-refused", about)
    runner.refused(party.name, number, str(error))


def _add_pads(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    def size(request: Request, party: Party) -> int:
        proposal = service.runner(str(request.path_params["study"])).proposal
        _helper(proposal, party)
        return _HEADER_BYTES + sum_bytes(counts_of(proposal), proposal.encryption)

    helper = Depends(authenticate.up_to(size))

    @app.put("/studies/{study}/rounds/{number}/pads", openapi_extra=BINARY_BODY)
    async def put_pads(
        study: StudyName, number: RoundNumber, request: Request, party: Party = helper
    ) -> dict[str, str]:
        runner = service.runner(study)
        signed, body = unpack_envelope(await request.body())
        require_short(signed)
        sums = open_sealed(signed, PADS, party.public_key, PadSums, since=runner.proposal.canonical)
        if (sums.study, sums.round, sums.helper) != (study, number, party.name):
            raise InvalidInput("the pad sums name another study, round or helper than their address")
        if set(sums.parts) != {str(part) for part in parts_of(runner.proposal, party.name)}:
            raise InvalidInput("the pad sums are of other parts than this helper's")
        if sums.parts[str(MISSING_PART)] != sha256_hex(body):
            raise InvalidInput("the pad sums do not have the signed hash")
        closing = closing_of(service.store, study, number, sums.list_hash)  # else a helper could fill the disk
        try:
            await asyncio.to_thread(require_true_pads, service.store, runner.proposal, sums, closing, body)
        except Refused as error:
            service.journal.append("pads-refused", {"study": study, "round": number, "helper": party.name})
            runner.refused(party.name, number, str(error))
            raise
        service.store.require_place(study, number, PADS, signed, author=party.name)
        await asyncio.to_thread(service.store.put_blob, body)
        service.store.put_document(study, number, PADS, signed, author=party.name)
        service.board.withdraw(study, party=party.name, when=lambda i: i.kind == "pads" and i.round == number)
        runner.wake()
        return {"list_hash": sums.list_hash}


def _add_openings(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    def size(request: Request, party: Party) -> int:
        proposal = service.runner(str(request.path_params["study"])).proposal
        if party.public_key != proposal.keyholder.public_key or not proposal.published:
            raise Refused("only the keyholder of a study that publishes may open a round")
        return _HEADER_BYTES + opening_bytes(proposal)

    keyholder, caller = Depends(authenticate.up_to(size)), Depends(authenticate)

    @app.put("/studies/{study}/rounds/{number}/opening", openapi_extra=BINARY_BODY)
    async def put_opening(
        study: StudyName, number: RoundNumber, request: Request, party: Party = keyholder
    ) -> dict[str, str]:
        signed, body = unpack_envelope(await request.body())
        require_short(signed)
        opening = open_sealed(
            signed, OPENING, party.public_key, Opening, since=service.runner(study).proposal.canonical
        )
        if (opening.study, opening.round, opening.body_hash) != (study, number, sha256_hex(body)):
            raise InvalidInput("the opening names another study or round, or other bytes, than it carries")
        if served(service.store, study, number) != opening.sum_hash:
            raise InvalidInput("the opening is of another sum than the one that was served in this round")
        service.store.require_place(study, number, OPENING, signed, author=party.name)
        await asyncio.to_thread(service.store.put_blob, body)
        service.store.put_document(study, number, OPENING, signed, author=party.name)
        return {"list_hash": opening.list_hash}

    @app.get("/studies/{study}/rounds/{number}/opened/{what}", response_class=FileResponse, responses=BINARY_ANSWER)
    async def opened(study: StudyName, number: RoundNumber, what: What, party: Party = caller) -> FileResponse:
        proposal = service.proposal(study)
        require_participant(proposal, party.public_key)
        digest = await asyncio.to_thread(opened_blob, service.store, proposal, number, what)
        return Blob(service.store.blob_path(digest), media_type="application/octet-stream")


def _add_arrivals(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    caller = Depends(authenticate)

    @app.post("/studies/{study}/rounds/{number}/arrival", openapi_extra=SIGNED_BODY)
    async def arrived(study: StudyName, number: RoundNumber, request: Request, party: Party = caller) -> dict[str, str]:
        runner = service.runner(study)
        require_participant(runner.proposal, party.public_key)
        signed = parse(Signed, await request.body())
        arrival = open_sealed(signed, "arrival", party.public_key, Arrival, since=runner.proposal.canonical)
        if (arrival.study, arrival.site) != (study, party.name) or not runner.proposal.helpers:
            raise InvalidInput("the arrival names another study or hospital than its address, or one without helpers")
        require_round(runner.proposal, number)
        runner.arrivals.came(arrival, signed)
        return {"site": party.name}

    @app.post("/studies/{study}/rounds/{number}/clearance", openapi_extra=SIGNED_BODY)
    async def cleared(study: StudyName, number: RoundNumber, request: Request, party: Party = caller) -> dict[str, str]:
        runner = service.runner(study)
        if party.public_key != runner.proposal.keyholder.public_key:
            _helper(runner.proposal, party)
        signed = parse(Signed, await request.body())
        said = open_sealed(signed, "clearance", party.public_key, Clearance, since=runner.proposal.canonical)
        if (said.study, said.party) != (study, party.name):
            raise InvalidInput("the clearance names another study or party than its address")
        require_round(runner.proposal, number)
        runner.arrivals.cleared(said, signed)
        return {"site": said.site}


def _helper(proposal: Proposal, party: Party) -> Party:
    for helper in proposal.helpers:
        if helper.public_key == party.public_key:
            return helper
    raise Refused(f"{party.name!r} is no helper of study {proposal.study!r}")
