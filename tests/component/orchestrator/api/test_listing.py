"""The list of studies: a summary each, as the whole status would say it, by pages, and sent only when it changed."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

import httpx
import pytest
import sqlalchemy as sa
from support.played import Played

from datasites.node import http
from datasites.node.credentials.tokens import make_token
from datasites.node.http import read_plain
from datasites.study.signing import seal
from orchestrator.rounds.tables import DOCUMENTS
from orchestrator.studies.status import Watched, line_of, study_line, study_status, summaries_of
from orchestrator.studies.summaries import Summaries
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

ROUNDS = 500


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with Played(tmp_path_factory.mktemp("listing"), sites=3) as made:
        made.open()
        for study in ("alpha", "beta one", "gamma"):
            made.propose(study, length=60, rounds=2)
        assert made.play("alpha")["state"] == "finished"
        yield made


@pytest.fixture(scope="module")
def long_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Yield a consortium with a study of 500 finished rounds in which forty hospitals took part."""
    with Played(tmp_path_factory.mktemp("long"), sites=3) as made:
        made.open()
        proposal = made.proposal("long", length=60, rounds=ROUNDS)
        store = made.service.store
        store.add_study("long", seal(made.identity, "proposal", proposal))
        sites = [f"hospital-{number:02}" for number in range(40)]
        checkpoint = {
            "model_hash": "0" * 64,
            "moments_hash": "0" * 64,
            "sites": sites,
            "weights": {"shared": dict.fromkeys(sites, 1.0)},
            "seconds": 1.5,
            "uplink_bytes": 800_000,
        }
        place = {"study": "long", "kind": "checkpoint", "closing": 0, "author": ""}
        rows = [{**place, "round": number, "document": json.dumps(checkpoint)} for number in range(1, ROUNDS + 1)]
        with store._engine.begin() as connection:
            connection.execute(DOCUMENTS.insert(), rows)
        for closing, reason in ((10, "newer"), (9, "older")):
            store.put_document("long", 7, "refusal", {"reason": reason}, closing=closing, author="site-1")
        store.set_state("long", "finished")
        yield made


def test_a_summary_says_what_the_whole_status_says(played: Played) -> None:
    for caller in ("orchestrator", "site-0", "keyholder"):
        with played.signed(caller) as client:
            for attempt in range(50):  # the two other studies may go on between two questions
                lines = {line.study: line for line in map(line_of, summaries_of(client))}
                whole = {study: study_line(client.get_json(f"/studies/{study}")) for study in lines}
                if lines == whole:
                    break
                assert attempt < 49
            assert sorted(lines) == ["alpha", "beta one", "gamma"]
            assert asdict(lines["alpha"]) == asdict(whole["alpha"])
    assert lines["alpha"].rounds_completed == 2 and lines["alpha"].uplink_bytes > 0
    assert [site.updates for site in lines["alpha"].sites] == [2, 2, 2]


def test_pages_follow_one_another_by_name(played: Played) -> None:
    with played.signed("site-0") as client:
        first = client.get_json("/studies", params={"limit": 2})
        assert [line["study"] for line in first] == ["alpha", "beta one"]
        assert [line["study"] for line in client.get_json("/studies", params={"after": "beta one"})] == ["gamma"]
        assert client.get_json("/studies", params={"after": "gamma"}) == []
        for limit in (0, 1001, "many"):
            with pytest.raises(InvalidInput):
                client.get_json("/studies", params={"limit": limit})


def test_an_unchanged_list_is_not_sent_again(played: Played) -> None:
    identity = played.homes["site-0"].identity()
    assert played.wire.app is not None
    app = played.wire.app

    def ask(tag: str = "") -> httpx.Response:
        token = make_token(
            identity,
            audience=played.identity.public_key,
            method="GET",
            target="/studies",
            body_hash=sha256_hex(b""),
        )
        headers = {"authorization": token, **({"if-none-match": tag} if tag else {})}
        found: httpx.Response = app.get("/studies", headers=headers)
        return found

    whole = ask()
    tag = whole.headers["etag"]
    assert len(json.loads(whole.content)) == 3
    again = ask(tag)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    played.service.store.set_state("gamma", "paused", "for this test")
    changed = ask(tag)
    assert changed.status_code == 200 and changed.headers["etag"] != tag


