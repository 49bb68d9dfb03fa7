"""The pages of budget and policy, and what people change of a budget: release, move the cap, close."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from datasites.language import speaking
from datasites.node.web.languages import asked_language
from datasites.node.web.problems import describe
from datasites.portal.access import Context, FormSession, PasswordProof, Reader, ServiceHere, address_of
from datasites.portal.context import PortalContext
from datasites.portal.pages import page
from datasites.portal.service import PortalService
from datasites.portal.shown.figures import timeline_picture
from datasites.portal.shown.policy_words import policy_sections
from datasites.review.budget_acts import ActKind
from datasites.review.policy_file import CHANGED
from privacy.errors import TesseraError
from privacy.ledger.chain import Entry
from privacy.sentences import sentence_of

router = APIRouter(include_in_schema=False)
_Text = Annotated[str, Form(max_length=1000)]
_Short = Annotated[str, Form(max_length=256)]


@router.get("/budget")
def budget(request: Request, service: ServiceHere, _: Reader) -> HTMLResponse:
    """The budget of every patient population over time."""
    return show_budgets(request, service)


def show_budgets(request: Request, service: PortalService, *, problem: str = "", status: int = 200) -> HTMLResponse:
    """Return the page of all budgets; ``problem`` is shown on top."""
    with speaking(asked_language()):
        return _budgets(request, service, problem=problem, status=status)


def _budgets(request: Request, service: PortalService, *, problem: str, status: int) -> HTMLResponse:
    context = service.context
    history = service.history()
    lines = [(b, points := history.get(b.population, ()), timeline_picture(b, points)) for b in service.budgets()]
    acts = context.budget_acts
    return page(
        request,
        "budget.html",
        status=status,
        problem=problem,
        lines=lines,
        details=context.budget_details(),
        waiting=acts.waiting(now=context.clock()) if acts else (),
        acts=acts is not None,
        people=context.approvals.policy.budget.required_people,
        changes=policy_changes(context)[:5],
        refused=context.policy_problem(),
        held=acts.held if acts else "",
    )


def policy_changes(context: PortalContext) -> list[Entry]:
    """Return what changed in the policy, the newest first."""
    return list(context.journal.entries(kind=CHANGED))[::-1]


@router.get("/policy")
def policy(request: Request, service: ServiceHere, context: Context, _: Reader) -> HTMLResponse:
    """The owner's rules and the sandbox of this machine."""
    value = context.approvals.policy
    return page(
        request,
        "policy.html",
        sections=policy_sections(value),
        layers=sorted(service.layers().items()),
        policy_hash=value.policy_hash,
        changes=policy_changes(context),
        refused=context.policy_problem(),
    )


@router.post("/budget/{kind}")
async def budget_act(
    request: Request,
    kind: ActKind,
    service: ServiceHere,
    caller: FormSession,
    proof: PasswordProof,
    reason: _Text,
    target: _Short = "",
    epsilon: _Short = "",
    delta: _Short = "",
    name: _Short = "",
) -> Response:
    """Release a reservation, move the cap, close a population or note a release: a reason and one's own password."""

    def work() -> Response:
        try:
            done = service.acts.ask_budget(kind, caller, proof, reason, target, epsilon, delta, name)
        except TesseraError as error:
            return show_budgets(request, service, problem=sentence_of(error), status=describe(error).status)
        return RedirectResponse(f"/budget?notice={'act-done' if done else 'act-asked'}", 303)

    return await service.people.signing.run(address_of(request), caller.account.name, work)
