"""Every test in this folder drives the processes of a whole consortium."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.consortium import Consortium
from support.live_consortium import LiveConsortium

SHARED = ("running", "three", "watched")
"""Consortia of many files: all their tests go to one worker, so that each is started once."""


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """Five hospitals that many test files share; each test has studies of its own, by name, and leaves the rest."""
    with Consortium(tmp_path_factory.mktemp("running"), sites=5) as made:
        made.start()
        yield made


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveConsortium]:
    """Four hospitals with portals, people and PySyft; each test has studies of its own, by name."""
    with LiveConsortium(tmp_path_factory.mktemp("live")) as made:
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.consortium)
            shared = [name for name in SHARED if name in item.fixturenames]
            item.add_marker(pytest.mark.xdist_group((shared or [item.nodeid.split("::")[0]])[0]))
