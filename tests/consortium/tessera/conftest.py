"""Three hospitals that train, for everything that a scientist does from Python."""

from collections.abc import Iterator

import pytest
from support.live_consortium import LiveConsortium


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveConsortium]:
    """Three hospitals of synthetic patients; each test has studies of its own, by name."""
    with LiveConsortium(tmp_path_factory.mktemp("three"), count=3, trains=True) as made:
        yield made
