"""One warm process for all worker servers that a test process starts: torch is imported once and not once a pool."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def warm_process() -> Iterator[Any]:
    from datasites.node.warm import Warm

    with Warm.start(["datasites.worker.server:preload"]) as made:
        yield made


@pytest.fixture(scope="module")
def warm_here(warm_process: Any) -> Iterator[None]:
    """Worker servers of this module are forked from a process that has imported what they need, as in a demo."""
    from datasites.node.warm import own_warm

    own_warm.append(warm_process)
    yield
    own_warm.remove(warm_process)
