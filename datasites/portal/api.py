"""The machine API: what the pages do, as JSON, with problem documents for errors.

It returns the portal's own values; FastAPI documents them as they are. In JSON, null stands for an infinite epsilon.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi import Request as Asked
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from datasites.node.web.problems import documented
from datasites.portal.access import (
    ApiReviewer,
    ApiSession,
    Context,
    Hash,
    PublicKey,
    Reader,
    ServiceHere,
    address_of,
    json_proof,
)
from datasites.portal.context import PortalContext
from datasites.portal.service import PortalService
from datasites.review.budgets import Budget, CostPreview, StudyStatus
from datasites.review.people.acts import PersonAct
from datasites.review.people.security_keys import LONGEST_ANSWER
from datasites.review.policy import Violation
from datasites.review.records import Confirmation, Decision, State
from datasites.review.records import Request as ReviewRequest
from datasites.study.signing import dump
from datasites.study.thread import Word
from privacy.errors import InvalidInput, Refused
from privacy.identity import check_public_key, fingerprint
from privacy.ledger.chain import Entry
from privacy.ledger.export import EARLIEST, LATEST, selected, zoned
from privacy.sentences import sentence_of

ERRORS: dict[int | str, dict[str, Any]] = {
    400: documented("malformed, or changed after it was signed"),
    401: documented("nobody is signed in"),
    403: documented("not allowed, or refused by a rule"),
    404: documented("no such thing here"),
    409: documented("the privacy cap would be passed"),
    422: documented("does not have the documented shape"),
}
_Text = Annotated[str, Field(min_length=1, max_length=256)]

router = APIRouter(prefix="/api", responses=ERRORS)
health = APIRouter()


# what callers send


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Keyed(_Body):
    security_key: Annotated[str, Field(max_length=LONGEST_ANSWER, description="answer of a security key, as JSON")] = ""


class Password(_Keyed):
    """The password that unlocks the caller's own signing key, and where they have one, their security key's answer."""

    password: _Text


class Signing(Password):
    """The password, and what the scientist has to accept before the study may run; empty for no conditions."""

    conditions: Annotated[str, Field(max_length=4000)] = ""


class Reason(_Keyed):
    """Why; the scientist reads it."""

    reason: Annotated[str, Field(min_length=3, max_length=4000)]


class Confirming(Password):
    """Whose fingerprint was compared, and the password of who compared it."""

    name: _Text
    institution: _Text


# what they get, beside the values of review and ledger


@dataclass(frozen=True, kw_only=True)
class Health:
    """The portal answers."""

    status: Literal["ok"]
    site: str


@dataclass(frozen=True, kw_only=True)
class ConfirmedKey(Confirmation):
    """A key whose fingerprint was compared out of band."""

    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Proposed, and waiting in the inbox of others: ``needed`` people have to want it."""

    needed: int


@dataclass(frozen=True, kw_only=True)
class RequestSummary:
    """A proposal in the inbox."""

    proposal_hash: str
    study: str
    purpose: str
    state: State
    received: str
    expires: str
    proposer: str
    rounds: int
    signed_by: tuple[str, ...]
    signatures_needed: int


@dataclass(frozen=True, kw_only=True)
class RequestDetail(RequestSummary):
    """A proposal with everything that matters for a decision.

    ``unchecked`` says in one sentence what an unchecked chain of models voids; it is empty where all are recomputed.
    ``words`` is the thread: what both sides said, each signed.
    """

    proposal: dict[str, Any]
    cost: CostPreview | None
    violations: tuple[Violation, ...]
    unchecked: str
    unconfirmed: tuple[str, ...]
    decisions: tuple[Decision, ...]
    words: tuple[Word, ...]


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """A dry run on mock data: ``leaves`` are name and shape, ``checks`` what was tried and whether it held."""

    outcome: str
    passed: bool
    seconds: float
    memory_bytes: int
    log: str
    leaves: tuple[dict[str, str], ...]
    checks: tuple[dict[str, str | bool], ...]
    layers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class JournalPart:
    """A part of the journal, oldest first, and the head of the whole; ``next`` is null on the last page."""

    head_index: int
    head_hash: str
    entries: tuple[Entry, ...]
    next: int | None = None


@health.get("/healthz", summary="Does the portal answer?")
def healthz(context: Context) -> Health:
    """Answer without looking at anything private."""
    return Health(status="ok", site=context.site)


@router.get("/requests", summary="The inbox", tags=["review"])
def requests(context: Context, _: Reader) -> list[RequestSummary]:
    """Return every proposal that arrived, the newest first."""
    return [RequestSummary(**_summary(context, r)) for r in context.approvals.requests()]


@router.get("/requests/{proposal_hash}", summary="One proposal", tags=["review"])
def request(proposal_hash: Hash, service: ServiceHere, _: Reader) -> RequestDetail:
    """Return one proposal with its cost, the rules it breaks and what was decided."""
    return _detail(service, service.find(proposal_hash))


@router.post("/requests/{proposal_hash}/approve", summary="Sign a proposal", tags=["review"])
async def approve(
    asked: Asked, proposal_hash: Hash, body: Signing, service: ServiceHere, caller: ApiReviewer
) -> RequestDetail:
    """Sign with the caller's own key; when enough people have signed, the datasite approves."""

    def work() -> RequestDetail:
        return _detail(service, service.sign(proposal_hash, caller, json_proof(asked, body), body.conditions))

    return await service.people.signing.run(address_of(asked), caller.account.name, work)


@router.post("/requests/{proposal_hash}/deny", summary="Say no", tags=["review"])
def deny(asked: Asked, proposal_hash: Hash, body: Reason, service: ServiceHere, caller: ApiReviewer) -> RequestDetail:
    """Deny this proposal for ever, with a reason."""
    return _detail(service, service.decide("deny", proposal_hash, caller, body.reason, json_proof(asked, body)))


