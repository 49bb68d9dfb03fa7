"""The machine API: what the pages do, as JSON with problem documents for errors."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from datasites.node.web.problems import documented
from datasites.portal import schemas
from datasites.portal.access import ApiReviewer, Context, DeskHere, Reader, set_session, sign_in
from datasites.portal.context import CostPreview, PortalContext
from datasites.portal.desk import Desk
from datasites.review.records import Request as ReviewRequest
from datasites.study.signing import dump
from privacy.errors import Refused
from privacy.identity import fingerprint

ERRORS: dict[int | str, dict[str, Any]] = {
    400: documented("malformed, or changed after it was signed"),
    401: documented("nobody is signed in"),
    403: documented("not allowed, or refused by a rule"),
    404: documented("no such thing here"),
    409: documented("the privacy cap would be passed"),
    422: documented("does not have the documented shape"),
}

router = APIRouter(prefix="/api", responses=ERRORS)
health = APIRouter()


@health.get("/healthz", summary="Does the portal answer?")
def healthz(context: Context) -> schemas.Health:
    """Answer without looking at anything private."""
    return schemas.Health(status="ok", site=context.site)


@router.post("/register", status_code=201, summary="Use a one-time link", tags=["people"])
def register(body: schemas.Registration, desk: DeskHere) -> schemas.Person:
    """Make the account that a one-time link allows; its signing key is made here and locked by the password."""
    account = desk.register(body.token, body.name, body.password)
    return schemas.Person(name=account.name, role=account.role, public_key=account.public_key)


@router.post("/login", summary="Open a browser session", tags=["people"])
def login(body: schemas.Login, context: Context, response: Response) -> schemas.Session:
    """Open a session; later changes need its ``csrf`` as the header ``X-CSRF-Token``."""
    secret, account = sign_in(context, body.name, body.password)
    set_session(response, context, secret)
    credential = context.accounts.credential(secret, now=context.clock())
    return schemas.Session(name=account.name, role=account.role, csrf=credential.csrf if credential else "")


@router.post("/tokens", status_code=201, summary="Issue a machine token", tags=["people"])
def issue_token(body: schemas.TokenWish, context: Context) -> schemas.Token:
    """Issue a token for oneself; deciding with it still needs the password, which unlocks the signing key."""
    now = context.clock()
    account = context.accounts.authenticate(body.name, body.password, now=now)
    secret, granted = context.accounts.issue_token(
        account, scopes=tuple(body.scopes), label=body.label, days=body.days, now=now
    )
    return schemas.Token(token=secret, scopes=list(granted.scopes), expires=granted.expires.isoformat())


@router.get("/requests", summary="The inbox", tags=["review"])
def requests(context: Context, _: Reader) -> list[schemas.RequestSummary]:
    """Return every proposal that arrived, the newest first."""
    return [schemas.RequestSummary(**_summary(context, r)) for r in context.approvals.requests()]


@router.get("/requests/{proposal_hash}", summary="One proposal", tags=["review"])
def request(proposal_hash: schemas.Hash, desk: DeskHere, _: Reader) -> schemas.RequestDetail:
    """Return one proposal with its cost, the rules it breaks and what was decided."""
    return detail(desk, desk.find(proposal_hash))


@router.post("/requests/{proposal_hash}/approve", summary="Sign a proposal", tags=["review"])
def approve(
    proposal_hash: schemas.Hash, body: schemas.Password, desk: DeskHere, caller: ApiReviewer
) -> schemas.RequestDetail:
    """Sign with the caller's own key; when enough people have signed, the datasite approves."""
    return detail(desk, desk.sign(proposal_hash, caller.account.name, body.password))


@router.post("/requests/{proposal_hash}/deny", summary="Say no", tags=["review"])
def deny(
    proposal_hash: schemas.Hash, body: schemas.Reason, desk: DeskHere, caller: ApiReviewer
) -> schemas.RequestDetail:
    """Deny this proposal for ever, with a reason."""
    desk.find(proposal_hash)
    store, now = desk.context.approvals, desk.context.clock()
    return detail(desk, store.deny(proposal_hash, reviewer=caller.account, reason=body.reason, now=now))


@router.post("/requests/{proposal_hash}/ask", summary="Ask for changes", tags=["review"])
def ask(
    proposal_hash: schemas.Hash, body: schemas.Reason, desk: DeskHere, caller: ApiReviewer
) -> schemas.RequestDetail:
    """Ask the scientist for changes or an explanation."""
    desk.find(proposal_hash)
    store, now = desk.context.approvals, desk.context.clock()
    return detail(desk, store.ask(proposal_hash, reviewer=caller.account, reason=body.reason, now=now))


@router.post("/requests/{proposal_hash}/revoke", summary="Take an approval back", tags=["review"])
def revoke(
    proposal_hash: schemas.Hash, body: schemas.Reason, desk: DeskHere, caller: ApiReviewer
) -> schemas.RequestDetail:
    """Stop the study here before its next round."""
    desk.find(proposal_hash)
    store, now = desk.context.approvals, desk.context.clock()
    return detail(desk, store.revoke(proposal_hash, reviewer=caller.account, reason=body.reason, now=now))