def test_what_was_added_up_once_is_not_read_again(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    summaries, read = Summaries(played.service.store), list[str]()
    later = played.service.store.later
    monkeypatch.setattr(played.service.store, "later", lambda *a, **k: read.append(a[1]) or later(*a, **k))
    first = summaries.page("site-0")
    assert "checkpoint" in read
    for attempt in range(50):  # the two other studies may go on between two questions
        read.clear()
        before, first = first, summaries.page("site-0")
        if first == before and read == []:
            break
        assert attempt < 49
    assert summaries.page("nobody") == []


@pytest.mark.parametrize("path", ["/studies/long", "/studies"])
def test_reading_a_long_study_does_not_hold_the_loop(long_study: Played, path: str) -> None:
    """Five hundred rounds of forty hospitals are read and written as JSON while the server's loop goes on.

    Measured is the processor's time that the loop's own thread spends between two looks: other processes add nothing.
    """
    assert long_study.wire.app is not None and long_study.wire.app.portal is not None
    gaps, ended, loops, readers = list[float](), threading.Event(), set[int](), set[int]()

    def reads(*_: object) -> None:
        readers.add(threading.get_ident())

    async def beat() -> None:
        loops.add(threading.get_ident())
        while not ended.is_set():
            before = time.thread_time()
            await asyncio.sleep(0.001)
            gaps.append(time.thread_time() - before)

    engine = long_study.service.store._engine
    sa.event.listen(engine, "before_cursor_execute", reads)
    beating = long_study.wire.app.portal.start_task_soon(beat)
    try:
        with long_study.signed("site-0") as client:
            found = client.get_json(path)
    finally:
        ended.set()
        beating.result()
        sa.event.remove(engine, "before_cursor_execute", reads)
    assert readers and not readers & loops
    assert len(json.dumps(found)) > (500_000 if path == "/studies/long" else 100)
    assert len(gaps) > 3 and max(gaps) < 0.04, f"the loop stood still for {max(gaps):.3f} s"


def test_a_long_study_is_read_with_one_query_a_kind(long_study: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = list[str]()
    engine = long_study.service.store._engine
    sa.event.listen(engine, "before_cursor_execute", lambda *a: queries.append(a[2]))
    long_study.service.store._known.clear()
    status = study_status(long_study.service.store, "long", "site-0")
    assert (status["rounds_completed"], len(status["checkpoints"]), len(status["refusals"])) == (ROUNDS, ROUNDS, 501)
    assert status["refusals"]["7"] == {"site-1": {"reason": "newer"}} and status["refusals"]["8"] == {}
    assert len(queries) < 12
    assert len(long_study.service.store._known) < 10, "it drives nothing else out of memory"


def test_an_unchanged_study_is_not_sent_again(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched("/studies/alpha")
    with played.signed("site-0") as client:
        sent = list[int]()
        monkeypatch.setattr(http, "read_plain", lambda *a: sent.append(len(body := read_plain(*a))) or body)
        first = watched.look(client)
        assert first == client.get_json("/studies/alpha") and sent[0] > 1000
        assert watched.look(client) == first and sent[-1] == 0
        before = sent[0]
        played.service.stuck["alpha"] = "for this test"
        try:
            assert watched.look(client)["waiting"] == "for this test" and sent[-1] > before
        finally:
            del played.service.stuck["alpha"]
        pages = dict[str, Watched]()
        lines = list(summaries_of(client, pages))
        assert [line["study"] for line in lines] == ["alpha", "beta one", "gamma"] and list(pages) == [""]
