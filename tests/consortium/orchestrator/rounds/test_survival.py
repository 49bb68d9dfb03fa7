"""What a fault in the middle of a round must not do: real processes, exact sums in spite of all."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import LEVELS, Consortium, steps_of
from support.forgery import Forger, asked
from support.waiting import until

SITES, LENGTH = 3, 4000


@pytest.fixture(scope="module")
def consortium(running: Consortium) -> Consortium:
    return running.among(SITES)


def assert_mean(consortium: Consortium, status: dict[str, Any], sites: Sequence[int]) -> None:
    mean = sum(steps_of(i, "shared", LENGTH) for i in sites) / LEVELS / len(sites)
    np.testing.assert_allclose(consortium.model(status)["shared"], mean, atol=1e-6)


def database_of(consortium: Consortium) -> Path:
    return consortium.homes["orchestrator"].folder / "store" / "orchestrator.sqlite"


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
    item = asked(consortium.hospitals[0], "train", "no-room")
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
        until(lambda: "database or disk is full" in consortium.status("full")["waiting"], "the fault is told")
        assert consortium.status("full")["state"] == "running"
    with consortium.working():
        status = consortium.wait("full", "finished")
    assert_mean(consortium, status, range(SITES))
