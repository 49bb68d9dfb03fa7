"""The page on which people say that they are away, and who gets their notices meanwhile."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from datasites.node.web.problems import describe
from datasites.portal.access import Context, FormPerson, Reader
from datasites.portal.context import PortalContext
from datasites.portal.pages import page
from datasites.review.accounts import Account
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.sentences import say, sentence_of

router = APIRouter(include_in_schema=False)
_Day = Annotated[str, Form(max_length=10)]
_Name = Annotated[str, Form(max_length=64)]


@router.get("/away")
def away(request: Request, context: Context, caller: Reader) -> HTMLResponse:
    """Who is away, and the form to say so."""
    return show_away(request, context, caller.account)


def show_away(
    request: Request, context: PortalContext, person: Account, *, problem: str = "", status: int = 200
) -> HTMLResponse:
    """Return the page of absences; ``problem`` is shown on top."""
    absences, today = context.absences, context.clock().date()
    try:
        people = absences.settings().people if absences else ()
    except InvalidInput as error:
        people, problem = (), problem or sentence_of(error)
    return page(
        request,
        "away.html",
        status=status,
        problem=problem,
        gone=[p for p in people if p.is_away(today)],
        own=next((p for p in people if p.name == person.name), None),
        others=[p.name for p in people if p.name != person.name],
        today=today,
    )


@router.post("/away")
def say_away(request: Request, context: Context, caller: FormPerson, until: _Day, delegate: _Name) -> Response:
    """Have a delegate get the person's notices until a day."""
    person = caller.account
    try:
        if context.absences is None:
            raise Refused(say("notices are not set up here"))
        today, before = context.clock().date(), context.absences.all()
        said = context.absences.say(person.name, until=until, delegate=delegate, today=today)
    except TesseraError as error:
        return show_away(request, context, person, problem=sentence_of(error), status=describe(error).status)
    if said not in before:
        context.journal.append("absence-said", {**asdict(said), "until": said.until.isoformat()})
    return RedirectResponse("/away?notice=away", 303)


@router.post("/away/end")
def end_away(context: Context, caller: FormPerson) -> Response:
    """Take the person's absence back."""
    if context.absences is not None and context.absences.end(caller.account.name):
        context.journal.append("absence-ended", {"name": caller.account.name})
    return RedirectResponse("/away?notice=back", 303)
