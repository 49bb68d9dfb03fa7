"""Somebody is cut off, too slow, or gone: the study waits, goes on without, or pauses, and says whom it waits for."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from harness.consortium import LEVELS, steps_of
from rich.console import Console
from support.charges import is_charged
from support.played import Played

from datasites.node import work
from orchestrator.cli.operate import _study_table
from orchestrator.dashboard.facts import study_now
from orchestrator.rounds.store import Store
from orchestrator.studies.status import study_line
from privacy.errors import Refused, TesseraError

LENGTH, SITES = 40, 4


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path, sites=SITES) as made:
        made.open()
        yield made


def from_role(played: Played, *roles: str) -> Callable[[httpx.Request], bool]:
    """Return whether a request was signed by one of the roles."""
    keys = {played.homes[role].identity().public_key for role in roles}

    def is_theirs(request: httpx.Request) -> bool:
        statement = request.headers["Authorization"].removeprefix("Tessera ").partition(".")[0]
        return json.loads(base64.urlsafe_b64decode(statement))["caller"] in keys

    return is_theirs


def shown(played: Played, study: str) -> tuple[str, str]:
    """Return what `tessera status` and the dashboard print of a study, as text."""
    out = StringIO()
    Console(file=out, width=250).print(_study_table(study_line(played.status(study))))
    now = study_now(played.service.store, study, "orchestrator", played.service.waiting(study))
    return " ".join(out.getvalue().split()), now.phase


def assert_mean(played: Played, status: dict[str, Any], sites: list[int], rounds: int = 1) -> None:
    mean = sum(steps_of(i, "shared", LENGTH) for i in sites) / LEVELS / len(sites)
    np.testing.assert_allclose(played.model(status)["shared"], rounds * mean, atol=1e-5)


@pytest.mark.parametrize("role", ["site-1", "keyholder"])
def test_a_study_waits_for_somebody_who_is_cut_off_and_says_for_whom(played: Played, role: str) -> None:
    played.propose("cut", length=LENGTH)
    played.wire.cut = from_role(played, role)
    what = "updates of site-1" if role == "site-1" else "keyholder (keyholder), its key"
    status = played.play("cut", until=lambda s: what in s["waiting"] and len(s["updates_now"]) in (0, SITES - 1))
    assert status["state"] == "running"
    for text in shown(played, "cut"):
        assert "waiting since" in text
        assert what in text
    played.wire.cut = lambda _: False
    status = played.play("cut")
    assert status["state"] == "finished"
    assert_mean(played, status, list(range(SITES)))
    assert played.status("cut")["waiting"] == ""


def waits_for(text: str) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status["waiting"].endswith(text)


def test_the_round_goes_on_without_a_site_that_is_slower_than_the_deadline(
    played: Played, let_pass: Callable[[float], None]
) -> None:
    proposal = played.propose("slow", length=LENGTH, deadline_seconds=60)
    slow = played.hospitals[3]
    played.step("keyholder")
    played.play("slow", "site-0", until=lambda s: "updates of" in s["waiting"])
    (item,) = [i for i in work.WorkQueue(slow.client, wait_seconds=0.0).ask() if i.kind == "train"]
    here = ("site-0", "site-1", "site-2", "keyholder")
    played.play("slow", *here, until=waits_for("updates of site-3"))
    let_pass(60)
    status = played.play("slow", *here)
    assert status["state"] == "finished"
    assert status["checkpoints"][0]["sites"] == played.names[:3]
    assert_mean(played, status, [0, 1, 2])
    try:
        slow.participant.handle(item)  # its worker ends only now
    except Exception as error:
        assert "takes no update" in str(error) or "does not run" in str(error)
    assert is_charged(slow.participant.ledger, proposal.proposal_hash, 1)  # it was trained: late means spent
    assert_mean(played, played.status("slow"), [0, 1, 2])
    line = study_line(played.status("slow"))
    assert {site.name: site.dropouts for site in line.sites} == {"site-0": 0, "site-1": 0, "site-2": 0, "site-3": 1}


def held_back(played: Played, index: int) -> tuple[str, bytes]:
    """Have a hospital train and sign; return where its update would have gone, and the update."""
    sent: list[tuple[str, bytes]] = []
    participant = played.hospitals[index].participant

    def put_bytes(place: str, body: bytes, **_: object) -> None:
        sent.append((place, body))
        raise TesseraError("its connection is cut")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(participant.client, "put_bytes", put_bytes)
        played.step(played.names[index])
    assert len(sent) == 1
    return sent[0]


def test_a_study_goes_on_without_a_site_that_never_comes_back_while_enough_remain(
    played: Played, let_pass: Callable[[float], None]
) -> None:
    played.propose("gone", length=LENGTH, rounds=2, deadline_seconds=60)
    here = ("site-0", "site-1", "site-2", "keyholder")
    for number in (1, 2):
        played.play("gone", *here, until=waits_for(f"round {number}: updates of site-3"))
        let_pass(60)
    status = played.play("gone", *here)
    assert status["state"] == "finished"
    assert [c["sites"] for c in status["checkpoints"]] == [list(here[:3])] * 2
    assert_mean(played, status, [0, 1, 2], rounds=2)
    played.propose("too-few", length=LENGTH, deadline_seconds=60)
    for attempt in range(2):
        played.play("too-few", "site-0", "site-1", "keyholder", until=waits_for("updates of site-2, site-3"))
        if attempt == 0:
            late = held_back(played, 2)
        let_pass(60)
    status = played.play("too-few", "site-0", "site-1", "keyholder")
    assert status["state"] == "paused"
    assert "at least 3 institutions" in status["reason"]
    assert "2 sites" in status["reason"]
    assert "bring the missing sites back and resume" in shown(played, "too-few")[0]
    assert status["rounds_completed"] == 0
    kinds = [e.kind for e in played.service.journal.entries() if e.body.get("study") == "too-few"]
    assert kinds.count("round-repeated") == 2
    with pytest.raises(Refused, match="takes no update from 'site-2' now"):
        played.signed("site-2").put_bytes(*late)
    played.client.post_json("/studies/too-few/resume", {})
    status = played.play("too-few")
    assert status["state"] == "finished"
    assert_mean(played, status, list(range(SITES)))
    for hospital in played.hospitals:
        entries = hospital.participant.journal.entries(kind="round-charged")
        assert sum(entry.body["study"] == "too-few" for entry in entries) == 1


def test_a_keyholder_away_for_an_hour_is_waited_for_before_the_key_and_before_the_sum(
    played: Played, let_pass: Callable[[float], None]
) -> None:
    """Nothing is decided without the keyholder."""
    played.propose("away", length=LENGTH)
    for what in ("its key", "to decrypt the sum"):
        played.play("away", *played.names, until=lambda s, what=what: what in s["waiting"])
        let_pass(3600)
        for _ in range(5):
            for name in played.names:
                played.step(name)
            time.sleep(0.01)
        status = played.status("away")
        assert status["state"] == "running"
        assert what in status["waiting"]
        assert what in shown(played, "away")[0]
        played.step("keyholder")
    status = played.play("away")
    assert status["state"] == "finished"
    assert_mean(played, status, list(range(SITES)))


def is_stored(played: Played, study: str, kind: str, closing: int | None = None) -> bool:
    store = played.service.store
    if closing is not None:
        return store.document(study, 1, kind, closing=closing) is not None
    return bool(store.documents(study, 1, kind))


def test_a_site_that_vanishes_before_signing_is_left_out_and_nobody_reads_the_first_sum(
    played: Played, let_pass: Callable[[float], None]
) -> None:
    """The keyholder reads no sum whose list is not signed, and never a second one."""
    played.propose("vanishing", length=LENGTH, deadline_seconds=60)
    played.play("vanishing", until=lambda _: is_stored(played, "vanishing", "commitments", closing=1))
    document = played.service.store.document("vanishing", 1, "commitments", closing=1) or {}
    first = document["payload"]["sum_hash"]
    nosy = played.signed("keyholder")
    with pytest.raises(TesseraError, match="none of your studies"):
        nosy.get_bytes(f"/blobs/{first}")
    here = ("site-0", "site-1", "site-3", "keyholder")
    played.play("vanishing", *here, until=waits_for("signatures under the list of site-2"))
    let_pass(60)
    status = played.play("vanishing", *here)
    assert status["checkpoints"][0]["sites"] == ["site-0", "site-1", "site-3"]
    assert status["rounds_completed"] == 1
    assert_mean(played, status, [0, 1, 3])
    with pytest.raises(TesseraError, match="none of your studies"):
        nosy.get_bytes(f"/blobs/{first}")
    nosy.close()


def test_after_a_restart_a_round_goes_on_from_its_newest_list(
    played: Played, let_pass: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sum may be decrypted already: who vanished before signing comes back too late for it."""
    played.propose("relisted", length=LENGTH, deadline_seconds=60)
    played.play("relisted", until=lambda _: is_stored(played, "relisted", "commitments", closing=1))
    here = ("site-0", "site-1", "site-2", "keyholder")
    played.play("relisted", *here, until=waits_for("signatures under the list of site-3"))
    put = Store.put_document

    def no_room(store: Store, study: str, number: int, kind: str, *rest: Any, **more: Any) -> Any:
        if kind == "checkpoint":
            raise sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
        return put(store, study, number, kind, *rest, **more)

    with monkeypatch.context() as full:
        full.setattr(Store, "put_document", no_room)
        let_pass(60)
        played.play("relisted", *here, until=lambda _: is_stored(played, "relisted", "result"))
        played.close_orchestrator()
    played.open_orchestrator()
    assert is_stored(played, "relisted", "commitments", closing=2)
    status = played.play("relisted")
    assert status["state"] == "finished"
    assert status["checkpoints"][0]["sites"] == played.names[:3]
    assert_mean(played, status, [0, 1, 2])
