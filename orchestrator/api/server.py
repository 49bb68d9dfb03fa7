"""The one address everybody dials: studies, work, uploads, results, blobs and the mailbox.

Every request is signed (:mod:`orchestrator.api.authentication`); what a caller may do follows from who it is: sites
upload their own updates, the keyholder its keys and results, the orchestrator's own identity registers studies.
Single updates are served to nobody. Who asks for work also shows the newest head it was given, so that an orchestrator
that was restored from an old backup is noticed (:mod:`orchestrator.api.standing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import FileResponse, Response

from datasites.node.home import Home
from datasites.node.web.problems import install_problem_handlers
from datasites.node.work import HEAD_HEADER, head_from_text, head_to_text
from datasites.study.messages import Approval, Attestation, Refusal, RoundKey, SumResult, UpdateHeader
from datasites.study.proposal import Party, Proposal
from datasites.study.recomputed.checks import check_public_key
from datasites.study.recomputed.shown import require_short
from datasites.study.signing import Signed, dump, open_sealed, parse, unpack_envelope
from orchestrator.api.authentication import Authenticator, SpeaksProtocol, StreamedCall
from orchestrator.api.blob_access import Blob, require_readable
from orchestrator.api.chain import add_chain_calls
from orchestrator.api.helper_calls import add_helper_calls
from orchestrator.api.joining import add_handovers, add_joining, add_roster
from orchestrator.api.listing import add_listing
from orchestrator.api.mailbox import create_mailbox_router
from orchestrator.api.mailbox_store import MailboxStore
from orchestrator.api.openapi import (
    BINARY_ANSWER,
    BINARY_BODY,
    ERRORS,
    REGISTRATION_BODY,
    SIGNED_BODY,
    Digest,
    RoundNumber,
    StudyName,
    StudyRegistration,
    checked_body,
)
from orchestrator.api.requests import add_requests
from orchestrator.api.standing import add_standing, compare_head, note_trouble
from orchestrator.api.study_reports import add_study_reports
from orchestrator.api.thread import add_thread
from orchestrator.api.uploads import receive
from orchestrator.rounds.decryption import check_answer, check_bound, closing_of, require_round
from orchestrator.rounds.helping import CONFIRMATION
from orchestrator.rounds.peers import check_understood
from orchestrator.rounds.runner import StudyRunner
from orchestrator.rounds.service import Service
from orchestrator.rounds.summing.own_rules import require_code
from privacy.canonical import sha256_hex
from privacy.encryption.pads import require_pad_key
from privacy.errors import InvalidInput, Refused

_LONGEST_WAIT_SECONDS = 25.0
_MOST_REFUSALS = 20
_HEADER_BYTES = 1 << 20
_MODEL_BYTES = 256 << 20
_PROPOSAL_BYTES = 16 << 20
_KEY_BYTES = 4 << 20


def create_app(service: Service, *, mailbox_folder: Path, home: Home | None = None) -> FastAPI:
    """Return the orchestrator's application, with PySyft's mailbox in ``mailbox_folder``.

    With the orchestrator's ``home`` it also answers whoever is invited, and gives out the signed roster.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.begin()
        yield
        await service.close()

    # no pages of documentation: they would load foreign scripts into the dashboard's origin
    app = FastAPI(
        title="Tessera orchestrator", version="1", lifespan=lifespan, responses=ERRORS, docs_url=None, redoc_url=None
    )
    install_problem_handlers(app)
    app.add_middleware(SpeaksProtocol)
    key, heard, runs = service.identity.public_key, service.contacts.heard, service.peers.heard
    used = [home.folder / f"tokens-{name}.bin" if home is not None else None for name in ("parties", "all")]
    authenticate = Authenticator(
        key, lambda caller: service.roster.by_key(caller), heard=heard, kept=used[0], runs=runs
    )
    admits = Authenticator(  # scientists too
        key, lambda who: service.roster.known_by_key(who), heard=heard, kept=used[1], runs=runs
    )
    letters = MailboxStore(mailbox_folder)
    mailbox = create_mailbox_router(
        letters,
        admits,
        knows=lambda name: any(party.name == name for party in service.roster.known),
        bell=service.bell,
        authenticate_letter=admits.up_to(letters.limits.letter_bytes + _HEADER_BYTES),
    )
    app.include_router(mailbox)
    _add_health(app, service)
    _add_work(app, service, authenticate, admits)
    _add_studies(app, service, authenticate)
    add_listing(app, service, admits)
    add_requests(app, service, admits)
    _add_keyholder_calls(app, service, authenticate)
    _add_site_calls(app, service, authenticate)
    _add_attestations(app, service, authenticate)
    add_chain_calls(app, service, authenticate)
    add_helper_calls(app, service, authenticate)
    add_thread(app, service, authenticate, admits)
    add_standing(app, service, authenticate)
    add_study_reports(app, service, admits)
    if home is not None:
        add_joining(app, home)
        add_roster(app, home, authenticate)
        add_handovers(app, home)
    return app


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok", "role": "orchestrator"}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        service.standing.require()
        service.store.studies()
        return {"status": "ready"}


