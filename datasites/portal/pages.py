"""The pages for people. They only read; what changes something is in :mod:`datasites.portal.forms`.

All pages come from templates of one environment, which escapes by default.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse
from markupsafe import Markup
from starlette.exceptions import HTTPException

from datasites.language import mark, speaking, tr
from datasites.node.web.events import mark as place
from datasites.node.web.languages import asked_language
from datasites.node.web.middleware import REPORT_POLICY, new_environment
from datasites.portal.access import Context, Reader, ServiceHere, address_of, context_of, credential_of, notice_of
from datasites.portal.people.drafts import NOTHING, Draft, typed_here
from datasites.portal.service import PortalService
from datasites.portal.shown.gaps import gaps, gaps_left
from datasites.portal.shown.journal_words import HAPPENED, IN_WORDS
from datasites.portal.shown.policy_words import rule_in_words
from datasites.portal.shown.words import (
    STUDY_STATES,
    act_title,
    listed,
    modality,
    needs,
    state,
    when,
)
from datasites.review.accounts import Credential
from datasites.study.text import delta_text, epsilon_text
from datasites.study.thread import SHOWN
from privacy.errors import TesseraError
from privacy.identity import fingerprint
from privacy.ledger.export import EXPORTED, csv_lines
from privacy.sentences import say, sentence_of

MENU = (
    ("/inbox", mark("Inbox")),
    ("/jobs", mark("Jobs")),
    ("/studies", mark("Studies")),
    ("/budget", mark("Budget")),
    ("/journal", mark("Journal")),
    ("/reports", mark("Reports")),
    ("/fingerprints", mark("Fingerprints")),
    ("/policy", mark("Policy")),
    ("/people", mark("People")),
)
NOTICES = {
    "signed": mark(
        "Signed with your key. This hospital has approved. Once all hospitals have, the rounds are under Studies."
    ),
    "signed-first": mark(
        "Signed with your key. This hospital has not approved yet: another person has to sign as well."
    ),
    "deny": mark("Denied. The scientist and the other hospitals will read your reason."),
    "ask": mark("Asked. The scientist will read your question."),
    "revoke": mark("Revoked. The study stops here before its next round."),
    "job-approved": mark("Approved. It runs on mock data in the sandbox, and its submitter gets what it wrote."),
    "job-rejected": mark("Rejected. Its submitter will read your reason."),
    "confirmed": mark("Confirmed and written into the journal."),
    "closed": mark("Closed: their password, key, sessions, tokens and links are gone. What they signed stays signed."),
    "vouched": mark("Confirmed: the account counts in full from now on."),
    "password": mark("Your password is changed. Your other sessions and tokens have ended."),
    "renamed": mark("Your name is changed. What you signed before keeps the name of that time."),
    "key-registered": mark("Registered: from now on your security key is asked for whenever you sign."),
    "key-removed": mark("Removed: this security key counts no more."),
    "ended": mark("Ended. Whoever uses it has to sign in again."),
    "linked": mark("Linked. From now on your hospital account opens a session here."),
    "unlinked": mark("The link is gone. Sign in with your password."),
    "act-done": mark("Done, with your reason in the ledger and the journal."),
    "act-proposed": mark("Proposed. The policy wants more people: it waits in the inbox of the others for a week."),
    "act-confirmed": mark("Confirmed. The policy wants one more person."),
    "act-declined": mark("Declined, with your reason in the journal."),
    "act-asked": mark("Asked. The policy wants another person to ask for the same within a week."),
    "away": mark("Noted. Your delegate gets your notices until then, and so do you."),
    "back": mark("Noted. Your notices go to you alone."),
    "welcome": mark("Your account is made. Keep your password: nobody can restore it."),
}
_TONES = {"approved": "good", "pending": "warn", "changes-requested": "warn"}
_TONES |= dict.fromkeys(("denied", "revoked", "ended"), "bad")
_ROLES = {"steward": mark("data steward"), "privacy-officer": mark("privacy officer"), "auditor": mark("auditor")}

_SEVERITIES = {"high": mark("high"), "medium": mark("medium"), "low": mark("low")}
_TASKS = {
    "I-II": mark("stage I or II"),
    "early-late": mark("early or late stage"),
    "ordinal": mark("stage I, II, or III and later"),
}
_OUTCOMES = {
    "failed": mark("failed"),
    "timed-out": mark("took too long"),
    "disk": mark("wrote too much"),
    "refused": mark("refused by the sandbox"),
    "crashed": mark("crashed"),
}
_DECISIONS = {
    "signed": mark("signed"),
    "approved": mark("approved"),
    "approved-automatically": mark("approved automatically"),
    "denied": mark("denied"),
    "changes-requested": mark("changes asked for"),
    "revoked": mark("revoked"),
    "answered": mark("answered"),
    "ended": mark("ended"),
}

_environment = new_environment(Path(__file__).parent / "templates", mount="/static")
_environment.globals.update(
    act_title=lambda act: act_title(act, _ROLES),
    fingerprint=fingerprint,
    gaps=gaps,
    in_words=IN_WORDS,
    gaps_left=gaps_left,
    listed=listed,
    modality=modality,
    number=epsilon_text,
    role=lambda name: tr(str(_ROLES.get(name, name))),
    said=SHOWN,
    severity=lambda name: tr(str(_SEVERITIES.get(name, name))),
    task=lambda name: tr(str(_TASKS.get(name, name))),
    outcome=lambda name: tr(str(_OUTCOMES.get(name, name))),
    decided=lambda kind: tr(str(_DECISIONS.get(kind, kind))),
    happened=lambda kind: tr(str(HAPPENED.get(kind, kind))),
    rule=rule_in_words,
    small=delta_text,
    state=state,
    tone=lambda name: _TONES.get(name, ""),
    when=when,
)


@lru_cache(maxsize=1)
def compile_templates() -> None:
    """Compile all templates now, once a process, so that nobody's first look at a page has to wait for it."""
    for name in _environment.list_templates(extensions=["html"]):
        _environment.get_template(name)


