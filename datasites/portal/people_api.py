"""The machine API for people: sign in, use a one-time link, issue a token."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from datasites.portal.access import ServiceHere, address_of, open_session, sign_in, stranger
from datasites.portal.api import ERRORS
from datasites.review.accounts import Account

_Text = Annotated[str, Field(min_length=1, max_length=256)]
_Title = Annotated[str, Field(max_length=120)]
router = APIRouter(prefix="/api", responses=ERRORS)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Login(_Body):
    """A person's name and password."""

    name: _Text
    password: _Text


class Registration(_Body):
    """Using up a one-time link."""

    token: _Text
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,62}$")]
    password: Annotated[str, Field(min_length=12, max_length=256)]
    full_name: _Title = ""
    function: _Title = ""


class TokenWish(Login):
    """A machine token for oneself, with no more rights than one has."""

    scopes: Annotated[list[Literal["read", "review"]], Field(min_length=1, max_length=2)]
    label: Annotated[str, Field(min_length=1, max_length=80)] = "machine"
    days: Annotated[float, Field(gt=0, le=366)] = 30


@dataclass(frozen=True, kw_only=True)
class Session:
    """A browser session was opened; the cookie came with this answer."""

    name: str
    role: str
    csrf: str


@dataclass(frozen=True, kw_only=True)
class Token:
    """A machine token, shown once."""

    token: str
    scopes: tuple[str, ...]
    expires: str


@router.post(
    "/register", status_code=201, summary="Use a one-time link", tags=["people"], dependencies=[Depends(stranger)]
)
async def register(request: Request, body: Registration, service: ServiceHere) -> Account:
    """Make the account that a one-time link allows; its signing key is made here and locked by the password."""
    people, address = service.people, address_of(request)
    title = {"full_name": body.full_name, "function": body.function}
    work = partial(people.register, body.token, body.name, body.password, address=address, **title)
    return await people.newcomer(body.token, body.name, work, address=address)


@router.post("/login", summary="Open a browser session", tags=["people"])
async def login(request: Request, body: Login, response: Response) -> Session:
    """Open a session; later changes need its ``csrf`` as the header ``X-CSRF-Token``."""
    account = await sign_in(request, body.name, body.password)
    csrf = await run_in_threadpool(open_session, request, response, account)
    return Session(name=account.name, role=account.role, csrf=csrf)


@router.post("/tokens", status_code=201, summary="Issue a machine token", tags=["people"])
async def issue_token(request: Request, body: TokenWish, service: ServiceHere) -> Token:
    """Issue a token for oneself; deciding with it still needs the password, which unlocks the signing key."""
    account = await sign_in(request, body.name, body.password)
    work = partial(service.people.issue_token, account, tuple(body.scopes), label=body.label, days=body.days)
    secret, granted = await run_in_threadpool(work)
    return Token(token=secret, scopes=granted.scopes, expires=granted.expires.isoformat())