def _ours(service: Service, authenticate: Authenticator, size: int, what: str) -> Any:
    """Return a dependency that lets the orchestrator's own identity send bodies of up to ``size`` bytes."""

    def allowed(_: Request, party: Party) -> int:
        _only(party, service.roster.orchestrator, what)
        return size

    return Depends(authenticate.up_to(allowed))


def _add_work(app: FastAPI, service: Service, authenticate: Authenticator, admits: Authenticator) -> None:
    caller, reader = Depends(authenticate), Depends(admits)
    models = _ours(service, authenticate, _MODEL_BYTES, "store models")

    @app.get("/work")
    async def work(
        wait: float = Query(0.0, ge=0, allow_inf_nan=False),
        known: str = "",
        seen: str | None = None,
        party: Party = caller,
    ) -> Response:
        if seen is not None:  # who asks like this has no trouble to tell
            note_trouble(service, party, "")
            await compare_head(service, head_from_text(seen, service.identity.public_key) if seen else None, party)
        seconds = 0.0 if service.standing.trouble else min(wait, _LONGEST_WAIT_SECONDS)
        items = await service.board.wait(party.name, seconds, known)
        noted = seen is not None and not service.standing.trouble
        headers = {HEAD_HEADER: head_to_text(service.journal.head)} if noted else {}
        return Response(items, media_type="application/json", headers=headers)

    @app.get("/blobs/{digest}", response_class=FileResponse, responses=BINARY_ANSWER)
    async def blob(digest: Digest, party: Party = reader) -> FileResponse:
        if party.public_key != service.roster.orchestrator.public_key:
            await asyncio.to_thread(require_readable, service.store, party.name, digest)
        return Blob(service.store.blob_path(digest), media_type="application/octet-stream")

    @app.put("/blobs/{digest}", openapi_extra=BINARY_BODY, dependencies=[models])
    async def put_blob(digest: Digest, request: Request) -> dict[str, str]:
        data = await request.body()
        if sha256_hex(data) != digest:
            raise InvalidInput("the body's hash differs from the address it was put at")
        return {"hash": service.store.put_blob(data)}


