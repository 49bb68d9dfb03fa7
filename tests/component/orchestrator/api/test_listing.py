"""The list of studies: a summary each, as the whole status would say it, by pages, and sent only when it changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.played import Played

from datasites.node.credentials.tokens import make_token
from orchestrator.studies.status import line_of, study_line, summaries_of
from orchestrator.studies.summaries import Summaries
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with Played(tmp_path_factory.mktemp("listing"), sites=3) as made:
        made.open()
        for study in ("alpha", "beta one", "gamma"):
            made.propose(study, length=60, rounds=2)
        assert made.play("alpha")["state"] == "finished"
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


def test_reading_the_list_does_not_stop_the_loop(played: Played, tmp_path: Path) -> None:
    async def both() -> list[Any]:
        summaries = Summaries(played.service.store)
        return await asyncio.gather(*(asyncio.to_thread(summaries.page, "site-0") for _ in range(8)))

    found = asyncio.run(both())
    assert all(lines == found[0] for lines in found) and tmp_path.exists()
