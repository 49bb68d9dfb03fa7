"""Orchestrator and keyholder that come back with an old backup: they notice, stop, and go on by a person's act only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import LEVELS, steps_of
from support.played import Played

from datasites.keyholder.checks import CheckedSum
from datasites.keyholder.rollback import import_gap
from datasites.node.rollback import GAP
from datasites.study.messages import Commitments, WorkItem
from datasites.study.signing import Signed, dump, parse, seal
from orchestrator.studies.status import study_status
from privacy.errors import InvalidInput, Refused

LENGTH = 60


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path, sites=3) as made:
        made.open()
        yield made


def backup(played: Played, role: str) -> Path:
    """Copy a role's folder while the role is closed."""
    target = played.folder / f"{role}-backup"
    shutil.copytree(played.homes[role].folder, target)
    return target


def restore(played: Played, role: str, copy: Path, names: tuple[str, ...] = ()) -> None:
    folder = played.homes[role].folder
    for name in names or tuple(path.name for path in folder.iterdir()):
        for left in folder.glob(f"{name}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        if (copy / name).is_dir():
            shutil.copytree(copy / name, folder / name)
        elif (copy / name).exists():
            shutil.copy2(copy / name, folder / name)


def rounds_done(number: int) -> Any:
    return lambda status: status["rounds_completed"] >= number


def spent(played: Played) -> list[tuple[float, ...]]:
    ledgers = [hospital.participant.ledger for hospital in played.hospitals]
    return [ledger.spent(ledger.populations()[0]).cost.rdp for ledger in ledgers]


def reopen_orchestrator_from(played: Played, copy: Path, names: tuple[str, ...] = ()) -> None:
    played.close_orchestrator()
    restore(played, "orchestrator", copy, names)
    played.open_orchestrator()


def old_orchestrator(played: Played) -> tuple[Path, dict[str, Any]]:
    """Train one round, copy the orchestrator, and let the world go on: two more rounds, and a study unknown to it."""
    played.propose("long", length=LENGTH, rounds=4)
    played.play("long", until=rounds_done(1))
    played.close_orchestrator()
    copy = backup(played, "orchestrator")
    played.open_orchestrator()
    status = played.play("long", until=rounds_done(3))
    played.propose("new", length=LENGTH)
    played.play("new")
    return copy, status


def test_an_orchestrator_older_than_what_it_showed_stops_until_a_person_imports_the_gap(played: Played) -> None:
    copy, _ = old_orchestrator(played)
    before = spent(played)
    reopen_orchestrator_from(played, copy)
    done = played.status("long")["rounds_completed"]
    assert done < 3
    stopped = played.play("long", until=lambda status: status["state"] == "paused")
    assert "older than what this orchestrator has shown" in stopped["reason"]
    assert "tessera orchestrator import-gap" in stopped["reason"]
    with pytest.raises(Refused, match="restored from a backup"):
        played.client.post_json("/studies/long/resume", {})
    with pytest.raises(Refused, match="restored from a backup"):
        played.propose("another", length=LENGTH)
    for role in (*played.names, "keyholder"):
        played.step(role)  # everybody tells what they hold
    assert {str(error).split(":")[0] for _, error in played.failures[-4:]} == {"the orchestrator does no rounds"}

    played.close_orchestrator()  # a restart changes nothing
    played.open_orchestrator()
    assert played.status("long")["state"] == "paused"
    with pytest.raises(InvalidInput, match="who imports"):
        played.client.post_json("/import-gap", {"by": " ", "reason": "x"})
    with pytest.raises(Refused, match="only the orchestrator's own people"):
        played.hospitals[0].client.post_json("/import-gap", {"by": "M. Site", "reason": "x"})
    said = played.client.post_json("/import-gap", {"by": "A. Keeper", "reason": "the disk failed"})
    newest = max(e.body["round"] for e in played.hospitals[0].participant.journal.entries(kind="round-plan"))
    assert {"study": "long", "rounds": list(range(done + 1, newest + 1))} in said["studies"]
    assert spent(played) == before  # nothing is charged a second time, nothing is forgotten

    end = played.play("long")
    assert end["state"] == "finished", end["reason"]
    lost = {n for n, c in enumerate(end["checkpoints"], 1) if c.get("lost")}
    assert lost == set(range(done + 1, newest + 1))
    assert all("restored from a backup" in end["checkpoints"][n - 1]["lost"] for n in lost)
    kinds = [entry.kind for entry in played.service.journal.entries()]
    assert (kinds.count("rolled-back"), kinds.count("gap-imported")) == (1, 1)
    forgotten = played.status("new")
    assert forgotten["state"] == "failed"
    assert "another name" in forgotten["reason"]
    played.propose("fresh", length=LENGTH)
    assert played.play("fresh")["state"] == "finished"


def test_a_restored_database_alone_is_noticed_at_the_start(played: Played) -> None:
    copy, _ = old_orchestrator(played)
    reopen_orchestrator_from(played, copy, ("store",))
    assert "the store lacks what the journal names" in played.service.standing.trouble
    stopped = study_status(played.service.store, "long", "orchestrator")
    assert stopped["state"] == "paused"
    for role in played.names:
        played.step(role)
    played.client.post_json("/import-gap", {"by": "A. Keeper", "reason": "the disk failed"})
    assert played.play("long")["state"] == "finished"
    played.close_orchestrator()
    played.open_orchestrator()
    assert played.service.standing.trouble == ""


def test_a_restored_journal_alone_is_noticed_by_the_first_peer_and_loses_no_round(played: Played) -> None:
    copy, status = old_orchestrator(played)
    reopen_orchestrator_from(played, copy, ("journal.sqlite",))
    played.step("site-1")
    assert "site-1 was shown entry" in played.service.standing.trouble
    said = played.client.post_json("/import-gap", {"by": "A. Keeper", "reason": "the disk failed"})
    assert said["studies"] == []
    end = played.play("long")
    assert end["checkpoints"][:3] == status["checkpoints"][:3]


def test_nobody_makes_an_orchestrator_believe_in_a_gap(played: Played) -> None:
    played.propose("pilot", length=LENGTH)
    client = played.hospitals[0].client
    head = played.keyholder.journal.head if played.keyholder else None
    with pytest.raises(InvalidInput, match="another chain or key"):
        client.post_json("/head", {"seen": dump(head), "trouble": ""})
    forged = {**dump(played.service.journal.head), "hash": "0" * 64}
    with pytest.raises(Exception, match="signature"):
        client.post_json("/head", {"seen": forged, "trouble": ""})
    with pytest.raises(InvalidInput, match="no gap"):
        client.post_json("/evidence", {"proposal": None, "plan": None})
    with pytest.raises(InvalidInput, match="no gap to import"):
        played.client.post_json("/import-gap", {"by": "A", "reason": "B"})
    assert played.play("pilot")["state"] == "finished"


# the keyholder ------------------------------------------------------------------------------------------------------


def reopen_keyholder_from(played: Played, copy: Path, names: tuple[str, ...] = ()) -> None:
    played.close_keyholder()
    restore(played, "keyholder", copy, names)
    played.open_keyholder()


def old_keyholder(played: Played) -> Path:
    """Copy a keyholder that has made keys it has not yet used, then let two rounds be answered."""
    played.propose("long", length=LENGTH, rounds=6)
    played.play("long", until=lambda s: s["updates_now"])
    played.close_keyholder()
    copy = backup(played, "keyholder")
    assert list((copy / "keys").glob("*.key"))
    played.open_keyholder()
    played.play("long", until=rounds_done(2))
    return copy


@pytest.mark.parametrize("names", [(), ("keys",), ("journal.sqlite",)], ids=["everything", "record", "journal"])
def test_a_keyholder_older_than_what_it_signed_answers_nothing_until_a_person_imports_the_gap(
    played: Played, names: tuple[str, ...]
) -> None:
    copy = old_keyholder(played)
    reopen_keyholder_from(played, copy, names)
    played.failures.clear()
    waiting = played.play("long", until=lambda s: "keyholder: record or journal" in s["waiting"])
    assert "tessera keyholder import-gap" in waiting["waiting"]
    assert waiting["state"] == "running"
    done = waiting["rounds_completed"]
    played.close_keyholder()
    played.open_keyholder()  # a restart changes nothing
    played.step("keyholder")
    home = played.homes["keyholder"]
    assert (home.folder / GAP).exists()
    assert played.status("long")["rounds_completed"] == done
    with pytest.raises(InvalidInput, match="who imports"):
        import_gap(home, by="", reason="")
    closed = import_gap(home, by="N. Notary", reason="the disk failed")
    assert {study for study, _ in closed} == {"long"}
    end = played.play("long")
    while end["state"] == "paused":  # a round whose key is lost is written off by its people
        assert "round" in end["reason"]
        played.client.post_json("/studies/long/resume", {})
        end = played.play("long")
    assert end["state"] == "finished", end["reason"]
    assert sum(not c.get("lost") for c in end["checkpoints"]) >= 3
    assert played.keyholder is not None
    kinds = [entry.kind for entry in played.keyholder.journal.entries()]
    assert (kinds.count("rolled-back"), kinds.count("gap-imported")) == (1, 1)
    with pytest.raises(InvalidInput, match="no gap"):
        import_gap(home, by="N. Notary", reason="again")


def test_a_restored_keyholder_gives_no_second_sum_even_where_the_orchestrator_hides_the_first(played: Played) -> None:
    """A lying orchestrator has the list redone after it got the sum, and never shows the keyholder its own result."""
    played.propose("pair", length=LENGTH, rounds=1)
    played.play("pair", until=lambda s: s["updates_now"])
    played.close_keyholder()
    copy = backup(played, "keyholder")
    played.open_keyholder()
    played.play("pair")
    reopen_keyholder_from(played, copy)
    assert played.keyholder is not None
    custody, first = played.keyholder.custody, commitments_of(played, "pair")
    assert custody.answered_sum("pair", 1) is None  # it has forgotten
    redone = CheckedSum(
        proposal=played.hospitals[0].participant._approved("pair"),
        round=1,
        plan_hash=first.plan_hash,
        list_hash="1" * 64,
        sum_hash="2" * 64,
        ciphertexts={},
        contributors={},
        pads={},
    )
    with pytest.raises(Refused, match="started anew since it made the key"):
        custody.answer(redone)
    assert custody.answered_sum("pair", 1) is None


def attested(played: Played, commitments: Commitments) -> Signed:
    """Have the first hospital attest a list; return what it sent."""
    heard: list[Signed] = []
    quiet = replace(played.hospitals[0].participant, client=_Ear(heard))  # type: ignore[arg-type]
    documents = {"commitments": seal(played.identity, "commitments", commitments)}
    study, number = commitments.study, commitments.round
    quiet.handle(WorkItem(kind="attest", study=study, round=number, closing=2, documents=documents))
    return heard[-1]


def test_a_site_attests_nothing_of_a_round_once_it_was_shown_the_plan_of_the_next(played: Played) -> None:
    played.propose("past", length=LENGTH, rounds=2)
    played.play("past")
    refusal = attested(played, replace(commitments_of(played, "past"), closing=2))
    assert refusal.kind == "refusal"
    assert "round 1 is over" in refusal.payload["reason"]


def commitments_of(played: Played, study: str) -> Commitments:
    document = played.service.store.document(study, 1, "commitments", closing=1)
    assert document is not None
    return parse(Commitments, document["payload"])


class _Ear:
    def __init__(self, heard: list[Signed]) -> None:
        self.heard = heard

    def post_json(self, path: str, value: Any) -> None:
        self.heard.append(parse(Signed, json.loads(json.dumps(value))))


def test_models_are_those_of_the_rounds_that_were_not_lost(played: Played) -> None:
    """The model after a gap is the old one, and later rounds go on from it: never a mixture."""
    copy, _ = old_orchestrator(played)
    reopen_orchestrator_from(played, copy)
    played.play("long", until=lambda status: status["state"] == "paused")
    for role in played.names:
        played.step(role)
    played.client.post_json("/import-gap", {"by": "A. Keeper", "reason": "the disk failed"})
    end = played.play("long")
    hashes = [end["initial"]["model_hash"], *(c["model_hash"] for c in end["checkpoints"])]
    for number, checkpoint in enumerate(end["checkpoints"], 1):
        assert (hashes[number] == hashes[number - 1]) == bool(checkpoint.get("lost"))
    trained = sum(not c.get("lost") for c in end["checkpoints"])
    mean = sum(steps_of(i, "shared", LENGTH) for i in range(3)) / LEVELS / 3
    np.testing.assert_allclose(played.model(end)["shared"], trained * mean, atol=1e-5)
