"""A changed roster: people look at who joins and who leaves, compare fingerprints, and put it in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from datasites.node.web.problems import describe
from datasites.portal.access import (
    ApiSession,
    Context,
    FormSession,
    PasswordProof,
    Reader,
    ServiceHere,
    address_of,
    json_proof,
)
from datasites.portal.api import ERRORS, Password, Waiting
from datasites.portal.pages import show_fingerprints
from datasites.study.proposal import Party
from privacy.errors import TesseraError
from privacy.sentences import sentence_of

pages = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api", responses=ERRORS)
_Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="the roster's hash")]


@dataclass(frozen=True, kw_only=True)
class RosterChange:
    """A signed roster that waits for this hospital's people; ``digest`` is what they confirm.

    Of those ``changed``, the keys of ``unsigned`` are not signed by the key known here; nobody can confirm them.
    ``roles`` are the parts of who joins, and of who would get another part (``moved``), by name.
    """

    digest: str
    serial: int
    joins: tuple[Party, ...]
    leaves: tuple[Party, ...]
    changed: tuple[Party, ...]
    unsigned: tuple[Party, ...]
    moved: tuple[Party, ...]
    roles: Mapping[str, str]


@pages.post("/roster")
async def confirm_page(
    request: Request,
    service: ServiceHere,
    caller: FormSession,
    digest: Annotated[str, Form(pattern="^[0-9a-f]{64}$")],
    proof: PasswordProof,
) -> Response:
    """Put the offered roster in force; needs the password."""

    def work() -> Response:
        try:
            done = service.confirm_roster(digest, caller, proof)
        except TesseraError as error:
            return show_fingerprints(request, service, problem=sentence_of(error), status=describe(error).status)
        return RedirectResponse(f"/fingerprints?notice={'confirmed' if done else 'act-proposed'}", 303)

    return await service.people.signing.run(address_of(request), caller.account.name, work)


@api.get("/roster", summary="A changed roster that waits", tags=["review"])
def offered(context: Context, _: Reader) -> RosterChange | None:
    """Return the change of the consortium's roster that waits for people here; null where none does."""
    change = context.roster_change()
    if change is None:
        return None
    return RosterChange(
        digest=change.digest,
        serial=change.edition.serial,
        joins=change.joins,
        leaves=change.leaves,
        changed=change.changed,
        unsigned=change.unsigned,
        moved=change.moved,
        roles={party.name: change.edition.roster.role_of(party.name) for party in (*change.joins, *change.moved)},
    )


@api.put(
    "/roster/{digest}",
    response_model=None,
    status_code=204,
    summary="Put a changed roster in force",
    tags=["review"],
    responses={202: {"model": Waiting, "description": "the policy wants more people to confirm it"}},
)
async def confirm(asked: Request, digest: _Digest, body: Password, service: ServiceHere, caller: ApiSession) -> Any:
    """Write down that the caller compared the new parties' fingerprints, out of band; needs the password."""

    def work() -> Response:
        if service.confirm_roster(digest, caller, json_proof(asked, body)):
            return Response(status_code=204)
        return JSONResponse(asdict(Waiting(needed=service.context.approvals.policy.people.required_people)), 202)

    return await service.people.signing.run(address_of(asked), caller.account.name, work)
