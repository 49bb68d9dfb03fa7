"""What a fault in the middle of a round must not do: real processes, exact sums in spite of all."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import LEVELS, Consortium, steps_of
from support.forgery import Forger
from support.timing import patient

from datasites.node.home import Home

SITES, LENGTH = 3, 4000


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with Consortium(tmp_path_factory.mktemp("survival"), sites=SITES) as made:
        made.start()
        yield made


def assert_mean(consortium: Consortium, status: dict[str, Any], sites: Sequence[int]) -> None:
    mean = sum(steps_of(i, "shared", LENGTH) for i in sites) / LEVELS / len(sites)
    np.testing.assert_allclose(consortium.model(status)["shared"], mean, atol=1e-6)


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def documents(consortium: Consortium, kind: str) -> int:
    with contextlib.closing(sqlite3.connect(database_of(consortium), timeout=30.0)) as connection:
        query = "SELECT COUNT(*) FROM documents WHERE kind = ?"
        return int(connection.execute(query, (kind,)).fetchone()[0])


def database_of(consortium: Consortium) -> Path:
    return consortium.homes["orchestrator"].folder / "store" / "orchestrator.sqlite"


def keep_address(consortium: Consortium) -> None:
    """Have the orchestrator listen at the same port after a restart."""
    home = consortium.homes["orchestrator"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        Home.create(home.folder, replace(home.config(), port=probe.getsockname()[1]))


def kill_and_restart(consortium: Consortium) -> None:
    home = consortium.homes["orchestrator"].folder
    old = consortium.processes.children["orchestrator"]
    old.kill()
    old.wait()
    if old.stdin is not None:
        old.stdin.close()
    (home / "address.json").unlink()
    consortium.processes.start("orchestrator", ["orchestrator", "run", "--home", str(home)])
    consortium.processes.wait_until_ready([home], 60)


@contextlib.contextmanager
def no_room_for(consortium: Consortium, kind: str) -> Iterator[None]:
    """Let the orchestrator's database take no document of a kind, as if its disk were full."""
    with contextlib.closing(sqlite3.connect(database_of(consortium), timeout=30.0)) as connection:
        connection.execute(
            f"CREATE TRIGGER full BEFORE INSERT ON documents WHEN NEW.kind = '{kind}'"
            " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
        connection.commit()
        try:
            yield
        finally:
            connection.execute("DROP TRIGGER full")
            connection.commit()


def test_an_update_whose_record_could_not_be_written_is_added_once_when_it_is_sent_again(
    consortium: Consortium,
) -> None:
    proposal = consortium.propose("no-room", length=LENGTH)
    (item,) = [i for i in consortium.hospitals[0].work() if i.kind == "train"]
    forger = Forger(hospital=consortium.hospitals[0], index=0, proposal=proposal, item=item)
    blocks = forger.ciphertexts()
    with no_room_for(consortium, "update"):
        assert forger.commit(blocks).status_code == 500
    assert forger.commit(blocks).status_code == 200
    with consortium.working():
        status = consortium.wait("no-room", "finished")
    assert_mean(consortium, status, range(SITES))


def test_a_study_waits_while_the_orchestrators_disk_is_full_and_then_goes_on(consortium: Consortium) -> None:
    with consortium.working(), no_room_for(consortium, "checkpoint"):
        consortium.propose("full", length=LENGTH)
        until(lambda: "database or disk is full" in consortium.status("full")["waiting"])
        assert consortium.status("full")["state"] == "running"
    with consortium.working():
        status = consortium.wait("full", "finished")
    assert_mean(consortium, status, range(SITES))


def test_after_a_restart_a_round_goes_on_from_its_newest_list(tmp_path: Path) -> None:
    """Its sum may be decrypted already: who vanished before signing comes back too late for it."""
    with Consortium(tmp_path, sites=SITES + 1) as consortium:
        keep_address(consortium)
        consortium.start()
        consortium.propose("relisted", length=LENGTH, deadline_seconds=patient(4))
        (item,) = [i for i in consortium.hospitals[SITES].work() if i.kind == "train"]
        consortium.hospitals[SITES].participant.handle(item)  # and then it is gone
        with no_room_for(consortium, "checkpoint"):
            with consortium.working(*range(SITES)):
                until(lambda: documents(consortium, "result") == 1)
            kill_and_restart(consortium)
        assert documents(consortium, "commitments") == 2
        with consortium.working():
            status = consortium.wait("relisted", "finished")
        assert status["checkpoints"][0]["sites"] == consortium.names[:SITES]
        assert_mean(consortium, status, range(SITES))
