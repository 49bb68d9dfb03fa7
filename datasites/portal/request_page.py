"""The page of one request: everything about a proposal before it is decided, and the forms to decide."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from datasites.language import speaking, tr
from datasites.node.web.events import mark as place
from datasites.node.web.languages import asked_language
from datasites.portal.access import Hash, Reader, ServiceHere
from datasites.portal.pages import Seen, page
from datasites.portal.service import PortalService
from datasites.portal.shown.answers import answers
from datasites.portal.shown.code_view import code_diff, code_file, facts_diff
from datasites.portal.shown.figures import cost_picture
from datasites.portal.shown.words import STUDY_STATES, meaning, modality, parts, released, summary
from datasites.review.findings import Finding, find
from datasites.review.records import Confirmation
from datasites.review.records import Request as ReviewRequest
from datasites.review.versions import version_before
from datasites.study.proposal import Proposal
from datasites.study.signing import dump
from datasites.study.text import delta_text, epsilon_text
from datasites.study.thread import accepted
from privacy.errors import InvalidInput
from privacy.sentences import sentence_of

router = APIRouter(include_in_schema=False)


@router.get("/requests/{proposal_hash}")
def request_page(request: Request, proposal_hash: Hash, service: ServiceHere, _: Reader) -> HTMLResponse:
    """Everything about one proposal, and the forms to decide."""
    return show_request(request, service, service.find(proposal_hash))


@router.get("/requests/{proposal_hash}/events")
def request_events(request: Request, proposal_hash: Hash, service: ServiceHere, _: Reader, seen: Seen = "") -> Response:
    """Say when the dry run of a request went on."""
    return service.streams.events(request, lambda: service.dry_runs.state(proposal_hash), seen=seen)


def show_request(
    request: Request, service: PortalService, found: ReviewRequest, *, problem: str = "", status: int = 200
) -> HTMLResponse:
    """Return the page of one proposal; ``problem`` is shown on top."""
    with speaking(asked_language()):
        return _request(request, service, found, problem=problem, status=status)


def _request(
    request: Request, service: PortalService, found: ReviewRequest, *, problem: str, status: int
) -> HTMLResponse:
    proposal = found.proposal
    own = proposal.participant(service.context.site)
    cost = service.cost(found)
    names = sorted(proposal.plan.code)
    findings = find(found.folder, names)
    blocks = proposal.blocks_of(service.context.site)
    trial = service.dry_runs.state(found.proposal_hash)
    return page(
        request,
        "request.html",
        status=status,
        problem=problem,
        found=found,
        own=own,
        own_modalities=[modality(m) for m in own.modalities],
        sentences=summary(proposal, service.context.site, cost),
        cost=cost,
        picture=cost_picture(cost) if cost else "",
        violations=service.violations(found),
        unconfirmed=list(dict.fromkeys(p.institution for p in service.unconfirmed(found))),
        confirmed=service.context.approvals.confirmed(),
        blocked=service.blocked(found),
        software=service.software(found),
        unchecked=service.context.unchecked(proposal),
        findings=findings,
        flags=_flags(findings),
        released=_released(service, found),
        meaning=meaning(cost) if cost else (),
        **answers(proposal, cost, service.glance(found)),
        trial=trial,
        seen=place(trial),
        blocks=blocks,
        total_values=sum(b.length for b in blocks),
        parties=parts(proposal),
        needed=service.context.approvals.policy.required_reviewers,
        signed_by=[s.reviewer for s in found.signatures],
        signed_names=[s.titled for s in found.signatures],
        over=(over := service.over(found)),
        over_said=tr(STUDY_STATES.get(over, "")) if over else "",
        by_file=list(dict.fromkeys(c.institution for c in _confirmed_by_file(service, found))),
        open_conditions=not accepted(found.words, service.context.site),
        files=[code_file(found.folder, name, proposal.plan.code[name]) for name in names],
        file_ids={name: i for i, name in enumerate(names)},
        **_comparison(service, found),
    )


def _comparison(service: PortalService, found: ReviewRequest) -> dict[str, Any]:
    earlier = version_before(service.context.approvals, found.proposal_hash)
    if earlier is None:
        return {"earlier": None, "facts": (), "diffs": ()}
    before, now = dump(earlier.proposal), dump(found.proposal)
    for value in (before, now):
        for field in ("created", "expires", "nonce", "plan", "replaces"):
            value.pop(field, None)
        if found.proposal.replaces == earlier.proposal_hash:
            del value["study"]
    facts = (*_cost_before_and_now(earlier.proposal, found.proposal, service), *facts_diff(before, now))
    diffs = code_diff((earlier.folder, earlier.proposal.plan.code), (found.folder, found.proposal.plan.code))
    return {"earlier": earlier, "facts": facts, "diffs": diffs}


def _confirmed_by_file(service: PortalService, found: ReviewRequest) -> list[Confirmation]:
    """Return the parties whose key stands in policy.toml and was compared by nobody in this portal."""
    proposal = found.proposal
    keys = {p.public_key for p in (proposal.orchestrator, proposal.keyholder, *proposal.helpers)}
    keys |= {p.public_key for p in proposal.participants}
    known = service.context.approvals.confirmations()
    return [c for c in known if c.public_key in keys and not c.at]


def _cost_before_and_now(before: Proposal, now: Proposal, service: PortalService) -> tuple[tuple[str, str, str], ...]:
    delta = service.context.approvals.policy.budget.delta
    costs = [epsilon_text(proposal.charged.epsilon(delta)) for proposal in (before, now)]
    name = tr("cost of the study alone: epsilon at delta {delta}", delta=delta_text(delta))
    return ((name, costs[0], costs[1]),) if costs[0] != costs[1] else ()


def _released(service: PortalService, found: ReviewRequest) -> tuple[str, ...]:
    try:
        return released(found.proposal, service.context.site)
    except InvalidInput as error:  # an evaluation that is charged for less than it would release
        return (sentence_of(error),)


def _flags(findings: tuple[Finding, ...]) -> dict[tuple[str, int], str]:
    flags: dict[tuple[str, int], str] = {}
    for finding in findings:  # the gravest come first and win
        flags.setdefault((finding.file, finding.line), finding.severity)
    return flags
