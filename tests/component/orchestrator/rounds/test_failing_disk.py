"""The disk of one role fails at every single write of a round, full or for good: nothing is lost or doubled.

By default every fourth write of every role fails: by turns the disk is full and the role dies. The thorough tests do
both at every write.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from harness.consortium import LEVELS, steps_of
from support.charges import is_charged
from support.faulty_disk import FaultyDisk
from support.played import OVER, Played

from datasites.node import files
from datasites.node.files import remove_unfinished
from datasites.node.letters import Place, seal_letter
from orchestrator.rounds import service
from privacy.errors import TesseraError
from privacy.ledger.verification import verify_folder

LENGTH, SITES, TIMES = 40, 3, 3
EVERY = 8
MEAN = sum(steps_of(i, "shared", LENGTH) for i in range(SITES)) / LEVELS / SITES
ROLES = ("site-1", "keyholder", "orchestrator", "helper-0")
World = tuple[Played, FaultyDisk]


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(service, "_STORAGE_SECONDS", 0.02)
    helpers = 2 if request.param.startswith("helper") else 0
    with FaultyDisk(tmp_path / request.param) as disk, Played(tmp_path, sites=SITES, helpers=helpers) as played:
        played.open()
        yield played, disk


def restart(played: Played, role: str, disk: FaultyDisk) -> None:
    """End a role whose disk writes nothing any more, and start it from what lies there."""
    if role == "orchestrator":
        played.close_orchestrator()
        disk.heal()
        played.open_orchestrator()
    elif role == "keyholder":
        played.close_keyholder()
        disk.heal()
        played.open_keyholder()
    elif role in played.helpers:
        played.close_helper(role)
        disk.heal()
        played.open_helper(role)
    else:
        index = played.names.index(role)
        played.hospitals[index].close()
        disk.heal()
        played.open_hospital(index)
    remove_unfinished(played.homes[role].folder, older_than_seconds=-1.0)


def round_with(played: Played, study: str, fault: Callable[[], None], mend: Callable[[], None]) -> None:
    """Play one study of one round; the fault begins once it is approved, and is mended when it has struck."""
    proposal = played.propose(study, length=LENGTH)
    spent = [spend(played, i) for i in range(SITES)]
    fault()

    def over(status: dict[str, object]) -> bool:
        mend()
        return status["state"] in OVER

    status = played.play(study, until=over)
    assert status["state"] == "finished", (study, status["reason"], played.failures[-3:])
    assert status["checkpoints"][0]["sites"] == played.names, study
    np.testing.assert_allclose(played.model(status)["shared"], MEAN, atol=1e-6)
    for index in range(SITES):
        assert is_charged(played.hospitals[index].participant.ledger, proposal.proposal_hash, 1)
        entries = played.hospitals[index].participant.journal.entries(kind="update-encrypted")
        assert sum(e.body["study"] == study for e in entries) <= 2  # journaled again where the first try failed
        if index not in _COSTS:
            _COSTS[index] = spend(played, index) - spent[index]
        assert spend(played, index) - spent[index] == pytest.approx(_COSTS[index])


_COSTS: dict[int, float] = {}


def spend(played: Played, index: int) -> float:
    ledger = played.hospitals[index].participant.ledger
    return float(ledger.spent(ledger.populations()[0]).cost.rdp[5])


def check_nothing_is_left(played: Played, role: str) -> None:
    for _ in range(3):  # what the last fault kept it from: it hears that the study is over, and destroys the key
        for holder in ("keyholder", *played.helpers):
            played.step(holder)
    for name in (*played.names, *played.helpers, "orchestrator", "keyholder"):
        folder = played.homes[name].folder
        left = [p.name for p in folder.rglob("*") if p.name.endswith(".new") or p.name.startswith(".incoming-")]
        assert left == [], name
        found = verify_folder(folder, public_key=played.homes[name].identity().public_key, name=name)
        assert found.holds, (role, name, found.findings)
    assert not list((played.homes["keyholder"].folder / "keys").glob("*.key"))
    for name in played.helpers:
        assert not list((played.homes[name].folder / "rounds-kept").glob("*.key"))


def points(disk: FaultyDisk, played: Played, first: int) -> range:
    """Return which writes of a round are to fail: every eighth one from ``first`` (1 to 8) on."""
    played.propose("whole", length=LENGTH)
    disk.heal()
    played.play("whole")
    assert len(disk.points) >= EVERY
    return range(first, len(disk.points) + 1, EVERY)


def eighths(first: int) -> pytest.MarkDecorator:
    """Run the test from ``first`` on for every role, and on the other writes where one is thorough."""
    cases = [pytest.param(r, r, first, id=r) for r in ROLES]
    cases += [
        pytest.param(r, r, other, id=f"{r}-from-{other}", marks=pytest.mark.thorough)
        for r in ROLES
        for other in range(1, EVERY + 1)
        if other != first
    ]
    return pytest.mark.parametrize(("world", "role", "first"), cases, indirect=["world"])


@pytest.mark.slow
@eighths(1)
def test_a_disk_that_is_full_at_any_write_of_a_round_costs_nothing_once_there_is_room(
    world: World, role: str, first: int
) -> None:
    played, disk = world
    for point in points(disk, played, first):
        round_with(played, f"full-{point}", lambda at=point: disk.fail(at=at, times=TIMES), lambda: None)
        disk.heal()
    check_nothing_is_left(played, role)


@pytest.mark.slow
@eighths(5)
def test_a_role_that_dies_at_any_write_of_a_round_goes_on_from_what_is_on_disk(
    world: World, role: str, first: int
) -> None:
    played, disk = world

    def mend() -> None:
        if disk.tripped:
            restart(played, role, disk)

    for point in points(disk, played, first):
        round_with(played, f"dead-{point}", lambda at=point: disk.die(at=at), mend)
        disk.heal()
    check_nothing_is_left(played, role)


@pytest.mark.parametrize("world", ["orchestrator"], indirect=True)
def test_a_letter_for_which_there_is_no_room_is_answered_with_507_and_taken_whole_later(world: World) -> None:
    played, disk = world
    client, identity = played.hospitals[0].client, played.homes["site-0"].identity()
    folder = played.homes["orchestrator"].folder / "mailbox"

    def put(number: int) -> None:
        place = Place(owner="site-0", box="own", folder="", name=f"{number}.json")
        client.put_bytes("/mailbox/letter", seal_letter(identity, place, b"news"), params=asdict(place))

    disk.heal()
    put(0)
    writes = len(disk.points)
    assert writes >= 4  # the letter synced, renamed, its folder synced; its row written and committed
    for point in range(1, writes + 1):
        disk.fail(at=point)
        try:
            put(point)
        except TesseraError as error:
            assert "status 507" in str(error)
            names = [item[3] for item in client.get_json("/mailbox/news", params={"since": 0})["items"]]
            assert f"{point}.json" not in names
            put(point)
        else:  # its folder, named by two digits of a hash, was there by chance: one write less
            assert not disk.tripped and point == writes
        disk.heal()
    names = [item[3] for item in client.get_json("/mailbox/news", params={"since": 0})["items"]]
    assert names == [f"{number}.json" for number in range(writes + 1)]
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("world", ["site-1"], indirect=True)
def test_a_site_without_room_begins_nothing_and_is_charged_once_there_is_some(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    played, _ = world
    proposal = played.propose("narrow", length=LENGTH)
    room = shutil.disk_usage(played.folder)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: room._replace(free=files.LEAST_BYTES - 1))
    played.step("keyholder")
    status = played.play("narrow", until=lambda _: len(played.failures) >= SITES)
    assert status["state"] == "running"
    assert all("the disk is nearly full" in str(error) for _, error in played.failures)
    assert not any(is_charged(h.participant.ledger, proposal.proposal_hash, 1) for h in played.hospitals)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: room._replace(free=1 << 40))
    status = played.play("narrow")
    assert status["state"] == "finished"
    assert all(is_charged(h.participant.ledger, proposal.proposal_hash, 1) for h in played.hospitals)
