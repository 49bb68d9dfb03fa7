"""The page of accounts, and what people change through its forms: sign in, accounts, passwords, sessions.

Whatever changes who may decide asks for the password, in a browser session.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from datasites.node.web.problems import describe
from datasites.portal.access import (
    CSRF_HEADER,
    Context,
    FormPerson,
    FormProof,
    FormSession,
    PasswordProof,
    Reader,
    ServiceHere,
    address_of,
    check_csrf,
    cookie_name,
    host_of,
    open_session,
    public_address,
    sign_in,
    stranger,
)
from datasites.portal.context import PortalContext
from datasites.portal.forms import inside
from datasites.portal.pages import page, show_login
from datasites.portal.people.desk import check_session
from datasites.portal.people.drafts import taken_over
from datasites.portal.people.proof import Proof, act_of
from datasites.portal.service import PortalService
from datasites.review.accounts import Account, Credential, Role
from datasites.review.people.security_keys import LONGEST_ANSWER
from datasites.review.people.vouching import check_vouches
from privacy.errors import Refused, TesseraError
from privacy.sentences import sentence_of

router = APIRouter(include_in_schema=False)
Secret = Annotated[str, Form(max_length=256)]
_Title = Annotated[str, Form(max_length=120)]


class Asking(BaseModel):
    """The act that a security key is asked for: where its form is sent, and with which fields."""

    model_config = ConfigDict(extra="forbid")
    path: Annotated[str, Field(max_length=256)]
    fields: Annotated[list[tuple[str, Annotated[str, Field(max_length=8192)]]], Field(max_length=32)]


@router.get("/people")
def people(request: Request, context: Context, caller: Reader) -> HTMLResponse:
    """Who has an account."""
    return show_people(request, context, caller)


def show_people(
    request: Request,
    context: PortalContext,
    caller: Credential,
    *,
    link: str = "",
    link_role: str = "",
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    """Return the page of accounts, with a one-time link just made, if any; ``problem`` is shown on top."""
    accounts = context.accounts
    everybody, retired = accounts.accounts(), accounts.retired()
    return page(
        request,
        "people.html",
        status=status,
        problem=problem,
        accounts=everybody,
        retired=retired,
        may_close=[a.name for a in everybody if a.name not in retired and a.name != caller.account.name],
        may_confirm=[a.name for a in everybody if a.name not in retired and _may_confirm(caller.account, a)],
        own=accounts.sessions.of(caller.account.name, now=context.clock()),
        present=caller.key,
        people_needed=context.approvals.policy.people.required_people,
        keys=accounts.security_keys.of(caller.account.name),
        key_wanted=context.approvals.policy.people.security_key == "required" and caller.account.decides,
        idle_minutes=f"{accounts.sessions.idle_minutes:g}",
        linked=accounts.has_link(caller.account.name),
        link=link,
        link_role=link_role,
    )


def _may_confirm(person: Account, newcomer: Account) -> bool:
    try:
        check_vouches(person, newcomer)
    except Refused:
        return False
    return True


@router.post("/login")
async def login(request: Request, name: Secret, password: Secret, to: Secret = "/inbox") -> Response:
    """Open a session and go where the person wanted to."""
    try:
        account = await sign_in(request, name, password)
    except TesseraError as error:
        problem = sentence_of(error)
        return show_login(request, to=to, draft=taken_over(request), name=name, problem=problem, status=403)
    response = RedirectResponse(inside(to), 303)
    await run_in_threadpool(open_session, request, response, account)
    return response


@router.post("/logout")
def logout(request: Request, service: ServiceHere, caller: FormPerson) -> Response:
    """End the session."""
    context = service.context
    context.accounts.end(request.cookies.get(cookie_name(context), ""))
    service.people.records.signed_out(caller.account.name)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookie_name(context))
    return response


@router.post("/welcome", dependencies=[Depends(stranger)])
async def welcome(
    request: Request,
    service: ServiceHere,
    token: Secret,
    name: Secret,
    password: Secret,
    full_name: _Title = "",
    function: _Title = "",
) -> Response:
    """Make the account of a one-time link and sign its owner in."""
    people, context, address = service.people, service.context, address_of(request)

    def work() -> Response:
        try:
            account = people.register(token, name, password, address=address, full_name=full_name, function=function)
        except TesseraError as error:
            role = context.accounts.invitation_role(token, now=context.clock())
            values = {"token": token, "for_role": role, "name": name, "full_name": full_name, "function": function}
            return page(request, "welcome.html", status=400, problem=sentence_of(error), **values)
        response = RedirectResponse("/inbox?notice=welcome", 303)
        open_session(request, response, account)
        return response

    return await people.newcomer(token, name, work, address=address)


@router.post("/people")
async def invite(
    request: Request, service: ServiceHere, caller: FormSession, role: Annotated[Role, Form()], proof: FormProof
) -> Response:
    """Make a one-time link for somebody; only a steward may."""

    def work() -> Response:
        try:
            token = service.people.invite(role, caller, proof)
        except TesseraError as error:
            return _not_done(request, service, caller, error)
        if not token:
            return RedirectResponse("/people?notice=act-proposed", 303)
        link = f"{public_address(request, service)}/welcome?token={token}"
        return show_people(request, service.context, caller, link=link, link_role=role)

    return await service.people.signing.run(address_of(request), caller.account.name, work)


@router.post("/people/close")
async def close_account(
    request: Request, service: ServiceHere, caller: FormSession, name: Secret, proof: FormProof
) -> Response:
    """Close the account of somebody who has left; only a steward may, and not their own."""
    work = partial(service.people.close, name, caller, proof)
    return await _changed(request, service, caller, "closed", work, waits="act-proposed")


@router.post("/people/confirm")
async def vouch(
    request: Request, service: ServiceHere, caller: FormSession, name: Secret, proof: FormProof
) -> Response:
    """Confirm a new account as a second person."""
    return await _changed(request, service, caller, "vouched", partial(service.people.vouch, name, caller, proof))


@router.post("/people/password")
async def change_password(
    request: Request, service: ServiceHere, caller: FormPerson, proof: PasswordProof, new: Secret
) -> Response:
    """Change one's own password; all other sessions and tokens end."""
    work = partial(service.people.change_password, caller, proof, new)
    return await _changed(request, service, caller, "password", work)


