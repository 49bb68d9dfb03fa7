"""A real PostgreSQL server of our own, where its programs are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness.postgres import postgres_server

from privacy.errors import InvalidInput


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[str], str]]:
    """A PostgreSQL server of our own on a free port; call it with a name to get the address of a new database."""
    server = postgres_server()
    try:
        new = server.__enter__()
    except InvalidInput as error:
        pytest.skip(str(error))
    try:
        yield new
    finally:
        server.__exit__(None, None, None)