def page(request: Request, template: str, *, status: int = 200, problem: str = "", **values: Any) -> HTMLResponse:
    """Return one page for whoever is signed in; ``problem`` is shown on top as an alert."""
    context = context_of(request)
    credential = credential_of(request)
    path = request.url.path
    draft = _draft(request, credential, refused=bool(problem) or status >= 400, problem=problem)
    has_key = credential is not None and bool(context.accounts.security_keys.of(credential.account.name))
    shared = {
        "institution": context.institution,
        "site": context.site,
        "own_fingerprint": fingerprint(context.public_key),
        "caller": credential.account if credential else None,
        "can_decide": credential is not None and "review" in credential.scopes,
        "hospital_login": context.hospital_login.settings.name if context.hospital_login else "",
        "csrf": credential.csrf if credential else "",
        "signs": Markup(" data-sign") if has_key else "",
        "uses_keys": has_key or path.startswith("/people"),
        "menu": MENU,
        "active": "/inbox" if path.startswith("/requests/") else path,
        "notice": NOTICES.get(notice_of(request), ""),
        "problem": problem,
        "typed": draft.form,
        "kept": request.method == "GET" and draft.typed,
        "error": context.error() if credential else "",
    }
    with speaking(asked_language()):
        return HTMLResponse(_environment.get_template(template).render({**shared, **values}), status)


def _draft(request: Request, credential: Credential | None, *, refused: bool, problem: str) -> Draft:
    """Return the words that a page puts into its form again, and keep those of a form that was not done."""
    if credential is None or credential.kind != "session":
        return NOTHING
    drafts, now = request.app.state.service.drafts, context_of(request).clock()
    if request.method == "GET":
        kept: Draft = drafts.on(credential.key, request.url.path, now=now)
        return kept
    typed = (getattr(request.state, "typed", NOTHING) if problem else typed_here(request)) if refused else NOTHING
    drafts.keep(credential.key, typed, now=now)
    return typed


router = APIRouter(include_in_schema=False)
_ON_A_PAGE = 50
Seen = Annotated[str, Query(max_length=24)]
_GROUPS = (
    (mark("To decide"), ("pending", "changes-requested"), mark("Nothing waits for you.")),
    (mark("Approved"), ("approved",), mark("Nothing is approved.")),
    (mark("Denied, revoked and ended"), ("denied", "revoked", "ended"), mark("None.")),
)


@router.get("/")
def start() -> Response:
    """Send people to the inbox."""
    return RedirectResponse("/inbox", 303)


@router.get("/login")
def login(request: Request, to: str = "/inbox") -> HTMLResponse:
    """The login form."""
    return show_login(request, to=to)


def show_login(
    request: Request, *, to: str, draft: Draft = NOTHING, name: str = "", problem: str = "", status: int = 200
) -> HTMLResponse:
    """Return the page to sign in as ``name``, which takes along what somebody typed; ``problem`` is shown on top."""
    nobody = not context_of(request).accounts.accounts()
    return page(
        request, "login.html", status=status, problem=problem, to=to, words=draft.hidden, name=name, nobody=nobody
    )


@router.get("/welcome")
@router.get("/register")
def welcome(request: Request, context: Context, token: Annotated[str, Query(max_length=128)]) -> HTMLResponse:
    """The form behind a one-time link."""
    role = context.accounts.invitation_role(token, now=context.clock())
    return page(request, "welcome.html", token=token, for_role=role, name="", full_name="", function="")


@router.get("/inbox")
def inbox(request: Request, service: ServiceHere, caller: Reader) -> HTMLResponse:
    """Every proposal, those that wait first."""
    return show_inbox(request, service, caller)