@router.post("/requests/{proposal_hash}/ask", summary="Ask for changes", tags=["review"])
def ask(asked: Asked, proposal_hash: Hash, body: Reason, service: ServiceHere, caller: ApiReviewer) -> RequestDetail:
    """Ask the scientist for changes or an explanation."""
    return _detail(service, service.decide("ask", proposal_hash, caller, body.reason, json_proof(asked, body)))


@router.post("/requests/{proposal_hash}/revoke", summary="Take an approval back", tags=["review"])
def revoke(asked: Asked, proposal_hash: Hash, body: Reason, service: ServiceHere, caller: ApiReviewer) -> RequestDetail:
    """Stop the study here before its next round."""
    return _detail(service, service.decide("revoke", proposal_hash, caller, body.reason, json_proof(asked, body)))


@router.post("/requests/{proposal_hash}/dry-run", summary="Run on mock data", tags=["review"])
def dry_run(proposal_hash: Hash, service: ServiceHere, _: ApiReviewer) -> DryRun:
    """Run one round on synthetic rows, in the sandbox of the real one, and wait for its end."""
    progress = service.dry_runs.run(service.dry_run_wanted(proposal_hash))
    result = progress.result
    if result is None:
        raise Refused(progress.problem or "the dry run did not end")
    return DryRun(
        outcome=result.outcome.status,
        passed=result.passed,
        seconds=result.outcome.seconds,
        memory_bytes=result.outcome.peak_memory_bytes,
        log=result.log,
        leaves=tuple({"name": name, "shape": shape} for name, shape in result.leaves),
        checks=tuple({"what": what, "held": held} for what, held in result.checks),
        layers=tuple(map(str, result.outcome.layers)),
    )


@router.get("/fingerprints", summary="Confirmed keys", tags=["review"])
def fingerprints(context: Context, _: Reader) -> list[ConfirmedKey]:
    """Return the keys that were compared out of band."""
    return [_confirmed(c) for c in context.approvals.confirmations()]


@router.put(
    "/fingerprints/{public_key}",
    summary="Confirm a key",
    tags=["review"],
    response_model=ConfirmedKey,
    responses={202: {"model": Waiting, "description": "the policy wants more people to confirm it"}},
)
async def confirm(
    asked: Asked, public_key: PublicKey, body: Confirming, service: ServiceHere, caller: ApiSession
) -> Any:
    """Write down that the caller compared this fingerprint with its owner, out of band; needs the password.

    Where the policy wants several people, the first ones get 202: the act waits for the others, for a week.
    """
    context = service.context
    try:
        check_public_key(public_key)
    except InvalidInput as error:
        raise Refused(sentence_of(error)) from error

    def work() -> ConfirmedKey | JSONResponse:
        act = PersonAct(kind="fingerprint", target=public_key, name=body.name, institution=body.institution)
        if not service.people.act(act, caller, json_proof(asked, body)):
            return JSONResponse(asdict(Waiting(needed=context.approvals.policy.people.required_people)), 202)
        return next(_confirmed(c) for c in context.approvals.confirmations() if c.public_key == public_key)

    return await service.people.signing.run(address_of(asked), caller.account.name, work)


@router.get("/studies", summary="Studies here", tags=["running"])
def studies(service: ServiceHere, _: Reader) -> tuple[StudyStatus, ...]:
    """Return the studies that run or ran here."""
    return service.studies()


@router.get("/budget", summary="Privacy budget", tags=["running"])
def budget(service: ServiceHere, _: Reader) -> tuple[Budget, ...]:
    """Return the budget of every patient population."""
    return service.budgets()


@router.get("/journal", summary="The journal", tags=["running"])
def journal(
    context: Context,
    _: Reader,
    since: Annotated[int, Query(ge=0, le=2**53)] = 0,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    after: Annotated[dt.datetime, Query(description="entries from this ISO time on; UTC without a zone")] = EARLIEST,
    before: Annotated[dt.datetime, Query(description="entries earlier than this ISO time")] = LATEST,
) -> JournalPart:
    """Return entries above number ``since``, of one ``kind`` and between two times if given; ``next`` is the next
    page's ``since``.
    """
    times = {"after": zoned(after), "before": zoned(before)}
    found = tuple(itertools.islice(selected(context.journal, since=since, kind=kind or "", **times), limit + 1))
    head, part = context.journal.head, found[:limit]
    further = part[-1].index if len(found) > limit else None
    return JournalPart(head_index=head.index, head_hash=head.hash, entries=part, next=further)


def _detail(service: PortalService, request: ReviewRequest) -> RequestDetail:
    return RequestDetail(
        **_summary(service.context, request),
        proposal=dump(request.proposal),
        cost=service.cost(request),
        violations=tuple(service.violations(request)),
        unchecked=service.context.unchecked(request.proposal),
        unconfirmed=tuple(p.name for p in service.unconfirmed(request)),
        decisions=request.decisions,
        words=request.words,
    )


def _summary(context: PortalContext, request: ReviewRequest) -> dict[str, Any]:
    proposal = request.proposal
    return {
        "proposal_hash": request.proposal_hash,
        "study": proposal.study,
        "purpose": proposal.purpose,
        "state": request.state,
        "received": request.received,
        "expires": proposal.expires,
        "proposer": (proposal.scientist or proposal.orchestrator).name,
        "rounds": proposal.rounds,
        "signed_by": tuple(s.reviewer for s in request.signatures),
        "signatures_needed": context.approvals.policy.required_reviewers(proposal),
    }


def _confirmed(value: Confirmation) -> ConfirmedKey:
    return ConfirmedKey(**asdict(value), fingerprint=fingerprint(value.public_key))
