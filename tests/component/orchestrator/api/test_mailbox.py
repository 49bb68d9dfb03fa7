"""Nobody reads or writes another's mailbox, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from datasites.node.credentials.tokens import make_token
from datasites.node.letters import BOXES, Place, seal_letter
from datasites.node.web.problems import install_problem_handlers
from datasites.study.proposal import Party
from orchestrator.api.authentication import Authenticator
from orchestrator.api.mailbox import MAX_WAIT_SECONDS, create_mailbox_router
from orchestrator.api.mailbox_store import MailboxLimits, MailboxStore
from privacy.canonical import canonical_json, sha256_hex
from privacy.errors import InvalidInput, Refused
from privacy.identity import Identity

SERVER = Identity.from_seed(b"s" * 32)
PEOPLE = {name: Identity.from_seed(name.encode().ljust(32, b".")) for name in ("north", "south", "lab")}
Ask = Callable[..., httpx.Response]


def place(box: str, *, owner: str = "north", folder: str | None = None, name: str = "a.json") -> Place:
    inner = {"own": "", "version": "", "collection": "mock_ages_1f"}.get(box, "lab")
    return Place(owner=owner, box=box, folder=inner if folder is None else folder, name=name)  # type: ignore[arg-type]


def letter(where: Place, data: bytes = b"data") -> bytes:
    return seal_letter(PEOPLE[where.writer], where, data)


def make_app(store: MailboxStore) -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    parties = {p.public_key: Party(name=n, institution=n, public_key=p.public_key) for n, p in PEOPLE.items()}
    authenticate = Authenticator(SERVER.public_key, parties.get)
    app.include_router(create_mailbox_router(store, authenticate, knows=PEOPLE.__contains__))
    return app


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = MailboxStore(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def ask(store: MailboxStore) -> Ask:
    app = make_app(store)

    def request(
        who: str, method: str, path: str, body: bytes = b"", params: dict[str, Any] | None = None
    ) -> httpx.Response:
        return asyncio.run(send(app, who, method, path, body, params))

    return request


async def send(
    app: FastAPI, who: str, method: str, path: str, body: bytes = b"", params: dict[str, Any] | None = None
) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        prepared = client.build_request(method, path, params=params, content=body)
        prepared.headers["Authorization"] = make_token(
            PEOPLE[who],
            audience=SERVER.public_key,
            method=method,
            target=prepared.url.raw_path.decode(),
            body_hash=sha256_hex(body),
        )
        return await client.send(prepared)


def put(ask: Ask, who: str, where: Place, body: bytes | None = None) -> httpx.Response:
    return ask(who, "PUT", "/mailbox/letter", letter(where) if body is None else body, asdict(where))


def get(ask: Ask, who: str, where: Place) -> httpx.Response:
    return ask(who, "GET", "/mailbox/letter", params=asdict(where))


def news(ask: Ask, who: str, since: int = 0) -> list[list[Any]]:
    items: list[list[Any]] = ask(who, "GET", "/mailbox/news", params={"since": since}).json()["items"]
    return items


READERS = {
    "own": {"north"},
    "version": {"north"},
    "bundle": {"north", "lab"},
    "collection": {"north"},
    "request": {"north"},
    "inbox": {"north"},
    "outbox": {"lab"},
}


@pytest.mark.parametrize("box", BOXES)
def test_only_the_rightful_writer_writes(ask: Ask, box: str) -> None:
    where = place(box)
    for who in PEOPLE:
        expected = 200 if who == where.writer else 403
        forged = seal_letter(PEOPLE[who], where, b"data")
        assert put(ask, who, where, forged).status_code == expected, who


@pytest.mark.parametrize("box", BOXES)
def test_only_the_rightful_readers_read_and_hear_of_it(ask: Ask, box: str) -> None:
    where = place(box)
    assert put(ask, where.writer, where).status_code == 200
    assert {who for who in PEOPLE if get(ask, who, where).status_code == 200} == READERS[box]
    assert {who for who in PEOPLE if news(ask, who)} == READERS[box]


@pytest.mark.parametrize("box", BOXES)
def test_only_the_owner_removes(ask: Ask, box: str) -> None:
    where = place(box)
    put(ask, where.writer, where)
    body = canonical_json({"places": [asdict(where)]})
    for who in ("south", "lab"):
        assert ask(who, "POST", "/mailbox/remove", body).status_code == 403
    assert ask("north", "POST", "/mailbox/remove", body).status_code == 200
    assert get(ask, sorted(READERS[box])[0], where).status_code == 204


@pytest.mark.parametrize("box", ["version", "collection"])
def test_a_shared_folder_is_news_for_those_it_is_shared_with(ask: Ask, box: str) -> None:
    where = place(box)
    put(ask, "north", where)
    seen = news(ask, "north")[-1][-1]
    body = canonical_json({"box": box, "folder": where.folder, "readers": ["lab"]})
    assert ask("north", "POST", "/mailbox/share", body).status_code == 200
    assert get(ask, "lab", where).content == letter(where)
    assert [item[:4] for item in news(ask, "lab", since=seen)] == [["north", box, where.folder, "a.json"]]
    assert get(ask, "south", where).status_code == 403
    put(ask, "north", place(box, folder=where.folder, name="later.json"))
    assert [item[3] for item in news(ask, "lab")] == ["a.json", "later.json"]


@pytest.mark.parametrize("box", ["own", "inbox", "outbox", "bundle", "request"])
def test_private_boxes_cannot_be_shared(ask: Ask, box: str) -> None:
    body = canonical_json({"box": box, "folder": "lab", "readers": ["south"]})
    assert ask("north", "POST", "/mailbox/share", body).status_code == 403


def test_a_letter_sealed_by_somebody_else_is_not_taken(ask: Ask) -> None:
    where = place("bundle")
    answer = put(ask, "north", where, seal_letter(PEOPLE["south"], where, b"keys"))
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:tessera:tampered")


def test_a_letter_for_another_place_is_not_taken(ask: Ask) -> None:
    other = letter(place("bundle", folder="south"))
    answer = put(ask, "north", place("bundle"), other)
    assert "another place" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "../../etc/passwd", "a\\b", "a\nb", "x" * 300])
def test_names_that_lead_elsewhere_are_refused(ask: Ask, name: str) -> None:
    query = {**asdict(place("own")), "name": name}
    assert ask("north", "GET", "/mailbox/letter", params=query).status_code in (400, 422)
    assert ask("north", "PUT", "/mailbox/letter", b"x", query).status_code in (400, 422)


def test_a_mailbox_of_nobody_takes_no_letters(ask: Ask) -> None:
    assert put(ask, "lab", place("inbox", owner="nobody")).status_code == 403


def test_a_malformed_list_is_named(ask: Ask) -> None:
    answer = ask("north", "POST", "/mailbox/remove", b'{"places": [{"owner": 3}]}')
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:tessera:invalid-input")


def test_a_reader_who_remembers_another_mailbox_begins_anew(ask: Ask) -> None:
    put(ask, "north", place("own"))
    assert ask("north", "GET", "/mailbox/news", params={"since": 99}).json()["reset"] is True


def test_a_long_poll_ends_when_a_letter_comes(store: MailboxStore) -> None:
    app = make_app(store)
    where = place("inbox")

    async def scene() -> list[Any]:
        waiting = asyncio.create_task(
            send(app, "north", "GET", "/mailbox/news", params={"since": 0, "wait": MAX_WAIT_SECONDS})
        )
        await asyncio.sleep(0.05)
        await send(app, "lab", "PUT", "/mailbox/letter", letter(where), asdict(where))
        return list((await asyncio.wait_for(waiting, 120)).json()["items"])

    assert [item[1] for item in asyncio.run(scene())] == ["inbox"]


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    first = MailboxStore(tmp_path)
    for number in range(5):
        first.put(place("inbox", name=f"{number}.gz"), letter(place("inbox", name=f"{number}.gz")))
    first.share("north", "collection", "mock_ages_1f", ["lab"])
    first.remove([place("inbox", name="2.gz")])
    before = first.news("north", 0, 100)
    # no close: a process that is killed does not say goodbye
    second = MailboxStore(tmp_path)
    assert second.news("north", 0, 100) == before
    assert second.get(place("inbox", name="4.gz")) == letter(place("inbox", name="4.gz"))
    assert second.get(place("inbox", name="2.gz")) is None
    assert second.is_shared(place("collection"), "lab")
    second.close()
    first.close()


def test_a_letter_whose_row_was_never_written_is_swept(tmp_path: Path) -> None:
    orphan = tmp_path / "letters" / "ab" / ("ab" * 32)
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"half a story")
    torn = orphan.with_name(".torn.new")
    torn.write_bytes(b"half")
    MailboxStore(tmp_path).close()
    assert not orphan.exists()
    assert not torn.exists()


def test_the_same_letter_twice_is_one_change(store: MailboxStore) -> None:
    where = place("own")
    assert store.put(where, letter(where)) == store.put(where, letter(where))
    assert store.put(where, letter(where, b"new")) == 2
    assert len(list((store._files).glob("*/*"))) == 1


def test_a_file_stays_while_another_place_needs_it(store: MailboxStore) -> None:
    store.put(place("own", name="a"), b"the same bytes")
    store.put(place("own", name="b"), b"the same bytes")
    store.remove([place("own", name="a")])
    assert store.get(place("own", name="b")) == b"the same bytes"
    store.remove([place("own", name="b")])
    assert list(store._files.glob("*/*")) == []


def test_sizes_and_quotas_are_bounded(tmp_path: Path) -> None:
    store = MailboxStore(tmp_path, MailboxLimits(letter_bytes=100, writer_bytes=150, writer_letters=3))
    with pytest.raises(InvalidInput, match="at most 100 bytes"):
        store.put(place("own"), b"x" * 101)
    store.put(place("own", name="a"), b"x" * 100)
    with pytest.raises(Refused, match="used up"):
        store.put(place("own", name="b"), b"y" * 51)
    store.put(place("inbox", name="c"), b"y" * 51)  # another writer
    store.close()


def test_removed_letters_are_told_to_readers(store: MailboxStore) -> None:
    where = place("outbox")
    store.put(where, letter(where))
    seen = store.sequence
    store.remove([where])
    (item,) = store.news("lab", seen, 10)
    assert (item.place, item.sha256) == (where, "")


def test_the_number_of_shares_is_bounded(tmp_path: Path) -> None:
    store = MailboxStore(tmp_path, MailboxLimits(writer_shares=3))
    store.share("north", "collection", "mock", ["south", "lab"])
    store.share("north", "version", "", ["south"])
    with pytest.raises(Refused, match="shares more than 3"):
        store.share("north", "version", "", ["lab", "other"])
    store.share("north", "version", "", ["south"])  # what is shared already is no more
    store.share("south", "version", "", ["north"])
    assert not store.is_shared(Place(owner="north", box="version", folder="", name="a"), "lab")
    store.close()


@pytest.mark.parametrize("folder", ["../up", "a/b", ".hidden", "a\nb", "\u202ea", "x" * 201])
def test_a_share_names_a_plain_folder(ask: Ask, folder: str) -> None:
    body = canonical_json({"box": "collection", "folder": folder, "readers": ["south"]})
    assert ask("north", "POST", "/mailbox/share", body).status_code == 400