def show_inbox(
    request: Request,
    service: PortalService,
    caller: Credential,
    *,
    link: str = "",
    link_role: str = "",
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    """Return the inbox, with a one-time link just made, if any; ``problem`` is shown on top."""
    requests = service.context.approvals.requests()
    groups = [(name, [r for r in requests if r.state in states]) for name, states, _ in _GROUPS]
    known = service.context.approvals.confirmed()
    budget_acts = service.context.budget_acts
    return page(
        request,
        "inbox.html",
        status=status,
        problem=problem,
        link=link,
        link_role=link_role,
        acts=(acts := service.acts.waiting(caller.account)),
        held_policy=(held := budget_acts is not None and bool(budget_acts.held)),
        refused_policy="" if held else service.context.policy_problem(),
        acts_need_you=sum(mine for _, mine in acts),
        groups=groups,
        needs_you=[r.proposal_hash for r in requests if needs(r, caller.account)],
        empty=[text for _, _, text in _GROUPS],
        needed=service.context.approvals.policy.required_reviewers,
        unconfirmed=sum(p.public_key not in known for p in service.parties()),
        change=service.context.roster_change(),
    )


@router.get("/studies")
def studies(request: Request, service: ServiceHere, _: Reader) -> HTMLResponse:
    """Studies and their rounds."""
    shown, acts = service.studies(), service.context.budget_acts is not None
    return page(request, "studies.html", studies=shown, seen=place(shown), explained=STUDY_STATES, acts=acts)


@router.get("/studies/events")
def study_events(request: Request, service: ServiceHere, _: Reader, seen: Seen = "") -> Response:
    """Say when a study went on."""
    return service.streams.events(request, service.studies, seen=seen)


@router.get("/journal")
def journal(
    request: Request,
    service: ServiceHere,
    _: Reader,
    q: Annotated[str, Query(max_length=80)] = "",
    kind: Annotated[str, Query(max_length=64)] = "",
    number: Annotated[int, Query(ge=0, le=10**6, alias="page")] = 0,
    verify: Annotated[str, Query(max_length=1)] = "",
) -> HTMLResponse:
    """The journal, searched, filtered and verified."""
    found = service.journal.entries(search=q, kind=kind)
    first = number * _ON_A_PAGE
    return page(
        request,
        "journal.html",
        entries=found[first : first + _ON_A_PAGE],
        total=len(found),
        kinds=service.journal.kinds(),
        kind=kind,
        q=q,
        query=urlencode({"q": q, "kind": kind}),
        newer=number - 1 if number else None,
        older=number + 1 if first + _ON_A_PAGE < len(found) else None,
        head=service.context.journal.head,
        verified=_verified(service) if verify else "",
    )


@router.get("/journal/export.csv")
def export_journal(
    request: Request,
    service: ServiceHere,
    caller: Reader,
    q: Annotated[str, Query(max_length=80)] = "",
    kind: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The journal as CSV, searched and filtered as on its page; the journal notes who fetched it."""
    found = service.journal.entries(search=q, kind=kind)[::-1]
    service.people.records.fetched(EXPORTED, caller, address_of(request), to="csv", entries=len(found))
    headers = {"content-disposition": f'attachment; filename="journal-{service.context.site}.csv"'}
    return StreamingResponse(csv_lines(found), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/fingerprints")
def fingerprints(request: Request, service: ServiceHere, _: Reader) -> HTMLResponse:
    """Whose keys were compared, and whose were not."""
    return show_fingerprints(request, service)


def show_fingerprints(
    request: Request, service: PortalService, *, problem: str = "", status: int = 200
) -> HTMLResponse:
    """Return the page of fingerprints; ``problem`` is shown on top."""
    confirmed = service.context.approvals.confirmations()
    known = {c.public_key for c in confirmed}
    waiting = [
        {"name": p.name, "institution": p.institution, "public_key": p.public_key, "part": tr("named in a study here")}
        for p in service.parties()
        if p.public_key not in known
    ]
    return page(
        request,
        "fingerprints.html",
        status=status,
        problem=problem,
        confirmed=confirmed,
        waiting=waiting,
        change=service.context.roster_change(),
    )


@router.get("/reports")
def reports(request: Request, service: ServiceHere, _: Reader) -> HTMLResponse:
    """The reports that may be downloaded, and whether new ones are being written."""
    writing = service.writing.state()
    found = service.context.reports()
    return page(request, "reports.html", reports=found, writing=writing, seen=place(writing))


@router.get("/reports/events")
def report_events(request: Request, service: ServiceHere, _: Reader, seen: Seen = "") -> Response:
    """Say when the writing of the reports went on."""
    return service.streams.events(request, service.writing.state, seen=seen)


@router.get("/reports/{name}")
def report(request: Request, name: str, service: ServiceHere, caller: Reader) -> Response:
    """One report, by the name it is listed under; the journal notes who fetched it."""
    for file in service.context.reports():
        if file.name == name:
            service.people.records.fetched("report-downloaded", caller, address_of(request), name=name)
            return FileResponse(
                file.path,
                filename=name,
                content_disposition_type="inline" if name.endswith((".html", ".pdf")) else "attachment",
                headers={"content-security-policy": REPORT_POLICY},
            )
    raise HTTPException(404, say("there is no report of this name here"))


def _verified(service: PortalService) -> str:
    try:
        service.context.journal.verify()
    except TesseraError as error:
        return sentence_of(error)
    return "ok"
