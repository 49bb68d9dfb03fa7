"""The mailbox that carries PySyft traffic between institutions that only dial out.

It stores sealed letters (:mod:`datasites.node.letters`) and knows who may write, read and remove what; it can open
none of the messages, which PySyft encrypts end to end. Five requests, all idempotent:

=======================  ==========================================================
``PUT /mailbox/letter``  store a letter at the place named by the query
``GET /mailbox/letter``  read it
``POST /mailbox/remove`` remove letters from one's own mailbox
``POST /mailbox/share``  let others read one's ``version`` or a ``collection``
``GET /mailbox/news``    what changed for me after ``since``; waits up to ``wait`` s
=======================  ==========================================================
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from datasites.node.letters import Box, Place, check_file_name, check_participant, open_letter
from datasites.study.proposal import Party
from orchestrator.api.mailbox_store import Item, MailboxStore
from orchestrator.api.openapi import BINARY_ANSWER, BINARY_BODY, body_of, checked_body
from orchestrator.rounds.board import Bell
from privacy.errors import Refused

MAX_WAIT_SECONDS = 60.0
NEWS_PER_ANSWER = 2000
_SHAREABLE = ("version", "collection")


class PlaceQuery(BaseModel):
    """A place, as it stands in a query or a list."""

    model_config = ConfigDict(extra="forbid")
    owner: str
    box: Box
    folder: str = ""
    name: str

    def place(self) -> Place:
        """Return the checked place."""
        return Place(owner=self.owner, box=self.box, folder=self.folder, name=self.name)


class Removal(BaseModel):
    """Letters to remove."""

    model_config = ConfigDict(extra="forbid")
    places: list[PlaceQuery] = Field(max_length=1000)


class Sharing(BaseModel):
    """Whom to let read one folder of the caller's mailbox."""

    model_config = ConfigDict(extra="forbid")
    box: Box
    folder: str = Field("", max_length=200)
    readers: list[str] = Field(max_length=1000)


def may_read(store: MailboxStore, caller: str, place: Place) -> bool:
    """Say whether ``caller`` may read the letter at ``place``: the table in :mod:`datasites.node.letters`."""
    if place.box == "outbox":
        return caller == place.folder
    if place.box == "bundle" and caller == place.folder:
        return True
    return caller == place.owner or (place.box in _SHAREABLE and store.is_shared(place, caller))


def create_mailbox_router(
    store: MailboxStore,
    authenticate: Callable[..., Awaitable[Party]],
    *,
    knows: Callable[[str], bool] = lambda _: True,
    bell: Bell | None = None,
    authenticate_letter: Callable[..., Awaitable[Party]] | None = None,
) -> APIRouter:
    """Return the mailbox's routes, to be included under the orchestrator's application.

    Args:
        store: where letters lie.
        authenticate: a dependency that gives the calling party, such as
            :class:`orchestrator.api.authentication.Authenticator`.
        knows: says whether a participant of this name exists; letters to anybody else are refused.
        bell: wakes the long polls; closed at shutdown.
        authenticate_letter: the same as ``authenticate`` for requests that carry a letter, which may be long.
    """
    router = APIRouter(prefix="/mailbox", tags=["mailbox"])
    bell = bell or Bell()

    _add_letters(router, store, bell, authenticate, authenticate_letter or authenticate, knows)

    @router.post("/remove", openapi_extra=body_of(Removal))
    async def remove(request: Request, caller: Party = Depends(authenticate)) -> None:
        places = [where.place() for where in checked_body(Removal, await request.body()).places]
        if any(place.owner != caller.name for place in places):
            raise Refused("only the owner of a mailbox removes letters from it")
        await run_in_threadpool(store.remove, places)
        bell.ring()

    @router.post("/share", openapi_extra=body_of(Sharing))
    async def share(request: Request, caller: Party = Depends(authenticate)) -> None:
        sharing = checked_body(Sharing, await request.body())
        if sharing.box not in _SHAREABLE:
            raise Refused(f"only {' and '.join(_SHAREABLE)} can be shared, not {sharing.box}")
        if sharing.folder:
            check_file_name(sharing.folder)
        readers = [check_participant(reader) for reader in sharing.readers]
        await run_in_threadpool(store.share, caller.name, sharing.box, sharing.folder, readers)
        bell.ring()

    @router.get("/news")
    async def news(
        since: int = Query(0, ge=0),
        wait: float = Query(0.0, ge=0, le=MAX_WAIT_SECONDS),
        caller: Party = Depends(authenticate),
    ) -> dict[str, Any]:
        last = await run_in_threadpool(lambda: store.sequence)
        if since > last:  # the reader remembers another mailbox: begin anew
            return {"reset": True, "more": True, "items": []}
        items = await _await_news(store, bell, caller.name, since, wait)
        return {
            "reset": False,
            "more": len(items) == NEWS_PER_ANSWER,
            "items": [_plain(item) for item in items],
        }

    return router


def _add_letters(
    router: APIRouter,
    store: MailboxStore,
    bell: Bell,
    authenticate: Callable[..., Awaitable[Party]],
    authenticate_letter: Callable[..., Awaitable[Party]],
    knows: Callable[[str], bool],
) -> None:
    @router.put("/letter", openapi_extra=BINARY_BODY)
    async def put(
        request: Request, where: PlaceQuery = Query(), caller: Party = Depends(authenticate_letter)
    ) -> dict[str, int]:
        place = where.place()
        if caller.name != place.writer:
            raise Refused(f"only {place.writer} writes to this place of {place.owner}'s mailbox")
        if not knows(place.owner):
            raise Refused(f"nobody called {place.owner} takes part here; check the name")
        letter = await request.body()
        open_letter(letter, place, caller.public_key)
        sequence = await run_in_threadpool(store.put, place, letter)
        bell.ring()
        return {"sequence": sequence}

    @router.get(
        "/letter", response_class=Response, responses={**BINARY_ANSWER, 204: {"description": "there is no letter here"}}
    )
    async def get(where: PlaceQuery = Query(), caller: Party = Depends(authenticate)) -> Response:
        place = where.place()
        if not may_read(store, caller.name, place):
            raise Refused(f"{caller.name} may not read this place of {place.owner}'s mailbox")
        letter = await run_in_threadpool(store.get, place)
        return Response(letter, media_type="application/octet-stream", status_code=204 if letter is None else 200)


async def _await_news(store: MailboxStore, bell: Bell, reader: str, since: int, wait_seconds: float) -> list[Item]:
    deadline = time.monotonic() + wait_seconds
    while True:
        ring = bell.next_ring()
        items = await run_in_threadpool(store.news, reader, since, NEWS_PER_ANSWER)
        remaining = deadline - time.monotonic()
        if items or remaining <= 0 or bell.closed:
            return items
        with suppress(TimeoutError):
            async with asyncio.timeout(remaining):
                await ring.wait()


def _plain(item: Item) -> list[Any]:
    place = item.place
    return [place.owner, place.box, place.folder, place.name, item.sha256, item.size_bytes, item.sequence]