def _add_studies(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    caller = Depends(authenticate)
    proposals = _ours(service, authenticate, _PROPOSAL_BYTES, "register studies")

    @app.post("/studies", openapi_extra=REGISTRATION_BODY, dependencies=[proposals])
    async def add_study(request: Request) -> dict[str, str]:
        service.standing.require()
        registration = checked_body(StudyRegistration, await request.body())
        signed = parse(Signed, registration.proposal)
        proposal = open_sealed(signed, "proposal", service.identity.public_key, Proposal)
        service.store.blob_path(registration.model_hash)
        if proposal.chain is not None and proposal.chain.model_hash != registration.model_hash:
            raise InvalidInput("the study begins with another model than its proposal binds")
        require_code(service.store, proposal)
        check_understood(proposal, service.peers.known())
        service.store.add_study(proposal.study, signed)
        service.store.put_document(proposal.study, 0, "initial", {"model_hash": registration.model_hash})
        service.journal.append("study-registered", {"study": proposal.study, "proposal_hash": proposal.proposal_hash})
        service.start(proposal.study)
        return {"study": proposal.study, "proposal_hash": proposal.proposal_hash}

    @app.post("/studies/{study}/resume")
    async def resume(study: StudyName, party: Party = caller) -> dict[str, str]:
        _only(party, service.roster.orchestrator, "resume studies")
        return {"study": study, "state": service.resume(study)}

    @app.post("/studies/{study}/approvals", openapi_extra=SIGNED_BODY)
    async def approve(study: StudyName, request: Request, party: Party = caller) -> dict[str, str]:
        signed = parse(Signed, await request.body())
        runner = service.runner(study)
        participant = runner.proposal.participant(party.name)
        approval = open_sealed(signed, "approval", participant.public_key, Approval, since=runner.proposal.canonical)
        if (approval.study, approval.site) != (study, party.name):
            raise InvalidInput("the approval names another study or site than its address")
        if approval.proposal_hash != runner.proposal.proposal_hash:
            raise Refused("the approval is for another proposal than this study's")
        service.store.put_document(study, 0, "approval", signed, author=party.name)
        runner.wake()
        return {"study": study, "site": party.name}


def _add_keyholder_calls(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    def from_keyholder(request: Request, party: Party) -> int:
        """Return how long a key or a result may be, to the study's keyholder alone."""
        proposal = service.runner(str(request.path_params["study"])).proposal
        _only(party, proposal.keyholder, "offer round keys and send results")
        integers = 8 * sum(block.length for block in proposal.exchanged_blocks())
        return _HEADER_BYTES + max(_KEY_BYTES, integers)

    keyholder = Depends(authenticate.up_to(from_keyholder))

    @app.put("/studies/{study}/rounds/{number}/key", openapi_extra=BINARY_BODY)
    async def put_key(
        study: StudyName, number: RoundNumber, request: Request, party: Party = keyholder
    ) -> dict[str, str]:
        runner = service.runner(study)
        signed, body = unpack_envelope(await request.body())
        require_short(signed)
        key = open_sealed(
            signed, "round-key", runner.proposal.keyholder.public_key, RoundKey, since=runner.proposal.canonical
        )
        if (key.study, key.round, key.proposal_hash) != (study, number, runner.proposal.proposal_hash):
            raise InvalidInput("the round key names another study, round or proposal than its address")
        if key.key_hash != sha256_hex(body):
            raise InvalidInput("the round key's bytes do not have the signed hash")
        require_round(runner.proposal, number)
        require_pad_key(key.pad_key, hybrid=bool(runner.proposal.helpers))
        check_public_key(runner.proposal, number, body)
        service.store.require_place(study, number, "key", signed, author=party.name)
        service.store.put_blob(body)
        service.store.put_document(study, number, "key", signed, author=party.name)
        service.board.withdraw(study, party=party.name, when=lambda item: item.kind == "key" and item.round == number)
        runner.wake()
        return {"key_hash": key.key_hash}

    @app.put("/studies/{study}/rounds/{number}/result", openapi_extra=BINARY_BODY)
    async def put_result(
        study: StudyName, number: RoundNumber, request: Request, party: Party = keyholder
    ) -> dict[str, str]:
        runner = service.runner(study)
        signed, body = unpack_envelope(await request.body())
        require_short(signed)
        result = open_sealed(
            signed, "sum-result", runner.proposal.keyholder.public_key, SumResult, since=runner.proposal.canonical
        )
        if (result.study, result.round, result.integers_hash) != (study, number, sha256_hex(body)):
            raise InvalidInput("the result names another study or round, or other integers, than it carries")
        await asyncio.to_thread(check_answer, service.store, runner.proposal, result, body)
        service.store.require_place(study, number, "result", signed, author=party.name)
        await asyncio.to_thread(service.store.put_blob, body)
        service.store.put_document(study, number, "result", signed, author=party.name)
        runner.wake()
        return {"integers_hash": result.integers_hash}


def _add_site_calls(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    caller = Depends(authenticate)

    @app.put("/studies/{study}/rounds/{number}/update", openapi_extra=BINARY_BODY)
    async def put_update(
        study: StudyName, number: RoundNumber, request: Request, call: StreamedCall = Depends(authenticate.streamed)
    ) -> dict[str, str]:
        runner = service.runner(study)
        headers: list[UpdateHeader] = []

        def announced(signed: Signed) -> int:
            headers.append(runner.intake.announced(call.party.name, signed, number))
            return headers[0].body_bytes

        folder = service.store.update_folder(study, number)
        async with receive(request, call.body_hash, folder, announced) as upload:
            await runner.receive_update(upload, headers[0])
        return {"body_hash": headers[0].body_hash}

    @app.post("/studies/{study}/rounds/{number}/refusal", openapi_extra=SIGNED_BODY)
    async def refuse(study: StudyName, number: RoundNumber, request: Request, party: Party = caller) -> dict[str, str]:
        runner = service.runner(study)
        signed = parse(Signed, await request.body())
        refusal = open_sealed(signed, "refusal", party.public_key, Refusal, since=runner.proposal.canonical)
        if (refusal.study, refusal.round, refusal.party) != (study, number, party.name):
            raise InvalidInput("the refusal names another study, round or party than its address")
        if party.name not in (runner.proposal.keyholder.name, *(h.name for h in runner.proposal.helpers)):
            runner.proposal.participant(party.name)
        require_round(runner.proposal, number)
        earlier = service.store.count(study, number, "refusal", author=party.name)
        if earlier < _MOST_REFUSALS:
            service.store.put_document(study, number, "refusal", signed, closing=earlier, author=party.name)
            service.journal.append("refusal", dump(refusal))
        runner.refused(party.name, number, refusal.reason, refusal.without, refusal.wants)
        return {"party": party.name}


def _add_attestations(app: FastAPI, service: Service, authenticate: Authenticator) -> None:
    caller = Depends(authenticate)

    @app.post("/studies/{study}/rounds/{number}/attestation", openapi_extra=SIGNED_BODY)
    async def attest(study: StudyName, number: RoundNumber, request: Request, party: Party = caller) -> dict[str, str]:
        runner = service.runner(study)
        participant = runner.proposal.participant(party.name)
        signed = parse(Signed, await request.body())
        with _useless(service, runner, party.name, number):
            require_short(signed)
            attestation = open_sealed(
                signed, "attestation", participant.public_key, Attestation, since=runner.proposal.canonical
            )
        closing = closing_of(service.store, study, number, attestation.list_hash)
        again, earlier = bool(attestation.fresh), service.store.all_documents(study, number, CONFIRMATION)
        if again and len(earlier) >= _MOST_REFUSALS * len(runner.proposal.participants):
            raise Refused(f"round {number} was signed once more too often; is the keyholder started again and again?")
        with _useless(service, runner, party.name, number):
            check_bound(service.store, attestation, (study, number, party.name), closing)
            await asyncio.to_thread(runner.intake.check_tags, attestation)
            if runner.proposal.helpers:
                runner.helping.check_vouching(attestation, closing)
        kind, closing = (CONFIRMATION, len(earlier)) if again else ("attestation", closing)
        if dump(signed) not in earlier:
            await asyncio.to_thread(
                service.store.put_document, study, number, kind, signed, closing=closing, author=party.name
            )
        service.board.withdraw(study, party=party.name, when=lambda i: i.kind == ("confirm" if again else "attest"))
        runner.wake()
        return {"list_hash": attestation.list_hash}


@contextmanager
def _useless(service: Service, runner: StudyRunner, site: str, number: int) -> Iterator[None]:
    """Name the site of a signature that nobody could use; the list is closed without it, as if it had not signed."""
    try:
        yield
    except InvalidInput as error:
        service.journal.append("tags-refused", {"study": runner.proposal.study, "round": number, "site": site})
        runner.refused(site, number, str(error))
        raise


def _only(party: Party, allowed: Party, what: str) -> None:
    if party.public_key != allowed.public_key:
        raise Refused(f"only {allowed.name!r} may {what}, not {party.name!r}")
