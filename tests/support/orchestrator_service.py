"""An orchestrator's service for tests of its pages and its API."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datasites.node.roster import Roster
from datasites.study.proposal import Party
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import Store
from privacy.identity import Identity
from privacy.ledger.journal import Journal


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """An orchestrator's service with empty stores; call it with the names of orchestrator, keyholder and sites."""
    with contextlib.ExitStack() as open_stores:

        def make(*names: str) -> Service:
            keys = [Identity.generate() for _ in names]
            parties = [Party(name=n, institution=n, public_key=k.public_key) for n, k in zip(names, keys, strict=True)]
            made = Service(
                identity=keys[0],
                roster=Roster(orchestrator=parties[0], keyholder=parties[1], sites=tuple(parties[2:])),
                store=Store(tmp_path / "store"),
                journal=Journal(tmp_path / "journal.sqlite", keys[0]),
            )
            open_stores.callback(made.store.close)
            open_stores.callback(made.journal.close)
            return made

        yield make