@router.post("/requests/{proposal_hash}/dry-run", summary="Run on mock data", tags=["review"])
def dry_run(proposal_hash: schemas.Hash, desk: DeskHere, _: ApiReviewer) -> schemas.Trial:
    """Run one round on synthetic rows, in the sandbox of the real one, and wait for its end."""
    state = desk.trials.run(desk.find(proposal_hash))
    result = state.result
    if result is None:
        raise Refused(state.problem or "the dry run did not end")
    return schemas.Trial(
        outcome=result.outcome,
        passed=state.passed,
        seconds=result.seconds,
        memory_bytes=result.memory_bytes,
        log=result.log,
        leaves=[schemas.Leaving(name=name, shape=shape) for name, shape in result.leaves],
        checks=[schemas.Tried(what=what, held=held) for what, held in result.checks],
        layers=list(result.layers),
    )


@router.get("/fingerprints", summary="Confirmed keys", tags=["review"])
def fingerprints(context: Context, _: Reader) -> list[schemas.ConfirmedKey]:
    """Return the keys that were compared out of band."""
    return [_confirmed(**asdict(c)) for c in context.approvals.confirmations()]


@router.put("/fingerprints/{public_key}", summary="Confirm a key", tags=["review"])
def confirm(
    public_key: schemas.PublicKey, body: schemas.Confirming, context: Context, caller: ApiReviewer
) -> schemas.ConfirmedKey:
    """Write down that the caller compared this fingerprint with its owner, out of band."""
    value = context.approvals.confirm(
        public_key, name=body.name, institution=body.institution, person=caller.account, now=context.clock()
    )
    return _confirmed(**asdict(value))


@router.get("/studies", summary="Studies here", tags=["running"])
def studies(desk: DeskHere, _: Reader) -> list[schemas.Study]:
    """Return the studies that run or ran here."""
    return [schemas.Study(**{**asdict(s), "epsilon_spent": finite(s.epsilon_spent)}) for s in desk.studies()]


@router.get("/budget", summary="Privacy budget", tags=["running"])
def budget(desk: DeskHere, _: Reader) -> list[schemas.Budget]:
    """Return the budget of every patient population; null means infinite."""
    return [
        schemas.Budget(
            population=line.population,
            datasets=list(line.datasets),
            cap=finite(line.cap),
            delta=line.delta,
            spent=finite(line.spent),
            reserved=finite(line.reserved),
        )
        for line in desk.budget()
    ]


@router.get("/journal", summary="The journal", tags=["running"])
def journal(
    context: Context,
    _: Reader,
    since: Annotated[int, Query(ge=0, le=2**53)] = 0,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> schemas.JournalPart:
    """Return entries after ``since``, of one ``kind`` if given."""
    found = itertools.islice(context.journal.entries(since=since, kind=kind or None), limit)
    lines = [schemas.JournalLine(index=e.index, kind=e.kind, at=e.at, body=e.body, hash=e.hash) for e in found]
    head = context.journal.head
    return schemas.JournalPart(head_index=head.index, head_hash=head.hash, entries=lines)


def detail(desk: Desk, request: ReviewRequest) -> schemas.RequestDetail:
    """Return everything about a request that matters for a decision."""
    cost = desk.cost(request)
    return schemas.RequestDetail(
        **_summary(desk.context, request),
        proposal=dump(request.proposal),
        cost=_cost(cost) if cost else None,
        violations=[schemas.Broken(rule=v.rule, message=v.message) for v in desk.violations(request)],
        unconfirmed=[p.name for p in desk.unconfirmed(request)],
        decisions=[schemas.Decided(**asdict(d)) for d in request.decisions],
    )


def _cost(cost: CostPreview) -> schemas.Cost:
    return schemas.Cost(
        population=cost.population,
        delta=cost.delta,
        cap=finite(cost.cap),
        before=finite(cost.before),
        cost=finite(cost.cost),
        after=finite(cost.after),
        accountant=cost.accountant,
        fits=cost.fits,
    )


def finite(value: float) -> float | None:
    """Return ``value``, or None when JSON cannot carry it."""
    return value if math.isfinite(value) else None


def _summary(context: PortalContext, request: ReviewRequest) -> dict[str, Any]:
    proposal = request.proposal
    return {
        "proposal_hash": request.proposal_hash,
        "study": proposal.study,
        "purpose": proposal.purpose,
        "state": request.state,
        "received": request.received,
        "expires": proposal.expires,
        "proposer": proposal.orchestrator.name,
        "rounds": proposal.rounds,
        "signed_by": [s.reviewer for s in request.signatures],
        "signatures_needed": context.approvals.policy.required_reviewers(proposal),
    }


def _confirmed(*, public_key: str, name: str, institution: str, person: str, at: str) -> schemas.ConfirmedKey:
    return schemas.ConfirmedKey(
        public_key=public_key,
        fingerprint=fingerprint(public_key),
        name=name,
        institution=institution,
        person=person,
        at=at,
    )
