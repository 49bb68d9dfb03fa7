"""One warm process for all worker servers that a test process starts: torch is imported once and not once a pool."""

from collections.abc import Iterator
from multiprocessing import get_context
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


@pytest.fixture
def imported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation's processes are forked from one that has imported for them; what they get is pickled as ever."""
    context = get_context("forkserver")
    modules = [f"orchestrator.simulation.{name}" for name in ("process_engine", "sweep")]
    context.set_forkserver_preload(modules)
    for module in modules:
        monkeypatch.setattr(f"{module}.get_context", lambda _: context)