@router.post("/people/name")
async def rename(
    request: Request,
    service: ServiceHere,
    caller: FormPerson,
    proof: FormProof,
    full_name: _Title = "",
    function: _Title = "",
) -> Response:
    """Change one's own full name and function."""
    work = partial(service.people.rename, caller, proof, full_name=full_name, function=function)
    return await _changed(request, service, caller, "renamed", work)


@router.post("/people/keys/question")
async def ask_key(request: Request, service: ServiceHere, caller: Reader, asked: Asking) -> JSONResponse:
    """Return what the browser needs to ask the caller's security key for one act; the page's script calls it."""
    check_csrf(caller, request.headers.get(CSRF_HEADER, ""))
    act = act_of(asked.path, asked.fields)
    work = partial(service.people.ask_key, caller, Proof(act=act, host=host_of(request)))
    return JSONResponse(await run_in_threadpool(work))


@router.post("/people/keys/new")
async def new_key(request: Request, service: ServiceHere, caller: Reader) -> JSONResponse:
    """Return what the browser needs to make a security key for the caller; the page's script calls it."""
    check_csrf(caller, request.headers.get(CSRF_HEADER, ""))
    work = partial(service.people.new_key, check_session(caller), host_of(request))
    return JSONResponse(await run_in_threadpool(work))


@router.post("/people/keys")
async def register_key(
    request: Request,
    service: ServiceHere,
    caller: FormPerson,
    proof: FormProof,
    label: Secret = "",
    made: Annotated[str, Form(max_length=LONGEST_ANSWER)] = "",
) -> Response:
    """Keep a security key that the caller's browser has made."""
    work = partial(service.people.register_key, caller, proof, made=made, label=label)
    return await _changed(request, service, caller, "key-registered", work)


@router.post("/people/keys/remove")
async def remove_key(
    request: Request, service: ServiceHere, caller: FormPerson, proof: FormProof, key: Secret
) -> Response:
    """Forget one of the caller's security keys."""
    return await _changed(
        request, service, caller, "key-removed", partial(service.people.remove_key, caller, proof, key)
    )


@router.post("/people/end")
async def end(request: Request, service: ServiceHere, caller: FormPerson, key: Secret) -> Response:
    """End one of one's own sessions or tokens."""
    return await _changed(request, service, caller, "ended", partial(service.people.end, key, caller))


async def _changed(
    request: Request,
    service: PortalService,
    caller: Credential,
    notice: str,
    act: Callable[[], object],
    *,
    waits: str = "",
) -> Response:
    """Do it and show the people again, or show them with the reason why it was not done.

    ``waits`` is the notice where the act returned nothing because others have to want it too.
    """

    def work() -> Response:
        try:
            done = act()
        except TesseraError as error:
            return _not_done(request, service, caller, error)
        return RedirectResponse(f"/people?notice={waits if waits and not done else notice}", 303)

    return await service.people.signing.run(address_of(request), caller.account.name, work)


def _not_done(request: Request, service: PortalService, caller: Credential, error: TesseraError) -> Response:
    return show_people(request, service.context, caller, problem=sentence_of(error), status=describe(error).status)
