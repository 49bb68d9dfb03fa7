"""What a fault in the middle of a round must not do: real processes, exact sums in spite of all."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from consortium import LEVELS, Consortium, steps_of
from forgery import Forger

SITES, LENGTH = 3, 4000


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with Consortium(tmp_path_factory.mktemp("survival"), sites=SITES) as made:
        made.start()
        yield made


@contextlib.contextmanager
def refusing_updates(database: Path) -> Iterator[None]:
    """Let the orchestrator's database take no record of an update, as if its disk were full."""
    with contextlib.closing(sqlite3.connect(database, timeout=30.0)) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON documents WHEN NEW.kind = 'update'"
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
    with refusing_updates(consortium.homes["orchestrator"].folder / "store" / "orchestrator.sqlite"):
        assert forger.commit(blocks).status_code == 500
    assert forger.commit(blocks).status_code == 200
    with consortium.working():
        status = consortium.wait("no-room", "finished")
    mean = sum(steps_of(i, "shared", LENGTH) for i in range(SITES)) / LEVELS / SITES
    np.testing.assert_allclose(consortium.model(status)["shared"], mean, atol=1e-6)
